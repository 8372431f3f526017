//! Listening: bounded in connections and in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stream::Guarded;

/// Bounds of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once. More wait in the kernel's queue until one ends. 1,000 agents that
    /// fetch at once are served one after the other.
    pub connections: usize,
    /// How long a request's head may take, and how long an idle connection is kept.
    pub head: Duration,
    /// How long a peer may take nothing of an answer.
    pub stall: Duration,
    /// How long answers may go on after the end was asked for.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            head: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

/// The server could not listen. Another address, or ending who has it, helps.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {source}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the kernel says.
    pub source: std::io::Error,
}

/// Binds the address; port 0 lets the kernel choose.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Serves until `stop` is cancelled; then gives answers that are under way their grace.
pub async fn run(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let permit = slots.clone().acquire_owned().await.ok()?;
            match listener.accept().await {
                Ok((stream, _)) => Some((stream, permit)),
                Err(error) => {
                    // Out of file descriptors, or the peer is gone again: go on a little later.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    None
                }
            }
        };
        let (stream, permit) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        // Small answers should not wait for more to send.
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(Guarded::new(stream, limits.stall, permit));
        let service = TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(64 * 1024)
            .serve_connection(stream, service);
        let stop = stop.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(limits.grace, connection).await;
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}
