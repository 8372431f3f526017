//! The node: brings up containerd, network, kubelet and kube-proxy and watches the node's pods.
//!
//! | part | what |
//! |---|---|
//! | [`prepare`] | directories, mounts and rendered files; nothing runs yet |
//! | [`bring_up`] | starts everything, as much at once as depends not on each other |
//! | [`running`] | what goes on until the node is given up |

pub mod bring_up;
pub mod kube_proxy;
pub mod life;
pub mod mounts;
pub mod prepare;
pub mod running;

use tokio::sync::mpsc;

use crate::report::{NodeCommand, NodeContext, NodeEvent};

/// Why a node cannot be brought up.
#[derive(Debug, thiserror::Error)]
#[error("{component}: {message}")]
pub struct NodeError {
    /// `containerd`, `network`, `kubelet`, `kube-proxy`, `credentials`, `balancer`, `node`.
    pub component: &'static str,
    /// What failed, and where the log is.
    pub message: String,
}

impl NodeError {
    /// Of that component.
    pub fn of(component: &'static str, error: impl std::fmt::Display) -> Self {
        Self {
            component,
            message: error.to_string(),
        }
    }
}

/// Brings the node up and runs it until `context.stop` is cancelled. Everything that happens is
/// sent as events; a bring-up that fails ends with `NodeEvent::Failed`.
///
/// May be called again in the same process after it has returned, and by a successor of the
/// process under running pods: what runs already is taken over.
pub async fn run(context: NodeContext, commands: mpsc::Receiver<NodeCommand>) {
    let stop = context.stop.clone();
    let mut commands = running::Commands::new(commands, context.events.clone());
    let up = tokio::select! {
        () = stop.cancelled() => return,
        up = bring_up::bring_up(&context, &mut commands) => up,
    };
    match up {
        Ok(node) => running::run(&context, node, commands).await,
        Err(NodeError { component, message }) => {
            let failed = NodeEvent::Failed {
                component: component.to_owned(),
                message,
            };
            // No receiver: the executor ends.
            let _ = context.events.send(failed).await;
        }
    }
}
