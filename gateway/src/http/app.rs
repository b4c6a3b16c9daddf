//! [`App`]: the state that all endpoints share.

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;
use forebay_fabric::{config::GatewayConfig, telemetry::Health};
use forebay_schemas::{Limits, ModelId};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::governed::{Caller, Gate, Grant};
use crate::{
    error::ApiError,
    failures,
    fleet::{Call, Fleet},
};

/// The state that all endpoints share.
#[derive(Debug)]
pub struct App {
    /// The fleet.
    pub fleet: Fleet,
    /// Who is let in, and how much.
    pub gate: Gate,
    /// The settings.
    pub config: GatewayConfig,
    /// Bounds of a job.
    pub limits: Limits,
    /// Whether broker and store can be reached.
    pub health: Health,
    /// One permit for each [`BYTES_PER_PERMIT`] of bodies that may be held.
    pub held: Arc<Semaphore>,
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

    /// A call on behalf of `caller`, and what was reserved for it. The caller may have waited for that.
    pub async fn call(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        model: ModelId,
        field: &'static str,
        tokens: u64,
    ) -> Result<(Call, Grant), ApiError> {
        let wait = self.wait_of(headers);
        let began = Instant::now();
        let grant = self.gate.reserve(caller, tokens, wait).await?;
        let wait = wait.saturating_sub(began.elapsed());
        let tenant = caller.tenant().to_owned();
        Ok((Call { model, tenant, wait, field }, grant))
    }

    /// The model that a client named, or the one for requests that name none.
    pub async fn model(
        &self,
        named: Option<String>,
        unnamed: Option<&ModelId>,
    ) -> Result<ModelId, ApiError> {
        if let Some(named) = named {
            return match named.parse() {
                Ok(model) => Ok(model),
                // No model of a fleet can have such a name.
                Err(_) => Err(failures::no_model(&named, &self.known_models().await)),
            };
        }
        if let Some(model) = unnamed {
            return Ok(model.clone());
        }
        let known = self.known_models().await;
        if let [only] = known.as_slice()
            && let Ok(model) = only.parse()
        {
            return Ok(model);
        }
        let known = known.join(", ");
        let message = format!("`model` is missing: send one of these: {known}");
        Err(ApiError::invalid("model", message))
    }

    /// The models of the fleet: those that are configured, and those of live workers.
    pub async fn known_models(&self) -> Vec<String> {
        // Without Redis the models of live workers are missing, and nothing else.
        let workers = self.fleet.client.workers().await.ok();
        let models = self.fleet.client.models(workers.as_deref());
        models.into_iter().map(|model| model.id).collect()
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
