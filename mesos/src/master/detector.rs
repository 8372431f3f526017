//! Follows who the leading master is.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::url::{Kind, MasterAddress, MasterUrl};
use super::{DetectError, zookeeper};
use crate::http::Scheme;

/// What is known about the leading master.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detection {
    /// Addresses to try in this order: the given list, or the addresses of the one leader that
    /// ZooKeeper names. Empty while there is none. A master that does not lead redirects.
    pub candidates: Vec<MasterAddress>,
    /// Why there is none, or why the present answer may be out of date.
    pub error: Option<DetectError>,
}

/// Follows the leading master. Dropping it ends the connection to ZooKeeper.
#[derive(Debug)]
pub struct Detector {
    state: watch::Receiver<Detection>,
    /// Keeps a state that never changes alive.
    _fixed: Option<watch::Sender<Detection>>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Detector {
    /// Starts to look. `scheme` counts for masters that are named without one, and for those
    /// that ZooKeeper names. Must be called on a tokio runtime.
    pub fn spawn(url: &MasterUrl, scheme: Scheme) -> Self {
        match &url.0 {
            Kind::Hosts(hosts) => {
                let (sender, state) = watch::channel(Detection {
                    candidates: hosts.iter().map(|host| host.address(scheme)).collect(),
                    error: None,
                });
                Self {
                    state,
                    _fixed: Some(sender),
                    _task: None,
                }
            }
            Kind::ZooKeeper(url) => {
                let (sender, state) = watch::channel(Detection::default());
                let task = tokio::spawn(zookeeper::follow(url.clone(), scheme, sender));
                Self {
                    state,
                    _fixed: None,
                    _task: Some(AbortOnDropHandle::new(task)),
                }
            }
        }
    }

    /// What is known now. Marks it as seen.
    pub fn current(&mut self) -> Detection {
        self.state.borrow_and_update().clone()
    }

    /// Waits until something changes since [`Self::current`] or the last call of this.
    pub async fn changed(&mut self) -> Detection {
        if self.state.changed().await.is_err() {
            // The follower ends only with the runtime.
            std::future::pending::<()>().await;
        }
        self.current()
    }

    /// Waits until at least one candidate is known.
    pub async fn candidates(
        &mut self,
        deadline: Duration,
    ) -> Result<Vec<MasterAddress>, DetectError> {
        let wait = self.state.wait_for(|d| !d.candidates.is_empty());
        if let Ok(Ok(detection)) = tokio::time::timeout(deadline, wait).await {
            return Ok(detection.candidates.clone());
        }
        let error = self.state.borrow().error.clone();
        Err(error.unwrap_or(DetectError::Timeout { after: deadline }))
    }
}
