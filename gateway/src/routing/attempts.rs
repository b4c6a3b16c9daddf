//! [`Attempts`]: asks the models of a route one after the other, until one answers.

use std::time::Duration;

use forebay_schemas::{KeyId, ModelId};
use metrics::counter;
use tokio::time::Instant;

use super::{
    answered::{Answered, By},
    choose::{Choice, Outlook, Reason, choose, sticky_draw},
    table::{Named, Route},
};
use crate::{error::ApiError, fleet::Call};

/// Codes of errors after which the next target is asked. All are the fleet's: a client's mistake is one everywhere.
const FAILURES: [&str; 4] = ["overloaded", "unavailable", "out_of_memory", "attempts_exhausted"];
/// The code of an error after which it is asked if its time allows.
const OUT_OF_TIME: &str = "deadline_exceeded";

/// A model to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Next {
    model: ModelId,
    tier: u32,
    outlook: Outlook,
}

/// A request's models, in the order in which they are asked.
#[derive(Debug, Clone)]
pub struct Attempts {
    /// At least one.
    next: Vec<Next>,
    /// Why the first one is the first.
    reason: Reason,
    route: Option<std::sync::Arc<Route>>,
    tenant: String,
    api_key: Option<KeyId>,
    deadline: Instant,
    field: &'static str,
}

impl Attempts {
    /// The models of what a client named, for a `caller` that waits until `deadline`; `outlooks` are those of the
    /// route's targets, or of the one model. `field` is the one that the texts came in.
    pub fn new(
        named: &Named,
        outlooks: &[Outlook],
        (tenant, caller): (&str, &str),
        deadline: Instant,
        field: &'static str,
    ) -> Self {
        let wait = deadline.saturating_duration_since(Instant::now());
        let (next, reason, route) = match named {
            Named::Model(model) => {
                let outlook = outlooks.first().copied().unwrap_or(Outlook::Unknown);
                let next = Next { model: model.clone(), tier: 1, outlook };
                (vec![next], Reason::First, None)
            }
            Named::Route(route) => {
                let Choice { order, reason } = chosen(route, outlooks, caller, wait);
                let next = order.into_iter().map(|index| Next {
                    model: route.targets[index].model.clone(),
                    tier: route.targets[index].tier,
                    outlook: outlooks.get(index).copied().unwrap_or(Outlook::Unknown),
                });
                (next.collect(), reason, Some(route.clone()))
            }
        };
        let tenant = tenant.to_owned();
        Self { next, reason, route, tenant, api_key: None, deadline, field }
    }

    /// With the key that the jobs are accounted to.
    #[must_use]
    pub fn with_key(self, api_key: Option<KeyId>) -> Self {
        Self { api_key, ..self }
    }

    /// The first model, for jobs that are submitted and not waited for.
    pub fn first(&self) -> Answered {
        let answered = self.answered(&self.next[0], self.reason);
        answered.count();
        answered
    }

    /// Whether texts may be cut that are longer than the model reads.
    pub fn may_cut(&self) -> bool {
        self.route.as_ref().is_none_or(|route| route.may_cut())
    }

    /// Whether there is but one model to ask.
    pub fn is_one(&self) -> bool {
        self.next.len() == 1
    }

    /// Those of one model alone, if it is among them; otherwise all.
    #[must_use]
    pub fn only(mut self, model: &str) -> Self {
        if self.next.iter().any(|next| next.model.as_str() == model) {
            self.next.retain(|next| next.model.as_str() == model);
        }
        self
    }

    /// Asks with `inputs` until a model answers, fails for good, or is the last one.
    pub async fn run<I: Clone, T, F: Future<Output = Result<T, ApiError>>>(
        &self,
        inputs: I,
        ask: impl Fn(Call, I) -> F,
    ) -> Result<(T, Answered), ApiError> {
        let mut inputs = Some(inputs);
        let mut reason = self.reason;
        let mut next = self.next.iter().peekable();
        loop {
            let target = next.next();
            let is_last = next.peek().is_none();
            let given = if is_last { inputs.take() } else { inputs.clone() };
            // There is one at first, and another whenever the loop goes on.
            let (Some(target), Some(given)) = (target, given) else {
                return Err(ApiError::internal("the route has no more models"));
            };
            match ask(self.call(target, is_last), given).await {
                Ok(output) => {
                    let answered = self.answered(target, reason);
                    answered.count();
                    return Ok((output, answered));
                }
                Err(error) if is_last => return Err(error),
                Err(error) => match self.follows(&error) {
                    Some(follows) => {
                        self.failed(target, &error);
                        reason = follows;
                    }
                    None => return Err(error),
                },
            }
        }
    }

    fn call(&self, target: &Next, is_last: bool) -> Call {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let wait = self.patience().filter(|_| !is_last).map_or(left, |most| left.min(most));
        Call {
            model: target.model.clone(),
            tenant: self.tenant.clone(),
            api_key: self.api_key.clone(),
            wait,
            field: self.field,
        }
    }

    /// How long a target has that is not the last.
    fn patience(&self) -> Option<Duration> {
        self.route.as_ref()?.config.fallback_after_ms.map(Duration::from_millis)
    }

    /// Why the next target is asked after this error; `None` if it is not.
    fn follows(&self, error: &ApiError) -> Option<Reason> {
        let config = &self.route.as_ref()?.config;
        if self.deadline <= Instant::now() {
            return None;
        }
        match error.code {
            OUT_OF_TIME => Some(Reason::Timeout),
            code if config.fallback_on_failure && FAILURES.contains(&code) => Some(Reason::Failure),
            _ => None,
        }
    }

    fn failed(&self, target: &Next, error: &ApiError) {
        let Some(route) = &self.route else { return };
        let route = route.name.to_string();
        let model = target.model.to_string();
        tracing::debug!(route, model, %error, "a model failed; the next one is asked");
        counter!(
            "forebay_gateway_route_failures_total",
            "route" => route, "model" => model, "code" => error.code
        )
        .increment(1);
    }

    fn answered(&self, target: &Next, reason: Reason) -> Answered {
        let by = self.route.as_ref().map(|route| By {
            route: route.name.clone(),
            tier: target.tier,
            reason,
        });
        Answered { model: target.model.clone(), by, outlook: target.outlook }
    }
}

fn chosen(route: &Route, outlooks: &[Outlook], caller: &str, wait: Duration) -> Choice {
    choose(&route.targets, outlooks, route.bound(wait), |target| {
        if route.config.sticky {
            sticky_draw(route.name.as_str(), caller, &target.model)
        } else {
            forebay_fabric::rng::uniform(f64::MIN_POSITIVE..=1.0)
        }
    })
}

#[cfg(test)]
mod tests;
