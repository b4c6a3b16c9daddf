//! What the hub and the package index answer is a listing or an error; the address that comes of it stays with the
//! server that was asked, unless the page names another in full.
//!
//! The first byte says whose answer it is.
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
