//! A virtual host: one test's own corner of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::encrypted::Encrypted;
use super::management::Management;
use crate::certificates::{Files, HOST};
use crate::patience::{PATIENT, SOON, until_true};

static CREATED: AtomicU32 = AtomicU32::new(0);

/// Removed when dropped.
#[derive(Debug)]
pub struct Vhost {
    amqp_port: u16,
    management: Management,
    encrypted: Option<Arc<Encrypted>>,
    name: String,
}

impl Vhost {
    /// On a busy machine the broker answers "timed out while waiting for the vhost to initialise" and goes
    /// on with it: it is there once asking for it again is answered well, and it runs on each node some time after
    /// that.
    pub(super) async fn create(
        amqp_port: u16,
        management: Management,
        encrypted: Option<Arc<Encrypted>>,
    ) -> Self {
        let name = format!("test-{}", CREATED.fetch_add(1, Ordering::Relaxed));
        for path in [format!("/api/vhosts/{name}"), format!("/api/permissions/{name}/guest")] {
            let done = async || matches!(management.request("PUT", &path), Some((200..=204, _)));
            until_true(&format!("the broker does PUT {path}"), PATIENT, done).await;
        }
        let vhost = Self { amqp_port, management, encrypted, name };
        vhost.runs_on(1).await;
        vhost
    }

    /// Waits until as many nodes run it.
    pub(super) async fn runs_on(&self, nodes: usize) {
        let path = format!("/api/vhosts/{}", self.name);
        let runs = async || {
            let Some((200, vhost)) = self.management.request("GET", &path) else { return false };
            let states = vhost["cluster_state"].as_object();
            states
                .is_some_and(|of| of.values().filter(|state| *state == "running").count() >= nodes)
        };
        until_true(&format!("the virtual host runs on {nodes} nodes"), PATIENT, runs).await;
    }

    /// The address that a client connects to.
    pub fn amqp_url(&self) -> String {
        self.amqp_url_at(self.amqp_port)
    }

    /// The address by way of another port, such as that of a relay.
    pub fn amqp_url_at(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/{}", self.name)
    }

    /// The encrypted address, with the server under any of its names.
    pub fn amqps_url(&self, host: &str) -> String {
        format!("amqps://guest:guest@{host}:{}/{}", self.encrypted().amqp_port, self.name)
    }

    /// The management API, encrypted.
    pub fn encrypted_management_url(&self) -> String {
        format!("https://guest:guest@{HOST}:{}", self.encrypted().management_port)
    }

    /// The certificate of the encrypted side.
    pub fn certificate(&self) -> &Files {
        &self.encrypted().files
    }

    fn encrypted(&self) -> &Encrypted {
        self.encrypted.as_deref().expect("a node that listens encrypted too")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The broker's port.
    pub fn amqp_port(&self) -> u16 {
        self.amqp_port
    }

    /// The address of the management API.
    pub fn management_url(&self) -> String {
        self.management.url()
    }

    /// A queue's properties as the management plug-in knows them (they lag by half a second); `None` when
    /// there is no such queue.
    pub fn queue(&self, name: &str) -> Option<Value> {
        match self.management.call("GET", &format!("/api/queues/{}/{name}", self.name)) {
            (200, body) => Some(body),
            _ => None,
        }
    }

    /// Every queue with its messages, ready and unacknowledged. `None` when no server answers.
    pub fn depths(&self) -> Option<Vec<(String, u64)>> {
        let (_, body) = self.management.request("GET", &format!("/api/queues/{}", self.name))?;
        let depth = |queue: &Value| {
            Some((queue["name"].as_str()?.to_owned(), queue["messages"].as_u64().unwrap_or(0)))
        };
        body.as_array()?.iter().map(depth).collect()
    }

    /// Messages in a queue, ready and unacknowledged; 0 when there is no such queue.
    pub fn depth(&self, name: &str) -> u64 {
        self.queue(name).and_then(|queue| queue["messages"].as_u64()).unwrap_or(0)
    }

    /// Deletes a queue with what it holds.
    pub fn delete_queue(&self, name: &str) {
        self.management.call("DELETE", &format!("/api/queues/{}/{name}", self.name));
    }

    /// Waits until the broker lists as many connections; it learns of them half a second late.
    pub async fn connected(&self, count: usize) {
        let listed = async || self.connections().len() >= count;
        until_true("the broker lists its connections", SOON, listed).await;
    }

    /// Cuts every listed connection to this virtual host, as an administrator would; answers how many.
    pub fn cut_connections(&self) -> usize {
        let names = self.connections();
        for name in &names {
            let escaped = name.replace(' ', "%20").replace('>', "%3E");
            self.management.request("DELETE", &format!("/api/connections/{escaped}"));
        }
        names.len()
    }

    /// Channels of the connections by which a program consumes, as the broker counts them: some seconds late. `None`
    /// while it lists no channels.
    pub fn channels_of(&self, program: &str) -> Option<u64> {
        let path = format!("/api/vhosts/{}/connections", self.name);
        let (_, body) = self.management.request("GET", &path)?;
        let name = |one: &Value| {
            one["client_properties"]["connection_name"].as_str().unwrap_or_default().to_owned()
        };
        let consumes = |one: &&Value| name(one).starts_with(program) && !name(one).ends_with(')');
        let all = body.as_array()?.iter().filter(consumes);
        all.map(|one| one["channels"].as_u64()).sum()
    }

    fn connections(&self) -> Vec<String> {
        let path = format!("/api/vhosts/{}/connections", self.name);
        let Some((_, body)) = self.management.request("GET", &path) else { return Vec::new() };
        let connections = body.as_array().map(Vec::as_slice).unwrap_or_default();
        connections.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        self.management.request("DELETE", &format!("/api/vhosts/{}", self.name));
    }
}
