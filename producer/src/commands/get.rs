//! `forebay get`

use forebay_producer::JobId;

use super::{CommandError, CommandResult, Context, ids, show, unless_stopped};

/// Ends with 0 when every job has a result, whatever it says; `forebay wait` waits for one.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The jobs; read from standard input, one a line, when none is given
    #[arg(value_name = "JOB")]
    ids: Vec<JobId>,
}

pub(super) async fn run(args: Args, context: &mut Context) -> CommandResult {
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
         submitted, or submitted so long ago that the result is gone"
    )))
}
