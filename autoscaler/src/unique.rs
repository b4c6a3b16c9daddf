//! Names that nothing else has.

use forebay_schemas::JobId;

/// Eight random hexadecimal digits, for the name of a worker or an autoscaler.
pub fn random_digits() -> String {
    // The end of a new id is random.
    let random = JobId::random().to_string();
    random[random.len() - 8..].to_owned()
}
