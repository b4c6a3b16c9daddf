//! The page of the document, for people: one file that loads nothing.
#![allow(clippy::format_collect)] // the page is made once, and plain code is worth more than one buffer

mod html;
mod shape;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use html::{code, escaped, words};
use shape::{kind, table};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// The examples at the top of the page. `script.js` puts the page's own address in.
const START: &str = include_str!("start.html");

/// The page, with the policy that lets a browser run nothing but what is in it.
#[derive(Debug)]
pub struct Page {
    /// The page.
    pub html: String,
    /// The value of `Content-Security-Policy`.
    pub policy: String,
}

impl Page {
    /// The page of a document.
    pub fn of(document: &Value) -> Self {
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        Self { html: written(document), policy }
    }
}

fn written(document: &Value) -> String {
    let info = &document["info"];
    let title = escaped(text(&info["title"]));
    let version = escaped(text(&info["version"]));
    let about = words(text(&info["description"]));
    let tags: Vec<&Value> = document["tags"].as_array().into_iter().flatten().collect();
    let groups: Vec<(&Value, Vec<Shown<'_>>)> =
        tags.into_iter().map(|tag| (tag, operations_of(document, text(&tag["name"])))).collect();
    let contents: String = groups.iter().map(|(tag, shown)| contents(tag, shown)).collect();
    let sections: String =
        groups.iter().map(|(tag, shown)| section(document, tag, shown)).collect();
    let errors = errors(document);
    let shapes = shapes(document);
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the endpoints</a>
<nav aria-label="Contents">
<p class="name"><a href="#main">{title}</a> <small>{version}</small></p>
<label for="filter">Find <kbd>/</kbd></label>
<input id="filter" type="search" autocomplete="off" spellcheck="false">
{contents}
<h2><a href="#errors">Errors</a></h2>
<h2><a href="#shapes">Shapes</a></h2>
<p><button id="theme" type="button">Dark or light</button> <a href="openapi.json">openapi.json</a></p>
</nav>
<main id="main" tabindex="-1">
<h1>{title}</h1>
<p>{about}</p>
{START}
{sections}
{errors}
{shapes}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"##
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// An operation with its method and path.
struct Shown<'a> {
    method: &'a str,
    path: &'a str,
    operation: &'a Value,
}

fn map(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn operations_of<'a>(document: &'a Value, tag: &str) -> Vec<Shown<'a>> {
    let all = map(&document["paths"]).flat_map(|(path, item)| {
        map(item).map(move |(method, operation)| Shown { method, path, operation })
    });
    all.filter(|shown| text(&shown.operation["tags"][0]) == tag).collect()
}

fn contents(tag: &Value, shown: &[Shown<'_>]) -> String {
    let rows: String = shown
        .iter()
        .map(|Shown { method, path, operation }| {
            let id = escaped(text(&operation["operationId"]));
            let path = escaped(path);
            format!("<li><a href=\"#{id}\"><b class=\"{method}\">{method}</b> {path}</a></li>\n")
        })
        .collect();
    format!("<h2>{}</h2>\n<ul>\n{rows}</ul>\n", escaped(text(&tag["name"])))
}

fn section(document: &Value, tag: &Value, shown: &[Shown<'_>]) -> String {
    let name = escaped(text(&tag["name"]));
    let about = words(text(&tag["description"]));
    let articles: String = shown.iter().map(|shown| article(document, shown)).collect();
    format!("<section>\n<h2>{name}</h2>\n<p>{about}</p>\n{articles}</section>\n")
}

fn article(document: &Value, Shown { method, path, operation }: &Shown<'_>) -> String {
    let id = escaped(text(&operation["operationId"]));
    let summary = words(text(&operation["summary"]));
    let description = words(text(&operation["description"]));
    let scope = operation["security"][0]["key"][0].as_str();
    let key = scope.map_or("Needs no key.".to_owned(), |scope| {
        format!("Needs a key with the scope <code>{}</code>.", escaped(scope))
    });
    let parameters = parameters(document, operation);
    let content = &operation["requestBody"]["content"]["application/json"];
    let body = if content.is_null() {
        String::new()
    } else {
        let fields = table(document, &content["schema"]);
        format!("<h4>Body: {}</h4>\n{fields}", kind(&content["schema"]))
    };
    let examples: String = map(&content["examples"])
        .map(|(name, example)| curl(method, path, Some((name.as_str(), &example["value"]))))
        .collect();
    let example = match (examples.is_empty(), path.contains('{') || content.is_object()) {
        (true, false) => curl(method, path, None),
        _ => examples,
    };
    let answers = answers(document, operation);
    format!(
        "<article id=\"{id}\">\n<h3><b class=\"{method}\">{method}</b> <code>{}</code></h3>\n\
         <p><strong>{summary}.</strong> {description} {key}</p>\n{parameters}{body}<h4>Answers</h4>\n{answers}{example}\
         </article>\n",
        escaped(path)
    )
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

fn parameters(document: &Value, operation: &Value) -> String {
    let rows: String = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| {
            let parameter = resolved(document, parameter);
            let part = escaped(text(&parameter["in"]));
            let about = words(text(&parameter["description"]));
            let name = escaped(text(&parameter["name"]));
            format!("<tr><td><code>{name}</code></td><td>{part}</td><td>{about}</td></tr>\n")
        })
        .collect();
    let head = "<tr><th>parameter</th><th>in</th><th>meaning</th></tr>";
    format!("<h4>Parameters</h4>\n<div class=\"wide\"><table>\n{head}\n{rows}</table></div>\n")
}

fn answers(document: &Value, operation: &Value) -> String {
    let rows: String = map(&operation["responses"])
        .map(|(status, response)| {
            let target = resolved(document, response);
            let about = words(text(&target["description"]));
            let shape = if response["$ref"].is_string() {
                "<a href=\"#errors\">an error</a>".to_owned()
            } else {
                let contents = map(&target["content"]);
                let kinds = contents.map(|(kind_of, content)| match kind_of.as_str() {
                    "application/json" => kind(&content["schema"]),
                    other => escaped(other),
                });
                kinds.collect::<Vec<_>>().join(" or ")
            };
            format!("<tr><td>{status}</td><td>{shape}</td><td>{about}</td></tr>\n")
        })
        .collect();
    format!(
        "<div class=\"wide\"><table>\n<tr><th>status</th><th>body</th><th>when</th></tr>\n{rows}</table></div>\n"
    )
}

/// A command that makes the request. In a shell's single quotes only a single quote means anything.
fn curl(method: &str, path: &str, example: Option<(&str, &Value)>) -> String {
    let mut command = format!("curl http://127.0.0.1:8080{path}");
    if method != "get" {
        command = format!("{command} --request {}", method.to_ascii_uppercase());
    }
    command += " \\\n  --header \"Authorization: Bearer $FOREBAY_API_KEY\"";
    let name = example.map(|(name, _)| name).unwrap_or_default();
    if let Some((_, body)) = example {
        let body = format!("{body:#}").replace('\'', "'\\''");
        command += " \\\n  --header 'Content-Type: application/json' \\\n  --data '";
        command += &body;
        command += "'";
    }
    let caption =
        if name.is_empty() { "Example".to_owned() } else { format!("Example: {}", escaped(name)) };
    format!("<figure><figcaption>{caption}</figcaption>{}</figure>\n", code(&command))
}

fn errors(document: &Value) -> String {
    let rows: String = map(&document["components"]["responses"])
        .map(|(_, response)| {
            let schema = &response["content"]["application/json"]["schema"]["allOf"][1];
            let codes = schema.pointer("/properties/error/properties/code/enum");
            let codes = codes.and_then(Value::as_array).into_iter().flatten();
            let codes: Vec<String> =
                codes.map(|code| format!("<code>{}</code>", escaped(text(code)))).collect();
            let about = words(text(&response["description"]));
            let status = response["x-status"].as_u64().unwrap_or_default();
            (
                status,
                format!("<tr><td>{status}</td><td>{}</td><td>{about}</td></tr>\n", codes.join(" ")),
            )
        })
        .collect::<std::collections::BTreeMap<_, _>>()
        .into_values()
        .collect();
    format!(
        "<section id=\"errors\">\n<h2>Errors</h2>\n\
         <p>Every error has the shape <a href=\"#shape-Error\">Error</a>.</p>\n\
         <div class=\"wide\"><table>\n<tr><th>status</th><th>codes</th><th>when</th></tr>\n\
         {rows}</table></div>\n</section>\n"
    )
}

fn shapes(document: &Value) -> String {
    let shapes: String = map(&document["components"]["schemas"])
        .map(|(name, schema)| {
            let name = escaped(name);
            let about = words(text(&schema["description"]));
            let fields = table(document, schema);
            format!("<article id=\"shape-{name}\">\n<h3><code>{name}</code></h3>\n<p>{about}</p>\n{fields}</article>\n")
        })
        .collect();
    format!("<section id=\"shapes\">\n<h2>Shapes</h2>\n{shapes}</section>\n")
}
