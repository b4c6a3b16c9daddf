//! The names of attributes: OpenTelemetry's semantic conventions where these have one, else our own.

/// The operation that a model is asked for.
pub const OPERATION: &str = "gen_ai.operation.name";
/// The model that is asked.
pub const MODEL: &str = "gen_ai.request.model";
/// The system that serves it; required by the conventions.
pub const PROVIDER: &str = "gen_ai.provider.name";
/// The value of [`PROVIDER`].
pub const FOREBAY: &str = "forebay";
/// Tokens that came in.
pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// Tokens that were generated.
pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";

/// The method of a request.
pub const METHOD: &str = "http.request.method";
/// The pattern of the router that a request's path matched.
pub const ROUTE: &str = "http.route";
/// The status of an answer.
pub const STATUS: &str = "http.response.status_code";
/// The code of an error: of ours, or the status.
pub const ERROR: &str = "error.type";

/// The messaging system.
pub const SYSTEM: &str = "messaging.system";
/// The value of [`SYSTEM`].
pub const RABBITMQ: &str = "rabbitmq";
/// What is done with a message.
pub const MESSAGING_OPERATION: &str = "messaging.operation.type";
/// The exchange.
pub const DESTINATION: &str = "messaging.destination.name";
/// The routing key.
pub const ROUTING_KEY: &str = "messaging.rabbitmq.destination.routing_key";
/// A job's id.
pub const MESSAGE_ID: &str = "messaging.message.id";

/// The request id that the client reads in its answer.
pub const REQUEST_ID: &str = "forebay.request.id";
/// How a job ended: a state of the contract, or `retried`.
pub const STATE: &str = "forebay.job.state";
/// Which attempt at a job this is, from 1.
pub const ATTEMPT: &str = "forebay.job.attempt";
/// Inputs of a batch, of all jobs.
pub const BATCH_SIZE: &str = "forebay.batch.size";
/// Tokens of a batch, of all jobs.
pub const BATCH_TOKENS: &str = "forebay.batch.tokens";

/// The conventions' name of a task, where they have one.
pub fn operation(task: &str) -> String {
    match task {
        "embed" | "embed_sparse" | "embed_tokens" => "embeddings".to_owned(),
        "generate" => "text_completion".to_owned(),
        other => other.to_owned(),
    }
}
