//! `GET /v1/models` and `GET /v1/models/{id}`: their answers.

use schemars::JsonSchema;
use serde::Serialize;

/// One model as OpenAI's clients read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Model {
    /// Its id.
    pub id: String,
    #[schemars(extend("const" = "model"))]
    object: &'static str,
    /// Seconds of Unix time; below 2^32, as some clients read it.
    created: u32,
    owned_by: &'static str,
}

impl Model {
    /// A model that is offered since `created`, in seconds of Unix time.
    pub fn new(id: String, created: u32) -> Self {
        Self { id, object: "model", created, owned_by: "forebay" }
    }
}

/// The list of models: all in one page.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelList {
    #[schemars(extend("const" = "list"))]
    object: &'static str,
    data: Vec<Model>,
    has_more: bool,
}

impl From<Vec<Model>> for ModelList {
    fn from(data: Vec<Model>) -> Self {
        Self { object: "list", data, has_more: false }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_has_the_fields_that_clients_require() {
        let list = ModelList::from(vec![Model::new("m".into(), 7)]);
        let expected = json!({
            "object": "list",
            "data": [{"id": "m", "object": "model", "created": 7, "owned_by": "forebay"}],
            "has_more": false,
        });
        assert_eq!(serde_json::to_value(list).unwrap(), expected);
    }
}
