//! The tools of a request, whether the model has to call one, and the calls of an answer.

use std::collections::BTreeSet;

use forebay_schemas::{
    Json, ResponseFormat, ToolCall,
    limits::{CALL_NAME_CHARS_MAX, TOOLS_MAX},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    format::{AnyObject, json_object},
    messages::{missing, object, optional, required},
    sampling::is_empty,
};
use crate::{
    error::ApiError,
    fields::{Fields, Kind, each, kind, text, top, unexpected},
};

/// A tool that the model may call, as chat sends it.
#[derive(JsonSchema)]
#[schemars(rename = "ChatTool")]
pub struct ToolBody {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: FunctionKind,
    /// The function.
    pub function: FunctionBody,
}

/// The one kind of tools.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[allow(missing_docs)] // the name of the wire
pub enum FunctionKind {
    Function,
}

/// A function that the model may call.
#[derive(JsonSchema)]
#[schemars(rename = "ChatFunction")]
pub struct FunctionBody {
    /// Its name.
    #[schemars(length(min = 1, max = CALL_NAME_CHARS_MAX))]
    pub name: String,
    /// The use that it is of, for the model.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub parameters: Option<AnyObject>,
}

/// A tool that the model may call, as responses send it.
#[derive(JsonSchema)]
#[schemars(rename = "ResponseTool")]
pub struct FlatToolBody {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: FunctionKind,
    /// The function.
    #[schemars(flatten)]
    pub function: FunctionBody,
}

/// Whether the model has to call a tool: a word, or the name of the one to call.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum ChoiceBody {
    /// `auto`, `none`, or `required`.
    Word(ChoiceWord),
    /// A function that has to be called.
    Named {
        /// Its name, as responses send it.
        name: Option<String>,
        /// Its name, as chat sends it.
        function: Option<NameBody>,
    },
}

/// Words for it.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[allow(missing_docs)] // the names of the wire
pub enum ChoiceWord {
    Auto,
    None,
    Required,
}

/// The name of a function.
#[derive(JsonSchema)]
#[schemars(rename = "FunctionName")]
pub struct NameBody {
    /// The name.
    pub name: String,
}

/// Where an interface has the parts of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// In a `function`.
    Nested,
    /// Beside its type.
    Flat,
}

/// A call that an answer has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forced {
    /// Of this tool: the text is its arguments.
    Named(String),
    /// Of any: the text is an object with a name and arguments.
    Any,
}

/// The tools of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools {
    /// Each as templates take it. None where the model is to call none.
    pub list: Vec<Json>,
    /// The call that the answer has to be.
    pub forced: Option<Forced>,
    /// The format that makes the text that call.
    pub format: Option<ResponseFormat>,
}

/// A tool as it was read.
struct Tool {
    name: String,
    parameters: Option<Json>,
    written: Json,
}

impl Tools {
    /// Reads `tools` and `tool_choice`.
    pub fn read(fields: &Fields<'_>, shape: Shape) -> Result<Self, ApiError> {
        let tools = fields.raw("tools").map_or(Ok(Vec::new()), |raw| tools(raw, shape))?;
        let choice = fields.raw("tool_choice").map(choice).transpose()?;
        let list = |tools: Vec<Tool>| tools.into_iter().map(|tool| tool.written).collect();
        let forced = match choice {
            None | Some(Choice::Auto) => return Ok(Self { list: list(tools), ..Self::default() }),
            // The model does not hear of tools that it is not to call.
            Some(Choice::None) => return Ok(Self::default()),
            Some(Choice::Required) => Forced::Any,
            Some(Choice::Named(name)) => Forced::Named(name),
        };
        let schema = match &forced {
            Forced::Any if tools.is_empty() => {
                let message = "`tool_choice` is `required` and there are no `tools`: send some";
                return Err(ApiError::invalid("tool_choice", message));
            }
            Forced::Any => any_of(&tools),
            Forced::Named(name) => {
                let tool = tools.iter().find(|tool| tool.name == *name).ok_or_else(|| {
                    let came: String = name.chars().take(80).collect();
                    let message =
                        format!("`tool_choice` names `{came}`, which is none of the `tools`");
                    ApiError::invalid("tool_choice", message)
                })?;
                tool.parameters()
            }
        };
        let format = Some(ResponseFormat::JsonSchema(schema));
        Ok(Self { list: list(tools), forced: Some(forced), format })
    }

    /// Whether the model may call any.
    pub fn are_there(&self) -> bool {
        !self.list.is_empty()
    }
}

impl Forced {
    /// The call that a text is. Cut off before its end, it is text.
    pub fn call(&self, text: &str, id: impl FnOnce() -> String) -> Option<ToolCall> {
        let is_object = |raw: &RawValue| raw.get().starts_with('{');
        match self {
            Self::Named(name) => {
                let raw: &RawValue = serde_json::from_str(text).ok()?;
                let arguments = raw.get().to_owned();
                is_object(raw).then(|| ToolCall { id: id(), name: name.clone(), arguments })
            }
            Self::Any => {
                let call: Written<'_> = serde_json::from_str(text).ok()?;
                let arguments = call.arguments.get().to_owned();
                Some(ToolCall { id: id(), name: call.name, arguments })
            }
        }
    }
}

/// A call as the schema of [`any_of`] has it written.
#[derive(Deserialize)]
struct Written<'a> {
    name: String,
    #[serde(borrow)]
    arguments: &'a RawValue,
}

impl Tool {
    /// The schema of its arguments.
    fn parameters(&self) -> Json {
        self.parameters.clone().unwrap_or_else(|| map([("type", Json::Text("object".to_owned()))]))
    }
}

fn map<const N: usize>(pairs: [(&str, Json); N]) -> Json {
    Json::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The schema of a call of any of the tools. Definitions move to its root, where references look for them.
fn any_of(tools: &[Tool]) -> Json {
    const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
    let words = |text: &str| Json::Text(text.to_owned());
    let mut moved = [Vec::new(), Vec::new()];
    let mut names = BTreeSet::new();
    let mut calls = Vec::new();
    for tool in tools {
        let mut parameters = tool.parameters();
        if let Json::Map(pairs) = &mut parameters {
            pairs.retain_mut(|(key, value)| {
                let at = DEFINITIONS.iter().position(|name| name == key);
                let (Some(at), Json::Map(found)) = (at, value) else { return true };
                let found = std::mem::take(found).into_iter();
                moved[at].extend(found.filter(|(name, _)| names.insert((at, name.clone()))));
                false
            });
        }
        let name = map([("const", Json::Text(tool.name.clone()))]);
        calls.push(map([
            ("type", words("object")),
            ("properties", map([("name", name), ("arguments", parameters)])),
            ("required", Json::List(vec![words("name"), words("arguments")])),
            ("additionalProperties", Json::Flag(false)),
        ]));
    }
    let mut pairs = vec![("anyOf".to_owned(), Json::List(calls))];
    for (name, found) in DEFINITIONS.into_iter().zip(moved) {
        if !found.is_empty() {
            pairs.push((name.to_owned(), Json::Map(found)));
        }
    }
    Json::Map(pairs)
}

fn tools(raw: &RawValue, shape: Shape) -> Result<Vec<Tool>, ApiError> {
    let mut tools: Vec<Tool> = Vec::new();
    if kind(raw) == Kind::List && is_empty(raw) {
        return Ok(tools);
    }
    each("tools", raw, TOOLS_MAX, |index, raw| {
        let tool = tool(&format!("tools[{index}]"), raw, shape)?;
        if tools.iter().any(|before| before.name == tool.name) {
            let message = format!("`tools[{index}]` has the name of another: rename one");
            return Err(ApiError::invalid("tools", message));
        }
        tools.push(tool);
        Ok(())
    })?;
    Ok(tools)
}

fn tool(name: &str, raw: &RawValue, shape: Shape) -> Result<Tool, ApiError> {
    let fields = object(name, raw, &["type", "function"])?;
    let kind = required(name, &fields, "type")?;
    if kind != "function" {
        let came: String = kind.chars().take(40).collect();
        let message = format!(
            "`{name}.type` is `{came}`: this fleet has no tools but yours, of the type `function`"
        );
        return Err(ApiError::invalid("tools", message));
    }
    let nested = match shape {
        Shape::Nested => Some(fields.raw("function").ok_or_else(|| missing(name, "function"))?),
        Shape::Flat => None,
    };
    let name = if nested.is_some() { &format!("{name}.function") } else { name };
    let fields = object(name, nested.unwrap_or(raw), &["name", "description", "parameters"])?;
    let called = required(name, &fields, "name")?;
    if called.is_empty() || called.chars().count() > CALL_NAME_CHARS_MAX {
        let message = format!("`{name}.name` must have 1 to {CALL_NAME_CHARS_MAX} characters");
        return Err(ApiError::invalid("tools", message));
    }
    let description = optional(name, &fields, "description")?;
    let parameters = fields.raw("parameters");
    let parameters =
        parameters.map(|raw| json_object(&format!("{name}.parameters"), raw)).transpose()?;
    let mut function = vec![("name".to_owned(), Json::Text(called.clone()))];
    function.extend(description.map(|text| ("description".to_owned(), Json::Text(text))));
    function.extend(parameters.clone().map(|json| ("parameters".to_owned(), json)));
    let written =
        map([("type", Json::Text("function".to_owned())), ("function", Json::Map(function))]);
    Ok(Tool { name: called, parameters, written })
}

enum Choice {
    Auto,
    None,
    Required,
    Named(String),
}

fn choice(raw: &RawValue) -> Result<Choice, ApiError> {
    const NAME: &str = "tool_choice";
    match kind(raw) {
        Kind::Text => match text(NAME, raw)?.as_str() {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            "required" => Ok(Choice::Required),
            other => {
                let came: String = other.chars().take(40).collect();
                let message =
                    format!("`{NAME}` is `{came}`: send `auto`, `none`, `required` or a function");
                Err(ApiError::invalid(NAME, message))
            }
        },
        Kind::Object => {
            let fields = object(NAME, raw, &["name", "function"])?;
            let Some(inner) = fields.raw("function") else {
                return required(NAME, &fields, "name").map(Choice::Named);
            };
            let name = format!("{NAME}.function");
            let fields = object(&name, inner, &["name"])?;
            required(&name, &fields, "name").map(Choice::Named).map_err(|error| error.at(top(NAME)))
        }
        _ => Err(unexpected(NAME, raw, "a string or an object")),
    }
}

#[cfg(test)]
mod tests;
