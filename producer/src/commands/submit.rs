//! `forebay submit`

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use forebay_client::{
    Client, HeldUp, JobId, Lane, ModelId, Outcome, Output as JobOutput, State, WhenFull,
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    duration,
    input::{self, Format, Item, Label},
    progress::Progress,
    show,
};
use crate::{
    context::Context,
    error::{CommandError, CommandResult},
    output::{Output, grouped},
};

mod job;

use job::{JobArgs, Template};

/// Texts come from the command line, from a file, or from standard input.
///
/// Prints the jobs' ids, or with --wait their results, in the order of the texts. Texts are named by
/// their line and by the `id` beside them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The texts
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    texts: Vec<String>,
    /// A file with a text on each line, or with JSON lines `{"id": ..., "text": ...}`
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The format of the lines of the file or of standard input
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    format: Format,
    /// The model; the only one of the configuration when none is named
    #[arg(long, short)]
    model: Option<ModelId>,
    /// `interactive` or `batch`; interactive with --wait, else batch
    #[arg(long)]
    lane: Option<Lane>,
    /// Wait for the results and show them; ends with 0 when all jobs succeeded
    #[arg(long, short)]
    wait: bool,
    /// How long to wait for each job
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    /// When the model's queue is full, or RabbitMQ takes no publishes: wait for room, or fail
    #[arg(long, value_enum, default_value_t = Full::Wait)]
    when_full: Full,
    /// How long to wait for room
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    full_timeout: Duration,
    #[command(flatten)]
    job: JobArgs,
}

/// `--when-full`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Full {
    /// Wait for as long as --full-timeout
    Wait,
    /// Fail at once
    Fail,
}

impl Args {
    fn when_full(&self) -> WhenFull {
        match self.when_full {
            Full::Wait => WhenFull::Wait(self.full_timeout),
            Full::Fail => WhenFull::Fail,
        }
    }
}

/// Jobs that wait for the broker's confirmation concurrently: enough for twenty thousand a second at three
/// milliseconds each, and few enough that they enter the queue nearly in order.
const CONFIRMS_MAX: usize = 64;
/// Jobs whose results are waited for concurrently.
const IN_FLIGHT_MAX: usize = 1_024;

/// A job that the broker has confirmed.
struct Submitted {
    labels: Vec<Label>,
    id: JobId,
}

/// A job that is finished with, and its texts.
struct Done {
    labels: Vec<Label>,
    id: JobId,
    /// The outcome, if it was waited for.
    result: Result<Option<Outcome>, CommandError>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let items = items(&args, context)?;
    let model = context.model(args.model.clone())?;
    let template = Template::new(&args.job, &model, context.config.limits.inputs_max)?;
    let client = context.client()?.when_full(args.when_full());
    if args.wait {
        look_for_workers(&client, &model).await?;
    }
    let lane = args.lane.unwrap_or(if args.wait { Lane::Interactive } else { Lane::Batch });
    let wait = args.wait.then_some(args.timeout);
    let stop = context.stop.clone();
    // Ctrl-C, and the first job that is not accepted, end the reading of texts; jobs that were sent are finished.
    let halt = stop.child_token();
    let submit = |batch: Result<Vec<Item>, CommandError>| async {
        tokio::select! {
            biased;
            submitted = submit(&client, &template, lane, batch) => submitted,
            () = halted_without_room(&client, &halt) => {
                Err(CommandError::Interrupted(" while it waited for room".into()))
            }
        }
    };
    let finish = |submitted| finish(&client, wait, submitted);
    let batches = batches(items, template.batch()).take_until(halt.clone().cancelled_owned());
    let submitted = batches.map(submit).buffered(CONFIRMS_MAX);
    let mut finished = pin!(submitted.map(finish).buffered(IN_FLIGHT_MAX));
    let mut report = Report::new(context, args.wait);
    let mut held_up = client.held_up();
    while let Some(done) = next(&mut finished, &stop, args.wait, &mut held_up, &report).await {
        if let Err(error) = report.add(done) {
            let output_failed = matches!(error, CommandError::Output(_));
            report.first_error.get_or_insert(error);
            halt.cancel();
            if output_failed {
                break;
            }
        }
    }
    client.close().await;
    report.end(stop.is_cancelled())
}

/// Fails when Redis does not answer, and warns when no worker is alive yet: before the wait, not at its end.
async fn look_for_workers(client: &Client, model: &ModelId) -> CommandResult {
    if !client.workers().await?.iter().any(|worker| worker.model == model.as_str()) {
        eprintln!("forebay: no worker of `{model}` is alive yet");
    }
    Ok(())
}

/// Returns once `halt` is cancelled and submits wait for room: they are not waited for then.
async fn halted_without_room(client: &Client, halt: &CancellationToken) {
    halt.cancelled().await;
    // The client, which holds the sender, lives as long as the command.
    let _ = client.held_up().wait_for(Option::is_some).await;
}

/// The next job that is finished. After Ctrl-C results are not waited for.
async fn next<T>(
    finished: &mut (impl Stream<Item = T> + Unpin),
    stop: &CancellationToken,
    waiting: bool,
    held_up: &mut watch::Receiver<Option<HeldUp>>,
    report: &Report<'_>,
) -> Option<T> {
    loop {
        tokio::select! {
            biased;
            done = finished.next() => return done,
            () = stop.cancelled(), if waiting => return None,
            // The client, which holds the sender, lives as long as the command.
            _ = held_up.changed() => report.progress.waits(held_up.borrow_and_update().as_ref()),
        }
    }
}

fn items(
    args: &Args,
    context: &Context,
) -> Result<stream::BoxStream<'static, Result<Item, CommandError>>, CommandError> {
    if !args.texts.is_empty() {
        return Ok(input::given(args.texts.clone()).boxed());
    }
    if args.file.is_none() && io::stdin().is_terminal() {
        return Err(CommandError::Usage(
            "which texts? Give them as arguments, with --file, or on standard input".into(),
        ));
    }
    let bytes_max = context.config.limits.body_bytes_max;
    Ok(input::lines(args.file.as_deref(), args.format, bytes_max)?.boxed())
}

/// `items` in batches of `size`. The texts before a line that can't be read still make a batch.
fn batches(
    items: impl Stream<Item = Result<Item, CommandError>>,
    size: usize,
) -> impl Stream<Item = Result<Vec<Item>, CommandError>> {
    items.chunks(size).flat_map(|chunk| {
        let mut batch = Vec::with_capacity(chunk.len());
        let mut error = None;
        for item in chunk {
            match item {
                Ok(item) => batch.push(item),
                Err(wrong) => error = Some(Err(wrong)),
            }
        }
        let batch = (!batch.is_empty()).then_some(Ok(batch));
        stream::iter(batch.into_iter().chain(error))
    })
}

async fn submit(
    client: &Client,
    template: &Template,
    lane: Lane,
    batch: Result<Vec<Item>, CommandError>,
) -> Result<Submitted, CommandError> {
    let (labels, texts): (Vec<Label>, Vec<String>) =
        batch?.into_iter().map(|item| (item.label, item.text)).unzip();
    let job = template.job(&labels, texts);
    let id = client.submit(job, lane).await?;
    Ok(Submitted { labels, id })
}

async fn finish(
    client: &Client,
    wait: Option<Duration>,
    submitted: Result<Submitted, CommandError>,
) -> Result<Done, CommandError> {
    let Submitted { labels, id } = submitted?;
    let result = match wait {
        None => Ok(None),
        Some(timeout) => client.wait(&id, timeout).await.map(Some).map_err(CommandError::from),
    };
    Ok(Done { labels, id, result })
}

/// Prints the jobs, and counts them for the last line.
struct Report<'a> {
    context: &'a mut Context,
    progress: Progress,
    verb: &'static str,
    accepted: usize,
    texts: usize,
    failed: usize,
    first_error: Option<CommandError>,
}

impl<'a> Report<'a> {
    fn new(context: &'a mut Context, wait: bool) -> Self {
        let verb = if wait { "done" } else { "submitted" };
        let progress = Progress::new();
        Self { context, progress, verb, accepted: 0, texts: 0, failed: 0, first_error: None }
    }

    /// Prints one job. An error ends the reading of texts.
    fn add(&mut self, done: Result<Done, CommandError>) -> CommandResult {
        let Done { labels, id, result } = done?;
        self.accepted += 1;
        self.texts += labels.len();
        let jobs = grouped(self.accepted as u64);
        let texts = grouped(self.texts as u64);
        self.progress.at(format_args!("{jobs} jobs, {texts} texts {}", self.verb));
        let json = self.context.output.json;
        let output = &mut self.context.output;
        self.progress.aside(|| match result {
            Ok(None) if json => Ok(output.json_line(&json!({"job": id, "texts": labels}))?),
            Ok(None) => Ok(output.line(&id)?),
            Ok(Some(outcome)) => {
                self.failed += usize::from(outcome.state != State::Succeeded);
                Ok(show_result(output, &labels, &outcome)?)
            }
            Err(error) => {
                self.failed += 1;
                eprintln!("forebay: {error}");
                Ok(())
            }
        })
    }

    fn end(self, interrupted: bool) -> CommandResult {
        self.progress.end();
        let accepted = self.accepted;
        let texts = self.texts;
        match self.first_error {
            Some(error) if accepted > 0 && !error.is_broken_pipe() => {
                eprintln!("forebay: {accepted} jobs with {texts} texts were accepted before this:");
                Err(error)
            }
            Some(error) => Err(error),
            None if interrupted => Err(CommandError::Interrupted(format!(
                " after {accepted} jobs with {texts} texts; jobs submitted beyond them are still processed"
            ))),
            None if self.failed > 0 => Err(CommandError::Failed(format!(
                "{} of {accepted} jobs did not succeed",
                self.failed
            ))),
            None if accepted == 0 => Err(CommandError::Usage("there were no texts".into())),
            None => Ok(()),
        }
    }
}

/// One text's vector. A type of its own, so that each value is written with the digits of an `f32`.
#[derive(Serialize)]
struct TextResult<'a> {
    #[serde(flatten)]
    label: &'a Label,
    job: &'a JobId,
    embedding: &'a [f32],
}

/// Prints embeddings text by text, and all other outputs job by job.
fn show_result(to: &mut Output, labels: &[Label], outcome: &Outcome) -> io::Result<()> {
    let vectors = match &outcome.output {
        Some(JobOutput::Embed(vectors)) => vectors,
        _ if to.json => return to.json_line(&json!({"texts": labels, "result": outcome})),
        _ => return show::outcome(to, outcome),
    };
    for (label, values) in labels.iter().zip(vectors.rows()) {
        if to.json {
            to.json_line(&TextResult { label, job: &outcome.id, embedding: values })?;
        } else {
            let name = label.id.clone().unwrap_or_else(|| label.line.to_string());
            to.line(format_args!("{name}  {}", show::vector(values)))?;
        }
    }
    Ok(())
}
