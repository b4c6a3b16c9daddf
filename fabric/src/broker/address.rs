//! The broker's address, as `amqp_url` has it.

use std::net::Ipv6Addr;

use lapin::uri::AMQPUri;

use crate::config::SecretUrl;

const VHOST_DEFAULT: &str = "/";

/// Reads `amqp_url`. An IPv6 address in brackets is its host, and an empty virtual host is the default one, as one that
/// is left out is: RabbitMQ has none without a name.
pub(crate) fn parse(url: &SecretUrl) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = url.expose().parse()?;
    // The parser takes an address in brackets for no host at all, and would connect to this machine.
    if let Some(host) = bracketed(url.expose()) {
        let address: Ipv6Addr =
            host.parse().map_err(|_| format!("[{host}] is not an IPv6 address"))?;
        uri.authority.host = address.to_string();
    }
    if uri.authority.host.is_empty() {
        return Err("it names no host".to_owned());
    }
    if uri.vhost.is_empty() {
        VHOST_DEFAULT.clone_into(&mut uri.vhost);
    }
    Ok(uri)
}

/// The host of an address that has it in brackets, without them.
fn bracketed(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    host.strip_prefix('[')?.split(']').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> AMQPUri {
        parse(&url.into()).unwrap()
    }

    #[test]
    fn the_host_is_the_one_that_the_address_names() {
        for (url, host, port) in [
            ("amqp://[::1]", "::1", 5_672),
            ("amqps://me:pw@[2001:DB8::7]:5673/v", "2001:db8::7", 5_673),
            ("amqp://me:p%40w@[::ffff:10.0.0.1]:1/%2f?heartbeat=3", "::ffff:10.0.0.1", 1),
            ("amqp://me:pw@10.0.0.1:1", "10.0.0.1", 1),
            ("amqp://me:pw@broker", "broker", 5_672),
        ] {
            let authority = read(url).authority;
            assert_eq!((authority.host.as_str(), authority.port), (host, port), "{url}");
        }
        assert!(parse(&"amqp://[::1%eth0]".into()).is_err());
        assert!(parse(&"amqp://[fleet]".into()).is_err());
    }

    #[test]
    fn no_virtual_host_is_the_default_one_however_it_is_written() {
        for path in ["", "/", "//", "/%2f", "/%2F", "/?heartbeat=3"] {
            assert_eq!(read(&format!("amqp://h{path}")).vhost, "/", "{path}");
        }
        assert_eq!(read("amqp://h/a%2fb").vhost, "a/b");
        assert_eq!(read("amqp://h/a").vhost, "a");
    }
}
