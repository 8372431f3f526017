//! A process of the node: containerd, kubelet, kube-proxy. Plain data; [`crate::supervise`] runs it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A process that the node needs for as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Names its log file, its events and its place in errors: `containerd`.
    pub name: String,
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments. Never a secret: everyone may read them.
    pub args: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory; it must exist.
    pub cwd: PathBuf,
    /// When it counts as up.
    pub readiness: Readiness,
    /// How long it may take from start to ready.
    pub start_deadline: Duration,
    /// How it is seen later that it has not stopped working. `None`: only its end counts.
    pub liveness: Option<Liveness>,
    /// How long it gets from SIGTERM to SIGKILL.
    pub stop_grace: Duration,
}

/// How to see that a component is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It runs. For components that somebody else watches.
    Running,
    /// Its socket takes connections.
    UnixSocket(PathBuf),
    /// `GET http://127.0.0.1:<port><path>` answers with a status below 400.
    Http {
        /// On 127.0.0.1.
        port: u16,
        /// With its leading slash.
        path: String,
    },
}

/// How to see that a component that runs still works. One that does not is ended and started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// What is asked.
    pub sign: Sign,
    /// How often; also how long one answer may take.
    pub every: Duration,
    /// How long there may be no sign of life.
    pub patience: Duration,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// `GET http://<address><path>` answers with a status below 400.
    Http {
        /// Where.
        address: SocketAddr,
        /// With its leading slash.
        path: String,
    },
    /// The container runtime at that socket answers `Version`.
    ContainerRuntime(PathBuf),
    /// It speaks up by itself, as systemd's services with a watchdog do: a datagram with
    /// `WATCHDOG=1` to that socket, at least each [`Liveness::every`]. The supervisor makes the
    /// socket; the component's environment names it (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    Notify {
        /// The socket.
        socket: PathBuf,
        /// How long the first may take: what comes before it (waiting for a certificate) is no
        /// hang.
        first: Duration,
    },
}
