//! Decides what has to change in the machine's links, addresses, routes, neighbours and
//! forwarding entries. Pure: [`Observed`] and the wanted state in, lines for `ip -batch` and
//! `bridge -batch` out. What is right already yields no line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::address::{HardwareAddress, Ipv4Range};
use super::spec::NetworkSpec;

/// Bytes that VXLAN puts around a packet: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
pub const VXLAN_OVERHEAD: u32 = 50;
/// The smallest MTU that IPv4 allows a link (RFC 791 asks for 68; 576 is what hosts must accept).
const MIN_MTU: u32 = 576;

/// Another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// Where its VXLAN packets go.
    pub node_ip: Ipv4Addr,
    /// Its pods.
    pub pods: Ipv4Range,
}

/// What is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The link that carries the node's address, and its MTU.
    pub underlay: Option<(String, u32)>,
    /// The bridge.
    pub bridge: Option<Bridge>,
    /// The VXLAN device.
    pub vxlan: Option<Vxlan>,
    /// Routes over the VXLAN device: range and gateway.
    pub routes: BTreeSet<(Ipv4Range, Ipv4Addr)>,
    /// Permanent neighbours on the VXLAN device.
    pub neighbours: BTreeSet<(Ipv4Addr, String)>,
    /// Forwarding entries of the VXLAN device: hardware address and destination.
    pub forwarding: BTreeSet<(String, Ipv4Addr)>,
}

/// A bridge that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// `bridge`, unless somebody else has taken the name.
    pub kind: String,
    /// Hardware address.
    pub address: String,
    /// MTU.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// IPv4 addresses with their prefixes.
    pub addresses: BTreeSet<(Ipv4Addr, u8)>,
}

/// A VXLAN device that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// `vxlan`, unless somebody else has taken the name.
    pub kind: String,
    /// Network identifier.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// Source of its packets.
    pub local: Option<Ipv4Addr>,
    /// Hardware address.
    pub address: String,
    /// MTU.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// IPv4 addresses with their prefixes.
    pub addresses: BTreeSet<(Ipv4Addr, u8)>,
}

/// Lines for `ip -batch` and, after it, `bridge -batch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// For `ip -batch -`.
    pub ip: Vec<String>,
    /// For `bridge -batch -`.
    pub bridge: Vec<String>,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ip.is_empty() && self.bridge.is_empty()
    }
}

/// Why the network cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Other nodes could not reach it; kubelet refuses it too.
    #[error(
        "the node's address {0} is on no link of this machine; the Mesos agent must have an address \
         of its machine (--ip)"
    )]
    NoUnderlay(Ipv4Addr),
    /// Somebody else's link has the name.
    #[error("the link {name} is there already and is no {wanted} but a {found}")]
    Taken {
        /// Its name.
        name: String,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// Too small for IPv4 in VXLAN.
    #[error("the MTU of {link} is {mtu}, too small for VXLAN (at least {least})")]
    Mtu {
        /// The link with the node's address.
        link: String,
        /// Its MTU.
        mtu: u32,
        /// What is needed.
        least: u32,
    },
}

/// MTU of pods, the bridge and the VXLAN device.
pub fn pod_mtu(underlay: &(String, u32)) -> Result<u32, Impossible> {
    underlay
        .1
        .checked_sub(VXLAN_OVERHEAD)
        .filter(|mtu| *mtu >= MIN_MTU)
        .ok_or_else(|| Impossible::Mtu {
            link: underlay.0.clone(),
            mtu: underlay.1,
            least: MIN_MTU + VXLAN_OVERHEAD,
        })
}

/// What makes bridge and VXLAN device right.
pub fn links(spec: &NetworkSpec, observed: &Observed) -> Result<Changes, Impossible> {
    let underlay = observed
        .underlay
        .as_ref()
        .ok_or(Impossible::NoUnderlay(spec.node_ip))?;
    let mtu = pod_mtu(underlay)?;
    let mut ip = Vec::new();
    plan_bridge(spec, observed.bridge.as_ref(), mtu, &mut ip)?;
    plan_vxlan(spec, observed.vxlan.as_ref(), &underlay.0, mtu, &mut ip)?;
    Ok(Changes {
        ip,
        bridge: Vec::new(),
    })
}

fn plan_bridge(
    spec: &NetworkSpec,
    there: Option<&Bridge>,
    mtu: u32,
    ip: &mut Vec<String>,
) -> Result<(), Impossible> {
    let name = &spec.names.gateway;
    let gateway = spec.pods.gateway();
    let address = HardwareAddress::bridge(gateway).to_string();
    match there {
        Some(link) if link.kind != "bridge" => {
            return Err(Impossible::Taken {
                name: name.clone(),
                wanted: "bridge",
                found: link.kind.clone(),
            });
        }
        Some(link) => {
            if link.address != address {
                ip.push(format!("link set dev {name} address {address}"));
            }
            if link.mtu != mtu {
                ip.push(format!("link set dev {name} mtu {mtu}"));
            }
        }
        None => ip.push(format!(
            "link add name {name} address {address} mtu {mtu} type bridge"
        )),
    }
    plan_address(
        name,
        (gateway, spec.pods.prefix()),
        there.map(|l| &l.addresses),
        ip,
    );
    if !there.is_some_and(|link| link.up) {
        ip.push(format!("link set dev {name} up"));
    }
    Ok(())
}

fn plan_vxlan(
    spec: &NetworkSpec,
    there: Option<&Vxlan>,
    underlay: &str,
    mtu: u32,
    ip: &mut Vec<String>,
) -> Result<(), Impossible> {
    let name = &spec.names.vxlan;
    let address = HardwareAddress::tunnel(spec.pods.network()).to_string();
    // Everything but the MTU is fixed when the device is made.
    let kept = match there {
        Some(link) if link.kind != "vxlan" => {
            return Err(Impossible::Taken {
                name: name.clone(),
                wanted: "vxlan",
                found: link.kind.clone(),
            });
        }
        Some(link) => {
            let same = link.id == spec.vxlan_id
                && link.port == spec.vxlan_port
                && link.local == Some(spec.node_ip)
                && link.address == address;
            if !same {
                ip.push(format!("link del dev {name}"));
            }
            same.then_some(link)
        }
        None => None,
    };
    match kept {
        Some(link) if link.mtu != mtu => ip.push(format!("link set dev {name} mtu {mtu}")),
        Some(_) => {}
        None => ip.push(format!(
            "link add name {name} address {address} mtu {mtu} type vxlan id {} dstport {} local {} dev {underlay} nolearning",
            spec.vxlan_id, spec.vxlan_port, spec.node_ip
        )),
    }
    plan_address(
        name,
        (spec.pods.network(), 32),
        kept.map(|l| &l.addresses),
        ip,
    );
    if !kept.is_some_and(|link| link.up) {
        ip.push(format!("link set dev {name} up"));
    }
    Ok(())
}

fn plan_address(
    link: &str,
    wanted: (Ipv4Addr, u8),
    there: Option<&BTreeSet<(Ipv4Addr, u8)>>,
    ip: &mut Vec<String>,
) {
    let none = BTreeSet::new();
    let there = there.unwrap_or(&none);
    for (address, prefix) in there.iter().filter(|a| **a != wanted) {
        ip.push(format!("addr del {address}/{prefix} dev {link}"));
    }
    if !there.contains(&wanted) {
        ip.push(format!("addr add {}/{} dev {link}", wanted.0, wanted.1));
    }
}

/// Peers that can be reached, by pod range, and why the others cannot: a range or an address that
/// contradicts this node's own would take its traffic.
pub fn usable_peers(
    spec: &NetworkSpec,
    peers: &BTreeMap<String, Peer>,
) -> (BTreeSet<Peer>, Vec<String>) {
    let mut usable = BTreeSet::new();
    let mut refused = Vec::new();
    for (name, peer) in peers.iter().filter(|(name, _)| **name != spec.node) {
        let reason = if peer.pods.overlaps(spec.pods) {
            "overlaps this node's"
        } else if !spec.cluster_pods.covers(peer.pods) {
            "is not within the cluster's"
        } else if peer.node_ip == spec.node_ip {
            "belongs to a node with this node's address"
        } else {
            usable.insert(*peer);
            continue;
        };
        refused.push(format!("pod range {} of node {name} {reason}", peer.pods));
    }
    (usable, refused)
}

/// What makes routes, neighbours and forwarding entries right: three for each other node.
pub fn peers(spec: &NetworkSpec, observed: &Observed, peers: &BTreeSet<Peer>) -> Changes {
    let dev = &spec.names.vxlan;
    let mut routes = BTreeSet::new();
    let mut neighbours = BTreeSet::new();
    let mut forwarding = BTreeSet::new();
    for peer in peers {
        let end = peer.pods.network();
        let address = HardwareAddress::tunnel(end).to_string();
        routes.insert((peer.pods, end));
        neighbours.insert((end, address.clone()));
        forwarding.insert((address, peer.node_ip));
    }
    let mut changes = Changes::default();
    for (range, via) in observed.routes.difference(&routes) {
        let line = format!("route del {range} via {via} dev {dev}");
        changes.ip.push(line);
    }
    for (address, _) in observed.neighbours.difference(&neighbours) {
        if !neighbours.iter().any(|(wanted, _)| wanted == address) {
            changes.ip.push(format!("neigh del {address} dev {dev}"));
        }
    }
    for (address, to) in observed.forwarding.difference(&forwarding) {
        let line = format!("fdb del {address} dev {dev} dst {to} self");
        changes.bridge.push(line);
    }
    for (address, to) in forwarding.difference(&observed.forwarding) {
        let line = format!("fdb append {address} dev {dev} dst {to} self permanent");
        changes.bridge.push(line);
    }
    for (address, hardware) in neighbours.difference(&observed.neighbours) {
        changes.ip.push(format!(
            "neigh replace {address} lladdr {hardware} dev {dev} nud permanent"
        ));
    }
    for (range, via) in routes.difference(&observed.routes) {
        let line = format!("route replace {range} via {via} dev {dev} onlink");
        changes.ip.push(line);
    }
    changes
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
