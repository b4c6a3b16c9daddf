//! Another language: the Python example as it is printed, against the real fleet.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use forebay_tests::binaries::checkout;
use forebay_tests::stack::SharedFleet;

/// `FOREBAY_TEST_PYTHON`, or the environment that `make test` makes.
fn interpreter() -> PathBuf {
    let made = || checkout().join(".forebay/venv/bin/python");
    let python = env::var_os("FOREBAY_TEST_PYTHON").map_or_else(made, PathBuf::from);
    let remedy = "run `make test`, or name one with pika, redis and msgpack in FOREBAY_TEST_PYTHON";
    assert!(python.exists(), "no Python at {}: {remedy}", python.display());
    python
}

#[tokio::test]
async fn the_python_example_gets_equal_vectors_through_both_codecs() {
    let fleet = SharedFleet::borrow().await;
    let mut command = Command::new(interpreter());
    command.arg(checkout().join("examples/python/embed.py"));
    fleet.stack.address(&mut command);
    let finished = fleet.stack.run(command).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.output.contains("2 vectors of 384 numbers, equal"), "{finished:?}");
}
