//! The management plug-in of a node.

use serde_json::{Value, json};

use crate::probe;

/// `guest:guest`, which `RabbitMQ` accepts from the loopback interface only.
const AUTHORIZATION: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";

/// Where to ask a node.
#[derive(Debug, Clone, Copy)]
pub struct Management {
    port: u16,
}

impl Management {
    pub(super) fn new(port: u16) -> Self {
        Self { port }
    }

    /// `http://guest:guest@127.0.0.1:port`
    pub fn url(self) -> String {
        format!("http://guest:guest@127.0.0.1:{}", self.port)
    }

    /// Status and body; `None` when no server answers.
    pub fn request(self, method: &str, path: &str) -> Option<(u16, Value)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let agent = probe::agent();
        let answer = match method {
            "GET" => agent.get(url).header("authorization", AUTHORIZATION).call(),
            "DELETE" => agent.delete(url).header("authorization", AUTHORIZATION).call(),
            _ => {
                let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
                agent.put(url).header("authorization", AUTHORIZATION).send_json(everything)
            }
        };
        let mut answer = answer.ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null)))
    }

    /// A GET of a plug-in that has to answer; panics when it does not.
    pub fn call(self, method: &str, path: &str) -> (u16, Value) {
        let answer = self.request(method, path);
        answer.unwrap_or_else(|| panic!("{method} {path}: the management plug-in does not answer"))
    }
}
