//! Schemas as tables of fields.

use serde_json::{Map, Value};

use super::html::{escaped, words};

/// The definition that a schema refers to, by its name.
fn name(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}

/// The kind of values that a schema allows, in a few words.
pub(super) fn kind(schema: &Value) -> String {
    if let Some(name) = name(schema) {
        let name = escaped(name);
        return format!("<a href=\"#shape-{name}\">{name}</a>");
    }
    if let Some(only) = schema.get("const") {
        return format!("<code>{}</code>", escaped(&only.to_string()));
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        let values = values.iter().filter(|value| !value.is_null());
        let values: Vec<String> =
            values.map(|value| format!("<code>{}</code>", escaped(&value.to_string()))).collect();
        return values.join(" or ");
    }
    for several in ["anyOf", "oneOf"] {
        if let Some(Value::Array(variants)) = schema.get(several) {
            let variants = variants.iter().filter(|variant| variant["type"] != "null");
            let kinds: Vec<String> = variants.map(kind).collect();
            return kinds.join(" or ");
        }
    }
    let types = match &schema["type"] {
        Value::Array(types) => {
            types.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect()
        }
        Value::String(only) => vec![only.as_str()],
        _ => Vec::new(),
    };
    match types[..] {
        ["array"] => format!("list of {}", kind(&schema["items"])),
        ["null"] => "null".to_owned(),
        [] => "anything".to_owned(),
        _ => escaped(&types.join(" or ")),
    }
}

/// The bounds of a value, in a few words.
fn bounds(schema: &Value) -> String {
    let bound = |(name, words): (&str, &str)| {
        let bound = schema.get(name).filter(|bound| bound.is_number())?;
        Some(format!("{words} {bound}"))
    };
    let known = [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "characters: at least"),
        ("maxLength", "characters: at most"),
        ("minItems", "elements: at least"),
        ("maxItems", "elements: at most"),
    ];
    let all: Vec<String> = known.into_iter().filter_map(bound).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

/// The fields of an object, or what else a schema allows.
pub(super) fn table(document: &Value, schema: &Value) -> String {
    let schema = match name(schema) {
        Some(name) => &document["components"]["schemas"][name],
        None => schema,
    };
    let Some(Value::Object(properties)) = schema.get("properties") else {
        return format!("<p class=\"kind\">{}{}</p>\n", kind(schema), bounds(schema));
    };
    let needed: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let rows: String = rows(properties, &needed);
    let head = "<tr><th>field</th><th>kind</th><th>meaning</th></tr>";
    format!("<div class=\"wide\"><table>\n{head}\n{rows}</table></div>\n")
}

/// Those that are needed first.
fn rows(properties: &Map<String, Value>, needed: &[&str]) -> String {
    let (first, then): (Vec<_>, Vec<_>) =
        properties.iter().partition(|(name, _)| needed.contains(&name.as_str()));
    let row = |(name, schema): (&String, &Value)| {
        let mark = if needed.contains(&name.as_str()) { "" } else { " <i>optional</i>" };
        let about = words(schema["description"].as_str().unwrap_or_default());
        let kind = kind(schema);
        let bounds = bounds(schema);
        let name = escaped(name);
        format!(
            "<tr><td><code>{name}</code>{mark}</td><td>{kind}{bounds}</td><td>{about}</td></tr>\n"
        )
    };
    first.into_iter().chain(then).map(row).collect()
}
