//! [`App`]: the state that all endpoints share.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use forebay_fabric::{
    config::{GatewayConfig, Price},
    telemetry::Health,
};
use forebay_schemas::{Lane, Limits, ModelId};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    governed::{Caller, Gate, Grant},
    long_work::LongWork,
};
use crate::{
    access::{Cost, SubmittedJob, Tokens},
    error::ApiError,
    failures,
    fleet::Fleet,
    routing::{Attempts, Named, Outlooks, Table},
};

/// A request's size, and where its texts came in.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The field of the texts, for errors.
    pub field: &'static str,
    /// The texts or documents.
    pub inputs: usize,
    /// The tokens that they are expected to take.
    pub tokens: Tokens,
}

/// The state that all endpoints share.
#[derive(Debug)]
pub struct App {
    /// The fleet.
    pub fleet: Fleet,
    /// Who is let in, and how much.
    pub gate: Gate,
    /// The names that lead to models.
    pub routes: Table,
    /// How long requests to each model will wait.
    pub outlooks: Outlooks,
    /// The price of each model's tokens, where it is known.
    pub prices: BTreeMap<ModelId, Price>,
    /// The settings.
    pub config: GatewayConfig,
    /// Bounds of a job.
    pub limits: Limits,
    /// Whether broker and store can be reached.
    pub health: Health,
    /// One permit for each [`BYTES_PER_PERMIT`] of bodies that may be held.
    pub held: Arc<Semaphore>,
    /// Where long bodies are read and long answers written.
    pub long_work: LongWork,
    /// One permit for each stream of events.
    pub streams: Arc<Semaphore>,
    /// When this process started, in seconds of Unix time.
    pub started_at_s: u32,
    /// Cancelled when the gateway stops: long waits end early.
    pub stop: CancellationToken,
}

/// Bodies are accounted for in steps of this many bytes.
pub const BYTES_PER_PERMIT: usize = 64 * 1024;

/// Headers by which OpenAI's clients say how long they read, in seconds.
const READ_TIMEOUTS: [&str; 2] = ["x-stainless-read-timeout", "x-stainless-timeout"];

impl App {
    /// How long a request's caller waits: as long as it says itself, and no longer than the configuration allows.
    pub fn wait_of(&self, headers: &HeaderMap) -> Duration {
        let max = Duration::from_millis(self.config.request_wait_ms_max);
        client_timeout(headers).map_or(max, |asked| asked.min(max))
    }

    /// The models to ask on behalf of `caller`, and what was reserved for it. The caller may have waited for that.
    pub async fn call(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        named: &Named,
        asked: Asked,
    ) -> Result<(Attempts, Grant), ApiError> {
        let Asked { field, inputs, tokens } = asked;
        check_inputs(named, field, inputs)?;
        let wait = self.wait_of(headers);
        let deadline = Instant::now() + named.route().map_or(wait, |route| route.wait(wait));
        let left = deadline.saturating_duration_since(Instant::now());
        let grant = self.gate.reserve(caller, tokens, self.dearest(named, tokens), left).await?;
        let attempts = self.attempts(caller, named, deadline, Lane::Interactive, field).await;
        Ok((attempts, grant))
    }

    /// The cost of a model's tokens, if its price is known; and the job that a request submits without waiting for it.
    pub fn cost(&self, model: &ModelId, job: Option<SubmittedJob>) -> Option<Cost> {
        Some(Cost { price: *self.prices.get(model)?, job })
    }

    /// The most that tokens may cost, whichever model answers.
    fn dearest(&self, named: &Named, tokens: Tokens) -> Option<Cost> {
        match named {
            Named::Model(model) => self.cost(model, None),
            Named::Route(route) => {
                let costs =
                    route.targets.iter().filter_map(|target| self.cost(&target.model, None));
                costs.max_by_key(|cost| cost.of(tokens))
            }
        }
    }

    /// The models to ask, in order, as things stand now.
    pub async fn attempts(
        &self,
        caller: &Caller,
        named: &Named,
        deadline: Instant,
        lane: Lane,
        field: &'static str,
    ) -> Attempts {
        let outlooks = match named {
            Named::Model(model) => self.outlooks.of([model].into_iter(), lane).await,
            Named::Route(route) => {
                let models = route.targets.iter().map(|target| &target.model);
                self.outlooks.of(models, lane).await
            }
        };
        let who = (caller.tenant(), caller.sticky_key());
        let attempts = Attempts::new(named, &outlooks, who, deadline, field);
        attempts.with_key(caller.api_key().cloned())
    }

    /// The route or the model that a client named, or the one for requests that name none.
    pub async fn model(
        &self,
        named: Option<String>,
        unnamed: Option<&ModelId>,
    ) -> Result<Named, ApiError> {
        if let Some(named) = named.or_else(|| unnamed.map(ToString::to_string)) {
            if let Some(route) = self.routes.get(&named) {
                return Ok(Named::Route(route.clone()));
            }
            return match named.parse() {
                Ok(model) => Ok(Named::Model(model)),
                // No model of a fleet can have such a name.
                Err(_) => Err(failures::no_model(&named, &self.known_names().await)),
            };
        }
        let known = self.known_models().await;
        if let [only] = known.as_slice()
            && let Ok(model) = only.parse()
        {
            return Ok(Named::Model(model));
        }
        let known = self.known_names().await.join(", ");
        let message = format!("`model` is missing: send one of these: {known}");
        Err(ApiError::invalid("model", message))
    }

    /// All names that a client may send as `model`: those of the fleet's models, of routes, and of their aliases.
    pub async fn known_names(&self) -> Vec<String> {
        let mut names = self.known_models().await;
        names.extend(self.routes.names().map(ToOwned::to_owned));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The models of the fleet: those that are configured, and those of live workers.
    pub async fn known_models(&self) -> Vec<String> {
        // Without Redis the models of live workers are missing, and nothing else.
        let workers = self.fleet.client.workers().await.ok();
        let models = self.fleet.client.models(workers.as_deref());
        models.into_iter().map(|model| model.id).collect()
    }
}

/// Refuses more inputs than the route allows. The gateway's own bound was kept when the body was read.
pub fn check_inputs(named: &Named, field: &'static str, inputs: usize) -> Result<(), ApiError> {
    let most = named.route().and_then(|route| route.config.inputs_max);
    match most.filter(|most| inputs > *most) {
        Some(most) => {
            let message = format!(
                "`{field}` has {inputs} entries, and {most} is the most for this model: split the request"
            );
            Err(ApiError::invalid(field, message))
        }
        None => Ok(()),
    }
}

/// How long a client says that it reads.
pub fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    let written = READ_TIMEOUTS.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let s: f64 = written?.trim().parse().ok()?;
    // Neither zero, which is no time to do anything in, nor more than a Duration holds.
    (s > 0.0 && s < 1e9).then(|| Duration::from_secs_f64(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_own_timeout_is_read_and_nonsense_is_not() {
        let of = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            client_timeout(&headers)
        };
        let seconds = Duration::from_secs_f64;
        assert_eq!(of("x-stainless-read-timeout", "600"), Some(seconds(600.0)));
        assert_eq!(of("x-stainless-timeout", "2.5"), Some(seconds(2.5)));
        for nonsense in ["0", "-1", "NaN", "inf", "1e300", "soon", ""] {
            assert_eq!(of("x-stainless-timeout", nonsense), None, "{nonsense}");
        }
        assert_eq!(of("timeout", "5"), None);
    }
}
