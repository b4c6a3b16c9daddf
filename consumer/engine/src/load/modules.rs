//! `modules.json`: the modules of a folder of sentence-transformers, in their order.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::EngineError;
use crate::load::files::{from_json, read_if_there};

/// The things that the modules behind the transformer make rows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsOf {
    /// Whole texts.
    Texts,
    /// The words of the vocabulary, which a language model weighs.
    Words,
    /// Tokens.
    Tokens,
    /// Texts or pairs: the scores of the transformer's own head.
    Scores,
    /// Pairs: scores of a language model's logits.
    Logits,
}

/// The class of a transformer that is a language model, before version 5.4 of sentence-transformers.
const LANGUAGE_MODEL: &str = "MLMTransformer";

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    path: PathBuf,
}

/// A module.
pub(crate) struct Module {
    kind: String,
    /// Where its files lie.
    pub(crate) folder: PathBuf,
}

impl Module {
    /// Its class without the package.
    pub(crate) fn class(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }

    fn is_transformer(&self) -> bool {
        matches!(self.class(), "Transformer" | LANGUAGE_MODEL)
    }
}

/// The modules of a folder. The first of them is the transformer, and no other one is.
pub(crate) struct Modules {
    path: PathBuf,
    transformer: PathBuf,
    is_language_model: bool,
    rest: Vec<Module>,
}

impl Modules {
    /// Reads the file, where there is one.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, EngineError> {
        let path = folder.join("modules.json");
        let Some(json) = read_if_there(&path)? else { return Ok(None) };
        let lines: Vec<Line> = from_json(&path, &json)?;
        let is_inside =
            |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        let is_outside = |line: &&Line| !line.path.components().all(is_inside);
        if let Some(line) = lines.iter().find(is_outside) {
            let problem = format!("the path `{}` leads out of the folder", line.path.display());
            return Err(EngineError::Config { path, problem });
        }
        let module = |Line { kind, path }| Module { kind, folder: folder.join(path) };
        let mut rest: Vec<Module> = lines.into_iter().map(module).collect();
        let is_in_order =
            rest.iter().map(Module::is_transformer).eq((0..rest.len()).map(|at| at == 0));
        if rest.is_empty() || !is_in_order {
            let kinds: Vec<String> = rest.into_iter().map(|module| module.kind).collect();
            return Err(refused(path, kinds.join(", "), "one Transformer, and it is the first"));
        }
        let transformer = rest.remove(0);
        let is_language_model = transformer.class() == LANGUAGE_MODEL;
        Ok(Some(Self { path, transformer: transformer.folder, is_language_model, rest }))
    }

    /// The transformer's folder.
    pub(crate) fn transformer(&self) -> &Path {
        &self.transformer
    }

    /// Whether its class says that it is a language model.
    pub(crate) fn is_language_model(&self) -> bool {
        self.is_language_model
    }

    /// The modules after it, in order.
    pub(crate) fn rest(&self) -> &[Module] {
        &self.rest
    }

    /// Whether the transformer is all there is.
    pub(crate) fn is_transformer_alone(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether there is a module of this class.
    pub(crate) fn has(&self, class: &str) -> bool {
        self.rest.iter().any(|module| module.class() == class)
    }

    /// Refuses a module that can't stand where it stands.
    pub(crate) fn refused(&self, module: &Module, supported: &str) -> EngineError {
        refused(self.path.clone(), module.kind.clone(), supported)
    }
}

fn refused(path: PathBuf, value: String, supported: &str) -> EngineError {
    EngineError::NotSupported { path, field: "type", value, supported: supported.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(lines: &[(&str, &str)]) -> Result<Option<Modules>, EngineError> {
        let folder = tempfile::tempdir().unwrap();
        let line = |(kind, path): &(&str, &str)| serde_json::json!({"type": kind, "path": path});
        let json: Vec<_> = lines.iter().map(line).collect();
        std::fs::write(folder.path().join("modules.json"), serde_json::to_vec(&json).unwrap())
            .unwrap();
        Modules::read(folder.path())
    }

    #[test]
    fn the_transformer_is_the_first_module_and_no_other_one_is() {
        let modules = read(&[("a.MLMTransformer", "0_T"), ("b.Pooling", "1_P")]).unwrap().unwrap();
        assert!(modules.transformer().ends_with("0_T"));
        assert!(modules.is_language_model());
        assert!(modules.has("Pooling") && !modules.has("Dense"));
        for lines in [
            &[][..],
            &[("b.Pooling", "1_P"), ("a.Transformer", "")],
            &[("a.Transformer", ""), ("a.Transformer", "1_T")],
        ] {
            let error = read(lines).err().unwrap();
            assert!(matches!(error, EngineError::NotSupported { field: "type", .. }), "{error}");
        }
    }

    #[test]
    fn modules_lie_in_the_folder() {
        for path in ["/etc", "..", "1_P/../../x"] {
            let error = read(&[("a.Transformer", path)]).err().unwrap().to_string();
            assert!(error.contains("leads out of the folder"), "{error}");
        }
    }
}
