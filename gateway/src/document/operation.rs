//! [`Operation`]: how an endpoint describes itself.

use forebay_fabric::{access::Scope, usage::By};
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::{
    errors, headers,
    schemas::{self, Components, Schema},
};

/// The group that an operation is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Vectors and models, as OpenAI's clients ask for them.
    OpenAi,
    /// Vectors, as Cohere's clients ask for them.
    Cohere,
    /// Rankings, as Cohere's, Jina's, Voyage's and TEI's clients ask for them.
    Rankings,
    /// The interface of text-embeddings-inference.
    Tei,
    /// Jobs as the wire has them.
    Jobs,
    /// Sums of what was used, and what it costs.
    Usage,
    /// The gateway itself.
    Service,
}

impl Tag {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 7] = [
        Self::OpenAi,
        Self::Cohere,
        Self::Rankings,
        Self::Tei,
        Self::Jobs,
        Self::Usage,
        Self::Service,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI",
            Self::Cohere => "Cohere",
            Self::Rankings => "Rankings",
            Self::Tei => "Text embeddings inference",
            Self::Jobs => "Jobs",
            Self::Usage => "Usage",
            Self::Service => "Service",
        }
    }

    /// Its meaning.
    pub fn about(self) -> &'static str {
        match self {
            Self::OpenAi => "Vectors and models, as OpenAI's clients ask for them.",
            Self::Cohere => "Vectors, as Cohere's clients ask for them.",
            Self::Rankings => {
                "Documents in order of their relevance, for Cohere's, Jina's, Voyage's and TEI's clients."
            }
            Self::Tei => "The interface of Hugging Face's text-embeddings-inference (TEI).",
            Self::Jobs => "Jobs that are submitted now and read later.",
            Self::Usage => "What was used, and what it costs.",
            Self::Service => "The gateway itself. None of these needs a key.",
        }
    }
}

/// The errors of a request whose answer is made of the results of jobs.
pub const WORK: &[u16] = &[400, 404, 408, 409, 413, 422, 429, 500, 503];
/// The errors of everything that asks for a key; every operation with a scope has them without saying so.
pub const GATED: &[u16] = &[401, 403, 503];

/// One method of a path.
#[derive(Debug)]
pub struct Operation {
    id: &'static str,
    tag: Tag,
    summary: &'static str,
    description: &'static str,
    scope: Option<Scope>,
    is_limited: bool,
    is_routed: bool,
    parameters: Vec<Value>,
    body: Option<(Schema, Vec<(&'static str, Value)>)>,
    answers: Vec<Answer>,
    errors: Vec<u16>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    meaning: &'static str,
    content: Vec<(&'static str, Schema)>,
    headers: &'static [&'static str],
}

impl Operation {
    /// One that anybody may ask for.
    pub fn open(id: &'static str, tag: Tag, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            description: "",
            scope: None,
            is_limited: false,
            is_routed: false,
            parameters: vec![reference("RequestId")],
            body: None,
            answers: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// One that needs a key with this scope.
    pub fn keyed(scope: Scope, id: &'static str, tag: Tag, summary: &'static str) -> Self {
        Self { scope: Some(scope), errors: GATED.to_vec(), ..Self::open(id, tag, summary) }
    }

    /// One whose answer is made of the results of jobs, within the tenant's limits.
    pub fn work(id: &'static str, tag: Tag, summary: &'static str) -> Self {
        let operation = Self::keyed(Scope::Submit, id, tag, summary);
        let operation = operation.limited().routed().errors(WORK);
        operation.parameter("ReadTimeout")
    }

    /// More words, beside the summary.
    #[must_use]
    pub fn describe(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    /// It is counted by limits, and may be refused by them.
    #[must_use]
    pub fn limited(self) -> Self {
        Self { is_limited: true, ..self }.errors(&[429])
    }

    /// A route may lead to its model: the answer says which one it was.
    #[must_use]
    pub fn routed(self) -> Self {
        Self { is_routed: true, ..self }
    }

    /// A parameter of [`parameters`].
    #[must_use]
    pub fn parameter(mut self, name: &str) -> Self {
        self.parameters.push(reference(name));
        self
    }

    /// A body of this type, with examples by their names.
    #[must_use]
    pub fn body<T: JsonSchema>(self, examples: Vec<(&'static str, Value)>) -> Self {
        Self { body: Some((schemas::sent::<T>(), examples)), ..self }
    }

    /// An answer that has this type as JSON.
    #[must_use]
    pub fn answers<T: JsonSchema>(self, status: u16, meaning: &'static str) -> Self {
        self.answers_with::<T>(status, meaning, &[])
    }

    /// An answer that has this type as JSON, and headers of its own.
    #[must_use]
    pub fn answers_with<T: JsonSchema>(
        mut self,
        status: u16,
        meaning: &'static str,
        headers: &'static [&'static str],
    ) -> Self {
        let content = vec![("application/json", schemas::answered::<T>())];
        self.answers.push(Answer { status, meaning, content, headers });
        self
    }

    /// An answer that is text of a type.
    #[must_use]
    pub fn answers_text(self, kind: &'static str, meaning: &'static str) -> Self {
        self.answers_text_with(kind, meaning, &[])
    }

    /// An answer that is text of a type, with headers of its own.
    #[must_use]
    pub fn answers_text_with(
        mut self,
        kind: &'static str,
        meaning: &'static str,
        headers: &'static [&'static str],
    ) -> Self {
        let content = vec![(kind, of_text(kind))];
        self.answers.push(Answer { status: 200, meaning, content, headers });
        self
    }

    /// The answer before may be text of this type too.
    #[must_use]
    pub fn or_text(mut self, kind: &'static str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.content.push((kind, of_text(kind)));
        }
        self
    }

    /// Answers that are errors, by their statuses.
    #[must_use]
    pub fn errors(mut self, statuses: &[u16]) -> Self {
        self.errors.extend(statuses);
        self
    }

    /// The operation as the document has it.
    pub(super) fn written(self, components: &mut Components) -> Value {
        let mut responses = Map::new();
        for status in self.errors {
            responses.insert(status.to_string(), errors::reference(status));
        }
        for answer in self.answers {
            let content = answer.content.into_iter().map(|(kind, schema)| {
                (kind.to_owned(), json!({"schema": components.take(schema)}))
            });
            let content: Map<String, Value> = content.collect();
            let routed = if self.is_routed { &headers::ROUTED[..] } else { &[] };
            let headers = [routed, answer.headers].concat();
            // Whatever its status, it is no error: it has no header of those.
            let response = json!({
                "description": answer.meaning,
                "headers": headers::of(200, self.is_limited, &headers),
                "content": content,
            });
            responses.insert(answer.status.to_string(), response);
        }
        let mut written = json!({
            "operationId": self.id,
            "tags": [self.tag.name()],
            "summary": self.summary,
            "description": self.description,
            "parameters": self.parameters,
            "responses": responses,
            "security": self.scope.map_or(json!([]), |scope| json!([{"key": [scope.as_str()]}])),
        });
        if let Some((schema, examples)) = self.body {
            let examples = examples.into_iter();
            let examples: Map<String, Value> = examples
                .map(|(name, value)| (name.to_owned(), json!({"summary": name, "value": value})))
                .collect();
            let schema = components.take(schema);
            written["requestBody"] = json!({
                "required": true,
                "content": {"application/json": {"schema": schema, "examples": examples}},
            });
        }
        written
    }
}

/// The schema of an answer that is text of a type.
fn of_text(kind: &str) -> Schema {
    match kind {
        // Its events are read one by one, and a schema would be each event's: OpenAPI has none for a stream.
        "text/event-stream" => schemas::answered::<Value>(),
        _ => schemas::answered::<String>(),
    }
}

fn reference(parameter: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{parameter}")})
}

fn parameter(name: &str, part: &str, meaning: &str, schema: &Value) -> Value {
    json!({
        "name": name, "in": part, "required": part == "path", "description": meaning, "schema": schema,
    })
}

/// The parameters that operations name.
pub(super) fn parameters() -> Value {
    let mut all = common_parameters();
    if let (Value::Object(all), Value::Object(of_usage)) = (&mut all, usage_parameters()) {
        all.extend(of_usage);
    }
    all
}

/// Those of the query of `GET /v1/usage`.
fn usage_parameters() -> Value {
    let time =
        json!({"type": "string", "examples": ["2026-11", "2026-11-29", "2026-11-29T13:00:00Z"]});
    json!({
        "UsageStart": parameter(
            "start",
            "query",
            "From when on: a month, a day, an hour of UTC, or seconds of Unix time; this month unless set.",
            &time,
        ),
        "UsageEnd": parameter("end", "query", "Until when, not included; now unless set.", &time),
        "UsageBy": parameter(
            "by",
            "query",
            "The property by which usage is grouped; `tenant` is that of all tenants, and needs the scope `admin`.",
            &json!({"enum": By::ALL.map(By::as_str), "default": By::Model.as_str()}),
        ),
        "UsageTenant": parameter(
            "tenant",
            "query",
            "A tenant, or `*` for all, which needs the scope `admin`; the key's own tenant unless set.",
            &json!({"type": "string"}),
        ),
        "UsageFormat": parameter(
            "format",
            "query",
            "The form of the answer; unless set, CSV where the request accepts `text/csv` first, and JSON otherwise.",
            &json!({"enum": ["json", "csv"]}),
        ),
    })
}

fn common_parameters() -> Value {
    json!({
        "RequestId": parameter(
            "x-request-id",
            "header",
            "An id for the answer and the log lines of this request; any other text is replaced by a new id.",
            &json!({"type": "string", "maxLength": 128}),
        ),
        "ReadTimeout": parameter(
            "x-stainless-read-timeout",
            "header",
            "How long the client reads, in seconds, as OpenAI's packages send it: the request waits no longer.",
            &json!({"type": "string"}),
        ),
        "IdempotencyKey": parameter(
            "Idempotency-Key",
            "header",
            "The same key with the same body is the same job: make it as random as a UUID.",
            &json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}),
        ),
        "ModelId": parameter(
            "id",
            "path",
            "The model; it may have slashes.",
            &json!({"type": "string", "minLength": 1}),
        ),
        "JobId": parameter(
            "id",
            "path",
            "The job, as `POST /v1/jobs` named it.",
            &json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
        ),
        "LastEventId": parameter(
            "Last-Event-ID",
            "header",
            "The id of the last event that came: tokens after it follow.",
            &json!({"type": "string", "pattern": "^[0-9]{0,9}$"}),
        ),
        "Wait": parameter(
            "wait",
            "query",
            "Seconds to wait for the record, up to `gateway.poll_wait_ms_max`.",
            &json!({"type": "number", "minimum": 0, "exclusiveMaximum": 1e9, "default": 0}),
        ),
    })
}
