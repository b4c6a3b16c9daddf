//! A Redis Sentinel, which makes a replica the primary when the primary is lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::child_guard::{ChildGuard, Streams};
use crate::patience::{SOON, until};
use crate::store::Store;
use crate::{ports, servers};

/// The name of the primary and its replicas together.
const NAME: &str = "forebay";

/// A running sentinel, alone in its vote.
#[derive(Debug)]
pub struct Sentinel {
    port: u16,
    _server: ChildGuard,
}

impl Sentinel {
    /// Watches `primary`; its files go to `folder`. It finds the replicas by itself, which may take a moment.
    pub async fn watch(primary: &Store, folder: &Path) -> Self {
        let port = ports::free_port();
        let configuration = format!(
            "port {port}\n\
             bind 127.0.0.1\n\
             dir {}\n\
             sentinel monitor {NAME} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {NAME} 500\n\
             sentinel failover-timeout {NAME} 5000\n",
            folder.display(),
            primary.port(),
        );
        let file = folder.join("sentinel.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new(servers::redis());
        command.arg(&file).arg("--sentinel");
        let server = ChildGuard::tie(&command, &Streams::to(&folder.join("sentinel.log")));
        let sentinel = Self { port, _server: server };
        until("the sentinel knows the primary", SOON, async || sentinel.primary_port().await).await;
        until("the sentinel knows the replica", SOON, async || {
            let replicas: Vec<redis::Value> = sentinel.ask("REPLICAS").await?;
            (!replicas.is_empty()).then_some(())
        })
        .await;
        sentinel
    }

    /// The port of the current primary.
    pub async fn primary_port(&self) -> Option<u16> {
        let address: (String, u16) = self.ask("GET-MASTER-ADDR-BY-NAME").await?;
        Some(address.1)
    }

    async fn ask<T: redis::FromRedisValue>(&self, what: &str) -> Option<T> {
        let client = redis::Client::open(Store::url_at(self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("SENTINEL").arg(what).arg(NAME).query_async(&mut connection).await.ok()
    }
}
