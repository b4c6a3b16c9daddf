//! Any body of a request to the gateway is read, or refused as the caller's own mistake, by every endpoint's parser.
//! The order of its fields does not decide which of the two.
#![no_main]
// The parsers of heads have a target of their own.
#![allow(dead_code)]

#[path = "../common/order.rs"]
mod order;
#[path = "../../gateway/tests/parsers/mod.rs"]
mod parsers;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    parsers::check_body(body);
    if !body.trim_ascii_start().starts_with(b"{") {
        return;
    }
    let Some(reversed) = order::reversed(body) else { return };
    for (name, parser) in parsers::PARSERS {
        let outcomes = [body, &reversed].map(|body| parser(body, 3).is_none());
        assert_eq!(outcomes[0], outcomes[1], "{name}: the order of the fields decides");
    }
});
