//! Parsers of bodies meet anything: they answer with a request or with a mistake of the caller, and never panic. What
//! the document says of bodies is what they take.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod parsers;

use std::collections::BTreeSet;

use boon::{Compiler, SchemaIndex, Schemas};
use forebay_gateway::{
    cohere::{self, CohereBody},
    document::read,
    native::JobBody,
    openai::{
        embeddings::{self, EmbeddingsBody},
        generate::{
            chat::{self, ChatBody},
            completions::{self, CompletionBody},
            responses::{self, ResponseBody},
        },
    },
    rerank::{self, BareRerankBody, RerankBody, TeiRerankBody},
    tei::{self, EmbedBody, PredictBody, SparseBody},
};
use parsers::{HEADS, PARSERS, check_body, check_head};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// The schemas that the document has for them, in their order.
fn schemas() -> [Value; 11] {
    [
        read::<EmbeddingsBody>(),
        read::<EmbedBody>(),
        read::<SparseBody>(),
        read::<PredictBody>(),
        read::<RerankBody>(),
        read::<BareRerankBody>(),
        read::<JobBody>(),
        read::<CohereBody>(),
        read::<ChatBody>(),
        read::<CompletionBody>(),
        read::<ResponseBody>(),
    ]
}

struct Compiled {
    schemas: Schemas,
    bodies: Vec<SchemaIndex>,
}

impl Compiled {
    fn new() -> Self {
        let mut schemas = Schemas::new();
        let mut compiler = Compiler::new();
        let mut bodies = Vec::new();
        for (at, schema) in self::schemas().into_iter().enumerate() {
            let name = format!("http://localhost/{at}.json");
            compiler.add_resource(&name, schema).unwrap();
            bodies.push(compiler.compile(&name, &mut schemas).unwrap());
        }
        Self { schemas, bodies }
    }

    fn is_valid(&self, at: usize, body: &Value) -> bool {
        self.schemas.validate(body, self.bodies[at]).is_ok()
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..4_u32).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,8}".prop_map(Value::from),
        prop_oneof![
            "embed",
            "rerank",
            "float",
            "base64",
            "m",
            "interactive",
            "right",
            "Left",
            "END",
            "NONE"
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let texts = prop_oneof![Just("text".to_owned()), ".{0,4}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec(".{0,4}", 0..3).prop_map(Value::from),
            proptest::collection::vec(0..9_u32, 0..3).prop_map(Value::from),
            Just(json!(["float"])),
            proptest::collection::vec((texts, inner), 0..4)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// All names that one of the parsers reads.
fn names() -> Vec<String> {
    let own = [&embeddings::NAMES[..], &tei::NAMES, &rerank::NAMES, &cohere::NAMES].concat();
    let text =
        [chat::NAMES.concat(), completions::NAMES.concat(), responses::NAMES.to_vec()].concat();
    let of_jobs = ["task", "params", "metadata", "lane", "v", "id", "expires_in_ms", "input_ids"];
    own.into_iter().chain(text).chain(of_jobs).map(ToOwned::to_owned).collect()
}

/// A name that one of the parsers reads, mostly.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![9 => proptest::sample::select(names()), 1 => ".{0,6}"]
}

/// The turns of a conversation, mostly right.
fn messages() -> impl Strategy<Value = Value> {
    let roles = prop_oneof!["user", "system", "developer", "tool", "assistant", "robot"];
    let message =
        (roles, "[a-z]{0,3}").prop_map(|(role, content)| json!({"role": role, "content": content}));
    prop_oneof![
        4 => proptest::collection::vec(message, 1..3).prop_map(Value::from),
        1 => any_value(),
    ]
}

/// A body with what is needed, mostly right, and anything beside it.
fn any_body() -> impl Strategy<Value = Value> {
    let texts = || {
        prop_oneof![
            2 => proptest::collection::vec("[a-z]{0,3}", 1..4).prop_map(Value::from),
            2 => ".{0,3}".prop_map(Value::from),
            1 => any_value(),
        ]
    };
    let needed = (
        texts(),
        texts(),
        texts(),
        texts(),
        prop_oneof![3 => "q".prop_map(Value::from), 1 => any_value()],
    );
    let others = proptest::collection::vec((any_name(), any_value()), 0..3);
    let spoken = (messages(), texts());
    (needed, spoken, others, any::<[bool; 7]>()).prop_map(
        |((a, b, c, d, q), (m, p), others, kept)| {
            let needed = [
                ("input", a),
                ("inputs", b),
                ("documents", c),
                ("texts", d),
                ("query", q),
                ("messages", m),
                ("prompt", p),
            ];
            let needed = needed.into_iter().zip(kept).filter(|(_, kept)| *kept);
            let needed = needed.map(|((name, value), _)| (name.to_owned(), value));
            needed.chain(others).collect::<Map<_, _>>().into()
        },
    )
}

proptest! {
    #[test]
    fn bytes_are_a_request_or_a_mistake(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_body(&body);
    }

    #[test]
    fn objects_are_a_request_or_a_mistake_that_says_something(
        pairs in proptest::collection::vec((any_name(), any_value()), 0..6),
        cut in 0..400_usize,
    ) {
        let body = Value::from(pairs.into_iter().collect::<Map<_, _>>()).to_string();
        for body in [body.as_bytes(), &body.as_bytes()[..cut.min(body.len())]] {
            check_body(body);
        }
    }

    #[test]
    fn heads_are_read_or_refused(
        kind in 0..HEADS,
        value in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            "(Bearer |bearer  )?fbk_[a-z0-9]{12}_[A-Za-z0-9]{40,44}".prop_map(String::into_bytes),
            "(a=1&)?wait=-?[0-9]{0,12}(\\.[0-9]{1,3})?(e[0-9]{1,3})?".prop_map(String::into_bytes),
            "-?[0-9]{0,12}(\\.[0-9]{1,3})?(e[0-9]{1,3})?".prop_map(String::into_bytes),
        ],
    ) {
        check_head(kind, &value);
    }
}

#[test]
fn a_body_is_taken_if_and_only_if_the_document_says_so() {
    let compiled = Compiled::new();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2_000));
    let taken = std::cell::RefCell::new([[0_u32; 2]; 11]);
    let checked = runner.run(&any_body(), |body| {
        let written = body.to_string();
        for (at, (name, parser)) in PARSERS.iter().enumerate() {
            // The wire's own schema says less than its decoder: which input and parameters a task has.
            let is_job = *name == "job";
            let is_valid = compiled.is_valid(at, &body);
            let mistake = parser(written.as_bytes(), 100);
            taken.borrow_mut()[at][usize::from(mistake.is_none())] += 1;
            // How long documents are compared with it, no schema says; nor which fields a kind of item or format has,
            // or go together.
            let unsaid = [
                "max_tokens_per_doc",
                "response_format",
                "structured_outputs",
                "text",
                "tools",
                "tool_choice",
            ];
            let is_length = mistake.as_ref().is_some_and(|mistake| {
                let param = mistake.param.as_deref().unwrap_or_default();
                unsaid.contains(&param)
                    || ["chat", "completions", "responses"].contains(name) && body["stream"] == true
                    || *name == "responses" && param == "input" && body["input"].is_array()
            });
            prop_assert!(
                !is_valid || mistake.is_none() || is_job || is_length,
                "{}: {} but {:?}",
                name,
                body,
                mistake
            );
            // There it is overlooked, as every field of others.
            let is_lenient = *name == "rerank" && body.get("texts").is_some() || is_job;
            prop_assert!(
                is_valid || mistake.is_some() || is_lenient,
                "{}: {} is not valid",
                name,
                body
            );
        }
        Ok(())
    });
    checked.unwrap();
    for ((name, _), [refused, taken]) in PARSERS.iter().zip(taken.into_inner()) {
        let is_enough = *name == "job" || refused.min(taken) > 100;
        assert!(
            is_enough,
            "{name}: {taken} bodies were taken and {refused} refused: both have to be many"
        );
    }
}

#[test]
fn every_field_that_a_parser_reads_is_in_the_document() {
    let properties = |schema: Value| -> BTreeSet<String> {
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let named =
        |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(properties(read::<EmbeddingsBody>()), named(&embeddings::NAMES));
    assert_eq!(properties(read::<CohereBody>()), named(&cohere::NAMES));
    assert_eq!(properties(read::<ChatBody>()), named(&chat::NAMES.concat()));
    assert_eq!(properties(read::<CompletionBody>()), named(&completions::NAMES.concat()));
    assert_eq!(properties(read::<ResponseBody>()), named(&responses::NAMES));
    let bodies = [read::<EmbedBody>(), read::<SparseBody>(), read::<PredictBody>()];
    assert_eq!(
        bodies.into_iter().flat_map(properties).collect::<BTreeSet<_>>(),
        named(&tei::NAMES)
    );
    let bodies = [read::<RerankBody>(), read::<TeiRerankBody>()];
    assert_eq!(
        bodies.into_iter().flat_map(properties).collect::<BTreeSet<_>>(),
        named(&rerank::NAMES)
    );
}

#[test]
fn jobs_of_every_task_are_valid_and_taken() {
    let compiled = Compiled::new();
    for (task, input) in [
        ("embed", json!("text")),
        ("embed", json!(["a", "b"])),
        ("embed_sparse", json!(["a"])),
        ("embed_tokens", json!(["a"])),
        ("classify", json!("text")),
        ("rerank", json!({"query": "q", "documents": ["a"]})),
        ("generate", json!({"prompt": "p"})),
        ("generate", json!({"messages": [{"role": "user", "content": "c"}]})),
    ] {
        let body = json!({"model": "m", "task": task, "input": input, "lane": "interactive",
                          "metadata": {"k": "v"}, "result_ttl_s": 60, "expires_in_ms": 1_000});
        assert!(compiled.is_valid(6, &body), "{body}");
        assert_eq!((PARSERS[6].1)(body.to_string().as_bytes(), 10), None, "{body}");
        for (wrong, value) in [("lane", json!("fast")), ("v", json!(2)), ("task", json!("sing"))] {
            let mut body = body.clone();
            body[wrong] = value;
            assert!(!compiled.is_valid(6, &body), "{body}");
        }
    }
}
