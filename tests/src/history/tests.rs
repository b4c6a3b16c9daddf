//! Tests of histories, by records and token streams that are made up.

use serde_json::json;

use super::*;

fn history() -> History {
    let mut history = History::default();
    let vector = |text: &str| Expected::Vector(text.into());
    history.sends("good", SUCCEEDED, Some(&vector("text")));
    history.sends("twin", SUCCEEDED, Some(&vector("text")));
    history.sends("bad", ("failed", "invalid_request"), None);
    for id in ["good", "twin", "bad"] {
        history.confirmed(id);
    }
    history.sends("unknown", SUCCEEDED, Some(&vector("other")));
    history
}

fn succeeded(id: &str, x: f32) -> Vec<u8> {
    let output = json!({"dim": 2, "count": 1, "embeddings": [[x, 0.5]]});
    json!({"id": id, "state": "succeeded", "output": output}).to_string().into_bytes()
}

fn failed(id: &str, code: &str) -> Vec<u8> {
    json!({"id": id, "state": "failed", "error": {"code": code}}).to_string().into_bytes()
}

fn see(history: &mut History, id: &str, record: Option<Vec<u8>>) {
    history.observe(&[id.to_owned()], &[record]);
}

fn whole() -> History {
    let mut history = history();
    see(&mut history, "good", Some(succeeded("good", 1.0)));
    see(&mut history, "twin", Some(succeeded("twin", 1.0)));
    see(&mut history, "bad", Some(failed("bad", "invalid_request")));
    history
}

#[test]
fn a_history_that_keeps_every_promise_breaks_none() {
    let mut history = whole();
    assert_eq!(history.violations(), []);
    see(&mut history, "good", Some(succeeded("good", 1.0)));
    see(&mut history, "unknown", None);
    history.observe_keys(&[result_key("good"), result_key("unknown")]);
    assert_eq!(history.violations(), []);
    assert_eq!(history.counts(), (4, 3, 3));
}

#[test]
fn a_confirmed_job_without_a_record_is_missing() {
    let mut history = history();
    see(&mut history, "good", Some(succeeded("good", 1.0)));
    let missing = ["bad", "twin"].map(|id| Violation::Missing(id.into()));
    assert_eq!(history.violations(), missing);
}

#[test]
fn a_record_that_changes_or_vanishes_is_found() {
    let mut history = whole();
    see(&mut history, "good", Some(succeeded("good", 0.25)));
    see(&mut history, "bad", None);
    let found = [Violation::Changed("good".into()), Violation::Vanished("bad".into())];
    assert_eq!(history.violations(), found);
}

#[test]
fn a_record_of_a_job_that_was_not_sent_is_a_stranger() {
    let mut history = whole();
    history.observe_keys(&[result_key("good"), result_key("else")]);
    assert_eq!(history.violations(), [Violation::Stranger(result_key("else"))]);
}

#[test]
fn a_wrong_outcome_is_found_also_where_the_confirmation_is_unknown() {
    let mut history = whole();
    see(&mut history, "unknown", Some(failed("unknown", "internal")));
    let violations = history.violations();
    assert!(matches!(&violations[..], [Violation::Wrong(id, _)] if id == "unknown"));
}

#[test]
fn a_job_that_is_said_to_have_ended_workers_and_ends_none_is_found() {
    let mut history = history();
    see(&mut history, "good", Some(failed("good", "attempts_exhausted")));
    assert!(matches!(&history.violations()[0], Violation::FalseDeath(id, _) if id == "good"));
}

#[test]
fn a_job_that_ends_workers_has_to_end_as_one() {
    let mut history = History::default();
    for id in ["killer", "survivor"] {
        history.sends(id, ("failed", "attempts_exhausted"), None);
    }
    see(&mut history, "killer", Some(failed("killer", "attempts_exhausted")));
    assert_eq!(history.violations(), []);
    see(&mut history, "survivor", Some(succeeded("survivor", 1.0)));
    assert!(matches!(&history.violations()[0], Violation::Wrong(id, _) if id == "survivor"));
}

#[test]
fn a_record_under_a_wrong_key_is_found() {
    let mut history = history();
    see(&mut history, "good", Some(succeeded("twin", 1.0)));
    assert!(matches!(&history.violations()[0], Violation::Wrong(id, _) if id == "good"));
}

#[test]
fn two_vectors_of_one_text_are_found() {
    let mut history = history();
    see(&mut history, "good", Some(succeeded("good", 1.0)));
    see(&mut history, "twin", Some(succeeded("twin", 0.9)));
    assert!(history.violations().contains(&Violation::Unlike("twin".into())));
}

/// The text of tokens.
fn words(ids: &[u64]) -> String {
    ids.iter().flat_map(|id| [id.to_string(), " ".to_owned()]).collect()
}

/// A history of one job that generates these tokens, and its record.
fn generating(ids: &[u64]) -> (History, Vec<u8>) {
    let output = json!({"text": words(ids), "token_ids": ids, "finish_reason": "length"});
    let text = Arc::new(Generated::of(&output).unwrap());
    let mut history = History::default();
    history.sends("text", SUCCEEDED, Some(&Expected::Text(text)));
    history.confirmed("text");
    let record = json!({"id": "text", "state": "succeeded", "output": output});
    (history, record.to_string().into_bytes())
}

fn chunk(at: u64, ids: &[u64]) -> Chunk {
    Chunk { at, ids: ids.to_vec(), text: words(ids) }
}

#[test]
fn a_text_that_another_worker_went_on_with_breaks_no_promise() {
    let ids: Vec<u64> = (0..20).collect();
    let (mut history, record) = generating(&ids);
    see(&mut history, "text", Some(record));
    assert_eq!(history.streamed(), ["text"]);
    let entries = [Some(chunk(0, &ids[..16])), None, Some(chunk(16, &ids[16..]))];
    history.observe_stream("text", &entries, 600);
    assert_eq!(history.violations(), []);
    assert_eq!(history.texts(), Texts { jobs: 1, tokens: 20, taken_up: 1, kept: 16 });
}

#[test]
fn another_text_is_found() {
    let (mut history, _) = generating(&[1, 2, 3]);
    let (_, other) = generating(&[1, 2, 4]);
    see(&mut history, "text", Some(other));
    assert_eq!(history.violations(), [Violation::OtherText("text".into())]);
}

#[test]
fn a_token_stream_with_a_gap_an_overlap_or_too_much_at_once_is_found() {
    let ids: Vec<u64> = (0..80).collect();
    let sixteens = |from: usize| ids.chunks(16).skip(from / 16).enumerate();
    let whole: Vec<_> = sixteens(0).map(|(n, ids)| Some(chunk(16 * n as u64, ids))).collect();
    let mut gap = whole.clone();
    gap.remove(1);
    let mut doubled = whole.clone();
    doubled.insert(1, whole[0].clone());
    let large =
        [Some(chunk(0, &ids[..32]))].into_iter().chain(whole[2..].iter().cloned()).collect();
    for (entries, is_kept) in
        [(whole, true), (gap, false), (doubled, false), (large, false), (Vec::new(), false)]
    {
        let (mut history, record) = generating(&ids);
        see(&mut history, "text", Some(record));
        history.observe_stream("text", &entries, 600);
        assert_eq!(history.violations().is_empty(), is_kept, "{entries:?}");
    }
}

#[test]
fn a_token_stream_that_stays_is_found() {
    let ids: Vec<u64> = (0..16).collect();
    for (ttl_s, is_kept) in [(600, true), (601, false), (-1, false)] {
        let (mut history, record) = generating(&ids);
        see(&mut history, "text", Some(record));
        history.observe_stream("text", &[Some(chunk(0, &ids))], ttl_s);
        assert_eq!(history.violations().is_empty(), is_kept, "{ttl_s}");
    }
}

#[test]
fn what_else_is_broken_is_kept() {
    let mut history = whole();
    history.breaks(Violation::Left("queue".into(), 1));
    history.breaks(Violation::Wedged("probe".into()));
    assert_eq!(history.violations().len(), 2);
}
