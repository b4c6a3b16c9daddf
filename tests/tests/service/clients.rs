//! Clients of other interfaces, unmodified, by their defaults or by the one setting that `docs/gateway.md` names: each
//! gets the worker's own vectors, bit by bit, and the worker's own ranking.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use forebay_tests::binaries::checkout;
use forebay_tests::gateway::{Gateway, floats};
use forebay_tests::job::{Codec, Job};
use forebay_tests::model::{self, MODEL, SETTINGS, TINY};
use forebay_tests::record::result;
use forebay_tests::service::Service;
use forebay_tests::stack::Stack;
use forebay_tests::workload::Workload;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::python::interpreter_of;

/// How many clients run at once: each is busy with its imports for seconds.
const AT_ONCE: usize = 2;

/// Where OpenAI's 2.x line is.
pub(super) const OPENAI_2: (&str, &str) = ("FOREBAY_TEST_OPENAI_2", "venv-openai-2");
/// Where all others are.
pub(super) const CLIENTS: (&str, &str) = ("FOREBAY_TEST_CLIENTS", "venv-clients");

/// The one that is written in Rust: a package of its own, built by the test.
pub(super) const ASYNC_OPENAI: &str = "async-openai";

/// A client: its function in `tests/clients/drivers.py` and the Python that has it, or a package of Rust in
/// `tests/clients`, and the version that has to answer.
struct Driver {
    python: Option<(&'static str, &'static str)>,
    function: &'static str,
    version: &'static str,
}

const fn driver(function: &'static str, version: &'static str) -> Driver {
    Driver { python: Some(CLIENTS), function, version }
}

const fn openai_2(function: &'static str) -> Driver {
    Driver { python: Some(OPENAI_2), function, version: "2.54.0" }
}

/// The table of `docs/gateway.md` names the same versions.
const DRIVERS: [Driver; 14] = [
    driver("openai", "3.57.0"),
    driver("openai_async", "3.57.0"),
    openai_2("openai"),
    openai_2("openai_async"),
    Driver { python: None, function: ASYNC_OPENAI, version: "0.43.0" },
    driver("langchain", "1.7.4"),
    driver("llama_index", "0.4.0"),
    driver("haystack", "3.4.1"),
    driver("litellm", "1.110.2"),
    driver("cohere", "7.3.1"),
    driver("cohere_v1", "7.3.1"),
    driver("voyageai", "0.5.0"),
    driver("huggingface_hub", "2.4.0"),
    driver("chromadb", "1.5.9"),
];

/// A fleet of two models behind a gateway that asks for keys.
struct Fleet {
    workload: Workload,
    gateway: Gateway,
    key: String,
    _workers: [Service; 2],
}

impl Fleet {
    async fn start() -> Self {
        let stack = Stack::start().await;
        let models = two_models(&stack);
        let folder = models.to_str().unwrap();
        let overrides = [("FOREBAY_MODELS_DIR", folder)];
        for command in [&["queues"][..], &["tenants", "create", "acme"]] {
            assert_eq!(stack.forebay(command).await.code, 0);
        }
        let created = stack.forebay(&["keys", "create", "--tenant", "acme"]).await;
        let key = created.output.trim_end().to_owned();
        let workers = [MODEL, TINY].map(|name| {
            let mut command = stack.program("forebay-worker", &overrides);
            command.args(["--model", name, "--threads", "1", "--dtype", "f32"]);
            Service::start("forebay-worker", command, stack.store.folder())
        });
        // Clients of text-embeddings-inference name no model.
        let gateway = Gateway::of(&stack, &[("FOREBAY_GATEWAY__EMBED_MODEL", MODEL)]).await;
        let [large, tiny] = workers;
        let workers = [large.ready().await, tiny.ready().await];
        Self { workload: Workload::on(stack).await, gateway, key, _workers: workers }
    }

    /// The record of a job that a worker did without the gateway.
    async fn computed(&mut self, job: &Job, model: &str) -> forebay_tests::record::Record {
        self.workload.publisher.submit(model, job, Codec::Msgpack).await;
        let record = result(&mut self.workload.redis, job.id()).await;
        assert_eq!(record.state(), "succeeded", "{}", record.fields);
        record
    }

    /// The answer that a client prints.
    async fn drive(&self, driver: &Driver, asked: &Path) -> Result<Value, String> {
        let mut command = Command::new("sh");
        command.args(["-c", "exec <\"$0\" \"$@\""]).arg(asked);
        match driver.python {
            Some((variable, environment)) => {
                command.arg(interpreter_of(variable, environment));
                command.arg(checkout().join("tests/clients/drivers.py")).arg(driver.function);
            }
            None => {
                command.arg(package(driver.function));
            }
        }
        self.workload.stack.address(&mut command);
        command.env("FOREBAY_GATEWAY_URL", self.gateway.url("")).env("FOREBAY_API_KEY", &self.key);
        command.env("FOREBAY_MODEL", MODEL).env("FOREBAY_RERANKER", TINY);
        let finished = self.workload.stack.run(command).await;
        let printed = finished.output.lines().last().unwrap_or_default();
        match (finished.code, serde_json::from_str(printed)) {
            (0, Ok(answer)) => Ok(answer),
            (code, _) => Err(format!("ended with {code}: {}{}", finished.output, finished.errors)),
        }
    }
}

/// Builds the package in `tests/clients`, beside the programs under test. The path of its program.
pub(super) fn package(name: &str) -> PathBuf {
    let profile = env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let target = profile.with_file_name("clients");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--manifest-path"]);
    cargo.arg(checkout().join("tests/clients").join(name).join("Cargo.toml"));
    let built = cargo.arg("--target-dir").arg(&target).status().unwrap();
    assert!(built.success(), "cargo can't build tests/clients/{name}");
    target.join("debug").join(format!("forebay-client-{name}"))
}

/// A folder with the real model and a small reranker, and a configuration that names both.
fn two_models(stack: &Stack) -> std::path::PathBuf {
    model::require_weights();
    let models = stack.store.folder().join("two-models");
    fs::create_dir(&models).unwrap();
    let reranker = model::small_model("bert-rerank");
    for (name, folder) in [(MODEL, model::models_folder().join(MODEL)), (TINY, reranker)] {
        std::os::unix::fs::symlink(folder, models.join(name)).unwrap();
    }
    let table = |name: &str| {
        let source = models.join(name);
        format!(
            "[models.{name}]\nsource = \"folder:{}\"\npool.launcher = \"none\"\n",
            source.display()
        )
    };
    stack.write_config(&format!("{}{}{SETTINGS}", table(MODEL), table(TINY)));
    models
}

/// The first mistake in a client's answer.
fn problem(
    driver: &Driver,
    answer: &Value,
    vectors: &[Vec<f32>],
    ranking: &[(u64, f64)],
) -> Option<String> {
    if answer["version"] != driver.version {
        return Some(format!("version {} answers, not {}", answer["version"], driver.version));
    }
    if answer["vectors"].is_null() && answer["ranking"].is_null() {
        return Some("it returned nothing".to_owned());
    }
    if let Some(rows) = answer["vectors"].as_array() {
        let found: Vec<Vec<f32>> = rows.iter().map(floats).collect();
        if found != vectors {
            return Some(format!("its vectors are not the worker's: {} rows", found.len()));
        }
    }
    let rows = answer["ranking"].as_array()?;
    let found = rows.iter().map(|row| (row[0].as_u64().unwrap(), row[1].as_f64().unwrap()));
    let agrees = rows.len() == ranking.len()
        && found.zip(ranking).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6);
    (!agrees).then(|| format!("its ranking is {rows:?}, not {ranking:?}"))
}

#[tokio::test]
async fn every_client_gets_the_worker_s_own_vectors_and_ranking() {
    let mut fleet = Fleet::start().await;
    // Several send an empty text as one.
    let texts =
        json!(["A forebay is the pool in front of a turbine.", "", "Das Wasser läuft 💧 über."]);
    let query = "What is in front of a turbine?";
    let documents =
        json!(["The gates open.", "A forebay is the pool in front of a turbine.", "Rain."]);
    let embedded = fleet.computed(&Job::embed(texts.clone()).of(MODEL), MODEL).await;
    let pairs = json!({"query": query, "documents": documents});
    let job = Job::embed("").of(TINY).with("task", "rerank").with("input", pairs);
    let ranked = fleet.computed(&job, TINY).await.fields["output"].clone();
    let score = |at: &Value| ranked["scores"][at.as_u64().unwrap() as usize].as_f64().unwrap();
    let order = ranked["order"].as_array().unwrap().iter();
    let ranking: Vec<(u64, f64)> =
        order.map(|at| (at.as_u64().unwrap(), 1.0 / (1.0 + (-score(at)).exp()))).collect();

    let asked = fleet.workload.stack.store.folder().join("asked.json");
    let question = json!({"texts": texts, "query": query, "documents": documents});
    fs::write(&asked, question.to_string()).unwrap();
    let fleet = &fleet;
    let asked = &asked;
    let ranking = &ranking;
    let vectors = &embedded.vectors;
    let runs = DRIVERS.iter().map(|driver| async move {
        let found = match fleet.drive(driver, asked).await {
            Ok(answer) => problem(driver, &answer, vectors, ranking),
            Err(error) => Some(error),
        };
        found.map(|problem| format!("{} {}: {problem}", driver.function, driver.version))
    });
    let problems: Vec<Option<String>> = stream::iter(runs).buffered(AT_ONCE).collect().await;
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
