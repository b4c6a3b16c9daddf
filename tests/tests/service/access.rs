//! `forebay tenants` and `forebay keys`: what they change, what they show, and what they refuse.

use std::collections::BTreeSet;

use forebay_tests::stack::Stack;
use serde_json::{Value, json};

use super::commands::{assert_refused, json_lines};

async fn lines(stack: &Stack, arguments: &[&str]) -> Vec<Value> {
    json_lines(&stack.forebay(&[arguments, &["--json"]].concat()).await)
}

#[tokio::test]
async fn a_tenant_is_created_shown_changed_and_deleted_by_command() {
    let stack = Stack::start().await;
    let created =
        lines(&stack, &["tenants", "create", "acme", "--name", "Acme, Inc.", "--in-flight", "4"])
            .await;
    assert_eq!(created.len(), 1);
    assert_eq!((&created[0]["id"], &created[0]["name"]), (&json!("acme"), &json!("Acme, Inc.")));
    assert_eq!(created[0]["limits"], json!({"in_flight": 4}));
    lines(&stack, &["tenants", "create", "other"]).await;
    let set =
        ["tenants", "set-limits", "acme", "--requests-per-minute", "60", "--in-flight", "none"];
    assert_eq!(lines(&stack, &set).await[0]["limits"], json!({"requests_per_minute": 60}));
    let shown = lines(&stack, &["tenants", "show", "acme"]).await;
    assert_eq!(shown[0]["created_at_ms"], created[0]["created_at_ms"]);
    let listed = lines(&stack, &["tenants", "list"]).await;
    assert_eq!(listed.iter().map(|tenant| &tenant["id"]).collect::<Vec<_>>(), ["acme", "other"]);
    let table = stack.forebay(&["tenants", "list"]).await.output;
    let row = table.lines().find(|line| line.starts_with("acme")).expect("a row");
    assert_eq!(row.split_whitespace().take(4).collect::<Vec<_>>(), ["acme", "60", "none", "none"]);
    lines(&stack, &["keys", "create", "--tenant", "acme"]).await;
    let deleted = lines(&stack, &["tenants", "delete", "acme"]).await;
    assert_eq!(deleted, [json!({"tenant": "acme", "deleted": true, "keys": 1})]);
    assert_eq!(lines(&stack, &["tenants", "list"]).await.len(), 1);
    assert!(lines(&stack, &["keys", "list"]).await.is_empty());
}

#[tokio::test]
async fn a_key_is_shown_in_full_once_and_then_by_its_id_alone() {
    let stack = Stack::start().await;
    lines(&stack, &["tenants", "create", "acme"]).await;
    let create = ["keys", "create", "--tenant", "acme", "--scope", "read", "--expires-in", "90d"];
    let created = stack.forebay(&create).await;
    assert_eq!(created.code, 0, "{created:?}");
    let key = created.output.trim_end();
    assert_eq!((key.len(), key.starts_with("fbk_")), (60, true), "the key alone: {created:?}");
    let id = &key[4..16];
    let secret = &key[17..];
    assert!(created.errors.contains(id) && !created.errors.contains(secret), "{created:?}");

    let second = lines(&stack, &["keys", "create", "--tenant", "acme"]).await;
    assert_eq!(second[0]["scopes"], json!(["submit", "read"]));
    let second_key = second[0]["key"].as_str().expect("the key");
    assert_eq!(&second_key[4..16], second[0]["id"].as_str().unwrap());

    let listed = lines(&stack, &["keys", "list", "--tenant", "acme"]).await;
    let ids: BTreeSet<&str> = listed.iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from([id, &second_key[4..16]]));
    let first = listed.iter().find(|key| key["id"] == id).unwrap();
    let life_ms =
        first["expires_at_ms"].as_u64().unwrap() - first["created_at_ms"].as_u64().unwrap();
    assert_eq!((life_ms, &first["state"]), (90 * 86_400_000, &json!("active")));
    assert!(lines(&stack, &["keys", "list", "--tenant", "other"]).await.is_empty());

    let revoked = lines(&stack, &["keys", "revoke", id]).await;
    assert_eq!((&revoked[0]["id"], &revoked[0]["state"]), (&json!(id), &json!("revoked")));
    let table = stack.forebay(&["keys", "list"]).await;
    let row = table.output.lines().find(|line| line.starts_with(id)).expect("a row");
    assert!(row.contains("revoked") && row.contains("read"), "{row}");
    for said in [format!("{listed:?}"), format!("{revoked:?}"), format!("{table:?}")] {
        assert!(!said.contains(secret) && !said.contains("hash"), "{said}");
    }
}

#[tokio::test]
async fn mistakes_with_tenants_and_keys_are_named() {
    let stack = Stack::start().await;
    lines(&stack, &["tenants", "create", "acme"]).await;
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["tenants", "create", "acme"], 1, &["acme", "already"]),
        (&["tenants", "create", "No Name!"], 2, &["No Name!", "a-z"]),
        (&["tenants", "create", "b", "--in-flight", "0"], 2, &["in-flight", "none"]),
        (&["tenants", "set-limits", "acme"], 2, &["--tokens-per-minute"]),
        (&["tenants", "set-limits", "b", "--in-flight", "1"], 1, &["`b`", "tenants list"]),
        (&["tenants", "show", "b"], 1, &["`b`"]),
        (&["tenants", "delete", "b"], 1, &["`b`"]),
        (&["keys", "create"], 2, &["--tenant"]),
        (&["keys", "create", "--tenant", "b"], 1, &["`b`"]),
        (&["keys", "create", "--tenant", "acme", "--scope", "root"], 2, &["root", "submit"]),
        (&["keys", "create", "--tenant", "acme", "--expires-in", "0d"], 2, &["expires-in"]),
        (&["keys", "revoke"], 2, &["ID"]),
        (&["keys", "revoke", "fbk_abc"], 2, &["fbk_abc"]),
        (&["keys", "revoke", "aaaaaaaaaaaa"], 1, &["aaaaaaaaaaaa", "keys list"]),
    ];
    for (arguments, code, named) in cases {
        assert_refused(&stack.forebay(arguments).await, *code, named);
    }
    assert!(lines(&stack, &["keys", "list"]).await.is_empty());
}
