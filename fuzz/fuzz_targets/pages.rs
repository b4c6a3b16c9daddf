//! Any page of the hub or the package index is a listing or an error; its links stay on the server that was asked,
//! unless the page names another server in full.
//!
//! The first byte says which of the two the page is from.
#![no_main]

use forebay_producer::fuzzing::{hub_listing, index_page, linked};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind % 3 {
        0 => {
            for file in hub_listing(&text) {
                assert!(!file.split('/').any(|step| step == ".." || step.is_empty()), "{file}");
            }
        }
        1 => index_page(&text),
        _ => {
            let page = "https://index.example/simple/name/";
            let link = linked(page, &text);
            assert!(text.contains("://") || link.starts_with("https://index.example/"), "{link}");
        }
    }
});
