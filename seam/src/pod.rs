//! The data of a pod's task.

use serde::{Deserialize, Serialize};

/// `TaskInfo.data` of a pod's task (JSON). kubelet learns the pod itself from the API server,
/// once the framework has bound it; the task only says which pod it accounts for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodTask {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}
