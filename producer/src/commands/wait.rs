//! `forebay wait`

use std::time::Duration;

use forebay_client::{JobId, State};
use futures_util::StreamExt;

use super::{duration, ids, show};
use crate::{
    context::Context,
    error::{CommandError, CommandResult},
};

/// Shows results in the order in which they come. Ends with 0 when every job succeeded.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The jobs; read from standard input, one a line, when none is given
    #[arg(value_name = "JOB")]
    ids: Vec<JobId>,
    /// How long to wait for all of them
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let client = context.client()?;
    let ids = ids::or_stdin(args.ids)?;
    // Without Redis this fails at once, instead of at the end of the wait.
    client.workers().await?;
    let mut failed = 0;
    let mut without = 0;
    let mut waits = std::pin::pin!(client.wait_many(ids, args.timeout));
    loop {
        let next = context.stop.run_until_cancelled(waits.next()).await;
        let Some(next) = next else {
            return Err(CommandError::Interrupted("; waiting again is fine".into()));
        };
        match next {
            None => break,
            Some((_, Ok(outcome))) => {
                failed += usize::from(outcome.state != State::Succeeded);
                show::outcome(&mut context.output, &outcome)?;
            }
            Some((_, Err(error))) => {
                without += 1;
                eprintln!("forebay: {error}");
            }
        }
    }
    match (failed, without) {
        (0, 0) => Ok(()),
        (failed, 0) => Err(CommandError::Failed(format!("{failed} did not succeed"))),
        (0, without) => Err(CommandError::Failed(format!("{without} without a result"))),
        (failed, without) => Err(CommandError::Failed(format!(
            "{failed} did not succeed, {without} without a result"
        ))),
    }
}
