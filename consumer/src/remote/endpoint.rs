//! [`Endpoint`]: calls over HTTP, one thread each while they last.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use forebay_fabric::{
    config::{RemoteConfig, RemoteTask, SecretUrl},
    tls::Tls,
};
use secrecy::{ExposeSecret, SecretString};
use ureq::{
    Agent,
    http::{HeaderMap, HeaderValue},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    allowance,
    failure::{self, Failure},
};
use crate::error::WorkerError;

/// The longest that resolving a name and connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer apart from its rows.
const ANSWER_BYTES: u64 = 1 << 20;
/// Bytes of a row: a vector of 4,096 values as decimal numbers of 32 characters.
const ROW_BYTES: u64 = 128 << 10;
/// Bytes of the body of an error that are read.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// The endpoint of a remote model.
pub struct Endpoint {
    agent: Agent,
    url: SecretUrl,
    /// The value of the header that has the key.
    authorization: Option<SecretString>,
    timeout: Duration,
}

/// The end of a call.
#[derive(Debug, PartialEq, Eq)]
pub struct Called {
    /// The body of the answer.
    pub result: Result<Vec<u8>, Failure>,
    /// How long the endpoint asks its callers to pause.
    pub pause: Option<Duration>,
    /// How long it took.
    pub took: Duration,
}

impl Endpoint {
    /// An endpoint that is not called yet. Reads the API key.
    pub fn new(config: &RemoteConfig, tls: &Tls) -> Result<Self, WorkerError> {
        let key = key(config)?;
        let roots = match tls.all_roots_pem() {
            None => RootCerts::PlatformVerifier,
            Some(pem) => RootCerts::new_with_certs(&certificates(&pem)),
        };
        // Without the client certificate of `[tls]`: it is for this fleet's own servers.
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = Agent::config_builder()
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .http_status_as_error(false)
            // A body that is sent on elsewhere would take the key along.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .max_idle_connections_per_host(config.concurrency_max)
            .max_idle_connections(config.concurrency_max)
            .build()
            .new_agent();
        let path = match config.task {
            RemoteTask::Embed => "embeddings",
            RemoteTask::Rerank => "rerank",
        };
        let url = format!("{}/{path}", config.url.expose().trim_end_matches('/'));
        let authorization =
            key.map(|key| SecretString::from(format!("Bearer {}", key.expose_secret())));
        let timeout = Duration::from_millis(config.timeout_ms);
        Ok(Self { agent, url: url.as_str().into(), authorization, timeout })
    }

    /// The longest that a call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The address that is called.
    pub fn url(&self) -> &SecretUrl {
        &self.url
    }

    /// Sends `body`, which has so many inputs, and waits for the answer. Blocks its thread.
    pub fn call(&self, id: &str, body: &[u8], inputs: usize, timeout: Duration) -> Called {
        let began = Instant::now();
        let mut request = self
            .agent
            .post(self.url.expose())
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header("content-type", "application/json")
            // By which both sides' logs are found.
            .header("x-request-id", id);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization.expose_secret());
        }
        let failed = |error: &ureq::Error| match error {
            ureq::Error::Timeout(_) if timeout < self.timeout => Failure::OutOfTime,
            ureq::Error::Timeout(_) => {
                Failure::Passing(format!("no answer within {:.1} s", timeout.as_secs_f64()))
            }
            other => Failure::Passing(other.to_string()),
        };
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => {
                return Called { result: Err(failed(&error)), pause: None, took: began.elapsed() };
            }
        };
        let status = response.status().as_u16();
        let pause = allowance::pause(status, |name| text(response.headers(), name));
        let retries = text(response.headers(), "x-should-retry").map(|value| value != "false");
        let is_ok = (200..300).contains(&status);
        let bytes_max =
            if is_ok { ANSWER_BYTES + ROW_BYTES * inputs as u64 } else { ERROR_BYTES_MAX };
        let read = response.body_mut().with_config().limit(bytes_max).read_to_vec();
        let result = match read {
            Ok(bytes) if is_ok => Ok(bytes),
            Ok(bytes) => Err(failure::of_status(status, &bytes, retries)),
            // What it says is too long to be read, or was cut.
            Err(_) if !is_ok => Err(failure::of_status(status, b"", retries)),
            Err(error) => Err(failed(&error)),
        };
        Called { result, pause, took: began.elapsed() }
    }
}

fn text<'a>(headers: &'a HeaderMap<HeaderValue>, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The API key of the variable or the file that the configuration names.
fn key(config: &RemoteConfig) -> Result<Option<SecretString>, WorkerError> {
    let (found, source) = match (&config.api_key_env, &config.api_key_file) {
        (Some(name), _) => {
            let found = env::var(name).map_err(|error| error.to_string());
            (found, format!("the variable {name}"))
        }
        (None, Some(file)) => {
            let found = fs::read_to_string(file).map_err(|error| error.to_string());
            (found, format!("the file {}", file.display()))
        }
        (None, None) => return Ok(None),
    };
    let wrong = |reason: String| WorkerError::ApiKey { source_name: source.clone(), reason };
    let key = found.map_err(wrong)?;
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("it is empty, or has characters that no header takes".to_owned()));
    }
    Ok(Some(SecretString::from(key)))
}

/// The certificates in `pem`. All of them were parsed once when the configuration was read.
fn certificates(pem: &str) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem.as_bytes()).filter_map(Result::ok);
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    items.filter_map(certificate).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        path::Path,
        thread,
    };

    use forebay_fabric::Config;

    use super::*;

    fn config(port: u16, lines: &str) -> RemoteConfig {
        let text = format!(
            "[models.m.remote]\nurl = \"http://127.0.0.1:{port}/v1/\"\nmodel = \"x\"\n{lines}\n"
        );
        let (config, _) = Config::parse(Path::new("f"), &text, []).unwrap();
        config.models.into_values().next().unwrap().remote.unwrap()
    }

    fn endpoint(port: u16, lines: &str) -> Result<Endpoint, WorkerError> {
        forebay_fabric::install_crypto();
        Endpoint::new(&config(port, lines), &Tls::load(&Config::default().tls).unwrap())
    }

    /// A server that answers one request with these bytes, and returns its head.
    fn server(answer: &'static str) -> (u16, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serves = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            // To its end: what is not read when the connection closes would reset it.
            while !request.ends_with("\r\n\r\n{}") {
                let mut bytes = [0; 4_096];
                let read = stream.read(&mut bytes).unwrap();
                assert!(read > 0, "cut: {request}");
                request.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            }
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        (port, serves)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_key_goes_into_its_header_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, "sk-secret\n").unwrap();
        let (port, serves) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        let endpoint = endpoint(port, &format!("api_key_file = \"{}\"", file.display())).unwrap();
        let called = endpoint.call("job-1", b"{}", 1, SECOND * 30);
        assert_eq!((called.result, called.pause), (Ok(b"{}".to_vec()), None));
        let head = serves.join().unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/embeddings http/1.1"), "{head}");
        assert!(head.contains("authorization: bearer sk-secret"), "{head}");
        assert!(head.contains("x-request-id: job-1"), "{head}");
    }

    #[test]
    fn a_key_that_is_not_there_is_named_by_its_source() {
        let error = |lines: &str| endpoint(1, lines).err().unwrap().to_string();
        let missing = error("api_key_env = \"FOREBAY_NO_SUCH_KEY\"");
        assert!(missing.contains("the variable FOREBAY_NO_SUCH_KEY"), "{missing}");
        let missing = error("api_key_file = \"/no/such/key\"");
        assert!(missing.contains("the file /no/such/key"), "{missing}");
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let (port, serves) =
            server("HTTP/1.1 429 Too Many\r\nretry-after-ms: 40\r\ncontent-length: 0\r\n\r\n");
        let called = endpoint(port, "").unwrap().call("j", b"{}", 1, SECOND * 30);
        serves.join().unwrap();
        assert_eq!(called.result, Err(Failure::Limited));
        assert_eq!(called.pause, Some(Duration::from_millis(40)));
    }

    #[test]
    fn a_connection_that_is_refused_cut_or_silent_is_a_passing_failure() {
        let is_passing = |called: Called| {
            assert!(matches!(called.result, Err(Failure::Passing(_))), "{called:?}");
        };
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        is_passing(endpoint(free, "").unwrap().call("j", b"{}", 1, SECOND * 30));
        let (port, serves) = server("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{");
        is_passing(endpoint(port, "").unwrap().call("j", b"{}", 1, SECOND * 30));
        serves.join().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let endpoint = endpoint(port, "timeout_ms = 50").unwrap();
        is_passing(endpoint.call("j", b"{}", 1, endpoint.timeout()));
        let called = endpoint.call("j", b"{}", 1, endpoint.timeout() / 5);
        assert_eq!(
            called.result,
            Err(Failure::OutOfTime),
            "its own deadline is no fault of the endpoint"
        );
    }
}
