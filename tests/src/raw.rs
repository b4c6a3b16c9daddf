//! AMQP 0-9-1 by hand: messages that no client library would write, such as properties that are not UTF-8.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::patience::SOON;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;
/// Class and method of what the broker says.
const TUNE: [u8; 4] = [0, 10, 0, 30];
const ACK: [u8; 4] = [0, 60, 0, 80];
const OPENED: [u8; 4] = [0, 10, 0, 41];
const CHANNEL_OPENED: [u8; 4] = [0, 20, 0, 11];
const CONFIRMING: [u8; 4] = [0, 85, 0, 11];
const START: [u8; 4] = [0, 10, 0, 10];

/// A property of a message, by its bit in the flags of a content header, as bytes on the wire.
#[derive(Debug, Clone)]
pub struct Property(u16, Vec<u8>);

impl Property {
    /// `headers`: one header with any bytes as its name, and `true` as its value.
    pub fn header(name: &[u8]) -> Self {
        let entry = [&short(name)[..], b"t\x01"].concat();
        Self(1 << 13, [&length(&entry)[..], &entry].concat())
    }

    /// `correlation_id`
    pub fn correlation_id(text: &[u8]) -> Self {
        Self(1 << 10, short(text))
    }

    /// `reply_to`
    pub fn reply_to(text: &[u8]) -> Self {
        Self(1 << 9, short(text))
    }

    /// `message_id`
    pub fn message_id(text: &[u8]) -> Self {
        Self(1 << 7, short(text))
    }

    /// `app_id`
    pub fn app_id(text: &[u8]) -> Self {
        Self(1 << 3, short(text))
    }
}

/// A connection with one channel on which confirms are on.
#[derive(Debug)]
pub struct RawPublisher {
    stream: TcpStream,
}

impl RawPublisher {
    /// Connects as `guest` to a virtual host on this machine.
    pub fn connect(port: u16, vhost: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect to RabbitMQ");
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut raw = Self { stream };
        raw.stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
        raw.awaits(START);
        let login = [&length(b"\0guest\0guest")[..], b"\0guest\0guest"].concat();
        raw.method(0, [0, 10, 0, 11], &[&length(b"")[..], &short(b"PLAIN"), &login, &short(b"en")]);
        let tune = raw.awaits(TUNE);
        // Its own limits of channels and frames are accepted; heartbeats are off.
        raw.method(0, [0, 10, 0, 31], &[&tune[4..10], &[0, 0]]);
        raw.method(0, [0, 10, 0, 40], &[&short(vhost.as_bytes()), &short(b""), &[0]]);
        raw.awaits(OPENED);
        raw.method(1, [0, 20, 0, 10], &[&short(b"")]);
        raw.awaits(CHANNEL_OPENED);
        raw.method(1, [0, 85, 0, 10], &[&[0]]);
        raw.awaits(CONFIRMING);
        raw
    }

    /// Publishes and waits until the broker has taken it.
    pub fn publish(&mut self, exchange: &str, key: &[u8], body: &[u8], properties: &[Property]) {
        self.method(1, [0, 60, 0, 40], &[&[0, 0], &short(exchange.as_bytes()), &short(key), &[0]]);
        let mut properties = properties.to_vec();
        properties.sort_by_key(|Property(bit, _)| std::cmp::Reverse(*bit));
        let flags = properties.iter().fold(0, |flags, Property(bit, _)| flags | bit);
        let mut header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes()].concat();
        header.extend(flags.to_be_bytes());
        for Property(_, bytes) in properties {
            header.extend(bytes);
        }
        self.frame(HEADER, 1, &header);
        self.frame(BODY, 1, body);
        self.awaits(ACK);
    }

    fn method(&mut self, channel: u16, method: [u8; 4], arguments: &[&[u8]]) {
        self.frame(METHOD, channel, &[&method[..], &arguments.concat()].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let head = [&[kind][..], &channel.to_be_bytes(), &length(payload)].concat();
        self.stream.write_all(&[&head[..], payload, &[FRAME_END]].concat()).unwrap();
    }

    /// The payload of the next frame, which has to be this method.
    fn awaits(&mut self, method: [u8; 4]) -> Vec<u8> {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).expect("a frame from RabbitMQ");
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; size as usize + 1];
        self.stream.read_exact(&mut payload).expect("a whole frame");
        let shown = String::from_utf8_lossy(&payload);
        assert!(payload.starts_with(&method), "RabbitMQ said {head:?} {shown} for {method:?}");
        payload
    }
}

fn short(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("at most 255 bytes");
    [&[length], bytes].concat()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_be_bytes()
}
