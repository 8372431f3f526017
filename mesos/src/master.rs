//! How masters are named by people ([`MasterUrl`]), and how the leading one is found
//! ([`Detector`]).

mod detector;
mod url;
mod zookeeper;

pub use detector::{Detection, Detector};
pub use url::{MasterAddress, MasterUrl, MasterUrlError, ZooKeeperUrl};

/// Why the leading master is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// ZooKeeper does not answer, or not in time.
    #[error("ZooKeeper at {hosts}: {reason}")]
    ZooKeeper {
        /// The ensemble.
        hosts: String,
        /// What happened.
        reason: String,
    },
    /// ZooKeeper refuses user and password, or the node's access list does.
    #[error("ZooKeeper at {hosts} does not let us read {path}: check user and password")]
    Unauthorized {
        /// The ensemble.
        hosts: String,
        /// The node.
        path: String,
    },
    /// ZooKeeper answers, but no master is registered there.
    #[error("no master is registered below {path} in ZooKeeper at {hosts}")]
    NoMaster {
        /// The ensemble.
        hosts: String,
        /// The node.
        path: String,
    },
    /// What the leader wrote about itself cannot be understood.
    #[error("leader's entry {node} in ZooKeeper: {reason}")]
    Entry {
        /// The node.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// Still looking after the time that was allowed.
    #[error("no leading master found within {after:?}")]
    Timeout {
        /// How long it was waited.
        after: std::time::Duration,
    },
}

impl DetectError {
    /// Whether it may be found later. Always: masters, ensembles and access lists come and go,
    /// and the detector goes on looking.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Unauthorized { .. })
    }
}
