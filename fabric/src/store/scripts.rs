//! Pipelines with calls of a script by its hash.

use redis::{
    ErrorKind, Pipeline, RedisResult, Script, ServerErrorKind, Value, aio::MultiplexedConnection,
};

/// Runs a pipeline that ignores errors and returns its replies. Where Redis does not know the script (after a restart,
/// say) it is loaded and all of the pipeline run again: what ran already must bear that.
pub(crate) async fn replies(
    connection: &mut MultiplexedConnection,
    commands: &Pipeline,
    script: &Script,
) -> RedisResult<Vec<RedisResult<Value>>> {
    let replies: Vec<RedisResult<Value>> = commands.query_async(connection).await?;
    if !replies.iter().any(is_unknown) {
        return Ok(replies);
    }
    script.load_async(connection).await?;
    commands.query_async(connection).await
}

fn is_unknown(reply: &RedisResult<Value>) -> bool {
    let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
    reply.as_ref().is_err_and(|error| error.kind() == unknown)
}
