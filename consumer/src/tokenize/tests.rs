//! Which texts go to a thread together.

use std::path::Path;

use forebay_engine::LoadOptions;
use forebay_schemas::Job;

use super::*;
use crate::testing::{self, FakeStore};

fn stage(parts: LaneSender<Vec<Part>>) -> Tokenize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/data/tiny/bert");
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    let model = forebay_engine::load(&folder, &options).unwrap();
    let store = Arc::new(FakeStore::default());
    Tokenize {
        tokenizer: model.tokenizer,
        dim: model.info.dim,
        vocabulary: model.info.vocabulary,
        weights: Weights::default(),
        threads: 1,
        attempts_max: 5,
        memory: MemoryLimit::new(u64::MAX, 1),
        journal: SharedJournal::start("w".into(), store),
        parts,
        not_computed: mpsc::channel(1).0,
    }
}

/// The tenant of each part of a handful, its first text in the job, and how many there are.
fn parts(handful: &Handful) -> Vec<(String, usize, usize)> {
    let tenant = |texts: &Texts| texts.job.job.tenant.clone().unwrap_or_default();
    let part = |texts: &Texts| (tenant(texts), texts.first, texts.inputs.len());
    handful.texts.iter().map(part).collect()
}

#[tokio::test]
async fn a_large_job_leaves_room_in_a_handful_for_other_tenants() {
    let (sender, _receiver) = lanes::channel(2);
    let stage = stage(sender.clone());
    let mut waiting = Fair::new(Weights::default());
    for (tenant, texts) in [("large", 400), ("small", 1)] {
        let mut job = Job::embed("m".parse().unwrap(), vec!["x".repeat(100); texts]);
        job.tenant = Some(tenant.into());
        let ticket = testing::ticket(job.id.clone());
        let at = Instant::now();
        let admitted = Admitted { job, ticket, lane: Lane::Batch, queued_ms: 0, at };
        waiting.push(Some(tenant), stage.open(admitted).unwrap(), at);
    }
    let room = sender.reserve(Lane::Batch).await.unwrap();
    let handful = stage.handful(&mut waiting, room);
    // A turn of each; then the large one has the rest of the 16 KiB to itself, whose last text is over it.
    let part = |tenant: &str, first, count| (tenant.to_owned(), first, count);
    let expected =
        [part("large", 0, 10), part("small", 0, 1), part("large", 10, 152), part("large", 162, 1)];
    assert_eq!(parts(&handful), expected);
    let room = sender.reserve(Lane::Batch).await.unwrap();
    let handful = stage.handful(&mut waiting, room);
    assert_eq!(parts(&handful), [part("large", 163, 163), part("large", 326, 1)]);
}
