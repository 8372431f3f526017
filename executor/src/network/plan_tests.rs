//! Tests of the plan.

use super::*;
use seam::testing::node_config;

fn spec() -> NetworkSpec {
    NetworkSpec::new(&node_config(), "0badcafe").unwrap()
}

fn peer(n: u8) -> Peer {
    Peer {
        node_ip: Ipv4Addr::new(192, 0, 2, 20 + n),
        pods: format!("10.244.{n}.0/24").parse().unwrap(),
    }
}

fn fresh() -> Observed {
    Observed {
        underlay: Some(("eth0".to_owned(), 1500)),
        ..Observed::default()
    }
}

fn complete() -> Observed {
    Observed {
        underlay: Some(("eth0".to_owned(), 1500)),
        bridge: Some(Bridge {
            kind: "bridge".into(),
            address: "0e:6b:0a:f4:03:01".into(),
            mtu: 1450,
            up: true,
            addresses: [(Ipv4Addr::new(10, 244, 3, 1), 24)].into(),
        }),
        vxlan: Some(Vxlan {
            kind: "vxlan".into(),
            id: 4711,
            port: 8472,
            local: Some(Ipv4Addr::new(192, 0, 2, 11)),
            address: "0a:6b:0a:f4:03:00".into(),
            mtu: 1450,
            up: true,
            addresses: [(Ipv4Addr::new(10, 244, 3, 0), 32)].into(),
        }),
        ..Observed::default()
    }
}

#[test]
fn a_fresh_machine_gets_a_bridge_and_a_tunnel() {
    let changes = links(&spec(), &fresh()).unwrap();
    insta::assert_snapshot!(changes.ip.join("\n"));
}

#[test]
fn what_is_right_already_is_not_touched() {
    assert!(links(&spec(), &complete()).unwrap().is_empty());
}

#[test]
fn a_tunnel_of_an_earlier_cluster_is_made_anew_and_a_moved_range_corrected() {
    let mut observed = complete();
    observed.vxlan.as_mut().unwrap().id = 1;
    let bridge = observed.bridge.as_mut().unwrap();
    bridge.addresses = [(Ipv4Addr::new(10, 244, 9, 1), 24)].into();
    let changes = links(&spec(), &observed).unwrap();
    insta::assert_snapshot!(changes.ip.join("\n"));
}

#[test]
fn a_name_that_somebody_else_has_is_refused() {
    let mut observed = complete();
    observed.bridge.as_mut().unwrap().kind = "dummy".into();
    let error = links(&spec(), &observed).unwrap_err().to_string();
    assert_eq!(
        error,
        "the link k8s0badcafe is there already and is no bridge but a dummy"
    );
}

#[test]
fn an_address_that_the_machine_does_not_have_is_refused() {
    let error = links(&spec(), &Observed::default()).unwrap_err();
    assert_eq!(error, Impossible::NoUnderlay(spec().node_ip));
}

#[test]
fn a_link_too_small_for_vxlan_is_refused() {
    let mut observed = fresh();
    observed.underlay = Some(("tun0".to_owned(), 600));
    assert!(matches!(
        links(&spec(), &observed),
        Err(Impossible::Mtu { .. })
    ));
}

#[test]
fn each_other_node_is_a_route_a_neighbour_and_a_forwarding_entry() {
    let wanted = [peer(1), peer(2)].into();
    let changes = peers(&spec(), &complete(), &wanted);
    let text = format!(
        "{}\n---\n{}",
        changes.ip.join("\n"),
        changes.bridge.join("\n")
    );
    insta::assert_snapshot!(text);
}

/// Carries out a plan on a picture of the machine.
fn carry_out(observed: &mut Observed, changes: &Changes) {
    for line in &changes.ip {
        let w: Vec<&str> = line.split(' ').collect();
        match w[..] {
            ["route", "del", range, "via", via, ..] => {
                let gone = (range.parse().unwrap(), via.parse().unwrap());
                assert!(observed.routes.remove(&gone), "{line}");
            }
            ["route", "replace", range, "via", via, ..] => {
                let range: Ipv4Range = range.parse().unwrap();
                observed.routes.retain(|(r, _)| *r != range);
                observed.routes.insert((range, via.parse().unwrap()));
            }
            ["neigh", "del", address, ..] => {
                let address: Ipv4Addr = address.parse().unwrap();
                observed.neighbours.retain(|(a, _)| *a != address);
            }
            ["neigh", "replace", address, "lladdr", hardware, ..] => {
                let address: Ipv4Addr = address.parse().unwrap();
                observed.neighbours.retain(|(a, _)| *a != address);
                observed.neighbours.insert((address, hardware.to_owned()));
            }
            _ => panic!("{line}"),
        }
    }
    for line in &changes.bridge {
        let w: Vec<&str> = line.split(' ').collect();
        match w[..] {
            ["fdb", "del", address, "dev", _, "dst", to, ..] => {
                let gone = (address.to_owned(), to.parse().unwrap());
                assert!(observed.forwarding.remove(&gone), "{line}");
            }
            ["fdb", "append", address, "dev", _, "dst", to, ..] => {
                let new = (address.to_owned(), to.parse().unwrap());
                assert!(observed.forwarding.insert(new), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
}

proptest::proptest! {
    #[test]
    fn from_any_set_of_nodes_one_plan_leads_to_any_other(
        before in proptest::collection::btree_set((4u8..60, 1u8..20), 0..12),
        after in proptest::collection::btree_set((4u8..60, 1u8..20), 0..12),
    ) {
        let spec = spec();
        // One node per range, as the controller manager gives them out.
        let set = |pairs: &BTreeSet<(u8, u8)>| -> BTreeSet<Peer> {
            let by_range: BTreeMap<u8, u8> = pairs.iter().copied().collect();
            by_range
                .iter()
                .map(|(range, ip)| Peer { node_ip: Ipv4Addr::new(192, 0, 2, 100 + ip), ..peer(*range) })
                .collect()
        };
        let mut observed = complete();
        for wanted in [set(&before), set(&after)] {
            let changes = peers(&spec, &observed, &wanted);
            carry_out(&mut observed, &changes);
            proptest::prop_assert!(peers(&spec, &observed, &wanted).is_empty());
            proptest::prop_assert_eq!(observed.routes.len(), wanted.len());
            proptest::prop_assert_eq!(observed.forwarding.len(), wanted.len());
        }
    }
}

#[test]
fn nodes_that_contradict_this_one_are_left_out_with_a_reason() {
    let spec = spec();
    let mut all = BTreeMap::new();
    all.insert(spec.node.clone(), peer(3));
    all.insert("good".to_owned(), peer(1));
    all.insert("same-range".to_owned(), peer(3));
    let foreign = Peer {
        pods: "10.9.0.0/24".parse().unwrap(),
        ..peer(5)
    };
    all.insert("foreign".to_owned(), foreign);
    let twin = Peer {
        node_ip: spec.node_ip,
        ..peer(6)
    };
    all.insert("twin".to_owned(), twin);
    let (usable, refused) = usable_peers(&spec, &all);
    assert_eq!(usable, [peer(1)].into());
    insta::assert_snapshot!(refused.join("\n"));
}
