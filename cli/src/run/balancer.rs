//! A way to whichever API server answers: clients of the API know one address only, and API
//! servers come and go on a few agents. Bytes pass as they are, so TLS is between the client and
//! the API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long one API server may take to accept a connection before the next is tried.
const CONNECT: Duration = Duration::from_secs(2);
/// Most connections at a time: the framework and the controller manager have a few each.
const MOST: usize = 256;

/// Listens on a free port of loopback and passes connections on until the runtime ends.
pub async fn start(servers: Vec<String>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let servers: Arc<[String]> = servers.into();
    // The one that answered last is asked first.
    let first = Arc::new(AtomicUsize::new(0));
    let room = Arc::new(Semaphore::new(MOST));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((client, _)) => {
                    let (servers, first) = (servers.clone(), first.clone());
                    tokio::spawn(async move {
                        pass(client, &servers, &first).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, for instance: others have to end first.
                    tracing::warn!("accept a connection for the API servers: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(address)
}

async fn pass(mut client: TcpStream, servers: &[String], first: &AtomicUsize) {
    let start = first.load(Ordering::Relaxed);
    for n in 0..servers.len() {
        let at = (start + n) % servers.len();
        let server = &servers[at];
        match tokio::time::timeout(CONNECT, TcpStream::connect(server)).await {
            Ok(Ok(mut upstream)) => {
                first.store(at, Ordering::Relaxed);
                let _ = client.set_nodelay(true);
                let _ = upstream.set_nodelay(true);
                // The ends see for themselves how a connection ended.
                let _ = copy_bidirectional(&mut client, &mut upstream).await;
                return;
            }
            Ok(Err(error)) => tracing::debug!("{server}: {error}"),
            Err(_) => tracing::debug!("{server}: no answer within {} s", CONNECT.as_secs()),
        }
    }
    tracing::warn!("no API server accepts a connection: {}", servers.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn server(mark: u8) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(&[mark]).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_connection_goes_to_a_server_that_answers() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = gone.local_addr().unwrap().to_string();
        drop(gone);
        let alive = server(7).await.to_string();
        let address = start(vec![silent, alive]).await.unwrap();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut buffer = [0];
            stream.read_exact(&mut buffer).await.unwrap();
            assert_eq!(buffer, [7]);
        }
    }

    #[tokio::test]
    async fn a_connection_is_closed_where_no_server_answers() {
        let address = start(Vec::new()).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut buffer = Vec::new();
        assert_eq!(stream.read_to_end(&mut buffer).await.unwrap_or(0), 0);
    }
}
