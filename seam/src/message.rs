//! Messages between framework and executor. Mesos delivers them at most once and drops them
//! without a word, so nothing may depend on one arriving: each only makes something faster or
//! visible that also happens another way.

use serde::{Deserialize, Serialize};

use crate::node::Revision;

/// From the framework to an executor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToExecutor {
    /// The API servers have moved. The executor also reads the list from the EndpointSlice
    /// `default/kubernetes`.
    ApiServers {
        /// `host:port`, in no order.
        servers: Vec<String>,
    },
    /// The node shall be brought to that revision under its running pods. Sent again until it is
    /// answered with [`RevisionState::InPlace`] or [`RevisionState::Failed`]; an executor that is
    /// there already says so and does nothing.
    Revise {
        /// The sender's name for it ([`Revision::digest`]). Answers repeat it as it is: a receiver
        /// of another version may not know every member of the revision.
        digest: String,
        /// What the node shall be.
        revision: Box<Revision>,
    },
}

/// How far an executor is with a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RevisionState {
    /// It is at it: fetching, or replacing itself or the node's processes.
    Working,
    /// The node is of that revision and Ready.
    InPlace,
    /// The node could not be brought there, and is what it was before.
    Failed {
        /// One sentence for a person.
        message: String,
    },
}

/// From an executor to the framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToFramework {
    /// Something of the node's own machinery failed or came back; becomes an Event of the Node.
    Component {
        /// `kubelet`, `containerd`, `kube-proxy`, `network`, `payload`.
        component: String,
        /// CamelCase, as in Kubernetes events: `Restarted`, `BackOff`, `Recovered`.
        reason: String,
        /// One sentence for a person.
        message: String,
        /// Whether it is a warning.
        warning: bool,
    },
    /// The answer to [`ToExecutor::Revise`].
    Revision {
        /// From the question.
        digest: String,
        /// How far it is.
        #[serde(flatten)]
        state: RevisionState,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_look_as_the_other_side_expects() {
        let report = |state| {
            let digest = "0badcafe0badcafe".to_owned();
            serde_json::to_string(&ToFramework::Revision { digest, state }).unwrap()
        };
        let failed = RevisionState::Failed {
            message: "kubelet: its Node was not Ready".to_owned(),
        };
        let revise = ToExecutor::Revise {
            digest: "0badcafe0badcafe".to_owned(),
            revision: Box::new(crate::testing::node_config().revision()),
        };
        insta::assert_snapshot!(
            [
                report(RevisionState::Working),
                report(RevisionState::InPlace),
                report(failed),
                serde_json::to_string_pretty(&revise).unwrap(),
            ]
            .join("\n")
        );
        let text = serde_json::to_vec(&revise).unwrap();
        assert_eq!(serde_json::from_slice::<ToExecutor>(&text).unwrap(), revise);
    }
}
