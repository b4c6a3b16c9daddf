//! The gateway and its connections, beyond what a plain client makes.

use forebay_tests::gateway::Gateway;
use forebay_tests::patience::{SOON, until_true};
use forebay_tests::stack::Stack;

#[tokio::test]
async fn a_low_soft_limit_on_open_files_is_raised_to_what_the_connections_need() {
    const CONNECTIONS: usize = 300;
    let stack = Stack::start().await.tiny();
    let gateway = Gateway::with_open_files(&stack, 200, &[]).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        // Half a head: each is a connection that waits.
        open.push(gateway.sending(b"GET /health HTTP/1.1\r\n").await);
    }
    let count = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", gateway.service.pid()));
        files.expect("it runs").count()
    };
    until_true("all connections are taken", SOON, async || count() >= CONNECTIONS).await;
    assert_eq!(gateway.get("/health").status, 200);
    assert!(!gateway.service.log().contains("open files"), "{}", gateway.service.log());
}
