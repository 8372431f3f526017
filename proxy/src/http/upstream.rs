//! Requests of the HTTP sides to the API servers: over TLS with a checked certificate, on
//! connections that are kept and used again, and never on one whose server has stopped being
//! ready.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::backends::pool::Backend;
use crate::backends::{Backends, Lease, NoBackend};
use crate::tls::{self, ClientTls};

/// A body, whatever it comes from.
pub type Body = BoxBody<Bytes, BodyError>;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(#[from] pub Box<dyn StdError + Send + Sync>);

/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// How long an answer's head may take. API servers give up after 60 s themselves.
const HEAD_DEADLINE: Duration = Duration::from_secs(120);
/// Connections that wait for the next request, for each server.
const IDLE_LIMIT: usize = 16;
/// How long they wait. API servers close them after 90 s.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Times that a request goes to another connection because one was gone before it was sent.
const ATTEMPTS: usize = 4;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody is there. Nothing was sent: it can be tried again.
    #[error(transparent)]
    NoBackend(#[from] NoBackend),
    /// No TLS with the server. Nothing was sent: it can be tried again.
    #[error("TLS with {backend}: {source}")]
    Tls {
        /// With whom.
        backend: Backend,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke. Whether the server acted on it is unknown.
    #[error("ask {backend}: {source}")]
    Broken {
        /// Whom.
        backend: Backend,
        /// Why not.
        source: hyper::Error,
    },
    /// No answer in time. Whether the server acted on it is unknown.
    #[error("{backend} does not answer within {} s", HEAD_DEADLINE.as_secs())]
    Late {
        /// Who.
        backend: Backend,
    },
}

/// A connection to a server with the count of it.
struct Connection {
    sender: SendRequest<Body>,
    lease: Lease,
}

/// The count of a connection that lives on without requests; clones are the same one.
#[derive(Clone)]
pub struct Counted(#[allow(dead_code, reason = "lives until it is dropped")] Arc<Lease>);

/// The same request once more, if it changes nothing.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if !reads || !request.body().is_end_stream() || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let empty = Empty::new().map_err(|never: Infallible| match never {});
    let mut same = Request::new(empty.boxed());
    *same.method_mut() = request.method().clone();
    *same.uri_mut() = request.uri().clone();
    *same.headers_mut() = request.headers().clone();
    Some(same)
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Client of the API servers; clones are the same one.
#[derive(Clone)]
pub struct Upstream {
    backends: Backends,
    tls: Arc<ClientTls>,
    idle: Arc<Mutex<HashMap<Backend, Vec<Idle>>>>,
}

impl Upstream {
    /// A client with an identity, or without one.
    pub fn new(backends: Backends, tls: Arc<ClientTls>) -> Self {
        Self {
            backends,
            tls,
            idle: Arc::default(),
        }
    }

    /// Sends a request in origin form and waits for the answer's head. The body follows; the
    /// connection is used again once it has been read to its end.
    ///
    /// A kept connection may be closed by its server at the very moment when a request goes out.
    /// A request that was not sent goes to another one, and so does one that may have been, if it
    /// is a GET or HEAD without a body, which changes nothing.
    ///
    /// An answer that changes protocols carries the count of its connection as an extension
    /// ([`Counted`]), for whoever goes on with it.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut connection = match self.take_idle() {
                // The last attempt goes over a new connection.
                Some(connection) if attempt < ATTEMPTS => connection,
                _ => self.open().await?,
            };
            let again = repeatable(&request);
            let backend = connection.lease.backend().clone();
            let answer = connection.sender.try_send_request(request);
            match tokio::time::timeout(HEAD_DEADLINE, answer).await {
                Err(_) => return Err(SendError::Late { backend }),
                Ok(Ok(mut answer)) => {
                    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                        let counted = Counted(Arc::new(connection.lease));
                        answer.extensions_mut().insert(counted);
                    } else {
                        self.keep(connection);
                    }
                    return Ok(answer);
                }
                Ok(Err(mut failed)) => match failed.take_message().or(again) {
                    Some(back) if attempt < ATTEMPTS => request = back,
                    _ => {
                        let source = failed.into_error();
                        return Err(SendError::Broken { backend, source });
                    }
                },
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<Backend, Vec<Idle>>> {
        // Nothing panics while holding it.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that waits, of a server that is ready.
    fn take_idle(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle();
        idle.retain(|backend, waiting| {
            waiting.retain(|i| {
                !i.connection.sender.is_closed() && now.duration_since(i.since) < IDLE_TIME
            });
            !waiting.is_empty() && self.backends.is_ready(backend)
        });
        // Of the server with the fewest requests under way, which is the one with most that wait.
        let (_, waiting) = idle.iter_mut().max_by_key(|(_, w)| w.len())?;
        waiting.pop().map(|i| i.connection)
    }

    /// Puts a connection back once its answer has been read.
    fn keep(&self, mut connection: Connection) {
        let upstream = self.clone();
        tokio::spawn(async move {
            if connection.sender.ready().await.is_err() {
                return;
            }
            let mut idle = upstream.idle();
            let waiting = idle.entry(connection.lease.backend().clone()).or_default();
            if waiting.len() < IDLE_LIMIT {
                waiting.push(Idle {
                    connection,
                    since: Instant::now(),
                });
            }
        });
    }

    async fn open(&self) -> Result<Connection, SendError> {
        let (lease, stream) = self.backends.connect().await?;
        let failed = |source| SendError::Tls {
            backend: lease.backend().clone(),
            source,
        };
        let connector = TlsConnector::from(self.tls.config());
        let handshake = connector.connect(self.tls.server_name(), stream);
        let stream = tokio::time::timeout(HANDSHAKE_DEADLINE, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                if tls::is_untrusted(&error) {
                    let probe = crate::backends::pool::Probe::Untrusted(error.to_string());
                    self.backends.probed(lease.backend(), probe);
                }
                return Err(failed(error));
            }
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| SendError::Broken {
                    backend: lease.backend().clone(),
                    source,
                })?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to an API server");
            }
        });
        Ok(Connection { sender, lease })
    }
}
