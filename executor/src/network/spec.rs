//! What the pod network of one node is, read and checked out of the node's configuration.

use std::net::{IpAddr, Ipv4Addr};

use seam::node::NodeConfig;

use super::address::{BadRange, Ipv4Range};

/// The pod network of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// The cluster's name, for people.
    pub cluster: String,
    /// The node's name.
    pub node: String,
    /// Names of links and tables.
    pub names: Names,
    /// The node's address, where other nodes send its VXLAN packets.
    pub node_ip: Ipv4Addr,
    /// This node's pods.
    pub pods: Ipv4Range,
    /// All nodes' pods.
    pub cluster_pods: Ipv4Range,
    /// VXLAN network identifier.
    pub vxlan_id: u32,
    /// VXLAN's UDP port.
    pub vxlan_port: u16,
}

/// Names of what the node puts into the machine's network namespace, from the short hash of the
/// node's name, so that two nodes never meet and a later life finds what an earlier one left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The link that holds the pods' gateway address (a bridge without ports, which every kernel
    /// can make). Also the name of the CNI network.
    pub gateway: String,
    /// The VXLAN device.
    pub vxlan: String,
    /// The nftables table (family `ip`).
    pub table: String,
}

/// What the names of gateway links and tables of all nodes start with.
pub const GATEWAY_PREFIX: &str = "k8s";
/// What the names of all VXLAN devices start with.
pub const VXLAN_PREFIX: &str = "k8v";
/// Length of the hash in these names.
pub const HASH_LEN: usize = 8;

impl Names {
    /// From the short hash of a node's name.
    pub fn new(hash: &str) -> Self {
        Self {
            gateway: format!("{GATEWAY_PREFIX}{hash}"),
            vxlan: format!("{VXLAN_PREFIX}{hash}"),
            table: format!("{GATEWAY_PREFIX}{hash}"),
        }
    }

    /// The hash in such a name, if it is one.
    pub fn hash_of(name: &str) -> Option<&str> {
        let hash = name
            .strip_prefix(GATEWAY_PREFIX)
            .or_else(|| name.strip_prefix(VXLAN_PREFIX))?;
        let ours = hash.len() == HASH_LEN
            && hash
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ours.then_some(hash)
    }
}

/// Why a node's configuration makes no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// A range cannot be read.
    #[error("{what}: {source}")]
    Range {
        /// Which.
        what: &'static str,
        /// How.
        source: BadRange,
    },
    /// Only IPv4 so far.
    #[error("the node's address {0} is no IPv4 address; pod networks are IPv4 only")]
    NotIpv4(IpAddr),
    /// Other nodes cannot reach it, and kubelet refuses it.
    #[error(
        "the node's address {0} is loopback or unspecified; give the Mesos agent an address of its \
         machine (--ip or --advertise_ip)"
    )]
    Unreachable(Ipv4Addr),
    /// The ranges contradict each other.
    #[error("{a} and {b} overlap: choose other ranges")]
    Overlap {
        /// The first.
        a: String,
        /// The second.
        b: String,
    },
    /// The node's pods are not the cluster's.
    #[error("the node's pod range {pods} is not within the cluster's {cluster}")]
    Outside {
        /// The node's.
        pods: Ipv4Range,
        /// The cluster's.
        cluster: Ipv4Range,
    },
    /// No room for a gateway and a pod.
    #[error("the node's pod range {0} is too small; at least a /29 is needed")]
    TooSmall(Ipv4Range),
    /// VXLAN identifiers have 24 bits.
    #[error("VXLAN identifier {0} is not between 1 and 16777215")]
    VxlanId(u32),
}

impl NetworkSpec {
    /// Reads and checks a node's configuration.
    pub fn new(node: &NodeConfig, hash: &str) -> Result<Self, BadNetwork> {
        let range = |what, text: &str| -> Result<Ipv4Range, BadNetwork> {
            text.parse()
                .map_err(|source| BadNetwork::Range { what, source })
        };
        let pods = range("pod range of the node", &node.pod_cidr)?;
        let cluster_pods = range("pod range of the cluster", &node.cluster.pod_cidr)?;
        let services = range("service range", &node.cluster.service_cidr)?;
        let IpAddr::V4(node_ip) = node.node_ip else {
            return Err(BadNetwork::NotIpv4(node.node_ip));
        };
        if node_ip.is_loopback() || node_ip.is_unspecified() {
            return Err(BadNetwork::Unreachable(node_ip));
        }
        if !cluster_pods.covers(pods) {
            return Err(BadNetwork::Outside {
                pods,
                cluster: cluster_pods,
            });
        }
        if pods.prefix() > 29 {
            return Err(BadNetwork::TooSmall(pods));
        }
        if services.overlaps(cluster_pods) {
            return Err(BadNetwork::Overlap {
                a: format!("service range {services}"),
                b: format!("pod range {cluster_pods}"),
            });
        }
        for (what, range) in [("service", services), ("pod", cluster_pods)] {
            if range.contains(node_ip) {
                return Err(BadNetwork::Overlap {
                    a: format!("the node's address {node_ip}"),
                    b: format!("the {what} range {range}"),
                });
            }
        }
        if node.cluster.vxlan_id == 0 || node.cluster.vxlan_id >= 1 << 24 {
            return Err(BadNetwork::VxlanId(node.cluster.vxlan_id));
        }
        Ok(Self {
            cluster: node.cluster.name.clone(),
            node: node.node_name.clone(),
            names: Names::new(hash),
            node_ip,
            pods,
            cluster_pods,
            vxlan_id: node.cluster.vxlan_id,
            vxlan_port: node.cluster.vxlan_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seam::testing::node_config;

    fn broken(change: impl FnOnce(&mut NodeConfig)) -> String {
        let mut node = node_config();
        change(&mut node);
        NetworkSpec::new(&node, "0badcafe").unwrap_err().to_string()
    }

    #[test]
    fn link_names_fit_into_fifteen_bytes() {
        let spec = NetworkSpec::new(&node_config(), "0badcafe").unwrap();
        assert!(spec.names.gateway.len() <= 15 && spec.names.vxlan.len() <= 15);
        assert_eq!(Names::hash_of(&spec.names.vxlan), Some("0badcafe"));
        assert_eq!(Names::hash_of("k8sDEADBEEF"), None);
        assert_eq!(Names::hash_of("k8s"), None);
        assert_eq!(Names::hash_of("docker0"), None);
    }

    #[test]
    fn contradictions_are_named() {
        let all = [
            broken(|n| n.pod_cidr = "10.9.0.0/24".into()),
            broken(|n| n.pod_cidr = "10.244.3.0".into()),
            broken(|n| n.pod_cidr = "10.244.3.0/30".into()),
            broken(|n| n.node_ip = "127.0.0.1".parse().unwrap()),
            broken(|n| n.node_ip = "fd00::1".parse().unwrap()),
            broken(|n| n.node_ip = "10.244.9.9".parse().unwrap()),
            broken(|n| n.cluster.service_cidr = "10.244.0.0/20".into()),
            broken(|n| n.cluster.vxlan_id = 1 << 24),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }
}
