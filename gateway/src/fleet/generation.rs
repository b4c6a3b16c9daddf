//! Calls for text: of prompts whose whole answers are waited for, and of one whose answer is followed as it comes.

use std::{sync::Arc, time::Duration};

use forebay_client::{Following, JobId, Outcome, Progress, Prompt, Work};
use forebay_schemas::{GenerateParams, State, TokenChunk};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, timeout};

use super::{
    abandon::Pending,
    calls::{Call, Fleet, Submitted, failed, unexplained},
};
use crate::{error::ApiError, failures, openai::generate::output::Generated, trace::CallTrace};

/// Prompts of one request that are in their queues at once.
const AT_ONCE: usize = 8;

/// The next thing of an answer that is followed.
#[derive(Debug)]
pub enum Next {
    /// Tokens.
    Tokens(TokenChunk),
    /// Nothing yet.
    Silence,
    /// The whole of it.
    Ended(Box<Generated>),
}

/// An answer that is followed as it comes. Dropped before its end, its job is cancelled.
#[derive(Debug)]
pub struct Generation {
    /// The job.
    pub id: JobId,
    following: Following,
    pending: Option<(Pending, CallTrace)>,
    /// The field that the prompt came in, for errors.
    field: &'static str,
    /// The longest that nothing may come.
    patience: Duration,
    /// When something came last.
    came: Instant,
    /// A thing that came while it was begun.
    first: Option<Next>,
}

impl Fleet {
    /// The answers to prompts, in their order, and the id of the first one's job.
    pub async fn generate(
        &self,
        call: &Call,
        prompts: Vec<Prompt>,
        params: &GenerateParams,
    ) -> Result<(Vec<Generated>, JobId), ApiError> {
        let deadline = Instant::now() + call.wait;
        let runs = prompts.into_iter().map(|prompt| {
            let work = Work::Generate { prompt, params: params.clone() };
            async move {
                let outcome = Arc::unwrap_or_clone(self.run(call, work, &[], deadline).await?);
                let id = outcome.id.clone();
                Ok::<_, ApiError>((text_of(outcome)?, id))
            }
        });
        let done: Vec<(Generated, JobId)> =
            stream::iter(runs).buffered(AT_ONCE).try_collect().await?;
        let (texts, mut ids): (Vec<Generated>, Vec<JobId>) = done.into_iter().unzip();
        ids.truncate(1);
        Ok((texts, ids.pop().unwrap_or_else(JobId::random)))
    }

    /// Begins an answer that is followed for at most `longest`. Returns when some of it is there, or `first` is over,
    /// so that a mistake in the prompt is an answer of its own and not the end of a stream.
    pub async fn begin(
        &self,
        call: &Call,
        prompt: Prompt,
        params: &GenerateParams,
        [longest, first]: [Duration; 2],
    ) -> Result<Generation, ApiError> {
        let work = Work::Generate { prompt, params: params.clone() };
        let deadline = Instant::now() + call.wait;
        let longest = longest.max(call.wait);
        let Submitted { id, pending, trace } = self.submit(call, work, longest, deadline).await?;
        let mut generation = Generation {
            following: self.client.follow(&id, 0, longest),
            id,
            pending: Some((pending, trace)),
            field: call.field,
            patience: call.wait,
            came: Instant::now(),
            first: None,
        };
        generation.first = Some(generation.next(first.min(call.wait)).await?);
        Ok(generation)
    }
}

impl Generation {
    /// The next thing that comes, at the latest after `silent`.
    pub async fn next(&mut self, silent: Duration) -> Result<Next, ApiError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let progress = match timeout(silent, self.following.next()).await {
            Ok(progress) => progress,
            Err(_) if self.came.elapsed() < self.patience => return Ok(Next::Silence),
            Err(_) => return Err(failures::too_late(self.patience)),
        };
        self.came = Instant::now();
        match progress {
            Ok(Progress::Tokens(chunk)) => Ok(Next::Tokens(chunk)),
            Ok(Progress::Ended(outcome)) => self.ended(*outcome),
            Err(error) => Err(failures::of_wait(&error)),
        }
    }

    fn ended(&mut self, outcome: Outcome) -> Result<Next, ApiError> {
        if let Some((pending, trace)) = self.pending.take() {
            pending.settled();
            trace.ended(&outcome);
        }
        match (outcome.state, &outcome.error) {
            (State::Succeeded, _) => Ok(Next::Ended(Box::new(text_of(outcome)?))),
            (_, Some(error)) => Err(failed(error, self.field, &[])),
            (_, None) => Err(failed(&unexplained(), self.field, &[])),
        }
    }
}

fn text_of(outcome: Outcome) -> Result<Generated, ApiError> {
    let id = outcome.id.clone();
    Generated::of(outcome).ok_or_else(|| {
        tracing::warn!(%id, "a result lacks its text, or has the output of another task");
        ApiError::internal("the result lacks what was asked for").final_for_all()
    })
}
