//! The encrypted side of a node: a certificate, and the ports that show it.

use std::fmt::Write as _;
use std::path::Path;

use crate::certificates::{Authority, Files, HOST, OTHER_HOST};
use crate::ports;

/// A certificate of the tests' own authority and where the node listens with it.
#[derive(Debug)]
pub(super) struct Encrypted {
    pub(super) amqp_port: u16,
    pub(super) management_port: u16,
    pub(super) files: Files,
}

impl Encrypted {
    /// A certificate with its files in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        let files = Authority::shared().certify(&folder.join("certificates"));
        let amqp_port = ports::free_port();
        let management_port = ports::free_port();
        Self { amqp_port, management_port, files }
    }

    /// The listeners in the node's configuration. A client that shows a certificate has to show one of the
    /// same authority.
    pub(super) fn configuration(&self) -> String {
        let Self { amqp_port, management_port, files } = self;
        let mut lines = format!(
            "listeners.ssl.1 = {HOST}:{amqp_port}\n\
             listeners.ssl.2 = {OTHER_HOST}:{amqp_port}\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = false\n\
             management.ssl.ip = {HOST}\n\
             management.ssl.port = {management_port}\n"
        );
        for options in ["ssl_options", "management.ssl"] {
            for (key, file) in
                [("cacertfile", &files.ca), ("certfile", &files.cert), ("keyfile", &files.key)]
            {
                writeln!(lines, "{options}.{key} = {}", file.display()).unwrap();
            }
        }
        lines
    }
}
