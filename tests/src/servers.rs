//! Where the programs of the servers are: the installed ones, or others that the environment names.
//!
//! `FOREBAY_TEST_RABBITMQ` names a folder with `rabbitmq-server`, `rabbitmqctl` and `epmd`, and `FOREBAY_TEST_REDIS`
//! a program that takes the arguments of `redis-server`. Each may be a script that becomes a server of another
//! version elsewhere, as those that `make compat` makes are: the process that a test starts has to become the
//! server, which has to see the folder of temporary files and this machine's loopback interface.

use std::path::PathBuf;
use std::{env, fs};

/// The folder of `RabbitMQ`'s programs.
const RABBITMQ: &str = "FOREBAY_TEST_RABBITMQ";

/// The program of Redis.
const REDIS: &str = "FOREBAY_TEST_REDIS";

/// Where Debian's package keeps the scripts; those in `/usr/sbin` switch to the system's own user and node.
const INSTALLED: &str = "/usr/lib/rabbitmq/lib";

/// One of `RabbitMQ`'s scripts.
pub fn rabbitmq(script: &str) -> PathBuf {
    let folder = env::var_os(RABBITMQ).map_or_else(installed, PathBuf::from);
    let path = folder.join(script);
    assert!(path.exists(), "no {script} in {}, which {RABBITMQ} names", folder.display());
    path
}

/// Erlang's name server.
pub fn epmd() -> PathBuf {
    if env::var_os(RABBITMQ).is_some() { rabbitmq("epmd") } else { "epmd".into() }
}

/// Redis, or a server that takes its arguments.
pub fn redis() -> PathBuf {
    env::var_os(REDIS).map_or_else(|| "redis-server".into(), PathBuf::from)
}

fn installed() -> PathBuf {
    let versions = fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("sbin"));
    let newest = folders.filter(|folder| folder.join("rabbitmq-server").exists()).max();
    newest.unwrap_or_else(|| {
        panic!("no RabbitMQ under {INSTALLED}; run: apt-get install rabbitmq-server")
    })
}
