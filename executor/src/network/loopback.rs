//! Host ports on loopback addresses, for pods that name one (`hostIP: 127.0.0.1`).
//!
//! The `portmap` plugin is told to leave 127/8 alone, else each host port would take the same port
//! of `localhost` away from the machine's own programs. Its condition holds for all ports alike,
//! so those whose pods do ask for a loopback address are mapped here, from the pods as
//! kubelet reports them. What such packets need on their way back, the plugin does for every pod with host
//! ports: source NAT of 127.0.0.1, and `route_localnet` on the pod's link. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use super::spec::Names;

/// Chain in the node's table.
const CHAIN: &str = "loopback";

/// Transport protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// From a container port; none is TCP.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of a loopback address that belongs to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoopbackPort {
    /// In 127/8.
    pub address: Ipv4Addr,
    /// Protocol.
    pub protocol: Protocol,
    /// The machine's port.
    pub port: u16,
    /// The pod.
    pub pod: Ipv4Addr,
    /// The container's port.
    pub target: u16,
}

/// Script for `nft -f -` that maps exactly these ports, in one transaction.
pub fn script(names: &Names, ports: &BTreeSet<LoopbackPort>) -> String {
    let table = &names.table;
    // Where the plugin's own rules are, which skip these addresses, so the order does not matter.
    let mut script = format!(
        "add table ip {table}\n\
         add chain ip {table} {CHAIN} {{ type nat hook output priority -100; policy accept; }}\n\
         flush chain ip {table} {CHAIN}\n"
    );
    for mapped in ports {
        let LoopbackPort {
            address,
            protocol,
            port,
            pod,
            target,
        } = mapped;
        // Writing into a String does not fail.
        let _ = writeln!(
            script,
            "add rule ip {table} {CHAIN} ip daddr {address} {} dport {port} dnat to {pod}:{target}",
            protocol.as_str()
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_given_ports_are_mapped() {
        let port = |protocol, port| LoopbackPort {
            address: Ipv4Addr::LOCALHOST,
            protocol,
            port,
            pod: "10.244.3.7".parse().unwrap(),
            target: 80,
        };
        let ports = [port(Protocol::Udp, 53), port(Protocol::Tcp, 8080)].into();
        let names = Names::new("0badcafe");
        insta::assert_snapshot!(script(&names, &ports), @r"
        add table ip k8s0badcafe
        add chain ip k8s0badcafe loopback { type nat hook output priority -100; policy accept; }
        flush chain ip k8s0badcafe loopback
        add rule ip k8s0badcafe loopback ip daddr 127.0.0.1 tcp dport 8080 dnat to 10.244.3.7:80
        add rule ip k8s0badcafe loopback ip daddr 127.0.0.1 udp dport 53 dnat to 10.244.3.7:80
        ");
    }
}
