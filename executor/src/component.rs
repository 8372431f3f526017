//! A process of the node: containerd, kubelet, kube-proxy. Plain data; [`crate::supervise`] runs it.

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
