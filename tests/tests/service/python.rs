//! Another language: the Python examples as they are printed, against the real fleet.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use forebay_tests::binaries::checkout;
use forebay_tests::stack::SharedFleet;

/// The Python of the examples.
pub(super) fn interpreter() -> PathBuf {
    interpreter_of("FOREBAY_TEST_PYTHON", "venv")
}

/// The Python that a variable names, or that of the environment in `.forebay/` that `make test` makes.
pub(super) fn interpreter_of(variable: &str, environment: &str) -> PathBuf {
    let made = || checkout().join(".forebay").join(environment).join("bin/python");
    let python = env::var_os(variable).map_or_else(made, PathBuf::from);
    let remedy = "run `make test`, or name another that `scripts/venv` made in the variable";
    assert!(python.exists(), "no Python at {}: {remedy} {variable}", python.display());
    python
}

/// Runs one of `examples/` and checks what it prints.
async fn runs(example: &str, prints: &str) {
    let fleet = SharedFleet::borrow().await;
    let mut command = Command::new(interpreter());
    command.arg(checkout().join("examples").join(example));
    fleet.stack.address(&mut command);
    let finished = fleet.stack.run(command).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.output.contains(prints), "{finished:?}");
}

#[tokio::test]
async fn the_python_example_gets_equal_vectors_through_both_codecs() {
    runs("python/embed.py", "2 vectors of 384 numbers, equal").await;
}

#[tokio::test]
async fn a_job_of_aio_pika_with_a_random_message_id_is_answered() {
    runs("publishers/aio_pika_json.py", "succeeded: 384 numbers").await;
}

#[tokio::test]
async fn kombu_reads_the_reply_by_its_msgpack_serializer() {
    runs("publishers/kombu_msgpack.py", "succeeded: 384 numbers").await;
}

#[tokio::test]
async fn a_request_of_faststream_is_answered() {
    runs("publishers/faststream_request.py", "succeeded: 384 numbers").await;
}
