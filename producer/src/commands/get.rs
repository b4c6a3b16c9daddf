//! `forebay get`

use forebay_schemas::JobId;

use super::{ids, show};
use crate::{
    context::{Context, unless_stopped},
    error::{CommandError, CommandResult},
};

/// Ends with 0 when every job has a result, even if that is a failure; `forebay wait` waits for results.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The jobs; read from standard input, one a line, when none is given
    #[arg(value_name = "JOB")]
    ids: Vec<JobId>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let client = context.client()?;
    let mut without = 0;
    for id in ids::or_stdin(args.ids)? {
        let found = unless_stopped(&context.stop, async { Ok(client.get(&id).await?) }).await?;
        if let Some(outcome) = found {
            show::outcome(&mut context.output, &outcome)?;
        } else {
            without += 1;
            eprintln!("forebay: job {id} has no result");
        }
    }
    if without == 0 {
        return Ok(());
    }
    Err(CommandError::Failed(format!(
        "{without} without a result: still queued or running (`forebay wait` waits for them), never \
         submitted, or submitted so long ago that the result has expired"
    )))
}
