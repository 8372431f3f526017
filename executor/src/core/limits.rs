//! What all pods of the node together may use, from what Mesos granted to their tasks.

use super::Core;
use super::event::Effect;

/// Limits of the pods' parent cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodLimits {
    /// Sum of the pods' CPU requests in thousandths; becomes a weight.
    pub cpu_millis: u64,
    /// Sum of the pods' memory limits in bytes. When one of them has no limit: all that the agent
    /// has for pods, so that even such a one cannot take what is not Mesos' to give.
    pub memory: u64,
    /// The node's own CPU in thousandths; weight of the node's processes.
    pub node_cpu_millis: u64,
    /// What the node's own processes were granted, in bytes.
    pub node_memory: Option<u64>,
}

impl Core {
    /// Sets the limits anew when they have changed, before any update of the same event goes out:
    /// raised before the framework may bind the pod, lowered once the pod's processes are gone
    /// and before Mesos may offer its memory to others.
    pub(super) fn adjust_limits(&mut self, out: &mut Vec<Effect>) {
        let Some(node) = &self.node else { return };
        let mut limits = PodLimits {
            cpu_millis: 0,
            memory: 0,
            node_cpu_millis: node.grant.cpu_millis,
            node_memory: node.grant.memory_limit,
        };
        for pod in self.pods.values() {
            limits.cpu_millis = limits.cpu_millis.saturating_add(pod.grant.cpu_millis);
            limits.memory = match pod.grant.memory_limit {
                Some(more) => limits.memory.saturating_add(more),
                None => limits.memory.max(node.config.allocatable.memory_bytes),
            };
        }
        if self.limits != Some(limits) {
            self.limits = Some(limits);
            out.push(Effect::Limits(limits));
        }
    }
}
