//! Requests that need no key are this machine's own: those that a web page of somebody else makes a browser send are
//! refused.
//!
//! A browser sends requests of any page to loopback addresses. It says in `Origin` which page asks, and in `Host` by
//! which name the address was found: a name of somebody else's that was made to lead here (DNS rebinding) stands there.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, header, uri::Authority};

use crate::error::ApiError;

/// Refuses a request of another site's page, or for another site's name.
pub fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(header::HOST).map(header::HeaderValue::as_bytes);
    if let Some(host) = host
        && !is_loopback(host)
    {
        return Err(foreign(
            "Host",
            host,
            "a name of this machine, such as localhost or 127.0.0.1",
        ));
    }
    if let Some(origin) = headers.get(header::ORIGIN).map(header::HeaderValue::as_bytes)
        && !is_own(origin, host)
    {
        return Err(foreign("Origin", origin, "none, or this gateway's own address"));
    }
    Ok(())
}

/// Whether a host, with or without a port, is a name or an address of this machine alone.
fn is_loopback(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    // No client puts a user name in front.
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = address.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether an origin is that of the page that this gateway itself would serve.
fn is_own(origin: &[u8], host: Option<&[u8]>) -> bool {
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

fn foreign(name: &'static str, came: &[u8], expected: &str) -> ApiError {
    let came: String = String::from_utf8_lossy(came).chars().take(80).collect();
    let message = format!(
        "`{name}` is `{came}`, expected {expected}: without a key only this machine's own programs are served; \
         `forebay keys create` makes a key, with which any caller is"
    );
    ApiError::mistake(StatusCode::FORBIDDEN, "foreign_origin", message).at(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(pairs: &[(&'static str, &str)]) -> Result<(), ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        check(&headers)
    }

    #[test]
    fn programs_of_this_machine_are_served_by_any_of_its_names() {
        for host in [
            "localhost",
            "localhost:8080",
            "LOCALHOST:1",
            "api.localhost:8080",
            "localhost.:80",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert_eq!(checked(&[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(checked(&[]), Ok(()), "HTTP/1.0 has no Host, and no browser speaks it");
        let own = [("host", "localhost:8080"), ("origin", "http://localhost:8080")];
        assert_eq!(checked(&own), Ok(()));
    }

    #[test]
    fn a_name_that_was_made_to_lead_here_is_refused() {
        for host in [
            "rebound.example",
            "rebound.example:8080",
            "localhost.example",
            "notlocalhost",
            "192.168.0.7:8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "127.0.0.1.example",
            "",
            "a@localhost",
        ] {
            let refused = checked(&[("host", host)]).unwrap_err();
            let mistake = (refused.status.as_u16(), refused.code, refused.param.as_deref());
            assert_eq!(mistake, (403, "foreign_origin", Some("Host")), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused_also_when_it_is_on_this_machine() {
        for origin in [
            "https://elsewhere.example",
            "null",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://localhost:8080.example",
            "file://",
            "",
        ] {
            let refused = checked(&[("host", "localhost:8080"), ("origin", origin)]).unwrap_err();
            assert_eq!(refused.param.as_deref(), Some("Origin"), "{origin}");
        }
        assert!(checked(&[("origin", "http://localhost")]).is_err());
    }

    proptest! {
        #[test]
        fn no_header_of_any_bytes_is_served_unless_it_names_this_machine(
            host in proptest::collection::vec(prop_oneof![32_u8..127, 128_u8..=255], 0..40),
        ) {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.as_slice().try_into().unwrap());
            if check(&headers).is_ok() {
                let host = String::from_utf8(host).unwrap().to_ascii_lowercase();
                let is_ours = host.contains("localhost") || host.contains("127.") || host.contains(':');
                prop_assert!(is_ours, "{}", host);
            }
        }
    }
}
