//! Reads what is there: links, addresses, routes, neighbours, forwarding entries, as `ip` and
//! `bridge` show them in JSON.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::address::Ipv4Range;
use super::command::{self, CommandError};
use super::plan::{Bridge, Observed, Vxlan};
use super::spec::NetworkSpec;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Link {
    ifname: String,
    flags: Vec<String>,
    mtu: u32,
    address: String,
    linkinfo: LinkInfo,
    addr_info: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LinkInfo {
    info_kind: String,
    info_data: LinkData,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LinkData {
    // A bridge has no `id` and a bond another one; only a VXLAN device's is looked at.
    id: serde_json::Value,
    port: serde_json::Value,
    local: serde_json::Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    family: String,
    local: String,
    prefixlen: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Route {
    dst: String,
    gateway: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Neighbour {
    dst: String,
    lladdr: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Forwarding {
    mac: String,
    dst: String,
}

/// Names of all links.
pub async fn link_names() -> Result<Vec<String>, CommandError> {
    let links: Vec<Link> = command::json("ip", &["-j", "link", "show"]).await?;
    Ok(links.into_iter().map(|l| l.ifname).collect())
}

/// Reads everything that the plan looks at.
pub async fn observe(spec: &NetworkSpec) -> Result<Observed, CommandError> {
    let links: Vec<Link> = command::json("ip", &["-d", "-j", "addr", "show"]).await?;
    let mut observed = from_links(spec, links);
    if observed.vxlan.is_none() {
        return Ok(observed);
    }
    let dev = spec.names.vxlan.as_str();
    let routes: Vec<Route> =
        command::json("ip", &["-4", "-j", "route", "show", "dev", dev]).await?;
    let neighbours: Vec<Neighbour> = command::json(
        "ip",
        &["-4", "-j", "neigh", "show", "dev", dev, "nud", "permanent"],
    )
    .await?;
    let forwarding: Vec<Forwarding> =
        command::json("bridge", &["-j", "fdb", "show", "dev", dev]).await?;
    observed.routes = routes
        .into_iter()
        .filter_map(|r| Some((range(&r.dst)?, r.gateway.parse().ok()?)))
        .collect();
    observed.neighbours = neighbours
        .into_iter()
        .filter_map(|n| Some((n.dst.parse().ok()?, n.lladdr)))
        .collect();
    observed.forwarding = forwarding
        .into_iter()
        .filter_map(|f| Some((f.mac, f.dst.parse().ok()?)))
        .collect();
    Ok(observed)
}

/// `ip` leaves `/32` out.
fn range(text: &str) -> Option<Ipv4Range> {
    if text.contains('/') {
        text.parse().ok()
    } else {
        format!("{text}/32").parse().ok()
    }
}

fn from_links(spec: &NetworkSpec, links: Vec<Link>) -> Observed {
    let mut observed = Observed::default();
    for link in links {
        let addresses: BTreeSet<(Ipv4Addr, u8)> = link
            .addr_info
            .iter()
            .filter(|a| a.family == "inet")
            .filter_map(|a| Some((a.local.parse().ok()?, a.prefixlen)))
            .collect();
        let up = link.flags.iter().any(|f| f == "UP");
        if link.ifname == spec.names.gateway {
            observed.bridge = Some(Bridge {
                kind: kind(&link.linkinfo.info_kind),
                address: link.address,
                mtu: link.mtu,
                up,
                addresses,
            });
        } else if link.ifname == spec.names.vxlan {
            let data = &link.linkinfo.info_data;
            let number = |v: &serde_json::Value| v.as_u64().unwrap_or_default();
            observed.vxlan = Some(Vxlan {
                kind: kind(&link.linkinfo.info_kind),
                id: number(&data.id).try_into().unwrap_or_default(),
                port: number(&data.port).try_into().unwrap_or_default(),
                local: data.local.as_str().and_then(|l| l.parse().ok()),
                address: link.address,
                mtu: link.mtu,
                up,
                addresses,
            });
        } else if addresses.iter().any(|(a, _)| *a == spec.node_ip) {
            observed.underlay.get_or_insert((link.ifname, link.mtu));
        }
    }
    observed
}

fn kind(kind: &str) -> String {
    if kind.is_empty() {
        "plain link".to_owned()
    } else {
        kind.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seam::testing::node_config;

    // As iproute2 6.1 shows a bridge, a VXLAN device and the link of the node's address.
    const LINKS: &str = r#"[
      {"ifname":"eth0","flags":["BROADCAST","UP"],"mtu":1500,"address":"02:00:00:00:00:01","addr_info":[
        {"family":"inet","local":"192.0.2.11","prefixlen":24},{"family":"inet6","local":"fe80::1","prefixlen":64}]},
      {"ifname":"k8s0badcafe","flags":["BROADCAST","MULTICAST","UP"],"mtu":1450,"address":"0e:6b:0a:f4:03:01",
       "linkinfo":{"info_kind":"bridge","info_data":{"bridge_id":"8000.0","stp_state":0}},
       "addr_info":[{"family":"inet","local":"10.244.3.1","prefixlen":24}]},
      {"ifname":"k8v0badcafe","flags":["BROADCAST"],"mtu":1450,"address":"0a:6b:0a:f4:03:00",
       "linkinfo":{"info_kind":"vxlan","info_data":{"id":4711,"local":"192.0.2.11","link":"eth0","port":8472,"learning":false}},
       "addr_info":[{"family":"inet","local":"10.244.3.0","prefixlen":32}]}]"#;

    #[test]
    fn links_are_read_as_iproute2_shows_them() {
        let spec = NetworkSpec::new(&node_config(), "0badcafe").unwrap();
        let observed = from_links(&spec, serde_json::from_str(LINKS).unwrap());
        assert_eq!(observed.underlay, Some(("eth0".to_owned(), 1500)));
        let bridge = observed.bridge.unwrap();
        assert!(bridge.up && bridge.kind == "bridge");
        let vxlan = observed.vxlan.unwrap();
        assert_eq!((vxlan.id, vxlan.port, vxlan.up), (4711, 8472, false));
        assert_eq!(vxlan.local, Some(spec.node_ip));
    }

    #[test]
    fn a_host_route_is_a_range_too() {
        assert_eq!(range("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(range("default"), None);
    }
}
