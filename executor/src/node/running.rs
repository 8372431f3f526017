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
use crate::pods::node::Readiness;
use crate::pods::removal::{Outcome, remove};
use crate::report::{NodeCommand, NodeContext, NodeEvent, PodRef, Removal};

/// Removals under way at once; kubelet's `maxPods` is below it. What is more waits its turn by
/// being sent again.
const MAX_REMOVALS: usize = 1024;
/// Longest pause between attempts to remove a pod.
const MAX_REMOVE_PAUSE: Duration = Duration::from_secs(10);

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
    events: mpsc::Sender<NodeEvent>,
    removals: HashMap<String, (Wish, CancellationToken)>,
}

/// How one pod is to be removed.
type Wish = (Removal, Option<Duration>);

impl Commands {
    /// Commands from that queue; what comes of them is told in `events`.
    pub fn new(queue: mpsc::Receiver<NodeCommand>, events: mpsc::Sender<NodeEvent>) -> Self {
        Self {
            queue,
            events,
            removals: HashMap::new(),
        }
    }

    /// Carries commands out until `stop`, or until no more can come. May be dropped and called
    /// again at any time: no command is lost, and removals go on meanwhile.
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
                Some(NodeCommand::RemovePod {
                    pod,
                    removal,
                    grace,
                }) => self.remove(pod, (removal, grace), access, stop),
            }
        }
    }

    fn remove(&mut self, pod: PodRef, wish: Wish, access: &ApiAccess, stop: &CancellationToken) {
        self.removals.retain(|_, (_, done)| !done.is_cancelled());
        match self.removals.get(&pod.uid) {
            // The same again: it is under way.
            Some((under_way, _)) if *under_way == wish => return,
            // In another way: the later word counts.
            Some((_, earlier)) => earlier.cancel(),
            None if self.removals.len() >= MAX_REMOVALS => return,
            None => {}
        }
        let done = stop.child_token();
        self.removals.insert(pod.uid.clone(), (wish, done.clone()));
        let (access, events) = (access.clone(), self.events.clone());
        tokio::spawn(remove_until_answered(access, pod, wish, events, done));
    }
}

/// Removes a pod, again and again until an API server has answered. Ends by cancelling `done`.
async fn remove_until_answered(
    access: ApiAccess,
    pod: PodRef,
    (removal, grace): Wish,
    events: mpsc::Sender<NodeEvent>,
    done: CancellationToken,
) {
    let mut backoff = Backoff::up_to(MAX_REMOVE_PAUSE);
    loop {
        let result = tokio::select! {
            () = done.cancelled() => return,
            result = remove(&access, &pod, removal, grace) => result,
        };
        match result {
            Ok(outcome) => {
                tracing::info!(pod.namespace, pod.name, ?outcome, "removal");
                if let Outcome::Held { message } = outcome {
                    let uid = pod.uid;
                    // No receiver: the executor ends.
                    let _ = events.send(NodeEvent::EvictionHeld { uid, message }).await;
                }
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
