//! The work in bulk: all texts on the batch lane, with a live line while they are embedded.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use forebay_client::{Client, Job, JobId, Lane, ModelId, Outcome, SubmitError, WaitError};
use forebay_schemas::{Timing, Usage};
use futures_util::{StreamExt, stream};

use super::{
    print::Live,
    texts::Text,
    vectors::{Embedded, checked},
};

/// Texts in a job, as a publisher of small records would choose.
const TEXTS_A_JOB: usize = 4;
/// The limit for all texts together.
const WAIT_MAX: Duration = Duration::from_secs(900);
/// The interval at which the live line may change.
const TICK: Duration = Duration::from_millis(100);

/// The results and measurements of the batch.
pub(crate) struct Run<'a> {
    pub(crate) vectors: Vec<Embedded<'a>>,
    pub(crate) jobs: Vec<JobStats>,
    pub(crate) elapsed: Duration,
    /// When the first job was submitted.
    pub(crate) began: Instant,
    /// From the first submission to the first result.
    pub(crate) first_result: Option<Duration>,
    pub(crate) problems: Vec<String>,
}

/// The measurements of one job.
pub(crate) struct JobStats {
    /// From its submission until its result was read.
    pub(crate) latency: Duration,
    pub(crate) usage: Usage,
    pub(crate) timing: Timing,
}

/// Jobs in flight: their texts, and when they were submitted.
type InFlight<'a> = HashMap<JobId, (&'a [Text], Instant)>;

/// Embeds `texts` on the batch lane.
pub(crate) async fn embed<'a>(
    client: &Client,
    model: &ModelId,
    texts: &'a [Text],
) -> Result<Run<'a>, SubmitError> {
    let began = Instant::now();
    let in_flight_jobs = submit(client, model, texts).await?;
    let mut live = Live::new();
    let mut counts = Counts { submitted: in_flight_jobs.len(), ..Counts::default() };
    let mut run = Run {
        vectors: Vec::new(),
        jobs: Vec::new(),
        elapsed: Duration::ZERO,
        began,
        first_result: None,
        problems: Vec::new(),
    };
    let ids: Vec<JobId> = in_flight_jobs.keys().cloned().collect();
    let mut waits = std::pin::pin!(client.wait_many(ids, WAIT_MAX));
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            waited = waits.next() => {
                let Some((id, result)) = waited else { break };
                if let Some((texts, since)) = in_flight_jobs.get(&id) {
                    counts.jobs += 1;
                    run.first_result.get_or_insert_with(|| began.elapsed());
                    run.add(texts, since.elapsed(), result, &mut counts);
                }
            }
            _ = tick.tick(), if live.is_due() => {
                // For display only: a broker that does not answer shows as an empty queue.
                counts.queued = client.backlog(model).await.unwrap_or(0) as usize;
                live.show(&counts.line(began.elapsed()));
            }
        }
    }
    counts.queued = 0;
    run.elapsed = began.elapsed();
    live.end(&counts.line(run.elapsed));
    Ok(run)
}

async fn submit<'a>(
    client: &Client,
    model: &ModelId,
    texts: &'a [Text],
) -> Result<InFlight<'a>, SubmitError> {
    let mut in_flight_jobs = InFlight::new();
    let jobs: Vec<Job> = texts
        .chunks(TEXTS_A_JOB)
        .map(|texts| {
            let input = texts.iter().map(|text| text.text.clone()).collect();
            let job = Job::embed(model.clone(), input);
            in_flight_jobs.insert(job.id.clone(), (texts, Instant::now()));
            job
        })
        .collect();
    let mut submitted = std::pin::pin!(client.submit_many(stream::iter(jobs), Lane::Batch));
    while let Some((_, result)) = submitted.next().await {
        result?;
    }
    Ok(in_flight_jobs)
}

impl<'a> Run<'a> {
    fn add(
        &mut self,
        texts: &'a [Text],
        latency: Duration,
        result: Result<Outcome, WaitError>,
        counts: &mut Counts,
    ) {
        let vectors = result.map_err(|error| error.to_string()).and_then(|outcome| {
            let vectors = checked(&outcome, texts.len())?;
            counts.tokens += outcome.usage.input_tokens;
            self.jobs.push(JobStats { latency, usage: outcome.usage, timing: outcome.timing });
            Ok(vectors)
        });
        let dim = self.vectors.first().map(|first| first.values.len());
        match vectors {
            Ok(vectors) if vectors.iter().all(|v| dim.is_none_or(|dim| v.len() == dim)) => {
                counts.texts += texts.len();
                let embedded = texts.iter().zip(vectors);
                self.vectors.extend(embedded.map(|(text, values)| Embedded {
                    id: &text.id,
                    text: &text.text,
                    values,
                }));
            }
            Ok(_) => self.problems.push("two results have different dimensions".to_owned()),
            Err(problem) => self.problems.push(problem),
        }
    }
}

/// The counts of the live line.
#[derive(Default)]
struct Counts {
    submitted: usize,
    queued: usize,
    jobs: usize,
    texts: usize,
    tokens: u64,
}

impl Counts {
    fn line(&self, elapsed: Duration) -> String {
        let in_flight = self.submitted.saturating_sub(self.queued + self.jobs);
        let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        format!(
            "  jobs: {} queued, {in_flight} in flight, {} of {} done   {:.0} texts/s   {:.0} tokens/s",
            self.queued,
            self.jobs,
            self.submitted,
            self.texts as f64 / seconds,
            self.tokens as f64 / seconds,
        )
    }
}
