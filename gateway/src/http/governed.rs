//! The one point at which a request becomes somebody's: before it nothing is read of a body, and nothing is submitted.

/// The caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who is billed.
    pub tenant: String,
}

/// The tenant of all requests while there are no keys.
const TENANT: &str = "default";

/// The caller of a request. Without keys every caller is the one tenant, which is why the gateway then listens on
/// loopback alone.
pub fn admit() -> Caller {
    Caller { tenant: TENANT.to_owned() }
}
