//! JSON and numbers as Python writes them: `tojson` of transformers is `json.dumps` with its arguments.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::float::{Exponential, float};

/// Lists and objects within each other.
const DEPTH_MAX: usize = 128;

struct Style {
    ascii: bool,
    /// The beginning of lines, for each level of depth; `None` for one line.
    indent: Option<String>,
    between_items: String,
    after_keys: String,
    sorts_keys: bool,
}

/// The filter `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[allow(clippy::needless_pass_by_value)] // the library calls filters so
pub(super) fn tojson(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match argument(&kwargs, "indent", indent)?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => match indent.as_str() {
            Some(text) => Some(text.to_owned()),
            None => Some(" ".repeat(usize::try_from(indent)?.min(64))),
        },
    };
    let separators =
        argument(&kwargs, "separators", separators)?.filter(|separators| !separators.is_none());
    let (between_items, after_keys) = match separators {
        Some(separators) => {
            let part = |at| separators.get_item_by_index(at).map(|part| part.to_string());
            (part(0)?, part(1)?)
        }
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let style = Style {
        ascii: is_true(argument(&kwargs, "ensure_ascii", ensure_ascii)?),
        indent,
        between_items,
        after_keys,
        sorts_keys: is_true(kwargs.get("sort_keys")?),
    };
    kwargs.assert_all_used()?;
    let mut text = String::new();
    style.append(value, 0, &mut text)?;
    Ok(text)
}

impl Style {
    fn append(&self, value: &Value, depth: usize, text: &mut String) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            let problem = format!(
                "tojson writes no more than {DEPTH_MAX} lists and objects within each other"
            );
            return Err(Error::new(ErrorKind::InvalidOperation, problem));
        }
        if let Some(Exponential(number)) = value.downcast_object_ref() {
            text.push_str(&float(*number));
            return Ok(());
        }
        match value.kind() {
            ValueKind::None => text.push_str("null"),
            ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => text.push_str(&number(value)),
            ValueKind::String => self.append_text(value.as_str().unwrap_or_default(), text),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.append_items(('[', ']'), items.len(), depth, text, |at, text| {
                    self.append(&items[at], depth + 1, text)
                })?;
            }
            ValueKind::Map => {
                let mut items = Vec::new();
                for key in value.try_iter()? {
                    items.push((key_text(&key)?, value.get_item(&key)?));
                }
                if self.sorts_keys {
                    items.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.append_items(('{', '}'), items.len(), depth, text, |at, text| {
                    let (key, value) = &items[at];
                    self.append_text(key, text);
                    text.push_str(&self.after_keys);
                    self.append(value, depth + 1, text)
                })?;
            }
            kind => {
                let problem = format!("tojson can't write a value of the kind {kind}");
                return Err(Error::new(ErrorKind::InvalidOperation, problem));
            }
        }
        Ok(())
    }

    fn append_items(
        &self,
        brackets: (char, char),
        count: usize,
        depth: usize,
        text: &mut String,
        mut append: impl FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let new_line = |depth: usize, text: &mut String| {
            if let Some(indent) = &self.indent {
                text.push('\n');
                text.extend(std::iter::repeat_n(indent.as_str(), depth));
            }
        };
        text.push(brackets.0);
        for at in 0..count {
            if at > 0 {
                text.push_str(&self.between_items);
            }
            new_line(depth + 1, text);
            append(at, text)?;
        }
        if count > 0 {
            new_line(depth, text);
        }
        text.push(brackets.1);
        Ok(())
    }

    fn append_text(&self, value: &str, text: &mut String) {
        text.push('"');
        for character in value.chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                character
                    if character < ' ' || (self.ascii && !(' '..='~').contains(&character)) =>
                {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        // Writing to a string doesn't fail.
                        let _ = write!(text, "\\u{unit:04x}");
                    }
                }
                character => text.push(character),
            }
        }
        text.push('"');
    }
}

/// A keyword or positional argument of a filter.
fn argument<'a, T>(
    kwargs: &'a Kwargs,
    name: &'a str,
    positional: Option<T>,
) -> Result<Option<T>, Error>
where
    Option<T>: minijinja::value::ArgType<'a, Output = Option<T>>,
{
    match positional {
        Some(value) => Ok(Some(value)),
        None => kwargs.get(name),
    }
}

/// A key of an object: JSON has texts alone, and Python makes them of the others.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number(key)),
        kind => {
            let problem = format!("tojson can't write a key of the kind {kind}");
            Err(Error::new(ErrorKind::InvalidOperation, problem))
        }
    }
}

fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => match number {
            number if number.is_nan() => "NaN".to_owned(),
            number if number.is_infinite() => {
                if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
            }
            number => float(number),
        },
        _ => value.to_string(),
    }
}
