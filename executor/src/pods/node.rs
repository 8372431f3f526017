//! Watches this node's own Node for kubelet's Ready condition.

use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::credentials::api::{ApiAccess, PENDING_EVENTS, follow};
use crate::network::peers::{TrimmedNode, node_resource};

/// What kubelet says of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing yet in this life.
    Unknown,
    /// Ready.
    Ready,
    /// Not ready.
    NotReady {
        /// Reason and message of the condition.
        reason: String,
    },
}

/// Reads the Ready condition. What was written before `since` (RFC 3339, UTC, whole seconds) is
/// from an earlier life of this node and says nothing.
pub fn readiness(node: &TrimmedNode, since: &str) -> Readiness {
    let ready = node
        .status
        .as_ref()
        .and_then(|s| s.conditions.iter().find(|c| c.kind == "Ready"));
    let Some(ready) = ready else {
        return Readiness::Unknown;
    };
    // Kubernetes writes all times in this one form, in which text order is time order.
    if ready.last_heartbeat_time.as_deref().unwrap_or_default() < since {
        return Readiness::Unknown;
    }
    match ready.status.as_str() {
        "True" => Readiness::Ready,
        // Written by the controller manager, not by kubelet.
        "Unknown" => Readiness::NotReady {
            reason: "kubelet has stopped reporting".to_owned(),
        },
        _ => {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            Readiness::NotReady {
                reason: format!("{}: {}", text(&ready.reason), text(&ready.message)),
            }
        }
    }
}

/// Keeps `state` current until `stop`.
pub async fn watch_node(
    access: &ApiAccess,
    node: &str,
    since: &str,
    state: &watch::Sender<Readiness>,
    stop: &CancellationToken,
) {
    let resource = node_resource();
    let scope = |client: Client| Api::<TrimmedNode>::all_with(client, &resource);
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let (tx, mut rx) = mpsc::channel(PENDING_EVENTS);
    let handle = async {
        while let Some(event) = rx.recv().await {
            let now = match event {
                watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
                    readiness(&node, since)
                }
                watcher::Event::Delete(_) => Readiness::NotReady {
                    reason: "the Node object was deleted".to_owned(),
                },
                watcher::Event::Init | watcher::Event::InitDone => continue,
            };
            state.send_if_modified(|state| {
                // Silence about this life does not take back what was said.
                let changed = *state != now && now != Readiness::Unknown;
                if changed {
                    *state = now;
                }
                changed
            });
        }
    };
    tokio::join!(follow(access, scope, config, stop, tx), handle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: &str, heartbeat: &str) -> TrimmedNode {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n1"}, "spec": {},
            "status": {"conditions": [
                {"type": "DiskPressure", "status": "False", "lastHeartbeatTime": heartbeat},
                {"type": "Ready", "status": status, "reason": "KubeletNotReady",
                 "message": "no CNI", "lastHeartbeatTime": heartbeat}]},
        }))
        .unwrap()
    }

    #[test]
    fn what_an_earlier_life_said_does_not_count() {
        let since = "2026-11-21T08:00:05Z";
        let old = node("True", "2026-11-21T08:00:04Z");
        assert_eq!(readiness(&old, since), Readiness::Unknown);
        let new = node("True", "2026-11-21T08:00:05Z");
        assert_eq!(readiness(&new, since), Readiness::Ready);
        let not = node("False", "2026-11-21T08:00:06Z");
        assert_eq!(
            readiness(&not, since),
            Readiness::NotReady {
                reason: "KubeletNotReady: no CNI".to_owned()
            }
        );
    }
}
