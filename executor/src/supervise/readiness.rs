//! Asks a component whether it is up.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::component::Readiness;

/// One question may take so long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks once.
pub async fn ready(readiness: &Readiness) -> bool {
    let answer = async {
        match readiness {
            Readiness::Running => true,
            Readiness::UnixSocket(path) => UnixStream::connect(path).await.is_ok(),
            Readiness::Http { port, path } => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                http(address, path).await.is_some_and(|status| status < 400)
            }
        }
    };
    tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(false)
}

/// The status of `GET <path>`. Only the first line of the answer is of interest, so no client.
pub async fn http(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::with_capacity(16);
    // "HTTP/1.1 200"
    while answer.len() < 12 {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
    let head = std::str::from_utf8(answer.get(..12)?).ok()?;
    head.strip_prefix("HTTP/1.")?.get(2..)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 256];
            let _ = stream.read(&mut buffer).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn a_status_below_400_is_ready_and_nothing_else_is() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nok", true),
            ("HTTP/1.1 503 Unavailable\r\n\r\n", false),
            ("SSH-2.0-OpenSSH_9.2\r\n", false),
            ("", false),
        ] {
            let port = answering(answer).await;
            let path = "/healthz".to_owned();
            assert_eq!(
                ready(&Readiness::Http { port, path }).await,
                expected,
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn a_socket_file_that_nobody_listens_on_is_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(!ready(&Readiness::UnixSocket(path.clone())).await);
        drop(tokio::net::UnixListener::bind(&path).unwrap());
        assert!(!ready(&Readiness::UnixSocket(path.clone())).await);
        std::fs::remove_file(&path).unwrap();
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert!(ready(&Readiness::UnixSocket(path)).await);
    }
}
