//! Plain HTTP requests to servers on this machine.

use std::time::Duration;

use ureq::Agent;

/// An agent that reports every status as an answer, and gives up after a minute: a virtual host on a
/// cluster takes its time on a busy machine.
pub fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

/// Status and body of a GET; `None` when no server answers.
pub fn get(url: &str) -> Option<(u16, String)> {
    let mut answer = agent().get(url).call().ok()?;
    let body = answer.body_mut().read_to_string().ok()?;
    Some((answer.status().as_u16(), body))
}
