//! The text that an answer may be: `response_format` of chat, `text.format` of responses, and vLLM's
//! `structured_outputs`.

use forebay_schemas::{
    Json, ResponseFormat,
    limits::{CHOICES_MAX, GUIDE_CHARS_MAX},
};
use schemars::JsonSchema;
use serde_json::value::RawValue;

use super::messages::{missing, object, required};
use crate::{
    error::ApiError,
    fields::{Fields, Kind, each, kind, text, top, unexpected},
};

/// The text that an answer has to be.
#[derive(JsonSchema)]
#[schemars(rename = "ResponseFormatBody")]
pub struct FormatBody {
    /// Its kind; `regex` and `choice` are this gateway's own.
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// For `json_schema`: its schema.
    pub json_schema: Option<JsonSchemaBody>,
    /// For `regex`: matches the whole text.
    #[schemars(length(min = 1, max = GUIDE_CHARS_MAX))]
    pub regex: Option<String>,
    /// For `choice`: the texts to choose from.
    #[schemars(length(min = 1, max = CHOICES_MAX))]
    pub choice: Option<Vec<String>>,
}

/// Kinds of formats.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the wire
pub enum FormatKind {
    Text,
    JsonObject,
    JsonSchema,
    Regex,
    Choice,
}

/// A JSON Schema with its name.
#[derive(JsonSchema)]
#[schemars(rename = "NamedJsonSchema")]
pub struct JsonSchemaBody {
    /// Its name, which is not used.
    pub name: Option<String>,
    /// The schema.
    pub schema: AnyObject,
}

/// The format of the text of a response.
#[derive(JsonSchema)]
#[schemars(rename = "TextFormatBody")]
pub struct TextFormatBody {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// For `json_schema`: its name, which is not used.
    pub name: Option<String>,
    /// For `json_schema`: the schema.
    pub schema: Option<AnyObject>,
}

/// vLLM's way to ask for a format; one of these.
#[derive(JsonSchema)]
pub struct StructuredBody {
    /// A JSON Schema.
    pub json: Option<AnyObject>,
    /// A regular expression that matches the whole text.
    #[schemars(length(min = 1, max = GUIDE_CHARS_MAX))]
    pub regex: Option<String>,
    /// The texts to choose from.
    #[schemars(length(min = 1, max = CHOICES_MAX))]
    pub choice: Option<Vec<String>>,
}

/// Any object.
#[derive(JsonSchema)]
pub struct AnyObject(#[allow(dead_code)] serde_json::Map<String, serde_json::Value>);

/// The format that chat and completions ask for, by either field.
pub fn read(fields: &Fields<'_>) -> Result<Option<ResponseFormat>, ApiError> {
    let format = fields.raw("response_format").map(|raw| of_chat("response_format", raw));
    let structured = fields.raw("structured_outputs").map(structured);
    match (format.transpose()?.flatten(), structured.transpose()?.flatten()) {
        (Some(_), Some(_)) => {
            let message = "`structured_outputs` and `response_format` are both there: send one";
            Err(ApiError::invalid("structured_outputs", message))
        }
        (format, structured) => Ok(format.or(structured)),
    }
}

fn of_chat(name: &str, raw: &RawValue) -> Result<Option<ResponseFormat>, ApiError> {
    let fields = object(name, raw, &["type", "json_schema", "regex", "choice"])?;
    let schema = || {
        let inner = fields.raw("json_schema").ok_or_else(|| missing(name, "json_schema"))?;
        let name = format!("{name}.json_schema");
        let fields = object(&name, inner, &["schema"])?;
        let schema = fields.raw("schema").ok_or_else(|| missing(&name, "schema"))?;
        json_object(&format!("{name}.schema"), schema)
    };
    of_kind(name, &fields, schema)
}

/// The format of a response's text, where everything is beside the type.
pub fn of_response(name: &str, raw: &RawValue) -> Result<Option<ResponseFormat>, ApiError> {
    let fields = object(name, raw, &["type", "schema", "regex", "choice"])?;
    let schema = || {
        let schema = fields.raw("schema").ok_or_else(|| missing(name, "schema"))?;
        json_object(&format!("{name}.schema"), schema)
    };
    of_kind(name, &fields, schema)
}

fn of_kind(
    name: &str,
    fields: &Fields<'_>,
    schema: impl Fn() -> Result<Json, ApiError>,
) -> Result<Option<ResponseFormat>, ApiError> {
    let there = |field| fields.raw(field).ok_or_else(|| missing(name, field));
    match required(name, fields, "type")?.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(ResponseFormat::JsonSchema(any_object()))),
        "json_schema" => Ok(Some(ResponseFormat::JsonSchema(schema()?))),
        "regex" => Ok(Some(regex(&format!("{name}.regex"), there("regex")?)?)),
        "choice" => Ok(Some(choice(&format!("{name}.choice"), there("choice")?)?)),
        other => {
            let came: String = other.chars().take(40).collect();
            let message = format!(
                "`{name}.type` is `{came}`: send `text`, `json_object`, `json_schema`, `regex` or `choice`"
            );
            Err(ApiError::invalid(top(name), message))
        }
    }
}

fn structured(raw: &RawValue) -> Result<Option<ResponseFormat>, ApiError> {
    const NAME: &str = "structured_outputs";
    let fields = object(
        NAME,
        raw,
        &["json", "regex", "choice", "grammar", "structural_tag", "json_object"],
    )?;
    for field in ["grammar", "structural_tag", "json_object"] {
        if fields.raw(field).is_some() {
            let message =
                format!("`{NAME}.{field}` is not supported: send `json`, `regex` or `choice`");
            return Err(ApiError::invalid(NAME, message));
        }
    }
    let json = |raw| json_object("structured_outputs.json", raw).map(ResponseFormat::JsonSchema);
    let found = [
        fields.raw("json").map(json),
        fields.raw("regex").map(|raw| regex("structured_outputs.regex", raw)),
        fields.raw("choice").map(|raw| choice("structured_outputs.choice", raw)),
    ];
    let mut found = found.into_iter().flatten();
    let first = found.next().transpose()?;
    if found.next().is_some() {
        return Err(ApiError::invalid(NAME, format!("`{NAME}` has several formats: send one")));
    }
    Ok(first)
}

fn regex(name: &str, raw: &RawValue) -> Result<ResponseFormat, ApiError> {
    bounded(name, raw).map(ResponseFormat::Regex)
}

fn choice(name: &str, raw: &RawValue) -> Result<ResponseFormat, ApiError> {
    let mut choices = Vec::new();
    let read = each(name, raw, CHOICES_MAX, |index, raw| {
        choices.push(bounded(&format!("{name}[{index}]"), raw)?);
        Ok(())
    });
    read.map_err(|error| error.at(top(name)))?;
    Ok(ResponseFormat::Choice(choices))
}

fn bounded(name: &str, raw: &RawValue) -> Result<String, ApiError> {
    let text = text(name, raw)?;
    if text.is_empty() || text.chars().count() > GUIDE_CHARS_MAX {
        let message = format!("`{name}` must have 1 to {GUIDE_CHARS_MAX} characters");
        return Err(ApiError::invalid(top(name), message));
    }
    Ok(text)
}

/// The schema of any object.
fn any_object() -> Json {
    Json::Map(vec![("type".to_owned(), Json::Text("object".to_owned()))])
}

/// An object with its keys in the order in which they came.
pub fn json_object(name: &str, raw: &RawValue) -> Result<Json, ApiError> {
    if kind(raw) != Kind::Object {
        return Err(unexpected(name, raw, "an object"));
    }
    serde_json::from_str(raw.get())
        .map_err(|error| ApiError::invalid(top(name), format!("`{name}` can't be read: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(body: &Value) -> Result<Option<ResponseFormat>, ApiError> {
        read(&Fields::scan(
            body.to_string().as_bytes(),
            &["response_format", "structured_outputs"],
        )?)
    }

    fn schema(text: &str) -> ResponseFormat {
        ResponseFormat::JsonSchema(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn formats_are_read_by_either_field() {
        let object = r#"{"type":"object","properties":{"b":{},"a":{}}}"#;
        let written: Value = serde_json::from_str(object).unwrap();
        let inner = json!({"name": "x", "schema": {"type": "object"}, "strict": true});
        let named = json!({"type": "json_schema", "json_schema": inner});
        assert_eq!(
            parsed(&json!({"response_format": named})).unwrap(),
            Some(schema(r#"{"type":"object"}"#))
        );
        assert_eq!(parsed(&json!({"response_format": {"type": "text"}})).unwrap(), None);
        assert_eq!(parsed(&json!({"response_format": null})).unwrap(), None);
        let json_object = json!({"response_format": {"type": "json_object"}});
        assert_eq!(parsed(&json_object).unwrap(), Some(schema(r#"{"type":"object"}"#)));
        let regex = Some(ResponseFormat::Regex("[a-z]+".into()));
        assert_eq!(
            parsed(&json!({"structured_outputs": {"regex": "[a-z]+", "json": null}})).unwrap(),
            regex
        );
        assert_eq!(
            parsed(&json!({"response_format": {"type": "regex", "regex": "[a-z]+"}})).unwrap(),
            regex
        );
        let choice = Some(ResponseFormat::Choice(vec!["a".into(), "b".into()]));
        assert_eq!(parsed(&json!({"structured_outputs": {"choice": ["a", "b"]}})).unwrap(), choice);
        assert!(parsed(&json!({"structured_outputs": {"json": written}})).unwrap().is_some());
    }

    #[test]
    fn the_order_of_a_schema_s_keys_is_kept() {
        let body =
            r#"{"response_format":{"type":"json_schema","json_schema":{"schema":{"z":1,"a":2}}}}"#;
        let found = read(&Fields::scan(body.as_bytes(), &["response_format"]).unwrap()).unwrap();
        let Some(ResponseFormat::JsonSchema(found)) = found else { panic!("{found:?}") };
        assert_eq!(found.to_string(), r#"{"z":1,"a":2}"#);
    }

    #[test]
    fn a_mistake_names_where_it_is() {
        let format = |format: Value| json!({"response_format": format});
        let cases = [
            (format(json!("json")), "`response_format` is a string"),
            (format(json!({})), "`response_format.type` is missing"),
            (format(json!({"type": "xml"})), "`response_format.type` is `xml`"),
            (format(json!({"type": "json_schema"})), "`response_format.json_schema` is missing"),
            (
                format(json!({"type": "json_schema", "json_schema": {}})),
                "`response_format.json_schema.schema` is missing",
            ),
            (
                format(json!({"type": "json_schema", "json_schema": {"schema": []}})),
                "`response_format.json_schema.schema` is a list",
            ),
            (format(json!({"type": "choice", "choice": []})), "`response_format.choice` is empty"),
        ];
        for (body, expected) in cases {
            let error = parsed(&body).unwrap_err();
            assert!(error.message.starts_with(expected), "{error}");
            assert_eq!(error.param.as_deref(), Some("response_format"));
        }
        for wrong in
            [json!({"json": {}, "regex": "a"}), json!({"grammar": "x"}), json!({"choice": [""]})]
        {
            let error = parsed(&json!({"structured_outputs": wrong})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("structured_outputs"), "{error}");
        }
    }
}
