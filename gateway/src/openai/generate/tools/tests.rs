//! Tools and the choice among them, as requests say them.

use serde_json::{Value, json};

use super::*;

fn parsed(body: &Value, shape: Shape) -> Result<Tools, ApiError> {
    Tools::read(&Fields::scan(body.to_string().as_bytes(), &["tools", "tool_choice"])?, shape)
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "d", "parameters": {"type": "object"}}})
}

fn schema(tools: &Tools) -> Value {
    let Some(ResponseFormat::JsonSchema(schema)) = &tools.format else { panic!("{tools:?}") };
    serde_json::from_str(&schema.to_string()).unwrap()
}

#[test]
fn tools_of_both_interfaces_are_what_templates_take() {
    let nested = parsed(&json!({"tools": [tool("f")]}), Shape::Nested).unwrap();
    let flat = json!({"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"},
                      "strict": true});
    assert_eq!(parsed(&json!({"tools": [flat]}), Shape::Flat).unwrap(), nested);
    let written: Value = serde_json::from_str(&nested.list[0].to_string()).unwrap();
    assert_eq!(written, tool("f"));
    assert!(nested.are_there() && nested.forced.is_none());
}

#[test]
fn a_model_hears_of_no_tools_that_it_is_not_to_call() {
    let none = parsed(&json!({"tools": [tool("f")], "tool_choice": "none"}), Shape::Nested);
    assert_eq!(none.unwrap(), Tools::default());
    let auto = parsed(&json!({"tools": [tool("f")], "tool_choice": "auto"}), Shape::Nested);
    assert!(auto.unwrap().are_there());
    assert_eq!(parsed(&json!({"tools": []}), Shape::Nested).unwrap(), Tools::default());
}

#[test]
fn a_call_that_has_to_be_is_a_format_and_read_from_the_text() {
    let named = json!({"type": "function", "function": {"name": "f"}});
    let body = json!({"tools": [tool("f"), tool("g")], "tool_choice": named});
    let tools = parsed(&body, Shape::Nested).unwrap();
    assert_eq!(schema(&tools), json!({"type": "object"}));
    let forced = tools.forced.unwrap();
    let call = forced.call("{\"a\": 1}", || "c".into()).unwrap();
    assert_eq!(
        (call.id.as_str(), call.name.as_str(), call.arguments.as_str()),
        ("c", "f", "{\"a\": 1}")
    );
    assert_eq!(forced.call("{\"a\": ", || "c".into()), None);

    let flat = json!({"type": "function", "name": "f"});
    let body = json!({"tools": [flat], "tool_choice": flat});
    assert_eq!(parsed(&body, Shape::Flat).unwrap().forced, Some(Forced::Named("f".into())));

    let body = json!({"tools": [tool("f"), tool("g")], "tool_choice": "required"});
    let tools = parsed(&body, Shape::Nested).unwrap();
    assert_eq!(schema(&tools)["anyOf"][1]["properties"]["name"], json!({"const": "g"}));
    let text = "{\"name\": \"g\", \"arguments\": {\"b\": []}}";
    let call = tools.forced.unwrap().call(text, || "c".into()).unwrap();
    assert_eq!((call.name.as_str(), call.arguments.as_str()), ("g", "{\"b\": []}"));
}

#[test]
fn definitions_are_where_references_look_for_them() {
    let parameters = json!({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}});
    let function = json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
    let body = json!({"tools": [function, tool("g")], "tool_choice": "required"});
    let schema = schema(&parsed(&body, Shape::Nested).unwrap());
    assert_eq!(schema["$defs"], json!({"A": {"type": "object"}}));
    assert_eq!(schema["anyOf"][0]["properties"]["arguments"], json!({"$ref": "#/$defs/A"}));
}

#[test]
fn a_mistake_names_where_it_is() {
    let cases = [
        (json!({"tools": "f"}), "tools", "`tools` is a string"),
        (json!({"tools": [1]}), "tools", "`tools[0]` is a number"),
        (json!({"tools": [{"type": "web_search"}]}), "tools", "`tools[0].type` is `web_search`"),
        (json!({"tools": [{"type": "function"}]}), "tools", "`tools[0].function` is missing"),
        (json!({"tools": [tool("")]}), "tools", "`tools[0].function.name` must have"),
        (json!({"tools": [tool("f"), tool("f")]}), "tools", "`tools[1]` has the name of another"),
        (json!({"tool_choice": "must"}), "tool_choice", "`tool_choice` is `must`"),
        (json!({"tool_choice": "required"}), "tool_choice", "`tool_choice` is `required`"),
        (json!({"tool_choice": {}}), "tool_choice", "`tool_choice.name` is missing"),
        (
            json!({"tool_choice": {"function": {"name": "f"}}}),
            "tool_choice",
            "`tool_choice` names `f`",
        ),
        (json!({"tool_choice": 1}), "tool_choice", "`tool_choice` is a number"),
    ];
    for (body, param, expected) in cases {
        let error = parsed(&body, Shape::Nested).unwrap_err();
        assert!(error.message.starts_with(expected), "{error}");
        assert_eq!(error.param.as_deref(), Some(param));
    }
}
