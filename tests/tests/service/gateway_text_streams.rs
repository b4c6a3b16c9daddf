//! Text over HTTP as it comes: chunks of OpenAI's interfaces, and the events of jobs.

use std::time::Duration;

use forebay_tests::gateway::{Gateway, events, until_closed, until_read};
use forebay_tests::model::TINY;
use forebay_tests::patience::SOON;
use forebay_tests::stack::Stack;
use forebay_tests::writer::{Writer, beside_script, reply_to};
use serde_json::{Value, json};

use super::commands::json_lines;
use super::gateway_text::{posting, with_writer};

fn question() -> Value {
    json!({"model": TINY, "messages": [{"role": "user", "content": "Hi"}], "stream": true})
}

#[tokio::test]
async fn tokens_come_before_the_end_and_the_body_ends_with_done() {
    let stack = Stack::start().await.tiny();
    let (gateway, mut writer) = with_writer(&stack).await;
    let mut body = question();
    body["stream_options"] = json!({"include_usage": true});
    let mut stream = posting(&gateway, "/v1/chat/completions", &body, "-").await;
    let mut taken = writer.take().await;
    assert_eq!(taken.job["params"]["stream"], true);
    taken.tokens(&[1, 2], "Hel").await;
    let head = until_read(&mut stream, "Hel").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
    taken.tokens(&[3], "lo").await;
    let middle = until_read(&mut stream, "\"lo\"").await;
    taken.end("Hello!", 4).await;
    let rest = until_closed(&mut stream, SOON).await;
    let all = events(&format!("{head}{middle}{rest}"));
    let text: String =
        all.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hello!");
    assert!(rest.contains("data: [DONE]\n\n"), "{rest}");
    let usage = &all[all.len() - 2];
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &json!(15)));
}

#[tokio::test]
async fn a_mistake_in_the_prompt_is_an_answer_and_a_failure_later_an_event() {
    let stack = Stack::start().await.tiny();
    let (gateway, mut writer) = with_writer(&stack).await;
    let mut stream = posting(&gateway, "/v1/chat/completions", &question(), "-").await;
    writer
        .take()
        .await
        .fail("input_too_long", "`messages` have 9000 tokens, the model reads 8192")
        .await;
    let all = until_closed(&mut stream, SOON).await;
    assert!(all.starts_with("HTTP/1.1 400") && all.contains("\"param\":\"messages\""), "{all}");

    let mut stream = posting(&gateway, "/v1/chat/completions", &question(), "-").await;
    let mut taken = writer.take().await;
    taken.tokens(&[1], "Hel").await;
    let head = until_read(&mut stream, "Hel").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    taken.fail("internal", "the device is lost").await;
    let rest = events(&until_closed(&mut stream, SOON).await);
    assert_eq!(rest.last().unwrap()["error"]["message"], "the device is lost", "{rest:?}");
}

#[tokio::test]
async fn a_text_comes_whole_although_no_tokens_do() {
    let stack = Stack::start().await.tiny();
    let (gateway, mut writer) = with_writer(&stack).await;
    for (path, body) in [
        ("/v1/chat/completions", question()),
        ("/v1/completions", json!({"model": TINY, "prompt": "Hi", "stream": true})),
        ("/v1/responses", json!({"model": TINY, "input": "Hi", "stream": true})),
    ] {
        let mut stream = posting(&gateway, path, &body, "-").await;
        writer.take().await.end("Hello", 2).await;
        let all = until_closed(&mut stream, SOON).await;
        assert!(all.starts_with("HTTP/1.1 200") && all.contains("Hello"), "{path}: {all}");
    }
}

fn following(id: &str, last: Option<&str>) -> String {
    let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
    format!(
        "GET /v1/jobs/{id}/events HTTP/1.1\r\nhost: localhost\r\n{last}connection: close\r\n\r\n"
    )
}

#[tokio::test]
async fn a_job_s_tokens_are_events_and_a_client_that_comes_back_gets_those_after_the_last() {
    let stack = Stack::start().await.tiny();
    let (gateway, mut writer) = with_writer(&stack).await;
    let other = Gateway::of(&stack, &[]).await;
    let body = json!({"model": TINY, "task": "generate", "input": {"prompt": "Hi"}, "params": {"stream": true},
                      "lane": "interactive"});
    let answer = gateway.post("/v1/jobs", &body);
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.body["id"].as_str().unwrap();
    let mut taken = writer.take().await;
    // One replica hears of tokens, and another one looks for them.
    let mut streams = [
        gateway.sending(following(id, None).as_bytes()).await,
        other.sending(following(id, None).as_bytes()).await,
    ];
    taken.tokens(&[5, 6], "Hel").await;
    for stream in &mut streams {
        let came = until_read(stream, "Hel").await;
        assert!(came.contains("id: 2\ndata: {"), "{came}");
        let tokens = json!({"at": 0, "ids": [5, 6], "text": "Hel"});
        assert_eq!(events(&came).last().unwrap()["tokens"], tokens);
    }
    taken.tokens(&[7], "lo").await;
    for stream in &mut streams {
        until_read(stream, "id: 3\n").await;
    }
    let mut back = other.sending(following(id, Some("2")).as_bytes()).await;
    let came = events(&until_read(&mut back, "\"lo\"").await);
    assert_eq!(came[0]["tokens"]["ids"], json!([7]), "{came:?}");
    taken.end("Hello", 3).await;
    for stream in streams.iter_mut().chain([&mut back]) {
        let rest = events(&until_closed(stream, SOON).await);
        assert_eq!(
            (&rest[rest.len() - 2]["output"]["text"], &rest[rest.len() - 1]),
            (&json!("Hello"), &json!("[DONE]"))
        );
    }
    let wrong = gateway.get_with(&format!("/v1/jobs/{id}/events"), &[("last-event-id", "x")]);
    assert_eq!(wrong.mistake(), (400, "invalid_request", Some("Last-Event-ID")), "{wrong:?}");
}

#[tokio::test]
async fn the_command_chat_prints_an_answer_and_submit_waits_for_one() {
    let stack = Stack::start().await.tiny();
    assert_eq!(stack.forebay(&["queues"]).await.code, 0);
    let writer = Writer::of(&stack, TINY).await;
    let asked = async {
        let said = stack.forebay(&["chat", "--max-tokens", "9", "--temperature", "0", "Hi"]).await;
        assert_eq!(
            (said.code, said.output),
            (0, format!("{}\n", reply_to("Hi"))),
            "{}",
            said.errors
        );
        let said = stack.forebay(&["chat", "--system", "Be kind.", "--json", "Hi"]).await;
        let lines = json_lines(&said);
        assert_eq!(
            (&lines[0]["text"], &lines[0]["finish_reason"]),
            (&json!(reply_to("Hi")), &json!("stop"))
        );
        let submit = [
            "submit",
            "--task",
            "generate",
            "--wait",
            "--json",
            "--max-tokens",
            "9",
            "--stop",
            "x",
        ];
        let done = stack.forebay(&[&submit[..], &["one", "two"]].concat()).await;
        assert_eq!(done.code, 0, "{done:?}");
        let texts: Vec<Value> = json_lines(&done)
            .into_iter()
            .map(|line| line["result"]["output"]["text"].clone())
            .collect();
        assert_eq!(texts, [reply_to("one"), reply_to("two")]);
    };
    let all = beside_script(writer, asked);
    tokio::time::timeout(SOON + Duration::from_secs(30), all).await.expect("in time");
}
