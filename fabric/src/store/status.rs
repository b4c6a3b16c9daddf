//! stub
use super::{Store, StoreError};
use forebay_schemas::{FleetStatus, names::STATUS_KEY, status::STATUS_TTL_MS};
impl Store {
    /// Tells the fleet's status.
    pub async fn write_status(&self, status: &FleetStatus) -> Result<(), StoreError> {
        let json = serde_json::to_string(status)?;
        self.run(async |c| {
            redis::cmd("SET")
                .arg(STATUS_KEY)
                .arg(&json)
                .arg("PX")
                .arg(STATUS_TTL_MS)
                .query_async(c)
                .await
        })
        .await
    }
    /// The fleet's status.
    pub async fn status(&self) -> Result<Option<FleetStatus>, StoreError> {
        let json: Option<String> =
            self.run(async |c| redis::cmd("GET").arg(STATUS_KEY).query_async(c).await).await?;
        Ok(json.and_then(|j| serde_json::from_str(&j).ok()))
    }
}
