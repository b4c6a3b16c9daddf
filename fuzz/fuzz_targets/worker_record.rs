//! Any bytes under a worker's key are a record or an error; a record that was read is unchanged after being
//! written and read again. A status under the key of the fleet's status can be written and read again too.
#![no_main]

use forebay_schemas::{FleetStatus, WorkerRecord};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<WorkerRecord>(json) {
        let again = serde_json::to_vec(&record).expect("a record that was read can be written");
        assert_eq!(serde_json::from_slice::<WorkerRecord>(&again).ok(), Some(record));
    }
    if let Ok(status) = serde_json::from_slice::<FleetStatus>(json) {
        let again = serde_json::to_vec(&status).expect("a status that was read can be written");
        assert!(serde_json::from_slice::<FleetStatus>(&again).is_ok());
    }
});
