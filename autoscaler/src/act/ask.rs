//! Asking a worker itself: the status that its `/readyz` answers with.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::decide::Answer;

/// How long a worker may take to answer. One on a busy machine may take a while; a stopped one takes for ever.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// The beginning of an answer: `HTTP/1.0 200`.
const STATUS_BYTES: usize = 12;

/// Asks the worker that listens there.
pub async fn ask(address: SocketAddr) -> Answer {
    match timeout(ANSWER_MAX, TcpStream::connect(address)).await {
        // Nothing listens there, or no way leads there: nothing is learned about the worker.
        Err(_) | Ok(Err(_)) => Answer::Unreachable,
        Ok(Ok(stream)) => match timeout(ANSWER_MAX, status(stream)).await {
            Ok(Ok(200)) => Answer::Ready,
            Ok(Ok(_)) => Answer::Waits,
            Ok(Err(_)) | Err(_) => Answer::Silent,
        },
    }
}

async fn status(mut stream: TcpStream) -> io::Result<u16> {
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut head = [0; STATUS_BYTES];
    stream.read_exact(&mut head).await?;
    let status = std::str::from_utf8(&head).ok().and_then(|head| head.get(9..)?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP status"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one question, with these bytes.
    async fn worker(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 24];
            stream.read_exact(&mut question).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_worker_is_ready_or_waits_by_the_status_that_it_answers_with() {
        assert_eq!(ask(worker(b"HTTP/1.0 200 OK\r\n\r\n").await).await, Answer::Ready);
        assert_eq!(ask(worker(b"HTTP/1.0 503 Wait\r\n\r\n{}").await).await, Answer::Waits);
    }

    #[tokio::test]
    async fn one_that_takes_the_question_and_does_not_answer_is_silent() {
        assert_eq!(ask(worker(b"").await).await, Answer::Silent);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // As a stopped process: the kernel takes the connection, and nothing reads.
        assert_eq!(ask(listener.local_addr().unwrap()).await, Answer::Silent);
    }

    #[tokio::test]
    async fn where_nothing_listens_nothing_is_learned() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(ask(address).await, Answer::Unreachable);
    }
}
