//! Private `RabbitMQ` nodes: one for this test process with a virtual host for each test, and, for tests
//! that stop brokers, nodes and clusters of a test's own.

mod cluster;
mod encrypted;
mod management;
mod node;
mod vhost;

pub use cluster::Cluster;
pub use management::Management;
pub use node::Node;
use tokio::sync::OnceCell;
pub use vhost::Vhost;

static SHARED: OnceCell<Node> = OnceCell::const_new();

/// The one node of this process; booted at first use, in five to ten seconds.
pub async fn shared() -> &'static Node {
    SHARED.get_or_init(Node::boot).await
}
