//! The gateway's `OpenAPI` document, to which every answer that a test gets is held.

use std::collections::HashMap;
use std::process::Command;
use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

use crate::binaries::binary;

static API: LazyLock<Api> = LazyLock::new(Api::read);

/// Headers that an answer may have without a word in the document: HTTP's own.
const OF_HTTP: [&str; 10] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "date",
    "cache-control",
    "content-security-policy",
    "vary",
    "x-content-type-options",
    "referrer-policy",
];

/// The document, with its schemas ready to validate with.
#[derive(Debug)]
pub struct Api {
    document: Value,
    schemas: Compiled,
}

/// Schemas by their positions in the document.
struct Compiled {
    schemas: Schemas,
    by_pointer: HashMap<String, SchemaIndex>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled")
            .field("by_pointer", &self.by_pointer.len())
            .finish_non_exhaustive()
    }
}

/// A request, with what came back.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, perhaps with a query.
    pub path: &'a str,
    /// The body that was sent, if it was JSON.
    pub sent: Option<&'a Value>,
    /// The status.
    pub status: u16,
    /// The answer's headers.
    pub headers: &'a [(String, String)],
    /// The answer's body; null if it was no JSON.
    pub body: &'a Value,
}

impl Api {
    /// The document of the gateway under test.
    pub fn of_the_gateway() -> &'static Self {
        &API
    }

    fn read() -> Self {
        let printed = Command::new(binary("forebay-gateway")).arg("--print-openapi").output();
        let printed = printed.expect("the gateway prints its document");
        assert!(printed.status.success(), "{printed:?}");
        Self::new(serde_json::from_slice(&printed.stdout).expect("a document"))
    }

    fn new(document: Value) -> Self {
        const URL: &str = "http://localhost/openapi.json";
        let mut compiler = Compiler::new();
        let mut schemas = Schemas::new();
        compiler.add_resource(URL, document.clone()).expect("a document");
        let mut by_pointer = HashMap::new();
        for pointer in schema_pointers(&document, &mut String::new()) {
            let index = compiler.compile(&format!("{URL}#{pointer}"), &mut schemas);
            by_pointer.insert(pointer, index.unwrap_or_else(|error| panic!("{error:#}")));
        }
        Self { document, schemas: Compiled { schemas, by_pointer } }
    }

    /// The document.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The template of a path, and what the document has there.
    pub fn item(&self, path: &str) -> Option<(&str, &Value)> {
        let path = path.split('?').next().unwrap_or_default();
        let items = self.document["paths"].as_object().expect("paths");
        let exact = items.get_key_value(path);
        let found = exact.or_else(|| items.iter().find(|(template, _)| is_of(template, path)));
        found.map(|(template, item)| (template.as_str(), item))
    }

    /// Panics unless the document allows this answer, and calls the request that had it right.
    pub fn judge(&self, exchange: &Exchange<'_>) {
        if let Err(error) = self.check(exchange) {
            panic!("the document does not have this: {error}\n{exchange:#?}");
        }
    }

    /// The fault that the document finds with this answer, or with the request that got it.
    pub fn check(&self, exchange: &Exchange<'_>) -> Result<(), String> {
        let method = exchange.method.to_ascii_lowercase();
        let found = self.item(exchange.path);
        let pointer = match found.and_then(|(path, item)| item.get(&method).map(|_| path)) {
            Some(path) => {
                let operation =
                    format!("/paths/{}/{method}", path.replace('~', "~0").replace('/', "~1"));
                self.check_request(&operation, exchange)?;
                self.resolved(&format!("{operation}/responses/{}", exchange.status))
            }
            None if found.is_some() => "/components/responses/WrongMethod".to_owned(),
            None => "/components/responses/NotFound".to_owned(),
        };
        let missing = || format!("no response {}", exchange.status);
        let response = self.document.pointer(&pointer).ok_or_else(missing)?;
        self.check_headers(response, exchange)?;
        let kind = exchange.headers.iter().find(|(name, _)| name == "content-type");
        let kind = kind.map_or("", |(_, value)| value.split(';').next().unwrap_or_default());
        if response["content"].get(kind).is_none() {
            return Err(format!("no content of type {kind}"));
        }
        if kind == "application/json" {
            let schema = format!("{pointer}/content/application~1json/schema");
            return self.validate(&schema, exchange.body);
        }
        Ok(())
    }

    fn check_request(&self, operation: &str, exchange: &Exchange<'_>) -> Result<(), String> {
        let schema = format!("{operation}/requestBody/content/application~1json/schema");
        match exchange.sent {
            Some(sent) if exchange.status < 300 => self.validate(&schema, sent),
            _ => Ok(()),
        }
    }

    fn check_headers(&self, response: &Value, exchange: &Exchange<'_>) -> Result<(), String> {
        let described = response["headers"].as_object().expect("headers");
        for name in described.keys() {
            let header = self.document.pointer(&format!("/components/headers/{name}"));
            let is_needed = header.is_some_and(|header| header["required"] == true);
            if is_needed && !exchange.headers.iter().any(|(sent, _)| sent == name) {
                return Err(format!("the header {name} is missing"));
            }
        }
        let stranger = exchange
            .headers
            .iter()
            .find(|(name, _)| !described.contains_key(name) && !OF_HTTP.contains(&name.as_str()));
        stranger.map_or(Ok(()), |(name, _)| Err(format!("the header {name} is not described")))
    }

    fn validate(&self, pointer: &str, value: &Value) -> Result<(), String> {
        let index = self.schemas.by_pointer.get(pointer).ok_or(format!("no schema {pointer}"))?;
        let valid = self.schemas.schemas.validate(value, *index);
        valid.map_err(|error| format!("{error:#}"))
    }

    /// The pointer, or the one that it refers to.
    fn resolved(&self, pointer: &str) -> String {
        let reference = self.document.pointer(pointer).and_then(|found| found["$ref"].as_str());
        reference.map_or(pointer, |reference| reference.trim_start_matches('#')).to_owned()
    }
}

/// Whether a path is one of a template. The id of a model may have slashes.
fn is_of(template: &str, path: &str) -> bool {
    let Some((before, after)) = template.split_once('{') else { return false };
    let Some((_, after)) = after.split_once('}') else { return false };
    let id = path.strip_prefix(before).and_then(|path| path.strip_suffix(after));
    let id = id.unwrap_or_default();
    !id.is_empty() && (!id.contains('/') || before == "/v1/models/")
}

/// The pointers of all schemas of bodies.
fn schema_pointers(value: &Value, at: &mut String) -> Vec<String> {
    let Some(map) = value.as_object() else { return Vec::new() };
    let mut found = Vec::new();
    for (key, inner) in map {
        let before = at.len();
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        if key == "schema" && at.contains("/content/") {
            found.push(at.clone());
        } else {
            found.extend(schema_pointers(inner, at));
        }
        at.truncate(before);
    }
    found
}
