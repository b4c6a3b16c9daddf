//! An address never shows its password, whatever its characters, and is split for the management API without a
//! panic.
//!
//! A line each: scheme, user, password, the rest. Without four lines the whole is one address.
#![no_main]

use forebay_fabric::{
    config::SecretUrl,
    management::fuzzing::{management_address, virtual_host},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parts: Vec<&str> = text.splitn(4, '\n').collect();
    let url = match parts[..] {
        [scheme, user, password, rest] => format!("{scheme}://{user}:{password}@{rest}"),
        _ => text.to_owned(),
    };
    let shown = SecretUrl::from(url.as_str()).to_string();
    let (base, authorization) = management_address(&url);
    assert!(authorization.is_none_or(|header| header.starts_with("Basic ")));
    // Each byte of it becomes three at most.
    assert!(virtual_host(&url).len() <= 3 * url.len().max(1));
    if let [scheme, user, password, rest] = parts[..] {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
        // With another `@` behind it the end of the password is unknown: then more is hidden than that.
        if !plain(scheme) || !plain(user) || rest.contains('@') {
            return;
        }
        let without = format!("{scheme}://{user}:***@{rest}");
        if !without.contains(password) {
            // Between the masks: a password with stars in it may be completed by one that hides something else.
            let shows = shown.split("***").any(|piece| piece.contains(password));
            assert!(!shows, "{password:?} shows in {shown:?}");
        }
        if plain(password) && !password.is_empty() {
            assert!(!base.contains(&format!(":{password}@")), "{password:?} shows in {base:?}");
        }
    }
});
