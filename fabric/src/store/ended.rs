//! The end of a worker, as its launcher reports it.

use super::{Store, StoreError};

impl Store {
    /// Takes in that a worker has ended: its record is removed.
    pub async fn worker_ended(&self, id: &str) -> Result<(), StoreError> {
        self.remove_worker(id).await
    }
}
