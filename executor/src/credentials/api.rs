//! Clients of the Kubernetes API behind the executor's balancer, and watches that go on for as
//! long as the node lives: over restarts of API servers and renewals of certificates.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use rand::Rng;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// First pause after a failed request; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How often a watch looks whether its certificate has been replaced.
const CERTIFICATE_POLL: Duration = Duration::from_secs(60);
/// No single request (watches aside) takes longer.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The certificate or the CA cannot be read yet or any more.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The CA certificates cannot be read.
    #[error("the cluster's CA certificates: {0}")]
    Ca(#[source] pem::PemError),
    /// The client could not be made.
    #[error("making a client for the API servers: {0}")]
    Client(#[source] Box<kube::Error>),
    /// A request failed.
    #[error("{action}: {source}")]
    Request {
        /// What was tried.
        action: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A request took too long.
    #[error("{action}: no answer within {} s", REQUEST_DEADLINE.as_secs())]
    Deadline {
        /// What was tried.
        action: String,
    },
}

/// How to prove who we are.
#[derive(Clone)]
pub enum Identity {
    /// The bootstrap token.
    Token(String),
    /// A file with certificate and key.
    CertificateFile(PathBuf),
}

impl Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::CertificateFile(path) => write!(f, "CertificateFile({})", path.display()),
        }
    }
}

/// The way to the API servers. Clones share one client, and so its connections.
#[derive(Clone)]
pub struct ApiAccess {
    balancer_port: u16,
    ca: String,
    identity: Identity,
    made: Arc<Mutex<Option<Made>>>,
}

/// A client.
struct Made {
    /// Of the certificate that it was made with.
    generation: Option<SystemTime>,
    client: Client,
}

impl Debug for ApiAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "port {} as {:?}", self.balancer_port, self.identity)
    }
}

impl ApiAccess {
    /// Through the executor's balancer on that port of loopback, with the cluster's CA
    /// certificates (PEM).
    pub fn new(balancer_port: u16, ca: String, identity: Identity) -> Self {
        Self {
            balancer_port,
            ca,
            identity,
            made: Arc::default(),
        }
    }

    /// The same way for somebody else.
    #[must_use]
    pub fn as_identity(&self, identity: Identity) -> Self {
        Self::new(self.balancer_port, self.ca.clone(), identity)
    }

    /// A client with the certificate as it is now.
    pub fn client(&self) -> Result<Client, ApiError> {
        let generation = self.generation();
        // Nothing panics while holding it.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && made.generation == generation
        {
            return Ok(made.client.clone());
        }
        let client = self.make_client()?;
        *made = Some(Made {
            generation,
            client: client.clone(),
        });
        Ok(client)
    }

    fn make_client(&self) -> Result<Client, ApiError> {
        let uri = http::Uri::builder()
            .scheme("https")
            .authority(format!("127.0.0.1:{}", self.balancer_port))
            .path_and_query("/")
            .build()
            .map_err(|e| ApiError::Client(Box::new(kube::Error::HttpError(e))))?;
        let mut config = kube::Config::new(uri);
        // Callers decide about repeating: a 429 of an eviction is an answer, not an overload.
        config.default_retry = false;
        let blocks = pem::parse_many(&self.ca).map_err(ApiError::Ca)?;
        config.root_cert = Some(blocks.into_iter().map(pem::Pem::into_contents).collect());
        match &self.identity {
            Identity::Token(token) => config.auth_info.token = Some(token.clone().into()),
            Identity::CertificateFile(path) => {
                // Read here, so that a file that is missing is told as such.
                std::fs::metadata(path).map_err(|source| ApiError::Read {
                    path: path.clone(),
                    source,
                })?;
                let file = Some(path.to_string_lossy().into_owned());
                config.auth_info.client_certificate = file.clone();
                config.auth_info.client_key = file;
            }
        }
        Client::try_from(config).map_err(|e| ApiError::Client(Box::new(e)))
    }

    /// Something that changes when the certificate is replaced.
    fn generation(&self) -> Option<SystemTime> {
        match &self.identity {
            Identity::Token(_) => None,
            Identity::CertificateFile(path) => std::fs::metadata(path).ok()?.modified().ok(),
        }
    }
}

/// A request with a deadline.
pub async fn request<T>(
    action: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(REQUEST_DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(ApiError::Request {
            action: action.to_owned(),
            source: Box::new(e),
        }),
        Err(_) => Err(ApiError::Deadline {
            action: action.to_owned(),
        }),
    }
}

/// Exponential back-off with jitter.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: MIN_PAUSE,
            max: MAX_PAUSE,
        }
    }
}

impl Backoff {
    /// With another longest pause.
    pub fn up_to(max: Duration) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// The next pause: between half of it and all of it.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.max);
        pause
    }

    /// It worked: start again from the shortest pause.
    pub fn reset(&mut self) {
        self.next = MIN_PAUSE;
    }
}

/// Events of a watch that wait for whoever handles them; more wait in the connection.
pub const PENDING_EVENTS: usize = 16;

/// Watches until `stop`, with a new client whenever the certificate is replaced.
pub async fn follow<K, F>(
    access: &ApiAccess,
    scope: F,
    config: watcher::Config,
    stop: &CancellationToken,
    events: mpsc::Sender<watcher::Event<K>>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: Fn(Client) -> Api<K>,
{
    let mut backoff = Backoff::default();
    let mut poll = tokio::time::interval(CERTIFICATE_POLL);
    loop {
        let generation = access.generation();
        match access.client() {
            Ok(client) => {
                let mut stream = watcher(scope(client), config.clone()).boxed();
                loop {
                    let event = tokio::select! {
                        () = stop.cancelled() => return,
                        _ = poll.tick() => {
                            if access.generation() != generation {
                                break;
                            }
                            continue;
                        }
                        event = stream.next() => event,
                    };
                    match event {
                        Some(Ok(event)) => {
                            backoff.reset();
                            if events.send(event).await.is_err() {
                                return;
                            }
                        }
                        Some(Err(error)) => {
                            tracing::debug!(%error, "watch");
                            if pause(backoff.pause(), stop).await.is_break() {
                                return;
                            }
                            if access.generation() != generation {
                                break;
                            }
                        }
                        None => break,
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "watch"),
        }
        if pause(backoff.pause(), stop).await.is_break() {
            return;
        }
    }
}

/// Sleeps, or breaks when stopped.
pub async fn pause(duration: Duration, stop: &CancellationToken) -> std::ops::ControlFlow<()> {
    tokio::select! {
        () = stop.cancelled() => std::ops::ControlFlow::Break(()),
        () = tokio::time::sleep(duration) => std::ops::ControlFlow::Continue(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let identity = Identity::Token("abcdef.secret".to_owned());
        assert_eq!(format!("{identity:?}"), "Token(..)");
    }

    #[test]
    fn pauses_grow_to_their_bound_and_start_again() {
        let mut backoff = Backoff::up_to(Duration::from_secs(1));
        let pauses: Vec<Duration> = (0..5).map(|_| backoff.pause()).collect();
        assert!(pauses.iter().all(|p| *p <= Duration::from_secs(1)));
        assert!(pauses[4] >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.pause() <= MIN_PAUSE);
    }
}
