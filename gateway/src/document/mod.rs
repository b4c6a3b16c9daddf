//! The `OpenAPI` document of the gateway, without any I/O.
//!
//! An endpoint describes itself by an [`Operation`] beside its handler; `http::document` puts them together. Schemas
//! come from the types of requests and answers. Bodies are parsed by hand, for the sake of their errors, so their
//! types are there for the document alone: `tests/any_bytes.rs` holds parsers and schemas to each other, and the
//! service tests hold every answer to the document.

mod errors;
mod headers;
mod operation;
mod page;
mod schemas;

use axum::http::Method;
use serde_json::{Map, Value, json};

pub use operation::{GATED, Operation, Tag, WORK};
pub use page::Page;
pub use schemas::read;

use errors::Error;
use schemas::Components;

/// The words at the head of the document.
const ABOUT: &str = "One URL for the clients of OpenAI, Cohere, Jina, Voyage and Hugging Face's \
                     text-embeddings-inference. Requests become jobs of a fleet of workers; their answers are made of \
                     the results. Bodies are JSON objects; fields that are not listed are ignored, and null is absent.";

/// A document that grows by its operations.
#[derive(Debug, Default)]
pub struct Document {
    paths: Map<String, Value>,
    components: Components,
}

impl Document {
    /// Adds what is at a path of the router; the operations are by their methods.
    #[must_use]
    pub fn path<const N: usize>(
        mut self,
        path: &str,
        operations: [(Method, Operation); N],
    ) -> Self {
        let mut item = Map::new();
        for (method, operation) in operations {
            let written = operation.written(&mut self.components);
            item.insert(method.as_str().to_ascii_lowercase(), written);
        }
        self.paths.insert(path.replace("{*", "{"), item.into());
        self
    }

    /// The document.
    pub fn written(mut self) -> Value {
        let error = self.components.of::<Error>();
        let responses = errors::responses(&error);
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Forebay gateway",
                "version": env!("CARGO_PKG_VERSION"),
                "description": ABOUT,
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            },
            "servers": [{"url": "/", "description": "This gateway."}],
            "tags": Tag::ALL.map(|tag| json!({"name": tag.name(), "description": tag.about()})),
            "paths": self.paths,
            "components": {
                "schemas": self.components.written(),
                "responses": responses,
                "headers": headers::components(),
                "parameters": operation::parameters(),
                "securitySchemes": {"key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, `fbk_<id>_<secret>`, as `forebay keys create` prints it. A fleet \
                                    without any key, on a loopback address, asks for none.",
                }},
            },
        })
    }
}
