//! A folder with a tiny BERT of which one file is replaced by the fuzzer's bytes.

use std::{
    cell::{OnceCell, RefCell},
    fs, panic,
    path::{Path, PathBuf},
};

use forebay_engine::{Finish, LoadOptions, PackedBatch, load};
use tempfile::TempDir;

thread_local! {
    static FOLDER: OnceCell<Folder> = const { OnceCell::new() };
}

/// A copy of the model, and the change to undo in it before another file is changed.
struct Folder {
    copy: TempDir,
    changed: RefCell<Option<(PathBuf, Option<Vec<u8>>)>>,
}

impl Folder {
    fn make() -> Self {
        // A panic that the engine turns into an error must not end the run; one that it lets through still does.
        panic::set_hook(Box::new(|info| eprintln!("{info}")));
        let engine =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../consumer/engine/tests/data/tiny/bert");
        let copy = tempfile::tempdir().expect("a folder");
        copy_folder(&engine, copy.path().to_owned());
        // The engine's own has two thousand words, which takes most of the time of a load.
        let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/model_tokenizer/wordpiece");
        fs::copy(small, copy.path().join("tokenizer.json")).expect("copied");
        Self { copy, changed: RefCell::default() }
    }

    fn change(&self, file: &str, bytes: &[u8]) {
        let path = self.copy.path().join(file);
        let mut changed = self.changed.borrow_mut();
        if changed.as_ref().is_none_or(|(before, _)| *before != path) {
            match changed.take() {
                Some((before, Some(original))) => fs::write(before, original).expect("written"),
                Some((before, None)) => fs::remove_file(before).expect("removed"),
                None => {}
            }
            *changed = Some((path.clone(), fs::read(&path).ok()));
        }
        fs::write(path, bytes).expect("written");
    }
}

/// Loads the model with these bytes as one of its files; if that works, computes a text.
pub fn load_with(file: &str, bytes: &[u8]) {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(Folder::make);
        folder.change(file, bytes);
        use_model(folder.copy.path());
    });
}

fn use_model(folder: &Path) {
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    let Ok(mut model) = load(folder, &options) else { return };
    let Ok(tokens) = model.tokenizer.encode("Water in a pool, é [SEP] \u{301}") else { return };
    assert!(tokens.ids.len() <= model.tokenizer.tokens_max());
    let mut batch = PackedBatch::new();
    batch.push(&tokens.ids, Finish::default());
    let Ok(encoder) = model.engine.encoder() else { return };
    if let Ok(vectors) = encoder.compute(&batch) {
        assert_eq!(vectors.row(0).len(), model.info.dim);
    }
}

fn copy_folder(from: &Path, to: PathBuf) {
    fs::create_dir_all(&to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}
