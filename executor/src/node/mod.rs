//! The node: brings up containerd, network, kubelet and kube-proxy and watches the node's pods.

use tokio::sync::mpsc;

use crate::report::{NodeCommand, NodeContext};

/// Brings the node up and runs it until `context.stop` is cancelled. Everything that happens is
/// sent as events; a bring-up that fails ends with `NodeEvent::Failed`.
pub async fn run(_context: NodeContext, _commands: mpsc::Receiver<NodeCommand>) {}
