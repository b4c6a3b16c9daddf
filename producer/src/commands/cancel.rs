//! `forebay cancel`

use forebay_schemas::JobId;

use super::ids;
use crate::{
    context::{Context, unless_stopped},
    error::CommandResult,
};

/// A job that waits in its queue is settled as cancelled when a worker takes it up; one that is being
/// computed, or done, keeps its result.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The jobs; read from standard input, one a line, when none is given
    #[arg(value_name = "JOB")]
    ids: Vec<JobId>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let client = context.client()?;
    for id in ids::or_stdin(args.ids)? {
        unless_stopped(&context.stop, async { Ok(client.cancel(&id).await?) }).await?;
        if context.output.json {
            context.output.json_line(&serde_json::json!({"job": id, "cancel": "requested"}))?;
        } else {
            context.output.line(format_args!("{id}  cancellation requested"))?;
        }
    }
    Ok(())
}
