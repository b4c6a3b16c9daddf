//! The fields of a JSON file, each taken once by the part that honours it. What was not taken is left at the end, so
//! that nothing is ignored in silence.
//!
//! A field that is `null` counts as absent, as it does in transformers.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::files::{from_json, read_if_there};

/// The longest value that an error shows, in characters.
const SHOWN_MAX: usize = 80;

/// The fields of a file that are not taken yet.
pub(crate) struct Fields {
    path: PathBuf,
    left: Map<String, Value>,
    /// Those that change nothing here.
    idle: Vec<(String, Value)>,
    /// The field of the file that holds these, where they are not the file's own.
    within: Option<&'static str>,
}

impl Fields {
    /// Reads a file's JSON; `path` names it in errors.
    pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<Self, EngineError> {
        Ok(Self::of(path, from_json(path, json)?))
    }

    /// Fields that a file of another format has; `path` names it in errors.
    pub(crate) fn of(path: &Path, left: Map<String, Value>) -> Self {
        Self { path: path.to_owned(), left, idle: Vec::new(), within: None }
    }

    /// Reads a file's JSON; there are no fields where there is no file.
    pub(crate) fn parse_if_there(path: &Path) -> Result<Self, EngineError> {
        let json = read_if_there(path)?;
        Self::parse(path, json.as_deref().unwrap_or(b"{}"))
    }

    /// Takes a field that is an object, for its own fields to be taken one by one. An absent one has none.
    pub(crate) fn object(&mut self, field: &'static str) -> Result<Self, EngineError> {
        let left = self.or(field, Map::new())?;
        Ok(Self { path: self.path.clone(), left, idle: Vec::new(), within: Some(field) })
    }

    /// Whether no field was there, or all are taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the field is there, be it `null`.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.left.contains_key(field)
    }

    /// Whether the field is there and says nothing.
    pub(crate) fn is_null(&self, field: &str) -> bool {
        self.left.get(field).is_some_and(Value::is_null)
    }

    /// Takes a field.
    pub(crate) fn get<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, EngineError> {
        match self.left.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(&value)
                .map(Some)
                .map_err(|error| self.problem(format!("{field} = {}: {error}", shown(&value)))),
        }
    }

    /// Takes a field that has a default.
    pub(crate) fn or<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
        default: T,
    ) -> Result<T, EngineError> {
        Ok(self.get(field)?.unwrap_or(default))
    }

    /// Takes a field that every model of the kind has.
    pub(crate) fn required<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<T, EngineError> {
        self.get(field)?.ok_or_else(|| self.problem(format!("{field} is missing")))
    }

    /// Takes a field of which only one value is supported, which is its default too.
    pub(crate) fn only<T: DeserializeOwned + PartialEq + Display>(
        &mut self,
        field: &'static str,
        supported: &T,
    ) -> Result<(), EngineError> {
        match self.get::<T>(field)? {
            Some(value) if value != *supported => Err(self.not_supported(field, &value, supported)),
            _ => Ok(()),
        }
    }

    /// Takes a field that is supported only where it is absent or empty.
    pub(crate) fn only_empty(&mut self, field: &'static str) -> Result<(), EngineError> {
        match self.left.remove(field).unwrap_or_default() {
            Value::Null | Value::Bool(false) => Ok(()),
            Value::Array(values) if values.is_empty() => Ok(()),
            Value::Object(values) if values.is_empty() => Ok(()),
            value => Err(self.not_supported(field, &shown(&value), &"none")),
        }
    }

    /// Takes a field that is one of these words: which one. Without it, it is the first.
    pub(crate) fn choice(
        &mut self,
        field: &'static str,
        words: &[&str],
    ) -> Result<usize, EngineError> {
        let word = self.or(field, words[0].to_owned())?;
        let found = words.iter().position(|known| *known == word);
        found.ok_or_else(|| self.not_supported(field, &word, &words.join(", ")))
    }

    /// Refuses what is left of an object, as a value of `field`, which holds it.
    pub(crate) fn nothing_else(
        &self,
        field: &'static str,
        supported: &dyn Display,
    ) -> Result<(), EngineError> {
        let left = self.left.iter().find(|(_, value)| !value.is_null());
        left.map_or(Ok(()), |(name, value)| {
            Err(self.not_supported(field, &format!("{name}: {}", shown(value)), supported))
        })
    }

    /// Takes fields that change nothing of what the engine computes.
    pub(crate) fn without_effect(&mut self, fields: &[&str]) {
        for &field in fields {
            self.idle.extend(self.left.remove_entry(field));
        }
    }

    /// Takes fields that another part honours.
    pub(crate) fn taken_elsewhere(&mut self, fields: &[&str]) {
        self.left.retain(|field, _| !fields.contains(&field.as_str()));
    }

    /// Takes the fields that were taken from `other`, which is made of the same file: they have an effect.
    pub(crate) fn without_those_of(&mut self, other: &Self) {
        self.left.retain(|field, _| other.left.contains_key(field));
        self.idle.retain(|(field, _)| other.left.contains_key(field));
    }

    /// The refusal of a value.
    pub(crate) fn not_supported(
        &self,
        field: &'static str,
        value: &dyn Display,
        supported: &dyn Display,
    ) -> EngineError {
        EngineError::NotSupported {
            path: self.path.clone(),
            field,
            value: value.to_string(),
            supported: supported.to_string(),
        }
    }

    /// A problem with the file's numbers or names.
    pub(crate) fn problem(&self, problem: String) -> EngineError {
        EngineError::Config { path: self.path.clone(), problem }
    }

    /// The fields that were ignored: those without an effect, and those that were not taken.
    pub(crate) fn ignored(self) -> Vec<Ignored> {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ignored = |is_known| {
            let file = file.clone();
            move |(field, value): (String, Value)| Ignored {
                file: file.clone(),
                field: self.within.map_or(field.clone(), |within| format!("{within}.{field}")),
                value: shown(&value),
                is_known,
            }
        };
        let idle = self.idle.into_iter().filter(|(_, value)| !value.is_null());
        idle.map(ignored(true)).chain(self.left.into_iter().map(ignored(false))).collect()
    }
}

/// A field of a model's file that the engine ignores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// The file's name, such as `config.json`.
    pub file: String,
    /// The field; behind that of an object which holds it, such as `model_kwargs.dtype`.
    pub field: String,
    /// Whether it is known to change nothing that the engine computes. An unknown field may be one that should count.
    pub is_known: bool,
    /// Its value as JSON; the beginning of a long one.
    pub value: String,
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(Path::new("model/config.json"), json.as_bytes()).unwrap()
    }

    #[test]
    fn null_is_absent_and_another_type_is_refused_with_field_and_value() {
        let mut these = fields(r#"{"eps": null, "size": "64", "count": 64.5}"#);
        assert_eq!(these.or("eps", "1e-5".to_owned()).unwrap(), "1e-5");
        for field in ["size", "count"] {
            let error = these.required::<usize>(field).unwrap_err().to_string();
            assert!(error.contains("model/config.json") && error.contains(field), "{error}");
        }
        let error = these.required::<usize>("layers").unwrap_err().to_string();
        assert!(error.contains("layers is missing"), "{error}");
    }

    #[test]
    fn other_values_than_the_supported_one_are_refused() {
        let mut these =
            fields(r#"{"causal": true, "prenorm": false, "heads": {"1": 2}, "none": {}}"#);
        these.only("prenorm", &false).unwrap();
        these.only("absent", &7).unwrap();
        these.only_empty("none").unwrap();
        for error in [these.only("causal", &false), these.only_empty("heads")] {
            assert!(matches!(error, Err(EngineError::NotSupported { .. })));
        }
    }

    #[test]
    fn fields_of_an_object_are_known_by_its_name_too() {
        let mut these = fields(r#"{"kwargs": {"a": 1, "idle": 2, "typo": 3, "none": null}}"#);
        let mut inner = these.object("kwargs").unwrap();
        assert_eq!(inner.get::<usize>("a").unwrap(), Some(1));
        inner.without_effect(&["idle"]);
        let error = inner.nothing_else("kwargs", &"a").unwrap_err().to_string();
        assert!(error.contains("kwargs") && error.contains("typo: 3"), "{error}");
        let names: Vec<String> = inner.ignored().into_iter().map(|it| it.field).collect();
        assert_eq!(names, ["kwargs.idle", "kwargs.none", "kwargs.typo"]);
        assert!(these.is_empty() && these.object("absent").unwrap().is_empty());
    }

    #[test]
    fn a_choice_is_the_first_word_unless_another_one_is_said() {
        let words = ["max", "sum"];
        let mut these = fields(r#"{"said": "sum", "typo": "mean"}"#);
        assert_eq!(these.choice("absent", &words).unwrap(), 0);
        assert_eq!(these.choice("said", &words).unwrap(), 1);
        let error = these.choice("typo", &words).unwrap_err().to_string();
        assert!(error.contains("typo") && error.contains("max, sum"), "{error}");
    }

    #[test]
    fn what_was_not_taken_is_left() {
        let mut these = fields(r#"{"a": 1, "dropout": 0.1, "typo": [1, 2]}"#);
        these.required::<usize>("a").unwrap();
        these.without_effect(&["dropout", "absent"]);
        let ignored = |field: &str, value: &str, is_known| Ignored {
            file: "config.json".into(),
            field: field.into(),
            is_known,
            value: value.into(),
        };
        let expected = [ignored("dropout", "0.1", true), ignored("typo", "[1,2]", false)];
        assert_eq!(these.ignored(), expected);
    }
}
