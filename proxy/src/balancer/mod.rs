//! A TCP balancer on loopback over the API servers, for clients that know one address only: a
//! node's kubelet and kube-proxy, and the parts of the control plane. Its address never changes
//! while API servers come, go and move.
//!
//! It relays bytes and knows nothing of TLS: certificates are checked end to end, and the API
//! servers' are valid for 127.0.0.1. Which server a connection goes to is decided in [`pool`], by
//! how the last connections went. Unlike the front door ([`crate::backends`]) it asks no server how it is:
//! a thousand nodes that did would be a load of their own.

pub mod pool;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tcp::tune;
use pool::Pool;

/// Connections at once. A node has a handful: kubelet, kube-proxy, the executor's watches, and
/// pods on the host network that use it.
const MAX_CONNECTIONS: usize = 512;
/// How long one server may take to accept; then the next is tried.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How long connections may finish after the balancer was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long connections to a server that has left the list live on.
const LEAVE: Duration = Duration::from_secs(60);
/// How long to wait for an earlier life to give the port up.
const BIND_DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no balancer.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// The port is taken.
    #[error("listening on 127.0.0.1:{port} for the way to the API servers: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
}

/// Told of each new list of servers.
type Keep = Box<dyn Fn(&[String]) + Send + Sync>;

/// The balancer; clones are the same one.
#[derive(Clone)]
pub struct Balancer {
    inner: Arc<Inner>,
}

struct Inner {
    port: u16,
    pool: Mutex<Pool>,
    /// Ends connections to servers that have left.
    leaving: Mutex<Vec<(String, CancellationToken)>>,
    keep: Keep,
}

impl Balancer {
    /// Listens on that port of 127.0.0.1, or on any for 0, and relays until `stop`. `configured` are
    /// servers that stay a last resort for ever; those that were `kept` of an earlier life come
    /// before them. `keep` is told of each new list.
    pub async fn start(
        port: u16,
        configured: &[String],
        kept: &[String],
        keep: impl Fn(&[String]) + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> Result<Self, BalancerError> {
        let listener = listen(port).await?;
        let port = listener.local_addr().map_or(port, |a| a.port());
        let turn = rand::rng().random_range(0..pool::MAX_SERVERS);
        let balancer = Self {
            inner: Arc::new(Inner {
                port,
                pool: Mutex::new(Pool::new(configured, kept, turn)),
                leaving: Mutex::default(),
                keep: Box::new(keep),
            }),
        };
        tokio::spawn(balancer.clone().accept(listener, stop));
        Ok(balancer)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.inner.port
    }

    /// The current list, in no order.
    pub fn servers(&self) -> Vec<String> {
        self.pool().current()
    }

    /// The API servers have moved. An empty list is ignored.
    pub fn update(&self, servers: &[String]) {
        let (before, now) = {
            let mut pool = self.pool();
            let before = pool.current();
            if !pool.update(servers) {
                return;
            }
            (before, pool.current())
        };
        tracing::info!(?before, ?now, "API servers");
        (self.inner.keep)(&now);
        let mut leaving = lock(&self.inner.leaving);
        leaving.retain(|(_, token)| !token.is_cancelled());
        for (_, token) in leaving.extract_if(.., |(server, _)| !now.contains(server)) {
            tokio::spawn(async move {
                tokio::time::sleep(LEAVE).await;
                token.cancel();
            });
        }
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        lock(&self.inner.pool)
    }

    /// The token that ends connections to that server.
    fn token(&self, server: &str) -> CancellationToken {
        let mut leaving = lock(&self.inner.leaving);
        if let Some((_, token)) = leaving.iter().find(|(s, _)| s == server) {
            return token.clone();
        }
        let token = CancellationToken::new();
        leaving.push((server.to_owned(), token.clone()));
        token
    }

    async fn accept(self, listener: TcpListener, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let relays = TaskTracker::new();
        let ended = CancellationToken::new();
        loop {
            // A slot first: what is too much waits in the kernel's own queue.
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = Arc::clone(&slots).acquire_owned() => slot,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((client, _)) => {
                    let (balancer, ended) = (self.clone(), ended.clone());
                    relays.spawn(async move {
                        let _slot = slot;
                        tokio::select! {
                            () = ended.cancelled() => {}
                            () = balancer.relay(client) => {}
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, for instance: it passes.
                    tracing::warn!(%error, "accepting a connection to the API servers");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        relays.close();
        if tokio::time::timeout(DRAIN, relays.wait()).await.is_err() {
            ended.cancel();
        }
    }

    async fn relay(&self, mut client: TcpStream) {
        let Some((server, mut upstream)) = self.connect().await else {
            return; // The client sees a connection that ends, and comes back by itself.
        };
        let left = self.token(&server);
        tune(&client);
        tune(&upstream);
        tokio::select! {
            () = left.cancelled() => {}
            // Each side's end is passed on by itself: half-open connections stay half open.
            _ = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {}
        }
    }

    async fn connect(&self) -> Option<(String, TcpStream)> {
        let candidates = self.pool().candidates(Instant::now());
        for server in candidates {
            let attempt = TcpStream::connect(server.as_str());
            match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
                Ok(Ok(stream)) => {
                    self.pool().succeeded(&server);
                    return Some((server, stream));
                }
                Ok(Err(error)) => tracing::debug!(server, %error, "API server refuses"),
                Err(_) => tracing::debug!(server, "API server does not accept in time"),
            }
            self.pool().failed(&server, Instant::now());
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding it, and plain lists are whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(port: u16) -> Result<TcpListener, BalancerError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + BIND_DEADLINE;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(source) => return Err(BalancerError::Listen { port, source }),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
