//! Room for as many descriptors as there may be connections.
//!
//! Systems start programs with a soft limit of 1,024 or so, for the sake of old ones that use `select`, and a hard
//! limit far above it. Without this a gateway took no connection beyond the soft limit, whatever its configuration
//! said.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of clients: broker, store, telemetry with its scrapes, files.
const BESIDE: u64 = 128;

/// Raises the soft limit as far as `connections_max` needs, and warns where the hard limit is in the way.
pub fn make_room(connections_max: usize) {
    let needed = connections_max as u64 + BESIDE;
    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let current = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    let have = if raised.is_ok() { Some(current) } else { limit.current };
    if let Some(have) = have.filter(|have| *have < needed) {
        let takes = have.saturating_sub(BESIDE);
        tracing::warn!(
            connections_max,
            open_files_max = have,
            "this process may have fewer open files than gateway.connections_max needs, and takes some {takes} \
             connections: raise its limit (ulimit -n, LimitNOFILE=), or lower gateway.connections_max"
        );
    }
}
