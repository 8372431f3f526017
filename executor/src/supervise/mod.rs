//! Starts the node's processes and keeps them running.

use crate::component::Component;

/// Handle of the supervisor; clones are the same one.
#[derive(Clone)]
pub struct Supervisor {}

/// Why a component is not up.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// It did not become ready in time; names the log.
    #[error("{component} was not ready after {seconds} s; its log is {log}")]
    NotReady {
        /// Which.
        component: String,
        /// How long.
        seconds: u64,
        /// Its log.
        log: String,
    },
}

impl Supervisor {
    /// Starts a component (or adopts the one that runs already with the same command line) and
    /// waits until it is ready. From then on it is started again whenever it ends.
    pub async fn start(&self, _component: Component) -> Result<(), SuperviseError> {
        Ok(())
    }

    /// Stops a component for good: SIGTERM, its grace, SIGKILL.
    pub async fn stop(&self, _name: &str) {}

    /// Replaces a component's definition and starts it anew.
    pub async fn replace(&self, component: Component) -> Result<(), SuperviseError> {
        self.start(component).await
    }
}
