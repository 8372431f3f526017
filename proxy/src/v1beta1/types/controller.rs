//! Replication controllers.

use serde::{Deserialize, Serialize};

use super::{PodState, Words, object};

object! {
    /// A replication controller.
    pub struct ReplicationController {
        /// What it should be.
        pub desired_state: ControllerState,
        /// What it is; the server's.
        pub current_state: ControllerState,
    }
}

/// What a replication controller should be, or what it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ControllerState {
    /// Pods.
    pub replicas: i32,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_selector: Option<Words>,
    /// How more of them are made.
    pub pod_template: PodTemplate,
}

/// How pods are made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodTemplate {
    /// What they should be.
    pub desired_state: PodState,
    /// Their service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Labels that their nodes must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Words>,
    /// Their labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Words>,
    /// Their annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Words>,
}
