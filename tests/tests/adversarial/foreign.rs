//! Jobs of another tenant, invented ids, and keys that are none.

use std::time::Instant;

use forebay_tests::model::TINY;
use serde_json::json;

use super::ground::{Ground, Tally};

pub(super) async fn run(ground: &mut Ground) {
    let began = Instant::now();
    let mut tally = Tally::default();
    let gateway = &ground.gateway;
    let [mine, theirs] = &ground.keys;
    let body = json!({"model": TINY, "task": "embed", "input": "a secret"});
    let submitted = gateway.post_with("/v1/jobs", &body, &[("authorization", mine)]);
    assert_eq!(submitted.status, 202, "{submitted:?}");
    let id = submitted.body["id"].as_str().unwrap().to_owned();
    let (owner, rest) = id.split_at(12);
    let own_head = gateway.post_with("/v1/jobs", &body, &[("authorization", theirs)]);
    let own_head = own_head.body["id"].as_str().unwrap()[..12].to_owned();
    let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    // An id with one's own head is one's own to ask about, and no job has it.
    let own = gateway.get_with(&format!("/v1/jobs/{own_head}{rest}"), &[("authorization", theirs)]);
    assert_eq!(own.status, 202, "{own:?}");
    for id in [
        id.clone(),
        encoded,
        owner.to_owned(),
        rest.to_owned(),
        id.to_lowercase(),
        id[1..].to_owned(),
    ] {
        for path in [format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}?wait=5")] {
            let seen = gateway.get_with(&path, &[("authorization", theirs)]);
            assert_eq!(seen.mistake().1, "job_not_found", "{path}: {seen:?}");
            let cancelled = gateway.delete_with(&path, &[("authorization", theirs)]);
            assert_eq!(cancelled.mistake().1, "job_not_found", "{path}: {cancelled:?}");
            tally.status(seen.status);
            tally.status(cancelled.status);
        }
    }
    let record = gateway.get_with(&format!("/v1/jobs/{id}?wait=30"), &[("authorization", mine)]);
    assert_eq!(record.body["state"], "succeeded", "it was not cancelled: {record:?}");
    let invented = "Bearer fbk_aaaaaaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
    let cut = mine[..mine.len() - 1].to_owned();
    let mixed = format!("{}{}", &mine[..24], &theirs[24..]);
    for key in
        [invented, cut, mixed, "Bearer".into(), "Basic eDp5".into(), mine.replace("Bearer ", "")]
    {
        let answer = gateway.get_with("/v1/models", &[("authorization", &key)]);
        assert_eq!(answer.status, 401, "{key}: {answer:?}");
        tally.status(answer.status);
    }
    ground.after("others' jobs and keys", began, &tally).await;
}
