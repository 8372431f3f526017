//! Renders the CNI configuration of the pod network. Pure.

use std::path::Path;

use serde_json::json;

use super::address::Ipv4Range;
use super::spec::Names;

/// What makes the machine's packet filter rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterBackend {
    /// Linux 5.13 and later.
    Nftables,
    /// Older ones.
    Iptables,
}

/// File name of the configuration.
pub const FILE_NAME: &str = "10-k8sm.conflist";

/// nftables table (family `ip`) that the `portmap` plugin makes, shared by name with every other
/// user of that plugin on the machine.
pub const PORTMAP_TABLE: &str = "cni_hostport";

/// The configuration list: a point-to-point link for each pod with an address of the node's
/// range, and host ports.
///
/// - Pods hang on links of their own and not on a common bridge, so everything between them is
///   routed: replies to a service's address pass connection tracking on their way back. On a bridge
///   that would depend on `br_netfilter` being loaded, which Docker's start decides.
/// - Host ports leave 127/8 alone: other things listen there, the executor's balancer among them.
pub fn render(
    names: &Names,
    pods: Ipv4Range,
    mtu: u32,
    ipam_dir: &Path,
    backend: FilterBackend,
) -> String {
    let (backend, conditions) = match backend {
        FilterBackend::Nftables => ("nftables", json!(["ip", "daddr", "!=", "127.0.0.0/8"])),
        FilterBackend::Iptables => ("iptables", json!(["!", "-d", "127.0.0.0/8"])),
    };
    let config = json!({
        "cniVersion": "1.0.0",
        "name": names.gateway,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "mtu": mtu,
                "ipam": {
                    "type": "host-local",
                    "dataDir": ipam_dir,
                    "ranges": [[{ "subnet": pods, "gateway": pods.gateway() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            {
                "type": "portmap",
                "backend": backend,
                "capabilities": { "portMappings": true },
                "snat": true,
                "conditionsV4": conditions,
            },
        ],
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_links_of_their_own_and_host_ports_leave_loopback_alone() {
        let names = Names::new("0badcafe");
        let pods = "10.244.3.0/24".parse().unwrap();
        let dir = Path::new("/n/cni");
        let nft = render(&names, pods, 1450, dir, FilterBackend::Nftables);
        insta::assert_snapshot!(nft);
        let iptables = render(&names, pods, 1450, dir, FilterBackend::Iptables);
        assert!(iptables.contains(r#""!","#), "{iptables}");
    }
}
