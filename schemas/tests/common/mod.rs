//! Sample values and strategies that several tests share.
#![allow(dead_code)]

use std::collections::BTreeMap;

use forebay_schemas::{
    EmbedOutput, EmbedParams, ErrorCode, GenerateParams, InputType, Job, JobError, JobId,
    LabelScore, Message, ModelId, Outcome, Output, Prompt, RerankParams, SparseOutput,
    SparseParams, SparseVector, Timing, TokensOutput, TokensParams, Usage, Work,
};
use proptest::{collection, option, prelude::*};

pub fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

pub fn model(text: &str) -> ModelId {
    text.parse().unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// One job a task, the first with every option set.
pub fn sample_jobs() -> Vec<(&'static str, Job)> {
    let embed = Job {
        id: id("0192f0c1-7d3e-7000-8000-00000000e001"),
        tenant: Some("acme".into()),
        submitted_at_ms: Some(1_700_000_000_000),
        expires_in_ms: Some(60_000),
        result_ttl_s: Some(3_600),
        notify: Some("forebay:notify:golden".into()),
        metadata: BTreeMap::from([("batch".into(), "7".into()), ("größe".into(), "klein".into())]),
        ..Job::new(
            model("all-minilm-l6-v2"),
            Work::Embed {
                input: texts(&["A music player.", "", "Ein Wörterbuch 📖"]),
                params: EmbedParams { normalize: false, truncate: false, dimensions: Some(128) },
            },
        )
    };
    let plain = Job { id: id("plain"), ..Job::embed(model("m"), texts(&["one text"])) };
    let rerank = Work::Rerank {
        query: "which one plays music?".into(),
        documents: texts(&["a player", "an editor"]),
        params: RerankParams { top_n: Some(1) },
    };
    let sparse = Work::EmbedSparse {
        input: texts(&["a player"]),
        params: SparseParams { truncate: false, top_k: Some(64) },
    };
    let tokens = Work::EmbedTokens {
        input: texts(&["which one plays music?"]),
        params: TokensParams { truncate: true, input_type: InputType::Query },
    };
    let ids = Work::EmbedIds {
        input_ids: vec![vec![101, 1037, 2447, 102], vec![101, 30_521, 102]],
        params: EmbedParams { dimensions: Some(64), ..EmbedParams::default() },
    };
    let chat = Work::Generate {
        prompt: Prompt::Messages(vec![Message { role: "user".into(), content: "Hello".into() }]),
        params: GenerateParams {
            max_tokens: Some(16),
            temperature: Some(0.5),
            top_p: Some(0.25),
            top_k: Some(40),
            stop: texts(&["\n"]),
            seed: Some(7),
        },
    };
    let prompt =
        Work::Generate { prompt: Prompt::Text("Once".into()), params: GenerateParams::default() };
    let job = |name: &str, work| Job { id: id(name), ..Job::new(model("m"), work) };
    vec![
        ("job-embed", embed),
        ("job-plain", plain),
        ("job-rerank", job("rerank", rerank)),
        ("job-classify", job("classify", Work::Classify { input: texts(&["nice", "awful"]) })),
        ("job-embed-sparse", job("sparse", sparse)),
        ("job-embed-tokens", job("tokens", tokens)),
        ("job-embed-ids", job("ids", ids)),
        ("job-chat", job("chat", chat)),
        ("job-prompt", job("prompt", prompt)),
    ]
}

/// One outcome for each shape of output, and two without.
pub fn sample_outcomes() -> Vec<(&'static str, Outcome)> {
    let jobs: BTreeMap<_, _> = sample_jobs().into_iter().collect();
    let usage = Usage { input_tokens: 21, output_tokens: 0, truncated: 1, device_us: 1_250 };
    let timing = Timing {
        queued_ms: 12,
        batch_wait_ms: 3,
        compute_ms: 40,
        batch_size: 64,
        batch_tokens: 4_000,
    };
    let done = |job: &str, output| {
        Outcome::succeeded(&jobs[job], output, usage, timing).stamped("w1", 1, 1_700_000_000_100)
    };
    let vectors =
        EmbedOutput { dim: 3, data: vec![0.5, -0.25, 1.0e-7, 1.0, 0.1, f32::MIN_POSITIVE] };
    let sparse = SparseOutput {
        dim: 30_522,
        vectors: vec![
            SparseVector { indices: vec![7, 30_521], values: vec![0.5, 1.25] },
            SparseVector::default(),
        ],
    };
    let tokens = TokensOutput { dim: 2, inputs: vec![vec![0.5, -0.25, 1.0, 0.0], vec![]] };
    let label = |label: &str, score| LabelScore { label: label.into(), score };
    let labels = vec![vec![label("good", 0.75), label("bad", 0.25)], vec![label("bad", 1.0)]];
    let unread = JobError::invalid("`input` is missing");
    let wrong = JobError::new(ErrorCode::NumericalError, "input 1 gave NaN").at(1);
    vec![
        ("outcome-embed", done("job-embed", Output::Embed(vectors))),
        (
            "outcome-rerank",
            done("job-rerank", Output::Rerank { scores: vec![0.5, 2.5], order: vec![1, 0] }),
        ),
        ("outcome-embed-sparse", done("job-embed-sparse", Output::EmbedSparse(sparse))),
        ("outcome-embed-tokens", done("job-embed-tokens", Output::EmbedTokens(tokens))),
        ("outcome-classify", done("job-classify", Output::Classify { labels })),
        (
            "outcome-generate",
            done("job-chat", Output::Generate { text: "Hi".into(), finish_reason: "stop".into() }),
        ),
        ("outcome-failed", Outcome::failed(&jobs["job-embed"], wrong).stamped("w1", 3, 5)),
        ("outcome-refused", Outcome::refused(id("unread"), unread).stamped("w1", 1, 5)),
    ]
}

pub fn any_job() -> impl Strategy<Value = Job> {
    let metadata = collection::btree_map(".{0,64}", ".{0,200}", 0..4);
    let options = (
        option::of(".{0,128}"),
        option::of(100_000_000_000_u64..100_000_000_000_000),
        option::of(1_u64..),
        option::of(1_u64..=2_592_000),
        option::of(".{1,100}"),
    );
    ("[A-Za-z0-9_-]{1,64}", "[a-z0-9][a-z0-9._-]{0,62}", any_work(), options, metadata).prop_map(
        |(job_id, model_id, work, options, metadata)| Job {
            id: id(&job_id),
            model: model(&model_id),
            work,
            tenant: options.0,
            submitted_at_ms: options.1,
            expires_in_ms: options.2,
            result_ttl_s: options.3,
            notify: options.4,
            metadata,
        },
    )
}

fn any_work() -> impl Strategy<Value = Work> {
    let texts = || collection::vec(".{0,40}", 1..8);
    let embed = (texts(), any::<bool>(), any::<bool>(), option::of(1_u32..)).prop_map(
        |(input, normalize, truncate, dimensions)| Work::Embed {
            input,
            params: EmbedParams { normalize, truncate, dimensions },
        },
    );
    let ids = collection::vec(collection::vec(any::<u32>(), 1..20), 1..8);
    let embed_ids =
        (ids, any::<bool>(), option::of(1_u32..)).prop_map(|(input_ids, truncate, dimensions)| {
            Work::EmbedIds {
                input_ids,
                params: EmbedParams { normalize: true, truncate, dimensions },
            }
        });
    let rerank = (".{0,40}", texts(), option::of(1_u32..)).prop_map(|(query, documents, top_n)| {
        Work::Rerank { query, documents, params: RerankParams { top_n } }
    });
    let sparse =
        (texts(), any::<bool>(), option::of(1_u32..=1_024)).prop_map(|(input, truncate, top_k)| {
            Work::EmbedSparse { input, params: SparseParams { truncate, top_k } }
        });
    let input_type = prop_oneof![Just(InputType::Document), Just(InputType::Query)];
    let tokens = (texts(), any::<bool>(), input_type).prop_map(|(input, truncate, input_type)| {
        Work::EmbedTokens { input, params: TokensParams { truncate, input_type } }
    });
    let classify = texts().prop_map(|input| Work::Classify { input });
    let message = ("[a-z]{1,32}", ".{0,40}").prop_map(|(role, content)| Message { role, content });
    let prompt = prop_oneof![
        ".{0,40}".prop_map(Prompt::Text),
        collection::vec(message, 1..4).prop_map(Prompt::Messages),
    ];
    let params =
        (
            option::of(1_u32..),
            option::of(0.0_f32..=2.0),
            option::of(0.01_f32..=1.0),
            option::of(1_u32..),
            collection::vec(".{1,20}", 0..4),
            option::of(any::<u64>()),
        )
            .prop_map(|(max_tokens, temperature, top_p, top_k, stop, seed)| {
                GenerateParams { max_tokens, temperature, top_p, top_k, stop, seed }
            });
    let generate = (prompt, params).prop_map(|(prompt, params)| Work::Generate { prompt, params });
    prop_oneof![embed, embed_ids, sparse, tokens, rerank, classify, generate]
}
