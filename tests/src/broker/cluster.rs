//! Nodes that replicate each other's queues.

use std::fmt::Write as _;

use super::node::{Neighbourhood, Node, node_name};
use super::vhost::Vhost;
use crate::patience::{PATIENT, until_true};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Three nodes, the fewest that go on when one is lost.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: [Node; 3],
    vhost: Option<Vhost>,
}

impl Cluster {
    /// Boots all of them, and waits until each knows the others.
    pub async fn boot() -> Self {
        // One that finds no other boots alone: RabbitMQ 4.3 would look for them for 105 s.
        let mut more = "cluster_formation.peer_discovery_backend = classic_config\n\
                        cluster_formation.discovery_retry_limit = 1\n\
                        cluster_formation.discovery_retry_interval = 500\n"
            .to_owned();
        for (at, name) in NAMES.iter().enumerate() {
            let node = node_name(name);
            writeln!(more, "cluster_formation.classic_config.nodes.{} = {node}", at + 1).unwrap();
        }
        let neighbourhood = Neighbourhood::new();
        let mut nodes = NAMES.map(|name| Node::configured(&neighbourhood, name, &more));
        // The first alone: those who come later find one to join, and start its virtual host as they boot.
        // One that is made on a whole cluster is not always started everywhere by RabbitMQ 3.10.
        nodes[0].start().await;
        let vhost = nodes[0].vhost().await;
        for node in &mut nodes[1..] {
            node.start().await;
        }
        let cluster = Self { nodes, vhost: Some(vhost) };
        cluster.is_whole().await;
        if let Some(vhost) = &cluster.vhost {
            vhost.runs_on(NAMES.len()).await;
        }
        cluster
    }

    /// Waits until the first node sees all of them run.
    pub async fn is_whole(&self) {
        let running = async || {
            let Some((200, nodes)) = self.nodes[0].management().request("GET", "/api/nodes") else {
                return false;
            };
            let running = |node: &&serde_json::Value| node["running"] == true;
            nodes.as_array().is_some_and(|nodes| nodes.iter().filter(running).count() == 3)
        };
        until_true("all three nodes run", PATIENT, running).await;
    }

    /// Its one virtual host, asked for at the first node.
    pub fn vhost(&mut self) -> Vhost {
        self.vhost.take().expect("asked for once")
    }
}
