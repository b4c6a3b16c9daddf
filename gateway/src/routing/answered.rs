//! [`Answered`]: which model answered and why, as headers of the answer.

use std::time::Duration;

use axum::{http::HeaderValue, response::Response};
use forebay_fabric::config::RouteName;
use forebay_schemas::ModelId;
use metrics::counter;

use super::choose::{Outlook, Reason};
use crate::access::headers::Header;

/// The model that answered.
const MODEL: &str = "x-forebay-model";
/// The route that led to it, and why: `name=embed tier=2 reason=predicted_wait`.
const ROUTE: &str = "x-forebay-route";
/// The wait that was predicted when the model was chosen, in milliseconds; absent where it was not known.
const WAIT_MS: &str = "x-forebay-wait-ms";

/// Which model answered, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The model.
    pub model: ModelId,
    /// The route that led to it; `None` where the client named the model.
    pub by: Option<By>,
    /// The outlook when it was chosen.
    pub outlook: Outlook,
}

/// The part of a route in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// The route's name.
    pub route: RouteName,
    /// The tier of the model that answered.
    pub tier: u32,
    /// Why it was asked.
    pub reason: Reason,
}

impl Answered {
    /// The headers that say it.
    pub fn headers(&self) -> Vec<Header> {
        let mut headers = vec![(MODEL, self.model.to_string())];
        if let Some(By { route, tier, reason }) = &self.by {
            headers.push((ROUTE, format!("name={route} tier={tier} reason={}", reason.as_str())));
        }
        if let Some(wait) = self.outlook.wait() {
            headers.push((WAIT_MS, millis(wait).to_string()));
        }
        headers
    }

    /// Adds them to an answer.
    pub fn said(&self, mut response: Response) -> Response {
        for (name, value) in self.headers() {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// Counts it. The labels are bounded by the configuration: routes, their targets, and a few words.
    pub fn count(&self) {
        let Some(By { route, reason, .. }) = &self.by else { return };
        let route = route.to_string();
        let model = self.model.to_string();
        if self.outlook == Outlook::Unknown {
            counter!("forebay_gateway_route_wait_unknown_total", "route" => route.clone(), "model" => model.clone())
                .increment(1);
        }
        let reason = reason.as_str();
        counter!("forebay_gateway_routed_total", "route" => route, "model" => model, "reason" => reason)
            .increment(1);
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_which_model_it_is_of_and_why() {
        let model: ModelId = "own".parse().unwrap();
        let plain = Answered { model: model.clone(), by: None, outlook: Outlook::Unknown };
        assert_eq!(plain.headers(), [("x-forebay-model", "own".to_owned())]);
        let by = By { route: "o/r".parse().unwrap(), tier: 2, reason: Reason::PredictedWait };
        let outlook = Outlook::Wait(Duration::from_millis(1_250));
        let routed = Answered { by: Some(by), outlook, ..plain };
        let expected = [
            ("x-forebay-model", "own".to_owned()),
            ("x-forebay-route", "name=o/r tier=2 reason=predicted_wait".to_owned()),
            ("x-forebay-wait-ms", "1250".to_owned()),
        ];
        assert_eq!(routed.headers(), expected);
    }
}
