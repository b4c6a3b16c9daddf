//! Templates as a whole; `tests/templates.rs` compares them with what transformers renders.

use serde_json::json;

use super::*;

fn render(source: &str, messages: &Json) -> Result<String, TemplateError> {
    let template = ChatTemplate::new(source, vec![("bos_token".to_owned(), "<s>".to_owned())])?;
    template.render(&ChatInput {
        messages,
        tools: &Json::Null,
        add_generation_prompt: true,
        arguments: &Map::new(),
        now_ms: 1_782_993_600_000,
    })
}

#[test]
fn a_refusal_is_the_templates_own_message() {
    let source =
        "{% macro no() %}{{ raise_exception('roles must alternate') }}{% endmacro %}{{ no() }}";
    assert_eq!(
        render(source, &json!([])),
        Err(TemplateError::Refused("roles must alternate".to_owned()))
    );
}

#[test]
fn dates_are_those_of_the_job() {
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}", &json!([])).unwrap(), "02 Jul 2026");
    let failed = render("{{ strftime_now('%Q') }}", &json!([]));
    assert!(matches!(failed, Err(TemplateError::Failed { .. })), "{failed:?}");
}

#[test]
fn no_template_runs_or_writes_without_end() {
    let long = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
    assert!(matches!(render(long, &json!([])), Err(TemplateError::TooMuch { .. })));
    let large = "{% for a in range(9000) %}{{ '0123456789' * 900 }}{% endfor %}";
    assert!(matches!(render(large, &json!([])), Err(TemplateError::TooMuch { .. })));
    let deep = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(render(deep, &json!([])).is_err());
    assert!(matches!(
        render(&" ".repeat(2 << 20), &json!([])),
        Err(TemplateError::Unreadable { .. })
    ));
}

#[test]
fn other_files_are_not_reached() {
    for source in ["{% include '/etc/hosts' %}", "{% import 'x' as y %}", "{% extends 'x' %}"] {
        assert!(render(source, &json!([])).is_err(), "{source}");
    }
}

#[test]
fn methods_are_pythons() {
    for (expression, right) in [
        ("'né水x'.find('x')", "3"),
        ("'né水x'.rfind('q')", "-1"),
        ("'abc'.count('')", "4"),
        ("'aXbXc'.rsplit('X', 1)", "['aXb', 'c']"),
        ("' a b  c '.rsplit(none, 1)", "[' a b', 'c']"),
        ("' a b '.rsplit()", "['a', 'b']"),
        ("'a\\r\\nb\\n\\nc'.splitlines()", "['a', 'b', '', 'c']"),
        ("'a\\nb'.splitlines(true)", "['a\\n', 'b']"),
        ("'abab'.removeprefix('ab').removesuffix('b')", "a"),
        ("'a=b=c'.partition('=')[2]", "b=c"),
        ("'a=b=c'.rpartition('=')[0]", "a=b"),
        ("''.isdigit()", "False"),
        ("'Ab1'.isalnum()", "True"),
        ("'a1'.islower()", "True"),
        ("'a</think>b'.split('</think>')[-1]", "b"),
        ("{'items': 1}.items()|list", "[('items', 1)]"),
        ("'x' is iterable", "True"),
        ("{} is sequence", "True"),
        ("1 is sequence", "False"),
        ("1e-5", "1e-05"),
        ("1.0", "1.0"),
        ("none", "None"),
        ("[true, none, 'a']", "[True, None, 'a']"),
    ] {
        assert_eq!(
            render(&format!("{{{{ {expression} }}}}"), &json!([])).as_deref(),
            Ok(right),
            "{expression}"
        );
    }
}

#[test]
fn json_is_pythons() {
    for (arguments, right) in [
        ("", r#"{"b": [1, 2.5, null, true], "a": "é<\"\n\u0001"}"#),
        ("(ensure_ascii=true)", r#"{"b": [1, 2.5, null, true], "a": "\u00e9<\"\n\u0001"}"#),
        ("(separators=(',', ':'))", r#"{"b":[1,2.5,null,true],"a":"é<\"\n\u0001"}"#),
        ("(sort_keys=true)", r#"{"a": "é<\"\n\u0001", "b": [1, 2.5, null, true]}"#),
        (
            "(indent=2)",
            "{\n  \"b\": [\n    1,\n    2.5,\n    null,\n    true\n  ],\n  \"a\": \"é<\\\"\\n\\u0001\"\n}",
        ),
    ] {
        let source = format!("{{{{ messages|tojson{arguments} }}}}");
        let messages = json!({"b": [1, 2.5, null, true], "a": "é<\"\n\u{1}"});
        assert_eq!(render(&source, &messages).as_deref(), Ok(right));
    }
    assert_eq!(
        render("{{ []|tojson(indent=4) }}{{ {}|tojson }}", &json!([])).as_deref(),
        Ok("[]{}")
    );
    assert!(render("{{ nothing|tojson }}", &json!([])).is_err());
    let deep = "{% set n = namespace(x=[]) %}{% for i in range(500) %}{% set n.x = [n.x] %}{% endfor %}\
                {{ n.x|tojson }}";
    assert!(render(deep, &json!([])).is_err());
}

#[test]
fn the_fixed_variables_are_not_replaced() {
    let arguments = json!({"messages": "others", "enable_thinking": false, "bos_token": "<b>"});
    let template = ChatTemplate::new(
        "{{ messages }} {{ enable_thinking }} {{ bos_token }} {{ tools is none }} {{ documents is none }}",
        vec![("bos_token".to_owned(), "<s>".to_owned())],
    )
    .unwrap();
    let input = ChatInput {
        messages: &json!([1]),
        tools: &json!([]),
        add_generation_prompt: false,
        arguments: arguments.as_object().unwrap(),
        now_ms: 0,
    };
    assert_eq!(template.render(&input).as_deref(), Ok("[1] False <b> True True"));
}

#[test]
fn lists_within_lists_are_rendered_and_released() {
    for nest in ["[n.x]", "(n.x,)", "{'a': n.x}", "{'a': [n.x]}"] {
        let source = format!(
            "{{% set n = namespace(x=1) %}}{{% for i in range(200) %}}{{% set n.x = {nest} %}}{{% endfor %}}\
             {{{{ n.x|length }}}}"
        );
        assert_eq!(render(&source, &json!([])).unwrap(), "1", "{nest}");
    }
}
