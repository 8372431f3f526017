//! Accepts plain HTTP/1.1 connections for the HTTP sides, with limits.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::upstream::Body;
use crate::limit::Gate;
use crate::metrics::{Metrics, Side, SideLabel};
use crate::tcp;

/// After an error of `accept`, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a request's head may take; also how long a connection may wait for its next request.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// Bytes of a head; tokens and subprotocols fit many times.
const HEAD_LIMIT: usize = 64 * 1024;
/// How long saying "too many" may take.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);

/// One HTTP side's door.
pub struct Door {
    /// Which side.
    pub side: Side,
    /// Limits.
    pub gate: Gate,
    /// Counters.
    pub metrics: Metrics,
}

impl Door {
    /// Serves until `stop`; then connections get their answers, and end at the latest with `end`.
    pub async fn run<S, F>(
        self,
        listener: TcpListener,
        serve: S,
        tasks: TaskTracker,
        stop: CancellationToken,
        end: CancellationToken,
    ) where
        S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let label = SideLabel { side: self.side };
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.metrics.accepted.get_or_create(&label).inc();
            let slot = match self.gate.enter(peer.ip()) {
                Ok(slot) => slot,
                Err(reason) => {
                    self.metrics.refuse(self.side, reason);
                    tasks.spawn(refuse(stream));
                    continue;
                }
            };
            tcp::tune(&stream);
            let open = self.metrics.open.get_or_create_owned(&label);
            let (serve, stop, end) = (serve.clone(), stop.clone(), end.clone());
            tasks.spawn(async move {
                let _slot = slot;
                open.inc();
                connection(stream, peer, serve, &stop, &end).await;
                open.dec();
            });
        }
    }
}

async fn connection<S, F>(
    stream: TcpStream,
    peer: SocketAddr,
    serve: S,
    stop: &CancellationToken,
    end: &CancellationToken,
) where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone,
    F: Future<Output = Response<Body>>,
{
    let service = service_fn(move |request| {
        let answer = serve(request, peer);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection");
                }
                return;
            }
        }
    }
}

/// A client that came when there were too many.
async fn refuse(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 43\r\n\r\nthe front door has as many as it may have.\n";
    let told = async {
        // Unread bytes would turn the end into a reset and lose the answer.
        if stream.read(&mut [0; 4096]).await? == 0 {
            return Ok(());
        }
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(REFUSAL_DEADLINE, told).await;
}
