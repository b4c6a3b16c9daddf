//! Asks a gateway for the vectors of texts, or for text, by `async-openai` and its defaults. `{"texts": [...]}` on
//! standard input is answered with `{"version": ..., "vectors": [[...]]}`, and `{"message": ..., "prompt": ...}` with
//! the texts that a model wrote, by the name of the way that they came.

use std::{env, error::Error, io};

use async_openai::{
    Client,
    config::OpenAIConfig,
    types::{
        chat::{ChatCompletionMessageToolCalls, ChatCompletionTools, CompletionUsage},
        embeddings::CreateEmbeddingRequestArgs,
        responses::ResponseStreamEvent,
    },
};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

type Asked<T> = Result<T, Box<dyn Error>>;

/// Of the crate that is asked with.
const LOCK: &str = include_str!("../Cargo.lock");

fn main() -> Asked<()> {
    let asked: Value = serde_json::from_reader(io::stdin())?;
    let config = OpenAIConfig::new()
        .with_api_base(format!("{}/v1", env::var("FOREBAY_GATEWAY_URL")?))
        .with_api_key(env::var("FOREBAY_API_KEY")?);
    let client = Client::with_config(config);
    let model = env::var("FOREBAY_MODEL")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut answer = match asked.get("texts") {
        Some(texts) => {
            let texts = serde_json::from_value(texts.clone())?;
            json!({ "vectors": runtime.block_on(embed(&client, &model, texts))? })
        }
        None => json!({ "texts": runtime.block_on(write(&client, &model, &asked))? }),
    };
    answer["version"] = version().into();
    println!("{answer}");
    Ok(())
}

async fn embed(
    client: &Client<OpenAIConfig>,
    model: &str,
    texts: Vec<String>,
) -> Asked<Vec<Vec<f32>>> {
    let request = CreateEmbeddingRequestArgs::default().model(model).input(texts).build()?;
    let answer = client.embeddings().create(request).await?;
    Ok(answer.data.into_iter().map(|row| row.embedding).collect())
}

/// A request with these fields besides, of any of the types that are asked with.
fn request<T: DeserializeOwned>(model: &str, more: Value) -> Asked<T> {
    let mut fields = json!({"model": model, "temperature": 0.0});
    for (name, value) in more.as_object().ok_or("no fields")? {
        fields[name] = value.clone();
    }
    Ok(serde_json::from_value(fields)?)
}

async fn write(client: &Client<OpenAIConfig>, model: &str, asked: &Value) -> Asked<Value> {
    let said = json!([{"role": "user", "content": asked["message"]}]);
    let chat = |more: Value| {
        let mut fields = json!({"messages": said});
        for (name, value) in more.as_object().into_iter().flatten() {
            fields[name] = value.clone();
        }
        request(model, fields)
    };
    let mut came = json!({});
    let answer = client.chat().create(chat(json!({"max_completion_tokens": 32}))?).await?;
    came["chat"] = answer.choices[0].message.content.clone().into();
    let streamed = json!({"max_completion_tokens": 32, "stream_options": {"include_usage": true}});
    let mut chunks = client.chat().create_stream(chat(streamed)?).await?;
    let mut text = String::new();
    let mut usage = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        text.extend(chunk.choices.iter().filter_map(|choice| choice.delta.content.as_deref()));
        usage = chunk.usage.or(usage);
    }
    came["chat stream"] = text.into();
    // What was remembered of the prompt may differ.
    let counts =
        |usage: Option<CompletionUsage>| usage.map(|it| (it.prompt_tokens, it.completion_tokens));
    assert_eq!(counts(usage), counts(answer.usage));

    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
                        "required": ["city"], "additionalProperties": false});
    let tool: ChatCompletionTools = serde_json::from_value(
        json!({"type": "function", "function": {"name": "weather", "parameters": schema}}),
    )?;
    let called = chat(json!({"tools": [tool], "tool_choice": "required"}))?;
    let called = client.chat().create(called).await?;
    if let Some([ChatCompletionMessageToolCalls::Function(call)]) =
        called.choices[0].message.tool_calls.as_deref()
    {
        came["call"] = call.function.arguments.clone().into();
    }
    let format = json!({"type": "json_schema", "json_schema": {"name": "city", "schema": schema}});
    let formatted = client.chat().create(chat(json!({"response_format": format}))?).await?;
    came["format"] = formatted.choices[0].message.content.clone().into();

    let completion = request(model, json!({"prompt": asked["prompt"], "max_tokens": 16}))?;
    came["completion"] =
        client.completions().create(completion).await?.choices[0].text.clone().into();
    let input = json!({"input": asked["message"], "max_output_tokens": 32});
    let response = client.responses().create(request(model, input.clone())?).await?;
    came["response"] = response.output_text().into();
    let mut events = client.responses().create_stream(request(model, input)?).await?;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        if let ResponseStreamEvent::ResponseOutputTextDelta(event) = event? {
            text.push_str(&event.delta);
        }
    }
    came["response stream"] = text.into();
    Ok(came)
}

/// The version that the lock file pins.
fn version() -> &'static str {
    let package = LOCK.split("[[package]]").find(|text| text.contains("name = \"async-openai\""));
    package
        .and_then(|text| text.split("version = \"").nth(1)?.split('"').next())
        .unwrap_or_default()
}
