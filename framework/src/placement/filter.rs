//! The filters: does this pod fit that candidate, and if not, why.
//!
//! The order and the words are upstream's. A candidate is rejected by the first filter that
//! refuses it; only resources report everything that is short at once.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, Taint, Toleration};

use super::selector::{Labels, NodeRequirement};
use super::toleration::first_untolerated;
use crate::resources::demand::{CPU, EPHEMERAL_STORAGE, GPU, MEMORY, PodDemand};
use crate::resources::ports::{HostPort, PortSet};

/// What a pod requires, read once.
#[derive(Debug, Clone, PartialEq)]
pub struct PodRequirements {
    /// Its resources.
    pub demand: PodDemand,
    /// `spec.nodeName`, where the pod names its node itself.
    pub node_name: Option<String>,
    /// Node selector and required node affinity.
    pub node: NodeRequirement,
    /// Its tolerations.
    pub tolerations: Vec<Toleration>,
    /// Whether pods of lower priority may be ended to make room for it (`spec.preemptionPolicy`).
    pub may_preempt: bool,
    /// Whether it tolerates `node.kubernetes.io/unschedulable`, as pods of DaemonSets do.
    tolerates_unschedulable: bool,
}

impl PodRequirements {
    /// Reads a pod.
    pub fn of(spec: &PodSpec, demand: PodDemand) -> Self {
        let tolerations = spec.tolerations.clone().unwrap_or_default();
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        Self {
            tolerates_unschedulable: first_untolerated(&[cordon], &tolerations).is_none(),
            demand,
            may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            node: NodeRequirement::of(spec),
            tolerations,
        }
    }
}

/// Something a pod may be placed on: a node, or an agent that would become one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Candidate {
    /// Name of the node.
    pub node_name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// What is free: in the offers held, less a node task that would have to be launched too.
    pub free: Free,
    /// What the agent has in all, for the hint that a pod can never fit.
    pub capacity: Capacity,
    /// Host ports of the pods that run there already.
    pub used_ports: Vec<HostPort>,
}

/// Free resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Free {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// GPUs.
    pub gpus: u32,
    /// Pods that the node still takes.
    pub pods: u32,
    /// Ports in the offers.
    pub ports: PortSet,
    /// What Mesos does not know and the node shows as allocatable, less what its pods use:
    /// huge pages and extended resources of device plugins.
    pub other: BTreeMap<String, u64>,
}

/// What an agent has in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// GPUs.
    pub gpus: u32,
}

/// A pod fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fit {
    /// Port numbers that its task takes from the offers.
    pub ports: Vec<u16>,
    /// Port numbers that another pod of the node has taken already, for another protocol or
    /// address. Mesos counts numbers, so this pod's task takes none; when the other pod ends
    /// first, the number goes back to Mesos although this pod still uses it, unless whoever
    /// keeps the books takes it again.
    pub shared_ports: Vec<u16>,
}

/// Why a candidate does not do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// It is cordoned.
    Unschedulable,
    /// The pod names another node.
    NodeName,
    /// It has a taint that the pod does not tolerate.
    Taint,
    /// Node selector or required node affinity.
    NodeAffinity,
    /// A pod there has the host port.
    PortInUse,
    /// The host port is not in the agent's offers.
    PortNotOffered,
    /// The node is full of pods.
    TooManyPods,
    /// Too little of a resource.
    Insufficient(String),
    /// The agent cannot take a pod at the moment, whatever the pod is like; in the words that
    /// follow a count.
    NotNow(&'static str),
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unschedulable => "node(s) were unschedulable",
            Self::NodeName => "node(s) didn't match the requested node name",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector",
            Self::PortInUse => "node(s) didn't have free ports for the requested pod ports",
            Self::PortNotOffered => {
                "node(s) whose Mesos agent doesn't offer the requested host ports"
            }
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
            Self::NotNow(why) => why,
        })
    }
}

/// Whether the pod fits the candidate, and if not, why.
pub fn filter(pod: &PodRequirements, candidate: &Candidate) -> Result<Fit, Vec<Rejection>> {
    let fit = qualifies(pod, candidate).map_err(|rejection| vec![rejection])?;
    let mut short = Vec::new();
    shortages(&pod.demand, &candidate.free, |rejection| {
        short.push(rejection)
    });
    if short.is_empty() {
        Ok(fit)
    } else {
        Err(short)
    }
}

/// Whether the pod fits the candidate. The same as [`filter`] without the reasons, which makes
/// it the faster one by far: most candidates are refused for lack of room, seen first here.
pub fn fits(pod: &PodRequirements, candidate: &Candidate) -> Option<Fit> {
    let (demand, free) = (&pod.demand, &candidate.free);
    let room = free.pods > 0
        && demand.cpu_millis <= free.cpu_millis
        && demand.memory_bytes <= free.memory_bytes
        && demand.disk_bytes <= free.disk_bytes
        && demand.gpus <= free.gpus
        && other_shortages(demand, free).next().is_none();
    if room {
        qualifies(pod, candidate).ok()
    } else {
        None
    }
}

/// Everything but resources.
fn qualifies(pod: &PodRequirements, candidate: &Candidate) -> Result<Fit, Rejection> {
    if candidate.unschedulable && !pod.tolerates_unschedulable {
        return Err(Rejection::Unschedulable);
    }
    let named = pod.node_name.as_ref();
    if named.is_some_and(|name| *name != candidate.node_name) {
        return Err(Rejection::NodeName);
    }
    if first_untolerated(&candidate.taints, &pod.tolerations).is_some() {
        return Err(Rejection::Taint);
    }
    if !pod.node.matches(&candidate.node_name, &candidate.labels) {
        return Err(Rejection::NodeAffinity);
    }
    place_ports(&pod.demand, candidate)
}

fn place_ports(demand: &PodDemand, candidate: &Candidate) -> Result<Fit, Rejection> {
    let mut fit = Fit::default();
    if demand.host_ports.is_empty() {
        return Ok(fit);
    }
    let taken = |port: &HostPort| {
        candidate
            .used_ports
            .iter()
            .any(|used| used.conflicts_with(port))
    };
    if demand.host_ports.iter().any(taken) {
        return Err(Rejection::PortInUse);
    }
    for number in demand.port_numbers() {
        if candidate.free.ports.contains(number) {
            fit.ports.push(number);
        } else if candidate.used_ports.iter().any(|used| used.port == number) {
            fit.shared_ports.push(number);
        } else {
            return Err(Rejection::PortNotOffered);
        }
    }
    Ok(fit)
}

/// Names everything that is short.
fn shortages(demand: &PodDemand, free: &Free, mut report: impl FnMut(Rejection)) {
    if free.pods == 0 {
        report(Rejection::TooManyPods);
    }
    let amounts = [
        (demand.cpu_millis, free.cpu_millis, CPU),
        (demand.memory_bytes, free.memory_bytes, MEMORY),
        (demand.disk_bytes, free.disk_bytes, EPHEMERAL_STORAGE),
        (u64::from(demand.gpus), u64::from(free.gpus), GPU),
    ];
    for (wanted, free, name) in amounts {
        if wanted > free {
            report(Rejection::Insufficient(name.to_owned()));
        }
    }
    for name in other_shortages(demand, free) {
        report(Rejection::Insufficient(name.to_owned()));
    }
}

fn other_shortages<'a>(demand: &'a PodDemand, free: &'a Free) -> impl Iterator<Item = &'a str> {
    let short = |name: &String, wanted: u64| wanted > free.other.get(name).copied().unwrap_or(0);
    let wanted = demand.other.iter();
    wanted.filter_map(move |(name, amount)| short(name, *amount).then_some(name.as_str()))
}

impl Candidate {
    /// Books a pod that was placed here, so that the next one sees what is left.
    pub fn take(&mut self, demand: &PodDemand, fit: &Fit) {
        let free = &mut self.free;
        free.cpu_millis = free.cpu_millis.saturating_sub(demand.cpu_millis);
        free.memory_bytes = free.memory_bytes.saturating_sub(demand.memory_bytes);
        free.disk_bytes = free.disk_bytes.saturating_sub(demand.disk_bytes);
        free.gpus = free.gpus.saturating_sub(demand.gpus);
        free.pods = free.pods.saturating_sub(1);
        for (name, amount) in &demand.other {
            if let Some(left) = free.other.get_mut(name) {
                *left = left.saturating_sub(*amount);
            }
        }
        for port in &fit.ports {
            free.ports.remove(*port);
        }
        self.used_ports.extend_from_slice(&demand.host_ports);
    }

    /// What it would be without a pod: the opposite of [`Self::take`].
    pub fn give_back(&mut self, demand: &PodDemand, fit: &Fit) {
        let free = &mut self.free;
        free.cpu_millis = free.cpu_millis.saturating_add(demand.cpu_millis);
        free.memory_bytes = free.memory_bytes.saturating_add(demand.memory_bytes);
        free.disk_bytes = free.disk_bytes.saturating_add(demand.disk_bytes);
        free.gpus = free.gpus.saturating_add(demand.gpus);
        free.pods = free.pods.saturating_add(1);
        for (name, amount) in &demand.other {
            if let Some(left) = free.other.get_mut(name) {
                *left = left.saturating_add(*amount);
            }
        }
        let numbers = fit.ports.iter().map(|port| u64::from(*port));
        let ports = PortSet::from_ranges(numbers.map(|number| (number, number)));
        free.ports.extend(&ports);
        for port in &demand.host_ports {
            if let Some(at) = self.used_ports.iter().position(|used| used == port) {
                self.used_ports.swap_remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::resources::{Accounting, MIB};

    fn pod(spec: Value) -> PodRequirements {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "main"}]);
        }
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let demand = PodDemand::of_spec(&spec, &Accounting::default()).unwrap();
        PodRequirements::of(&spec, demand)
    }

    fn candidate() -> Candidate {
        Candidate {
            node_name: "n1".to_owned(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            free: Free {
                cpu_millis: 1_000,
                memory_bytes: 1024 * MIB,
                disk_bytes: 1024 * MIB,
                pods: 10,
                ports: PortSet::from_ranges([(31_000, 31_010)]),
                ..Free::default()
            },
            ..Candidate::default()
        }
    }

    fn port(number: u16, protocol: &str, ip: &str) -> PodRequirements {
        pod(json!({"containers": [{"name": "main", "ports": [
            {"containerPort": 80, "hostPort": number, "protocol": protocol, "hostIP": ip}]}]}))
    }

    #[test]
    fn each_filter_rejects_with_its_own_words() {
        let cordoned = Candidate {
            unschedulable: true,
            ..candidate()
        };
        let tainted = Candidate {
            taints: vec![Taint {
                key: "t".into(),
                effect: "NoSchedule".into(),
                ..Taint::default()
            }],
            ..candidate()
        };
        let full = Candidate {
            free: Free {
                pods: 0,
                ..candidate().free
            },
            ..candidate()
        };
        let big = json!({"containers": [{"name": "main", "resources": {"requests":
            {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "2Gi", "nvidia.com/gpu": "1", "example.com/foo": "1"}}}]});
        for (pod, candidate, expected) in [
            (
                pod(json!({})),
                &cordoned,
                vec!["node(s) were unschedulable"],
            ),
            (
                pod(json!({"nodeName": "n2"})),
                &candidate(),
                vec!["node(s) didn't match the requested node name"],
            ),
            (
                pod(json!({})),
                &tainted,
                vec!["node(s) had untolerated taint(s)"],
            ),
            (
                pod(json!({"nodeSelector": {"zone": "b"}})),
                &candidate(),
                vec!["node(s) didn't match Pod's node affinity/selector"],
            ),
            (
                port(80, "TCP", ""),
                &candidate(),
                vec!["node(s) whose Mesos agent doesn't offer the requested host ports"],
            ),
            (pod(json!({})), &full, vec!["Too many pods"]),
            (
                pod(big),
                &candidate(),
                vec![
                    "Insufficient cpu",
                    "Insufficient memory",
                    "Insufficient ephemeral-storage",
                    "Insufficient nvidia.com/gpu",
                    "Insufficient example.com/foo",
                ],
            ),
        ] {
            let rejections = filter(&pod, candidate).unwrap_err();
            assert_eq!(fits(&pod, candidate), None);
            let texts: Vec<_> = rejections.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected);
        }
    }

    #[test]
    fn a_pod_of_a_daemon_set_ignores_a_cordon() {
        let tolerant = pod(
            json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]}),
        );
        let cordoned = Candidate {
            unschedulable: true,
            ..candidate()
        };
        assert!(filter(&tolerant, &cordoned).is_ok());
    }

    #[test]
    fn pods_share_a_port_number_when_protocol_or_address_differ() {
        let mut node = candidate();
        let tcp = port(31_000, "TCP", "127.0.0.1");
        let fit = filter(&tcp, &node).unwrap();
        assert_eq!(fit.ports, [31_000]);
        assert_eq!(fits(&tcp, &node).as_ref(), Some(&fit));
        node.take(&tcp.demand, &fit);
        assert!(!node.free.ports.contains(31_000));

        assert_eq!(filter(&tcp, &node).unwrap_err(), [Rejection::PortInUse]);
        assert_eq!(
            filter(&port(31_000, "TCP", ""), &node).unwrap_err(),
            [Rejection::PortInUse]
        );
        for other in [
            port(31_000, "TCP", "127.0.0.2"),
            port(31_000, "UDP", "127.0.0.1"),
        ] {
            let fit = filter(&other, &node).unwrap();
            assert_eq!((fit.ports, fit.shared_ports), (vec![], vec![31_000]));
        }
    }

    #[test]
    fn what_is_taken_is_gone_for_the_next_pod() {
        let mut node = candidate();
        let half = pod(
            json!({"containers": [{"name": "main", "resources": {"requests": {"cpu": "600m"}}}]}),
        );
        let fit = filter(&half, &node).unwrap();
        node.take(&half.demand, &fit);
        assert_eq!(node.free.pods, 9);
        assert_eq!(
            filter(&half, &node).unwrap_err(),
            [Rejection::Insufficient("cpu".into())]
        );
    }
}
