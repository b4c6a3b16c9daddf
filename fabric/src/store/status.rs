//! The fleet's status, written by the leading autoscaler for clients that have only Redis.

use forebay_schemas::{FleetStatus, VERSION, names::STATUS_KEY, status::STATUS_TTL_MS};

use super::{connection::Store, error::StoreError};

impl Store {
    /// Writes the status, which expires [`STATUS_TTL_MS`] later unless written again.
    pub async fn write_status(&self, status: &FleetStatus) -> Result<(), StoreError> {
        let json = serde_json::to_string(status)?;
        self.run(async |connection| {
            let mut set = redis::cmd("SET");
            set.arg(STATUS_KEY).arg(&json).arg("PX").arg(STATUS_TTL_MS);
            set.query_async(connection).await
        })
        .await
    }

    /// The last status; `None` when no leader has written one for [`STATUS_TTL_MS`].
    pub async fn status(&self) -> Result<Option<FleetStatus>, StoreError> {
        let json: Option<Vec<u8>> = self
            .run(async |connection| redis::cmd("GET").arg(STATUS_KEY).query_async(connection).await)
            .await?;
        json.map(|json| read(&json)).transpose()
    }
}

fn read(json: &[u8]) -> Result<FleetStatus, StoreError> {
    let status: FleetStatus =
        serde_json::from_slice(json).map_err(|error| StoreError::Status(error.to_string()))?;
    match status.v {
        VERSION => Ok(status),
        other => Err(StoreError::Status(format!("it has version {other}, not {VERSION}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status() -> FleetStatus {
        FleetStatus {
            v: VERSION,
            leader: "a".into(),
            leads: true,
            token: 7,
            at_ms: 1,
            config_read_at_ms: 1,
            problems: vec![],
            pools: vec![],
        }
    }

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let json = serde_json::to_vec(&status()).unwrap();
        assert_eq!(read(&json).unwrap(), status());
    }

    #[test]
    fn a_status_that_is_none_or_of_another_version_is_named_with_its_key() {
        let newer = serde_json::to_vec(&FleetStatus { v: 2, ..status() }).unwrap();
        for (json, reason) in [(&b"{"[..], "EOF"), (b"[]", "invalid"), (&newer, "version 2")] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(STATUS_KEY) && error.contains(reason), "{error}");
        }
    }
}
