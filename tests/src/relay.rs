//! A TCP relay that stands between a program and a server and can be made to fail as networks do.
//!
//! It runs on a thread of its own, so that a test that blocks its thread does not hold up the link.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{patience, ports};

/// How the relay treats the bytes that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Has closed every connection and refuses new ones.
    Cut,
    /// Takes connections and bytes, passes nothing on, and closes nothing. What it holds goes on later.
    Stall,
    /// Passes everything on, so much later.
    Delay(Duration),
    /// Loses what clients send. A connection that lost something is closed when this ends: no network
    /// goes on in the middle of a stream.
    LoseRequests,
    /// Loses the server's replies in the same way.
    LoseReplies,
}

#[derive(Debug, Clone, Copy)]
struct State {
    target: SocketAddr,
    mode: Mode,
    /// Connections of an earlier era are closed.
    era: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Replies,
}

/// A port that leads to a server, more or less. It closes with its value.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    state: watch::Sender<State>,
}

impl Relay {
    /// Opens a port that leads to a port of this machine.
    pub fn to(target_port: u16) -> Self {
        let port = ports::free_port();
        let state = State { target: local(target_port), mode: Mode::Pass, era: 0 };
        let (state, watched) = watch::channel(state);
        // Bound here, so that a program can connect as soon as the relay exists.
        let listener = std::net::TcpListener::bind(local(port)).expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || runtime.block_on(serve(listener, port, watched)));
        Self { port, state }
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets what happens from now on; cutting also closes what is open.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.era += u64::from(mode == Mode::Cut);
        });
    }

    /// Closes every open connection, as a restart of what stands between would, and takes new ones.
    pub fn drop_connections(&self) {
        self.state.send_modify(|state| state.era += 1);
    }

    /// Leads to another port from now on; connections to the one before are closed.
    pub fn point_at(&self, target_port: u16) {
        self.state.send_modify(|state| {
            state.target = local(target_port);
            state.era += 1;
        });
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        self.set(Mode::Pass);
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Runs until the relay is dropped. While it is cut nothing listens, so that connections are refused.
async fn serve(listener: std::net::TcpListener, port: u16, mut state: watch::Receiver<State>) {
    let mut listener = Some(TcpListener::from_std(listener).expect("inside a runtime"));
    loop {
        if state.borrow_and_update().mode == Mode::Cut {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(local(port)).await.expect("its own port again"));
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            accepted = accept(listener.as_ref()) => if let Ok(client) = accepted {
                tokio::spawn(relay(client, state.clone()));
            },
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// One connection, until either side closes it or its era ends.
async fn relay(client: TcpStream, mut state: watch::Receiver<State>) {
    let (mode, target, era) = {
        let state = state.borrow();
        (state.mode, state.target, state.era)
    };
    if mode == Mode::Cut {
        return; // it was taken just as the relay was cut
    }
    let requests = state.clone();
    let replies = state.clone();
    let passing = async {
        passes(&mut requests.clone()).await;
        let server = TcpStream::connect(target).await?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            ended = pump(from_client, to_server, Direction::Requests, requests) => ended,
            ended = pump(from_server, to_client, Direction::Replies, replies) => ended,
        }
    };
    // However it ends, both sockets close here; why is of no interest to a relay.
    tokio::select! {
        _ = passing => {}
        _ = state.wait_for(|state| state.era != era) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            // A stalled link does not show that the other side has gone.
            passes(&mut state).await;
            return Ok(());
        }
        if let Mode::Delay(delay) = passes(&mut state).await {
            patience::at(Instant::now() + delay).await;
        }
        match (passes(&mut state).await, direction) {
            (mode @ Mode::LoseRequests, Direction::Requests)
            | (mode @ Mode::LoseReplies, Direction::Replies) => {
                let _ = state.wait_for(|state| state.mode != mode).await;
                return Ok(());
            }
            _ => {}
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// Waits while the relay stalls; the mode after that. A relay that is gone cuts.
async fn passes(state: &mut watch::Receiver<State>) -> Mode {
    let mode = state.wait_for(|state| state.mode != Mode::Stall).await.map(|state| state.mode);
    mode.unwrap_or(Mode::Cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::{SOON, until};

    /// How long silence is listened to.
    const MOMENT: Duration = Duration::from_millis(150);

    /// Says back what it hears, after its own name.
    async fn echo(name: u8) -> u16 {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(heard) = stream.read_u8().await {
                        if stream.write_all(&[name, heard]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        port
    }

    async fn connect(relay: &Relay) -> TcpStream {
        TcpStream::connect(local(relay.port())).await.unwrap()
    }

    async fn answer(stream: &mut TcpStream) -> io::Result<[u8; 2]> {
        let mut answer = [0; 2];
        let read = tokio::time::timeout(SOON, stream.read_exact(&mut answer));
        read.await.expect("an answer, or the end, in time").map(|_| answer)
    }

    async fn is_silent(stream: &mut TcpStream) -> bool {
        tokio::time::timeout(MOMENT, stream.read_u8()).await.is_err()
    }

    #[tokio::test]
    async fn what_is_sent_arrives_and_a_new_target_takes_over() {
        let first = echo(b'1').await;
        let second = echo(b'2').await;
        let relay = Relay::to(first);
        let mut stream = connect(&relay).await;
        stream.write_u8(b'a').await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), *b"1a");
        relay.point_at(second);
        assert!(answer(&mut stream).await.is_err(), "the connection to the old target is closed");
        let mut stream = connect(&relay).await;
        stream.write_u8(b'b').await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), *b"2b");
    }

    #[tokio::test]
    async fn a_cut_relay_closes_and_refuses_until_it_heals() {
        let relay = Relay::to(echo(b'1').await);
        let mut stream = connect(&relay).await;
        relay.set(Mode::Cut);
        assert!(answer(&mut stream).await.is_err());
        let refused = async || TcpStream::connect(local(relay.port())).await.err();
        let error = until("connections are refused", SOON, refused).await;
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        relay.heal();
        let connected = async || TcpStream::connect(local(relay.port())).await.ok();
        let mut stream = until("connections are taken again", SOON, connected).await;
        stream.write_u8(b'a').await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), *b"1a");
    }

    #[tokio::test]
    async fn a_stalled_relay_holds_what_it_has_and_passes_it_on_later() {
        let relay = Relay::to(echo(b'1').await);
        let mut open = connect(&relay).await;
        relay.set(Mode::Stall);
        let mut new = connect(&relay).await;
        for stream in [&mut open, &mut new] {
            stream.write_u8(b'a').await.unwrap();
            assert!(is_silent(stream).await);
        }
        relay.heal();
        for stream in [&mut open, &mut new] {
            assert_eq!(answer(stream).await.unwrap(), *b"1a");
        }
    }

    #[tokio::test]
    async fn a_lost_direction_stays_silent_and_ends_the_connection() {
        let relay = Relay::to(echo(b'1').await);
        for mode in [Mode::LoseRequests, Mode::LoseReplies] {
            let mut stream = connect(&relay).await;
            stream.write_u8(b'a').await.unwrap();
            assert_eq!(answer(&mut stream).await.unwrap(), *b"1a");
            relay.set(mode);
            stream.write_u8(b'b').await.unwrap();
            assert!(is_silent(&mut stream).await);
            relay.heal();
            assert!(answer(&mut stream).await.is_err(), "a stream with a hole goes on");
        }
    }

    #[tokio::test]
    async fn a_slow_relay_passes_everything_on_in_time() {
        let relay = Relay::to(echo(b'1').await);
        let delay = Duration::from_millis(60);
        relay.set(Mode::Delay(delay));
        let mut stream = connect(&relay).await;
        let sent_at = Instant::now();
        stream.write_u8(b'a').await.unwrap();
        assert_eq!(answer(&mut stream).await.unwrap(), *b"1a");
        assert!(sent_at.elapsed() >= delay * 2, "there and back");
    }
}
