//! Opens the sides that are wanted, serves, and ends them in order.
//!
//! At SIGTERM `/readyz` says no and new connections are taken for a while longer, so that
//! balancers before us notice; then the listeners close, requests get their answers, and what is
//! still open after the drain is ended.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backends::{Backends, probe, source};
use crate::config::{Config, Identity};
use crate::http::Forward;
use crate::http::server::Door;
use crate::http::upstream::Upstream;
use crate::legacy::Legacy;
use crate::limit::Gate;
use crate::metrics::{Metrics, Side};
use crate::relay::Relay;
use crate::status::{self, Status};
use crate::tls::{ClientTls, TlsError};

/// How long connections may then take to come to a rest between two requests.
const LEAVE: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Files beside connections: listeners, probes, connections that wait for the next request.
const SPARE_FILES: usize = 256;
/// How long to wait for an earlier life to give a port up.
const BIND_DEADLINE: Duration = Duration::from_secs(5);
/// How soon a port is tried again.
const BIND_AGAIN: Duration = Duration::from_millis(50);

/// Why the front door does not open.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port.
    #[error("listen on {address} for {what}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token of the limited identity.
    #[error("read the limited identity's token {path}: {source}", path = path.display())]
    Token {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The servers' name.
    #[error("--server-name {0:?} cannot be a host name")]
    ServerName(String),
}

/// Where each side listens; port 0 has become a number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    /// TLS.
    pub tls: Option<SocketAddr>,
    /// The admin router's.
    pub http: Option<SocketAddr>,
    /// This machine's.
    pub local: Option<SocketAddr>,
    /// Health and metrics.
    pub status: Option<SocketAddr>,
}

/// A front door with its ports open.
pub struct FrontDoor {
    config: Config,
    tls: Option<TcpListener>,
    http: Option<TcpListener>,
    local: Option<TcpListener>,
    status: Option<TcpListener>,
    /// Without an identity.
    plain: Arc<ClientTls>,
    /// With the limited one.
    limited: Option<Limited>,
    server_name: HeaderValue,
}

struct Limited {
    client: Arc<ClientTls>,
    token: Option<PathBuf>,
}

/// Opens and serves until `stop`, and then until everything has ended.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    raise_file_limit(&config);
    let door = FrontDoor::open(config).await?;
    tracing::info!(addresses = ?door.addresses(), "open");
    door.serve(stop).await;
    Ok(())
}

/// Each connection is two files; shells and Mesos agents start programs with 1,024.
fn raise_file_limit(config: &Config) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let sides = [
        config.listen.is_some(),
        config.http_listen.is_some(),
        config.legacy.is_some(),
    ];
    let sides = sides.into_iter().filter(|open| *open).count();
    let wanted = (config.limits.connections * sides * 2 + SPARE_FILES) as u64;
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let limit = wanted.min(hard).max(soft);
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
        Ok(limit)
    });
    match raised {
        Ok(limit) if limit < wanted => tracing::warn!(
            limit,
            wanted,
            "this process may not open as many files as --max-connections asks for: raise its hard limit (ulimit -Hn), or lower --max-connections"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "raising the limit of open files"),
    }
}

impl FrontDoor {
    /// Reads the files and opens all ports: either everything opens or nothing does.
    pub async fn open(config: Config) -> Result<Self, RunError> {
        let client = |identity| ClientTls::new(&config.ca_file, &config.server_name, identity);
        let plain = Arc::new(client(None)?);
        let limited = match config.legacy.as_ref().map(|(_, identity)| identity) {
            None => None,
            Some(Identity::Certificate { certificate, key }) => Some(Limited {
                client: Arc::new(client(Some((certificate, key)))?),
                token: None,
            }),
            Some(Identity::Token(path)) => {
                crate::tls::read_token(path).map_err(|source| RunError::Token {
                    path: path.clone(),
                    source,
                })?;
                Some(Limited {
                    client: Arc::clone(&plain),
                    token: Some(path.clone()),
                })
            }
        };
        let server_name = HeaderValue::try_from(&config.server_name)
            .map_err(|_| RunError::ServerName(config.server_name.clone()))?;
        Ok(Self {
            status: listen(config.status_listen, "health and metrics").await?,
            tls: listen(config.listen, "TLS").await?,
            http: listen(config.http_listen, "the admin router").await?,
            local: listen(config.legacy.as_ref().map(|l| l.0), "this machine").await?,
            plain,
            limited,
            server_name,
            config,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        let of = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        Addresses {
            tls: of(&self.tls),
            http: of(&self.http),
            local: of(&self.local),
            status: of(&self.status),
        }
    }

    /// Serves until `stop`, and then until everything has ended.
    pub async fn serve(self, stop: CancellationToken) {
        let (metrics, registry) = Metrics::registered();
        let serving = Serving {
            backends: Backends::new(metrics.clone()),
            metrics,
            tasks: TaskTracker::new(),
            background: TaskTracker::new(),
            closing: CancellationToken::new(),
            leave: CancellationToken::new(),
            end: CancellationToken::new(),
        };
        let (delay, drain) = (self.config.shutdown_delay, self.config.drain);
        serving.start(self, registry, &stop);
        stop.cancelled().await;
        tracing::info!(?delay, ?drain, "asked to end");
        tokio::time::sleep(delay).await;
        serving.finish(drain).await;
    }
}

/// Everything that runs.
struct Serving {
    backends: Backends,
    metrics: Metrics,
    /// Connections.
    tasks: TaskTracker,
    /// Everything else.
    background: TaskTracker,
    /// Ends listeners.
    closing: CancellationToken,
    /// Ends connections between two requests.
    leave: CancellationToken,
    /// Ends what is left.
    end: CancellationToken,
}

impl Serving {
    fn start(&self, door: FrontDoor, registry: Registry, stop: &CancellationToken) {
        let addresses = door.addresses();
        let config = door.config;
        if let (Some(listener), Some(limited)) = (door.local, door.limited) {
            let port = addresses.local.map_or(0, |a| a.port());
            let forward = self.forward(&limited.client, &door.server_name);
            let legacy = Legacy::new(forward, limited.token, port);
            let serve = move |request, peer| legacy.clone().serve(request, peer);
            self.background.spawn(self.door(&config, Side::Local).run(
                listener,
                serve,
                self.tasks.clone(),
                self.closing.clone(),
                self.end.clone(),
            ));
        }
        if let Some(listener) = door.http {
            let forward = self.forward(&door.plain, &door.server_name);
            let serve = move |request, peer| forward.clone().admin_router(request, peer);
            self.background.spawn(self.door(&config, Side::Http).run(
                listener,
                serve,
                self.tasks.clone(),
                self.closing.clone(),
                self.end.clone(),
            ));
        }
        if let Some(listener) = door.tls {
            let relay = Relay::new(self.backends.clone(), self.metrics.clone(), config.limits);
            self.background.spawn(relay.run(
                listener,
                self.tasks.clone(),
                self.closing.clone(),
                self.leave.clone(),
                self.end.clone(),
            ));
        }
        if let Some(listener) = door.status {
            let status = Status {
                backends: self.backends.clone(),
                registry: Arc::new(registry),
                stopping: stop.clone(),
            };
            // Not among those that are waited for: scrapers keep their connections.
            tokio::spawn(status::serve(status, listener, self.end.clone()));
        }
        self.background.spawn(source::run(
            config.source,
            self.backends.clone(),
            self.end.clone(),
        ));
        self.background.spawn(probe::run(
            self.backends.clone(),
            door.plain,
            config.probe_interval,
            self.end.clone(),
        ));
    }

    fn forward(&self, client: &Arc<ClientTls>, server_name: &HeaderValue) -> Forward {
        Forward {
            upstream: Upstream::new(self.backends.clone(), Arc::clone(client)),
            server_name: server_name.clone(),
            tasks: self.tasks.clone(),
            end: self.end.clone(),
            metrics: self.metrics.clone(),
        }
    }

    fn door(&self, config: &Config, side: Side) -> Door {
        Door {
            side,
            gate: Gate::new(config.limits),
            metrics: self.metrics.clone(),
        }
    }

    async fn finish(self, drain: Duration) {
        self.closing.cancel();
        self.tasks.close();
        self.background.close();
        for (patience, then) in [(drain, &self.leave), (LEAVE, &self.end)] {
            if tokio::time::timeout(patience, self.tasks.wait())
                .await
                .is_err()
            {
                tracing::info!(connections = self.tasks.len(), "ending what is still open");
                then.cancel();
            }
        }
        self.end.cancel();
        self.tasks.wait().await;
        self.background.wait().await;
    }
}

async fn listen(
    address: Option<SocketAddr>,
    what: &'static str,
) -> Result<Option<TcpListener>, RunError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let deadline = tokio::time::Instant::now() + BIND_DEADLINE;
    loop {
        match bind(address) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(BIND_AGAIN).await;
            }
            Err(source) => {
                return Err(RunError::Listen {
                    address,
                    what,
                    source,
                });
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A port whose last connections are still in TIME_WAIT is free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
