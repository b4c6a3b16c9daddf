//! Any bytes under a worker's key are a record or an error; one that was read is written and read again the same.
#![no_main]

use forebay_schemas::WorkerRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<WorkerRecord>(json) {
        let again = serde_json::to_vec(&record).expect("a record that was read can be written");
        assert_eq!(serde_json::from_slice::<WorkerRecord>(&again).ok(), Some(record));
    }
});
