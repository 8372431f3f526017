//! Host ports of pods and port ranges of offers.

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Reads `ContainerPort.protocol`.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("TCP") {
            "TCP" | "" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// The host address that a port is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostIp {
    /// All addresses.
    Any,
    /// One address.
    One(IpAddr),
}

impl HostIp {
    /// Reads `ContainerPort.hostIP`. As upstream's scheduler does, only `0.0.0.0` and nothing
    /// mean all addresses; a text that is no address is refused.
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "0.0.0.0") => Some(Self::Any),
            Some(text) => text.parse().ok().map(Self::One),
        }
    }
}

/// A host port that a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The address.
    pub host_ip: HostIp,
}

impl HostPort {
    /// Whether both cannot be open on one machine.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.host_ip == HostIp::Any
                || other.host_ip == HostIp::Any
                || self.host_ip == other.host_ip)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            HostIp::Any => write!(f, "{}/{}", self.port, self.protocol),
            HostIp::One(ip) => write!(f, "{ip}:{}/{}", self.port, self.protocol),
        }
    }
}

/// A port of a pod that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "container `{container}`: host port {port} with protocol `{protocol}` and host address `{host_ip}` cannot be read"
)]
pub struct PortError {
    /// Name of the container.
    pub container: String,
    /// `hostPort`.
    pub port: i32,
    /// `protocol`.
    pub protocol: String,
    /// `hostIP`.
    pub host_ip: String,
}

/// The host ports of a pod: those of containers and of init containers that run as long as the
/// pod does. With host networking a container port is a host port.
pub fn host_ports(spec: &PodSpec) -> Result<Vec<HostPort>, PortError> {
    let host_network = spec.host_network == Some(true);
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| is_sidecar(c));
    let mut ports = Vec::new();
    for container in sidecars.chain(&spec.containers) {
        for port in container.ports.iter().flatten() {
            let number = match port.host_port {
                Some(number) if number != 0 => number,
                _ if host_network => port.container_port,
                _ => continue,
            };
            let read = read_port(port, number).ok_or_else(|| PortError {
                container: container.name.clone(),
                port: number,
                protocol: port.protocol.clone().unwrap_or_default(),
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })?;
            ports.push(read);
        }
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

fn read_port(port: &ContainerPort, number: i32) -> Option<HostPort> {
    Some(HostPort {
        port: u16::try_from(number).ok().filter(|p| *p != 0)?,
        protocol: Protocol::parse(port.protocol.as_deref())?,
        host_ip: HostIp::parse(port.host_ip.as_deref())?,
    })
}

/// Whether an init container goes on running beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Ports from `begin` to `end`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first.
    pub begin: u16,
    /// The last.
    pub end: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.begin, self.end)
    }
}

/// A set of ports: sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet {
    ranges: Vec<PortRange>,
}

impl PortSet {
    /// Makes a set of Mesos ranges. What lies outside 1 to 65535 is left out; ranges may overlap.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut list: Vec<PortRange> = ranges
            .into_iter()
            .filter_map(|(begin, end)| {
                let begin = u16::try_from(begin.max(1)).ok()?;
                let end = u16::try_from(end.min(u64::from(u16::MAX))).ok()?;
                (begin <= end).then_some(PortRange { begin, end })
            })
            .collect();
        list.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(list.len());
        for range in list {
            match merged.last_mut() {
                Some(last) if u32::from(range.begin) <= u32::from(last.end) + 1 => {
                    last.end = last.end.max(range.end);
                }
                _ => merged.push(range),
            }
        }
        Self { ranges: merged }
    }

    /// Its ranges, sorted.
    pub fn ranges(&self) -> &[PortRange] {
        &self.ranges
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ports it has.
    pub fn len(&self) -> usize {
        let count = |r: &PortRange| usize::from(r.end) - usize::from(r.begin) + 1;
        self.ranges.iter().map(count).sum()
    }

    /// Whether the port is in it.
    pub fn contains(&self, port: u16) -> bool {
        let after = self.ranges.partition_point(|r| r.begin <= port);
        after > 0 && self.ranges[after - 1].end >= port
    }

    /// Takes one port out. Says whether it was in.
    pub fn remove(&mut self, port: u16) -> bool {
        let after = self.ranges.partition_point(|r| r.begin <= port);
        let Some(at) = after.checked_sub(1) else {
            return false;
        };
        let range = self.ranges[at];
        if range.end < port {
            return false;
        }
        let left = (range.begin < port).then(|| PortRange {
            begin: range.begin,
            end: port - 1,
        });
        let right = (port < range.end).then(|| PortRange {
            begin: port + 1,
            end: range.end,
        });
        self.ranges.splice(at..=at, left.into_iter().chain(right));
        true
    }

    /// Adds another set's ports.
    pub fn extend(&mut self, other: &Self) {
        let all = self.ranges.iter().chain(&other.ranges);
        *self = Self::from_ranges(all.map(|r| (u64::from(r.begin), u64::from(r.end))));
    }

    /// The ports, one after the other, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(|r| r.begin..=r.end)
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<T: IntoIterator<Item = PortRange>>(ranges: T) -> Self {
        let bounds = |range: PortRange| (u64::from(range.begin), u64::from(range.end));
        Self::from_ranges(ranges.into_iter().map(bounds))
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<T: IntoIterator<Item = u16>>(ports: T) -> Self {
        Self::from_ranges(ports.into_iter().map(|p| (u64::from(p), u64::from(p))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn port(port: u16, protocol: Protocol, ip: Option<&str>) -> HostPort {
        HostPort {
            port,
            protocol,
            host_ip: HostIp::parse(ip).unwrap(),
        }
    }

    #[test]
    fn ports_conflict_only_with_the_same_number_protocol_and_an_overlapping_address() {
        let any = port(80, Protocol::Tcp, None);
        assert!(any.conflicts_with(&port(80, Protocol::Tcp, Some("10.0.0.1"))));
        assert!(any.conflicts_with(&port(80, Protocol::Tcp, Some("0.0.0.0"))));
        assert!(!any.conflicts_with(&port(80, Protocol::Udp, None)));
        assert!(!any.conflicts_with(&port(81, Protocol::Tcp, None)));
        let one = port(80, Protocol::Tcp, Some("10.0.0.1"));
        assert!(!one.conflicts_with(&port(80, Protocol::Tcp, Some("10.0.0.2"))));
        assert!(one.conflicts_with(&one));
    }

    #[test]
    fn host_networking_makes_container_ports_host_ports_and_init_containers_do_not_count() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "hostNetwork": true,
            "initContainers": [
                {"name": "once", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": "side", "restartPolicy": "Always", "ports": [{"containerPort": 2}]},
            ],
            "containers": [{"name": "main", "ports": [
                {"containerPort": 3, "protocol": "UDP"},
                {"containerPort": 4, "hostPort": 5, "hostIP": "127.0.0.1"},
            ]}],
        }))
        .unwrap();
        let texts: Vec<_> = host_ports(&spec)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts, ["2/TCP", "3/UDP", "127.0.0.1:5/TCP"]);
        let mut plain = spec;
        plain.host_network = None;
        let texts: Vec<_> = host_ports(&plain)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts, ["127.0.0.1:5/TCP"]);
    }

    #[test]
    fn a_port_that_cannot_be_read_names_its_container() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{"name": "main", "ports": [{"containerPort": 1, "hostPort": 70000}]}],
        }))
        .unwrap();
        assert!(
            host_ports(&spec)
                .unwrap_err()
                .to_string()
                .contains("container `main`: host port 70000")
        );
    }

    proptest! {
        #[test]
        fn a_port_set_behaves_as_a_set(
            ranges in proptest::collection::vec((0u64..300, 0u64..40), 0..8),
            removed in proptest::collection::vec(0u16..340, 0..20),
        ) {
            let mut set = PortSet::from_ranges(ranges.iter().map(|(b, l)| (*b, b + l)));
            let mut model: BTreeSet<u16> = ranges
                .iter()
                .flat_map(|(b, l)| *b..=b + l)
                .filter(|p| *p > 0)
                .map(|p| u16::try_from(p).unwrap())
                .collect();
            for port in removed {
                prop_assert_eq!(set.contains(port), model.contains(&port));
                prop_assert_eq!(set.remove(port), model.remove(&port));
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!(set.ranges().windows(2).all(|w| u32::from(w[0].end) + 1 < u32::from(w[1].begin)));
        }
    }
}
