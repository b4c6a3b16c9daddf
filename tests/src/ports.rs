//! Free ports on the loopback interface.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which Linux takes the ports of outgoing connections (32,768 and up), so that none
/// of those can slip in between this look and the server's own bind.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static ASKED: AtomicU32 = AtomicU32::new(0);

/// A port that nothing listens on, handed out once in this process. Processes that run at the same time
/// start at different ports.
pub fn free_port() -> u16 {
    let start = std::process::id().wrapping_mul(97);
    (0..COUNT)
        .map(|_| start.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed)))
        .map(|n| u16::try_from(FIRST + n % COUNT).expect("under 32,000"))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port between 20,000 and 32,000")
}
