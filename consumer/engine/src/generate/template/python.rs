//! Methods, tests and texts of values where Python's differ from minijinja's and its `pycompat`'s.

use minijinja::value::{Serde, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat;
use serde_json::Value as Json;

use super::float::{Exponential, float};

/// A JSON value for a template.
pub(super) fn value_of(json: &Json) -> Value {
    match json {
        Json::Array(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        Json::Object(items) => {
            Value::from_pairs(items.iter().map(|(key, item)| (key.as_str(), value_of(item))))
        }
        Json::Number(number) => match number.as_f64() {
            Some(value) if number.is_f64() && float(value).contains('e') => {
                Value::from_object(Exponential(value))
            }
            _ => Value::from(Serde(number)),
        },
        other => Value::from(Serde(other)),
    }
}

/// Methods that values don't have in minijinja.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        // As much as the library takes for a text that a filter works on.
        state.consume_fuel(text.len() as u64 / 64)?;
        if let Some(result) = of_text(text, method, args)? {
            return Ok(result);
        }
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// Positions are counted in characters, and an empty text is found at each of them. `None` for other methods.
fn of_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let position = |at: Option<usize>| at.map(|at| text[..at].chars().count() as i64);
    let one = || from_args::<(&str,)>(args).map(|(what,)| what);
    let all = |is: fn(char) -> bool| {
        let () = from_args(args)?;
        Ok::<_, Error>(Value::from(!text.is_empty() && text.chars().all(is)))
    };
    Ok(Some(match method {
        "find" => Value::from(position(text.find(one()?)).unwrap_or(-1)),
        "rfind" => Value::from(position(text.rfind(one()?)).unwrap_or(-1)),
        "index" => {
            let found = position(text.find(one()?));
            Value::from(
                found.ok_or_else(|| {
                    Error::new(ErrorKind::InvalidOperation, "substring not found")
                })?,
            )
        }
        "count" => Value::from(text.matches(one()?).count()),
        "removeprefix" => Value::from(text.strip_prefix(one()?).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(one()?).unwrap_or(text)),
        "partition" => parted(text, one()?, text.split_once(one()?), true)?,
        "rpartition" => parted(text, one()?, text.rsplit_once(one()?), false)?,
        "rsplit" => rsplit(text, args)?,
        "splitlines" => lines(text, args)?,
        "title" => {
            let () = from_args(args)?;
            let mut is_within = false;
            let mut titled = String::with_capacity(text.len());
            for character in text.chars() {
                if is_within {
                    titled.extend(character.to_lowercase());
                } else {
                    titled.extend(character.to_uppercase());
                }
                is_within = character.is_alphabetic();
            }
            Value::from(titled)
        }
        "isspace" => all(char::is_whitespace)?,
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric)?,
        "isalpha" => all(char::is_alphabetic)?,
        "isalnum" => all(char::is_alphanumeric)?,
        "islower" => {
            let () = from_args(args)?;
            Value::from(
                text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase),
            )
        }
        "isupper" => {
            let () = from_args(args)?;
            Value::from(
                text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase),
            )
        }
        _ => return Ok(None),
    }))
}

fn separated(separator: &str) -> Result<(), Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    Ok(())
}

fn parted(
    text: &str,
    separator: &str,
    parts: Option<(&str, &str)>,
    from_start: bool,
) -> Result<Value, Error> {
    separated(separator)?;
    let parts = match parts {
        Some((before, after)) => [before, separator, after],
        None if from_start => [text, "", ""],
        None => ["", "", text],
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, splits): (Option<&str>, Option<i64>) = from_args(args)?;
    let count =
        usize::try_from(splits.unwrap_or(-1)).map_or(usize::MAX, |splits| splits.saturating_add(1));
    let mut parts: Vec<&str> = if let Some(separator) = separator {
        separated(separator)?;
        text.rsplitn(count, separator).collect()
    } else {
        let mut parts = Vec::new();
        let mut rest = text.trim_end();
        while !rest.is_empty() {
            let space = rest.rfind(char::is_whitespace).filter(|_| parts.len() + 1 < count);
            let start =
                space.map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8));
            parts.push(&rest[start..]);
            rest = rest[..start].trim_end();
        }
        parts
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

fn lines(text: &str, args: &[Value]) -> Result<Value, Error> {
    /// Where Python ends lines.
    const ENDS: [char; 10] = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    let (keeps_ends,): (Option<bool>,) = from_args(args)?;
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.find(ENDS).unwrap_or(rest.len());
        let ending = match &rest[line..] {
            after if after.starts_with("\r\n") => 2,
            after => after.chars().next().map_or(0, char::len_utf8),
        };
        lines.push(Value::from(
            &rest[..if keeps_ends == Some(true) { line + ending } else { line }],
        ));
        rest = &rest[line + ending..];
    }
    Ok(Value::from(lines))
}

/// Jinja's tests `sequence` and `iterable`, for which texts and dictionaries are both.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
    )
}

/// Jinja's test `number`, for which a truth value is one too.
pub(super) fn is_number(value: &Value) -> bool {
    value.is_number() || value.kind() == ValueKind::Bool || is_exponential(value)
}

/// Jinja's test `float`.
pub(super) fn is_float(value: &Value) -> bool {
    (value.is_number() && !value.is_integer()) || is_exponential(value)
}

fn is_exponential(value: &Value) -> bool {
    value.downcast_object_ref::<Exponential>().is_some()
}

/// Writes a value where a template has it written.
pub(super) fn write(
    output: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    match f64::try_from(value.clone()) {
        Ok(number) if value.is_number() && !value.is_integer() => {
            output.write_str(&float(number)).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(output, state, value),
    }
}
