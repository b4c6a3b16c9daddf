//! The Docker Engine behind its socket: connecting, a time-out on every call, and errors that say what to do.

use std::{future::Future, io, path::Path, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use tokio::{net::UnixStream, time::timeout};

/// The longest that one call may take.
const CALL_S_MAX: u64 = 10;

/// Why the engine did not do what it was asked.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The HTTP status, where it answered at all.
    pub status: Option<u16>,
    /// The cause and what to do.
    pub reason: String,
}

/// A client that speaks the engine's version of the API. One an operation: engines are upgraded under a running fleet,
/// and the library opens a connection for each call anyway.
pub(super) async fn connect(socket: &Path) -> Result<Docker, String> {
    let shown = socket.display();
    // The library's own error does not distinguish an engine that is away from one that refuses us.
    let probe = timeout(Duration::from_secs(CALL_S_MAX), UnixStream::connect(socket)).await;
    if let Err(error) = probe.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => format!(
                "there is no socket at {shown}: start the Docker Engine, or say in `autoscaler.docker.socket` where \
                 its socket is (in a container it has to be mounted)"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "this user may not write to {shown}: put it into the group that owns the socket (`stat -c %G {shown}`; \
                 in Compose `group_add`). Any user who may write there is root on that host"
            ),
            io::ErrorKind::ConnectionRefused => {
                format!("no engine listens at {shown}: start it (`systemctl start docker`)")
            }
            _ => format!("{shown}: {error}"),
        });
    }
    let path =
        socket.to_str().ok_or_else(|| format!("the path {shown} of the socket is not UTF-8"))?;
    let client = Docker::connect_with_unix(path, CALL_S_MAX, API_DEFAULT_VERSION);
    let client = client.map_err(|error| format!("{shown}: {error}"))?;
    within(client.negotiate_version()).await.map_err(|refusal| refusal.reason)
}

/// Awaits a call, at most for as long as one may take.
pub(super) async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Refusal> {
    let late = || format!("the engine did not answer within {CALL_S_MAX} s: look at `docker info`");
    match timeout(Duration::from_secs(CALL_S_MAX), call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Error::DockerResponseServerError { status_code, message })) => {
            Err(Refusal { status: Some(status_code), reason: with_remedy(&message) })
        }
        Ok(Err(Error::RequestTimeoutError)) | Err(_) => {
            Err(Refusal { status: None, reason: late() })
        }
        Ok(Err(error)) => Err(Refusal { status: None, reason: error.to_string() }),
    }
}

/// Takes a refusal as success where the change is made already: the container is gone, goes, or does not run.
pub(super) fn unless_done(outcome: Result<(), Refusal>) -> Result<(), String> {
    match outcome {
        Err(Refusal { status: Some(404 | 409), .. }) | Ok(()) => Ok(()),
        Err(refusal) => Err(refusal.reason),
    }
}

/// The engine's own words, and what to do where they leave that open.
fn with_remedy(message: &str) -> String {
    let message = message.trim();
    let has = |part: &str| message.to_lowercase().contains(part);
    let remedy = if has("no such image") {
        "build or pull it, or name another one in `autoscaler.docker.image`"
    } else if has("network") && has("not found") {
        "create it, or name another one in `autoscaler.docker.network` (`docker network ls`)"
    } else if has("could not select device driver") {
        "install the NVIDIA container toolkit on that host, or let the pool's `device` be `cpu`"
    } else if has("executable file not found") {
        "the image needs `forebay-worker` in its PATH; see `autoscaler.docker.image`"
    } else if has("invalid volume specification") || has("invalid mount") {
        "see `autoscaler.docker.volumes`: `volume-or-folder:/path[:ro]`"
    } else {
        return message.to_owned();
    };
    format!("{message}: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named_with_what_to_do() {
        let reason = connect(Path::new("/nowhere/docker.sock")).await.unwrap_err();
        assert!(reason.contains("no socket at /nowhere/docker.sock"), "{reason}");
        assert!(reason.contains("autoscaler.docker.socket"), "{reason}");
    }

    #[tokio::test]
    async fn a_socket_without_an_engine_is_distinguished_from_no_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let reason = connect(&path).await.unwrap_err();
        assert!(reason.contains("no engine listens at"), "{reason}");
    }

    #[test]
    fn what_the_engine_says_comes_with_what_to_do() {
        let image = with_remedy("No such image: forebay:gone");
        assert!(image.starts_with("No such image: forebay:gone: build or pull it"), "{image}");
        assert!(with_remedy("network nets not found").contains("autoscaler.docker.network"));
        assert!(with_remedy("could not select device driver \"nvidia\"").contains("toolkit"));
        assert_eq!(with_remedy("disk is full\n"), "disk is full");
    }
}
