//! The server behind the other gateways: it answers each request for a vector at once with the same 384 numbers.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Numbers of a vector, as the worker's model has.
const WIDTH: usize = 384;

/// Starts it in this process; it ends with it. Returns its port.
pub(crate) async fn start(model: &str) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let values: Vec<f32> = (0..WIDTH).map(|n| (n as f32 * 0.37).sin() / 20.0).collect();
    let vector = response(
        &json!({
            "object": "list", "model": model, "usage": {"prompt_tokens": 12, "total_tokens": 12},
            "data": [{"object": "embedding", "index": 0, "embedding": values}],
        })
        .to_string(),
    );
    // Whatever else is asked for, as by checks of health: the one model.
    let models = response(
        &json!({"object": "list", "data": [{"id": model, "object": "model", "created": 1, "owned_by": "bench"}]})
            .to_string(),
    );
    let answers = Arc::new((vector, models));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A connection that breaks is its client's own affair.
            tokio::spawn(serve(stream, answers.clone()));
        }
    });
    Ok(port)
}

fn response(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

async fn serve(mut stream: TcpStream, answers: Arc<(Vec<u8>, Vec<u8>)>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4 * 1024);
    loop {
        buffer.clear();
        let head_end = loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        while buffer.len() < head_end + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let is_vector = head.starts_with("post") && head.contains("/embeddings");
        stream.write_all(if is_vector { &answers.0 } else { &answers.1 }).await?;
    }
}
