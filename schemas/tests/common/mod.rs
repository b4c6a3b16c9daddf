//! Sample values and strategies that several tests share.
#![allow(dead_code)]

use std::collections::BTreeMap;

use forebay_schemas::{
    EmbedOutput, EmbedParams, ErrorCode, FinishReason, GenerateParams, InputType, Job, JobError,
    JobId, Json, LabelScore, Likely, Message, ModelId, Outcome, Output, Prompt, RerankParams,
    ResponseFormat, SparseOutput, SparseParams, SparseVector, Timing, TokenLogprob, TokensOutput,
    TokensParams, ToolCall, Usage, Work,
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

fn conversation_with_tools() -> Prompt {
    let call = ToolCall {
        id: "call_1".into(),
        name: "weather".into(),
        arguments: r#"{"city":"Oslo"}"#.into(),
    };
    Prompt::Messages(vec![
        Message::new("system", "Be brief."),
        Message { name: Some("kim".into()), ..Message::new("user", "Is it warm in Oslo?") },
        Message { tool_calls: vec![call], ..Message::new("assistant", "") },
        Message { tool_call_id: Some("call_1".into()), ..Message::new("tool", "12 °C") },
    ])
}

fn every_param() -> GenerateParams {
    let tool = r#"{"type":"function","function":{"name":"weather","parameters":{"z":{},"a":1.5}}}"#;
    let schema = r#"{"type":"object","properties":{"warm":{"type":"boolean"},"by":{}}}"#;
    GenerateParams {
        max_tokens: Some(64),
        min_tokens: Some(2),
        temperature: Some(1.0),
        top_p: Some(0.5),
        top_k: Some(20),
        min_p: Some(0.125),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(-0.5),
        repetition_penalty: Some(1.25),
        logit_bias: BTreeMap::from([(7, -100.0), (50_000, 1.5)]),
        stop: texts(&["\n\n", "END"]),
        stop_token_ids: vec![2, 0],
        ignore_eos: true,
        seed: Some(u64::MAX),
        logprobs: Some(2),
        return_token_ids: true,
        response_format: Some(ResponseFormat::JsonSchema(serde_json::from_str(schema).unwrap())),
        tools: vec![serde_json::from_str::<Json>(tool).unwrap()],
        stream: true,
    }
}

/// An output with each of its parts.
fn generated() -> Output {
    let likely = |id, text: &str, bytes| Likely { id, text: text.into(), bytes, logprob: -1.5 };
    let logprob = |top| TokenLogprob {
        id: 7,
        text: "\u{fffd}".into(),
        bytes: Some(vec![0xc3]),
        logprob: -0.25,
        top,
    };
    Output::Generate {
        text: "Grüße".into(),
        finish_reason: FinishReason::ToolCalls,
        tool_calls: vec![ToolCall {
            id: "call_1".into(),
            name: "weather".into(),
            arguments: "{}".into(),
        }],
        token_ids: Some(vec![7, 11]),
        logprobs: Some(vec![
            logprob(vec![]),
            logprob(vec![likely(7, "\u{fffd}", Some(vec![0xc3])), likely(8, "a", None)]),
        ]),
    }
}

/// One of two words.
fn choice() -> Work {
    Work::Generate {
        prompt: Prompt::Text("Yes or no?".into()),
        params: GenerateParams {
            response_format: Some(ResponseFormat::Choice(texts(&["yes", "no"]))),
            ..GenerateParams::default()
        },
    }
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
        prompt: Prompt::Messages(vec![Message::new("user", "Hello")]),
        params: GenerateParams {
            max_tokens: Some(16),
            temperature: Some(0.5),
            top_p: Some(0.25),
            top_k: Some(40),
            stop: texts(&["\n"]),
            seed: Some(7),
            ..GenerateParams::default()
        },
    };
    let tools = Work::Generate { prompt: conversation_with_tools(), params: every_param() };
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
        ("job-tools", job("tools", tools)),
        ("job-choice", job("choice", choice())),
        ("job-prompt", job("prompt", prompt)),
    ]
}

/// One outcome for each shape of output, and two without.
pub fn sample_outcomes() -> Vec<(&'static str, Outcome)> {
    let jobs: BTreeMap<_, _> = sample_jobs().into_iter().collect();
    let usage = Usage { input_tokens: 21, truncated: 1, device_us: 1_250, ..Usage::default() };
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
            done(
                "job-chat",
                Output::Generate {
                    text: "Hi".into(),
                    finish_reason: FinishReason::Stop,
                    tool_calls: Vec::new(),
                    token_ids: None,
                    logprobs: None,
                },
            ),
        ),
        ("outcome-tools", done("job-tools", generated())),
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
    let message = ("[a-z]{1,32}", ".{0,40}", option::of("[a-z]{1,9}"), any::<bool>()).prop_map(
        |(role, content, name, calls)| {
            let call = |name: &str| ToolCall {
                id: "c".into(),
                name: name.into(),
                arguments: content.clone(),
            };
            let tool_calls = name.iter().filter(|_| calls).map(|name| call(name)).collect();
            Message { role, content: content.clone(), tool_calls, tool_call_id: name.clone(), name }
        },
    );
    let prompt = prop_oneof![
        ".{0,40}".prop_map(Prompt::Text),
        collection::vec(message, 1..4).prop_map(Prompt::Messages),
    ];
    let generate =
        (prompt, any_params()).prop_map(|(prompt, params)| Work::Generate { prompt, params });
    prop_oneof![embed, embed_ids, sparse, tokens, rerank, classify, generate]
}

fn any_params() -> impl Strategy<Value = GenerateParams> {
    let sizes = (option::of(1_u32..), option::of(1_u32..), option::of(any::<u64>()));
    let shares = (
        option::of(0.0_f32..=2.0),
        option::of(0.01_f32..=1.0),
        option::of(0.0_f32..=1.0),
        option::of(-2.0_f32..=2.0),
        option::of(0.01_f32..=2.0),
    );
    let ends =
        (collection::vec(".{1,20}", 0..4), collection::vec(any::<u32>(), 0..4), any::<bool>());
    let biases = collection::btree_map(any::<u32>(), -100.0_f32..=100.0, 0..4);
    let format = prop_oneof![
        ".{1,20}".prop_map(ResponseFormat::Regex),
        collection::vec(".{1,20}", 1..4).prop_map(ResponseFormat::Choice),
        any_map().prop_map(ResponseFormat::JsonSchema),
    ];
    let returned = (option::of(0_u32..=20), any::<bool>(), any::<bool>());
    let guides = (option::of(format), collection::vec(any_map(), 0..3));
    (sizes, shares, ends, biases, returned, guides).prop_map(
        |(sizes, shares, ends, logit_bias, returned, guides)| GenerateParams {
            max_tokens: sizes.0,
            min_tokens: sizes.0.map(|most| most / 2),
            top_k: sizes.1,
            seed: sizes.2,
            temperature: shares.0,
            top_p: shares.1,
            min_p: shares.2,
            presence_penalty: shares.3,
            frequency_penalty: shares.3.map(|penalty| -penalty),
            repetition_penalty: shares.4,
            logit_bias,
            stop: ends.0,
            stop_token_ids: ends.1,
            ignore_eos: ends.2,
            logprobs: returned.0,
            return_token_ids: returned.1,
            stream: returned.2,
            response_format: guides.0,
            tools: guides.1,
        },
    )
}

/// A JSON map.
fn any_map() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Flag),
        any::<u64>().prop_map(|number| Json::Number(number.into())),
        (-1_000_i64..0).prop_map(|number| Json::Number(number.into())),
        ".{0,10}".prop_map(Json::Text),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Json::List),
            collection::hash_map(".{0,5}", inner, 0..4)
                .prop_map(|pairs| Json::Map(pairs.into_iter().collect())),
        ]
    });
    collection::hash_map(".{0,5}", value, 0..3)
        .prop_map(|pairs| Json::Map(pairs.into_iter().collect()))
}
