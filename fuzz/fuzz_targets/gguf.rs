//! A file whose bytes are anything is read as a GGUF or refused by an error.
#![no_main]

use std::{fs, panic};

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir = {
        // A panic that the engine turns into an error must not end the run; one that it lets through still does.
        panic::set_hook(Box::new(|info| eprintln!("{info}")));
        tempfile::tempdir().expect("a folder")
    };
}

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        let path = folder.path().join("model.gguf");
        fs::write(&path, bytes).expect("written");
        forebay_engine::fuzzing::gguf(&path);
    });
});
