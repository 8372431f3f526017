//! What goes on while a node lives: watches, renewals, repairs, and the core's commands.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::bring_up::RunningNode;
use crate::balancer::endpoints;
use crate::containerd::collect::keep_within;
use crate::credentials::api::{ApiAccess, Backoff, pause};
use crate::network::peers;
use crate::pods::delete::delete;
use crate::pods::node::Readiness;
use crate::report::{NodeCommand, NodeContext, NodeEvent, PodRef};

/// Deletions under way at once; kubelet's `maxPods` is below it. What is more waits its turn by
/// being sent again.
const MAX_DELETIONS: usize = 1024;
/// Longest pause between attempts to delete a pod.
const MAX_DELETE_PAUSE: Duration = Duration::from_secs(10);

/// Runs the node until `context.stop`.
pub async fn run(context: &NodeContext, node: RunningNode, mut commands: Commands) {
    let stop = &context.stop;
    let proxy_access = node.proxy_certificate.access();
    let (nodes_tx, nodes_rx) = watch::channel(None);
    let report = |component: &'static str, reason: &'static str, message: String, warning: bool| {
        let event = NodeEvent::Component {
            component: component.to_owned(),
            reason: reason.to_owned(),
            message,
            warning,
        };
        // Full: the core is busy with what matters more.
        let _ = context.events.try_send(event);
    };
    tokio::join!(
        readiness(node.readiness, &context.events, stop),
        peers::watch_nodes(&proxy_access, &nodes_tx, stop),
        endpoints::watch(&proxy_access, &node.balancer, stop),
        node.network
            .maintain(nodes_rx, &context.cleanup, stop, |trouble| match trouble {
                Some(message) => report("network", "Degraded", message, true),
                None => report(
                    "network",
                    "Recovered",
                    "the pod network is whole".to_owned(),
                    false
                ),
            }),
        node.proxy_certificate.keep(stop, |message| {
            report("credentials", "RenewalFailed", message, true);
        }),
        keep_within(
            &node.ctr,
            context.paths.containerd_root(),
            context.config.overhead.disk_bytes,
            stop,
            |message| report("containerd", "ImagesOverBudget", message, true),
        ),
        commands.obey(&node.balancer, &node.kubelet_access, stop),
    );
    node.watches.cancel();
}

/// Tells each change of kubelet's Ready condition.
async fn readiness(
    mut state: watch::Receiver<Readiness>,
    events: &mpsc::Sender<NodeEvent>,
    stop: &CancellationToken,
) {
    state.mark_changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = state.changed() => if changed.is_err() {
                return;
            },
        }
        let event = match state.borrow_and_update().clone() {
            Readiness::Ready => NodeEvent::Ready,
            Readiness::NotReady { reason } => NodeEvent::NotReady { reason },
            Readiness::Unknown => continue,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// The core's commands, and what is under way for them.
pub struct Commands {
    queue: mpsc::Receiver<NodeCommand>,
    deletions: HashMap<String, (Option<Duration>, CancellationToken)>,
}

impl Commands {
    /// Commands from that queue.
    pub fn new(queue: mpsc::Receiver<NodeCommand>) -> Self {
        Self {
            queue,
            deletions: HashMap::new(),
        }
    }

    /// Carries commands out until `stop`, or until no more can come. May be dropped and called
    /// again at any time: no command is lost, and deletions go on meanwhile.
    pub async fn obey(
        &mut self,
        balancer: &crate::balancer::Balancer,
        access: &ApiAccess,
        stop: &CancellationToken,
    ) {
        loop {
            let command = tokio::select! {
                () = stop.cancelled() => return,
                command = self.queue.recv() => command,
            };
            match command {
                None => return,
                Some(NodeCommand::ApiServers(servers)) => balancer.update(&servers),
                Some(NodeCommand::DeletePod { pod, grace }) => {
                    self.delete(pod, grace, access, stop);
                }
            }
        }
    }

    fn delete(
        &mut self,
        pod: PodRef,
        grace: Option<Duration>,
        access: &ApiAccess,
        stop: &CancellationToken,
    ) {
        self.deletions.retain(|_, (_, done)| !done.is_cancelled());
        match self.deletions.get(&pod.uid) {
            // The same again: it is under way.
            Some((under_way, _)) if *under_way == grace => return,
            // Another grace: the later word counts.
            Some((_, earlier)) => earlier.cancel(),
            None if self.deletions.len() >= MAX_DELETIONS => return,
            None => {}
        }
        let done = stop.child_token();
        self.deletions
            .insert(pod.uid.clone(), (grace, done.clone()));
        tokio::spawn(delete_until_taken(access.clone(), pod, grace, done));
    }
}

/// Deletes a pod, again and again until an API server has taken it. Ends by cancelling `done`.
async fn delete_until_taken(
    access: ApiAccess,
    pod: PodRef,
    grace: Option<Duration>,
    done: CancellationToken,
) {
    let mut backoff = Backoff::up_to(MAX_DELETE_PAUSE);
    loop {
        let result = tokio::select! {
            () = done.cancelled() => return,
            result = delete(&access, &pod, grace) => result,
        };
        match result {
            Ok(outcome) => {
                tracing::info!(pod.namespace, pod.name, ?outcome, "deleted");
                break;
            }
            Err(error) => tracing::warn!(%error, "will try again"),
        }
        if pause(backoff.pause(), &done).await.is_break() {
            return;
        }
    }
    done.cancel();
}
