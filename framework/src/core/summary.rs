//! What the framework's status page and metrics show of the state.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use packaging::install::rolling::Progress;

use super::State;
use super::ids::NodeName;
use super::node::{Node, NodePhase};
use super::pod::Stage;

/// How many launch times wait to be taken.
pub const LAUNCH_TIMES: usize = 10_000;

/// Counts since the process started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Offers received.
    pub offers_received: u64,
    /// Offers declined.
    pub offers_declined: u64,
    /// Offers used in an ACCEPT.
    pub offers_accepted: u64,
    /// Offers rescinded.
    pub offers_rescinded: u64,
    /// Inverse offers received, and answered.
    pub inverse_offers: u64,
    /// Pods' tasks launched.
    pub pods_launched: u64,
    /// Node tasks launched.
    pub nodes_launched: u64,
    /// Attempts to place a pod that found nothing.
    pub unschedulable: u64,
    /// Pods that others of lower priority had to make room for.
    pub preemptions: u64,
    /// Status updates, repeated ones included.
    pub updates: u64,
    /// Complete reconciliations.
    pub reconciliations: u64,
    /// Scheduling passes.
    pub passes: u64,
}

/// How long a task took from ACCEPT to TASK_STARTING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchTime {
    /// Whether it is a node's own task.
    pub node: bool,
    /// The time.
    pub took: Duration,
}

/// A picture of the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether there is a subscription.
    pub connected: bool,
    /// Whether it is known which tasks exist.
    pub recovered: bool,
    /// Known agents that are active.
    pub agents: usize,
    /// Offers held.
    pub offers: usize,
    /// Pods in the scheduling queue.
    pub queued: usize,
    /// Pods that back off.
    pub backing_off: usize,
    /// Pods planned onto a node that is being prepared.
    pub planned: usize,
    /// Pods that have scheduling gates or cannot be scheduled.
    pub gated: usize,
    /// Bound pods without a task.
    pub unaccounted: usize,
    /// Tasks that are not known to have ended.
    pub tasks: usize,
    /// Nodes by phase.
    pub nodes: BTreeMap<&'static str, usize>,
    /// Ready nodes by where they are on their way to the wanted revision.
    pub rollout: Vec<(&'static str, usize)>,
    /// How far they are in all, once that is known.
    pub rolling: Option<Progress>,
}

impl NodePhase {
    /// The phase in words, for status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectWanted => "object-wanted",
            Self::AwaitingPodCidr => "awaiting-pod-cidr",
            Self::AwaitingOffer => "awaiting-offer",
            Self::Launching => "launching",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unreachable => "unreachable",
            Self::Draining => "draining",
            Self::Clearing => "clearing",
            Self::Offline => "offline",
        }
    }
}

impl State {
    /// A picture of the moment. Walks over all pods and nodes.
    pub fn summary(&self) -> Summary {
        let mut nodes = BTreeMap::new();
        for node in self.nodes.values() {
            *nodes.entry(node.phase.as_str()).or_default() += 1;
        }
        let mut summary = Summary {
            connected: self.connected,
            recovered: self.recovered,
            agents: self.agents.values().filter(|a| a.active).count(),
            offers: self.offers.len(),
            queued: self.queue.len(),
            backing_off: self.backing_off.len(),
            unaccounted: self.unaccounted.len(),
            tasks: self.ledger.len(),
            nodes,
            rollout: self.rollout.counts(),
            rolling: self.rollout_progress(),
            ..Summary::default()
        };
        for pod in self.pods.values() {
            match pod.stage {
                Stage::Gated if pod.view.node.is_none() => summary.gated += 1,
                Stage::Planned(_) => summary.planned += 1,
                _ => {}
            }
        }
        summary
    }

    /// Launches since this was last called. Bounded: at most [`LAUNCH_TIMES`] are kept.
    pub fn take_launch_times(&mut self) -> Vec<LaunchTime> {
        std::mem::take(&mut self.launch_times)
    }

    pub(super) fn launched_in(&mut self, node: bool, took: Duration) {
        if self.launch_times.len() < LAUNCH_TIMES {
            self.launch_times.push(LaunchTime { node, took });
        }
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Every node with its agent's address, for whoever approves certificates.
    pub fn node_addresses(&self) -> impl Iterator<Item = (&NodeName, Option<IpAddr>)> {
        self.nodes.values().map(|node| {
            let ip = self.agents.get(&node.agent).and_then(|agent| agent.ip);
            (&node.name, ip)
        })
    }

    /// Nodes that are Ready: their bootstrap tokens have done their work.
    pub fn ready_nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes
            .values()
            .filter(|node| node.phase == NodePhase::Ready)
            .map(|node| &node.name)
    }
}
