//! `forebay chat`

use std::{
    io::{self, BufRead, IsTerminal, Read},
    time::Duration,
};

use forebay_client::{
    Client, Job, JobId, Lane, Message, ModelId, Outcome, Output as JobOutput, Progress, Prompt,
    State, Work,
};
use serde_json::json;
use tokio::sync::oneshot;

use super::{duration, sampling::SamplingArgs};
use crate::{
    context::Context,
    error::{CommandError, CommandResult},
};

/// The longest text that is read as one message, in bytes.
const MESSAGE_BYTES_MAX: u64 = 8 << 20;

/// Answers come as they are written. On a terminal each line is a message, until the end of the input (Ctrl-D); a text
/// from the command line or from a pipe is one message.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One message
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// The model; the only one of the configuration when none is named
    #[arg(long, short)]
    model: Option<ModelId>,
    /// The part that the model is to play: a system turn in front of the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// How long to wait for each answer
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    /// A tenant label for the jobs
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let model = context.model(args.model.clone())?;
    let client = context.client()?;
    if !client.workers().await?.iter().any(|worker| worker.model == model.as_str()) {
        eprintln!("forebay: no worker of `{model}` is alive yet");
    }
    let mut chat = Chat { client, model, args, messages: Vec::new() };
    chat.messages.extend(chat.args.system.iter().map(|text| Message::new("system", text)));
    let ended = chat.all(context).await;
    chat.client.close().await;
    ended
}

/// A conversation.
struct Chat {
    client: Client,
    model: ModelId,
    args: Args,
    messages: Vec<Message>,
}

impl Chat {
    async fn all(&mut self, context: &mut Context) -> CommandResult {
        if let Some(text) = self.args.text.take() {
            return self.answer(text, context).await;
        }
        if !io::stdin().is_terminal() {
            return self.answer(piped().await?, context).await;
        }
        while let Some(text) = line(context).await? {
            if !text.trim().is_empty() {
                self.answer(text, context).await?;
            }
        }
        Ok(())
    }

    /// The answer to one message, which both are part of the conversation from then on.
    async fn answer(&mut self, text: String, context: &mut Context) -> CommandResult {
        self.messages.push(Message::new("user", text));
        let prompt = Prompt::Messages(self.messages.clone());
        let params = self.args.sampling.params();
        let params = forebay_client::GenerateParams { stream: true, ..params };
        let mut job = Job::new(self.model.clone(), Work::Generate { prompt, params });
        job.tenant.clone_from(&self.args.tenant);
        let id = self.client.submit(job, Lane::Interactive).await?;
        let stop = context.stop.clone();
        let Some(outcome) = stop.run_until_cancelled(self.follow(&id, context)).await else {
            self.client.cancel(&id).await.ok();
            return Err(CommandError::Interrupted("; the answer is cancelled".into()));
        };
        let text = shown(&outcome?, context)?;
        self.messages.push(Message::new("assistant", text));
        Ok(())
    }

    /// Prints the answer as it comes, unless as JSON.
    async fn follow(&self, id: &JobId, context: &mut Context) -> Result<Outcome, CommandError> {
        let mut following = self.client.follow(id, 0, self.args.timeout);
        let mut printed = 0;
        loop {
            match following.next().await? {
                Progress::Tokens(chunk) if context.output.json => drop(chunk),
                Progress::Tokens(chunk) => {
                    printed += chunk.text.len();
                    context.output.piece(&chunk.text)?;
                }
                Progress::Ended(outcome) => {
                    if let Some(JobOutput::Generate { text, .. }) = &outcome.output
                        && !context.output.json
                    {
                        context.output.piece(text.get(printed..).unwrap_or_default())?;
                        context.output.line("")?;
                    }
                    return Ok(*outcome);
                }
            }
        }
    }
}

/// The text of an answer, which is printed if as JSON.
fn shown(outcome: &Outcome, context: &mut Context) -> Result<String, CommandError> {
    match (&outcome.state, &outcome.output, &outcome.error) {
        (State::Succeeded, Some(JobOutput::Generate { text, finish_reason, .. }), _) => {
            if context.output.json {
                let usage = &outcome.usage;
                context.output.json_line(&json!({
                    "job": outcome.id, "text": text, "finish_reason": finish_reason,
                    "usage": usage,
                }))?;
            }
            Ok(text.clone())
        }
        (_, _, Some(error)) => Err(CommandError::Failed(error.to_string())),
        _ => Err(CommandError::Failed(format!("the job {} has no text", outcome.id))),
    }
}

/// All of standard input.
async fn piped() -> Result<String, CommandError> {
    let text = elsewhere(|| {
        let mut text = String::new();
        io::stdin().lock().take(MESSAGE_BYTES_MAX).read_to_string(&mut text).map(|_| text)
    });
    let text = text.await?;
    if text.trim().is_empty() {
        return Err(CommandError::Usage("there is no message: give a text".into()));
    }
    Ok(text)
}

/// The next line that is typed; `None` at the end of the input.
async fn line(context: &mut Context) -> Result<Option<String>, CommandError> {
    eprint!("> ");
    let read = elsewhere(|| {
        let mut text = String::new();
        let read = io::stdin().lock().take(MESSAGE_BYTES_MAX).read_line(&mut text);
        read.map(|count| (count > 0).then_some(text))
    });
    let Some(read) = context.stop.run_until_cancelled(read).await else {
        return Err(CommandError::Interrupted(String::new()));
    };
    Ok(read?.map(|line| line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Reads standard input on a thread that ends with the program: a read can't be cancelled.
async fn elsewhere<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CommandError> {
    let (to, done) = oneshot::channel();
    std::thread::spawn(move || to.send(read()));
    let read = done.await.map_err(|error| CommandError::Failed(error.to_string()))?;
    read.map_err(|error| CommandError::Usage(format!("standard input: {error}")))
}
