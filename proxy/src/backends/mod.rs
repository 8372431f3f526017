//! The API servers behind the front door: where they are ([`source`]), how they are ([`probe`]),
//! and a connection to the best of them.

pub mod pool;
pub mod probe;
pub mod source;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::{BackendLabel, Metrics};
use crate::tcp;
use pool::{Backend, Change, Health, Pool, Probe};

/// How long one server may take to accept; then the next is tried.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// No API server took a connection.
#[derive(Debug, thiserror::Error)]
#[error("no API server takes connections ({tried})")]
pub struct NoBackend {
    /// Who was tried and what happened.
    tried: String,
}

/// The API servers; clones are the same ones.
#[derive(Clone)]
pub struct Backends {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Mutex<Pool>,
    /// The list, for those who probe.
    list: watch::Sender<Vec<Backend>>,
    metrics: Metrics,
}

impl Backends {
    /// None yet.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                pool: Mutex::default(),
                list: watch::Sender::default(),
                metrics,
            }),
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Nothing panics while holding it, and the pool is whole at any time.
        self.inner
            .pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A new list of API servers.
    pub fn update(&self, list: &[Backend]) -> Change {
        let change = self.pool().update(list);
        if !change.is_empty() {
            tracing::info!(
                added = %words(&change.added),
                removed = %words(&change.removed),
                "API servers"
            );
            for backend in &change.removed {
                self.inner.metrics.backend_ready.remove(&label(backend));
            }
            let listed: Vec<Backend> = self.pool().report().into_iter().map(|r| r.0).collect();
            self.inner.list.send_replace(listed);
        }
        change
    }

    /// The list, and its changes.
    pub fn watch(&self) -> watch::Receiver<Vec<Backend>> {
        self.inner.list.subscribe()
    }

    /// What a probe found.
    pub fn probed(&self, backend: &Backend, probe: Probe) {
        let (changed, ready) = {
            let mut pool = self.pool();
            (pool.probed(backend, probe), pool.is_ready(backend))
        };
        if let Some(health) = changed {
            self.note(backend, &health, ready);
        }
    }

    fn note(&self, backend: &Backend, health: &Health, ready: bool) {
        if ready {
            tracing::info!(%backend, "API server is ready");
        } else {
            tracing::warn!(%backend, %health, "API server gets no new connections");
        }
        self.inner
            .metrics
            .backend_ready
            .get_or_create(&label(backend))
            .set(i64::from(ready));
    }

    /// How many servers are ready.
    pub fn ready(&self) -> usize {
        self.pool().ready()
    }

    /// All servers with health and connections.
    pub fn report(&self) -> Vec<(Backend, Health, usize)> {
        self.pool().report()
    }

    /// Whether a server is still one that new requests may go to.
    pub fn is_ready(&self, backend: &Backend) -> bool {
        self.pool().is_ready(backend)
    }

    /// A connection to the best server that accepts.
    pub async fn connect(&self) -> Result<(Lease, TcpStream), NoBackend> {
        let candidates = self.pool().candidates();
        let begun = Instant::now();
        let mut tried = Vec::new();
        for backend in candidates {
            // Counted from now on: connections that come at the same time spread.
            let lease = Lease::new(self, &backend);
            let why = match connect_to(&backend).await {
                Ok(stream) => {
                    tcp::tune(&stream);
                    let took = begun.elapsed().as_secs_f64();
                    self.inner.metrics.connect_seconds.observe(took);
                    return Ok((lease, stream));
                }
                Err(error) => error.to_string(),
            };
            let changed = self.pool().refused(&backend, why.clone());
            if let Some(health) = changed {
                self.note(&backend, &health, false);
            }
            tried.push(format!("{backend}: {why}"));
        }
        if tried.is_empty() {
            tried.push("none is known".to_owned());
        }
        Err(NoBackend {
            tried: tried.join("; "),
        })
    }
}

/// Connects within the deadline.
async fn connect_to(backend: &Backend) -> std::io::Result<TcpStream> {
    match tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(backend.as_str())).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("does not accept within {} s", CONNECT_DEADLINE.as_secs()),
        )),
    }
}

fn label(backend: &Backend) -> BackendLabel {
    BackendLabel {
        backend: backend.to_string(),
    }
}

fn words(list: &[Backend]) -> String {
    let words: Vec<&str> = list.iter().map(Backend::as_str).collect();
    words.join(" ")
}

/// A connection to a server, counted as long as this lives.
pub struct Lease {
    backends: Backends,
    backend: Backend,
}

impl Lease {
    fn new(backends: &Backends, backend: &Backend) -> Self {
        backends.pool().opened(backend);
        backends
            .inner
            .metrics
            .backend_connections
            .get_or_create(&label(backend))
            .inc();
        Self {
            backends: backends.clone(),
            backend: backend.clone(),
        }
    }

    /// To whom.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let gone = self.backends.pool().closed(&self.backend);
        let connections = &self.backends.inner.metrics.backend_connections;
        let gauge = connections.get_or_create(&label(&self.backend)).dec();
        if gone && gauge <= 1 {
            // Metrics of servers that are no more would pile up.
            connections.remove(&label(&self.backend));
        }
    }
}
