//! The pod network on machines made of network namespaces: what pods see of each other and of the
//! outside, beside Docker's rules, and that nothing is left in the end. Needs root, no upstream.

mod node_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use executor::guard::manifest::{Manifest, Owner};
use executor::layout::short_hash;
use executor::network::cni::FilterBackend;
use executor::network::loopback::{LoopbackPort, Protocol};
use executor::network::occupancy::Occupied;
use executor::network::plan::Peer;
use executor::network::spec::{Names, NetworkSpec};
use executor::network::{Network, NetworkError, sweep};
use node_support::isolated;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs something in a network namespace, on a thread of its own: whatever that thread starts
/// (tools, other threads) is in the namespace too.
fn within<T: Send + 'static>(
    namespace: &str,
    what: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        what()
    })
}

/// Waits until something is so.
fn eventually(what: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !what() {
        assert!(Instant::now() < end, "{}", state(1));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn spec(n: u8) -> NetworkSpec {
    NetworkSpec {
        cluster: "test".to_owned(),
        node: format!("node-{n}"),
        names: Names::new(&short_hash(&format!("node-{n}"))),
        node_ip: Ipv4Addr::new(192, 0, 2, n),
        pods: format!("10.244.{n}.0/24").parse().unwrap(),
        cluster_pods: "10.244.0.0/16".parse().unwrap(),
        vxlan_id: 77,
        vxlan_port: 8472,
    }
}

fn manifest(dir: &Path, n: u8) -> Manifest {
    Manifest::create(dir.join(format!("cleanup-{n}")), &Owner::current().unwrap()).unwrap()
}

/// Machines `m1`, `m2`, ... on one link layer, each with a pod `p1`, `p2`, ... that hangs on a
/// link as the `ptp` plugin makes it.
fn machines(count: u8) {
    sh(
        "mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip netns add wire && \
        ip -n wire link add name wire0 type bridge && ip -n wire link set wire0 up",
    );
    for n in 1..=count {
        sh(&format!(
            "ip netns add m{n}; ip netns add p{n}
             ip link add eth0 netns m{n} type veth peer name v{n} netns wire
             ip -n wire link set v{n} master wire0 up
             ip -n m{n} link set lo up; ip -n m{n} link set eth0 up
             ip -n m{n} addr add 192.0.2.{n}/24 dev eth0
             ip link add pod netns m{n} type veth peer name eth0 netns p{n}
             ip -n m{n} link set pod up; ip -n m{n} addr add 10.244.{n}.1/32 dev pod
             ip -n m{n} route add 10.244.{n}.5/32 dev pod
             ip -n p{n} link set lo up; ip -n p{n} link set eth0 up mtu 1450
             ip -n p{n} addr add 10.244.{n}.5/24 dev eth0
             ip -n p{n} route del 10.244.{n}.0/24 dev eth0
             ip -n p{n} route add 10.244.{n}.1 dev eth0 scope link
             ip -n p{n} route add default via 10.244.{n}.1 dev eth0"
        ));
    }
}

fn pod(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 244, n, 5).into()
}

/// Listens in one namespace, connects from another (again and again until it works), sends
/// `bytes`; gives the address that the listener saw.
fn connect(from: &str, to: &str, address: IpAddr, port: u16, bytes: usize) -> IpAddr {
    let (ready, listening) = std::sync::mpsc::channel();
    let server = within(to, move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        ready.send(()).unwrap();
        let (mut stream, peer) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), bytes);
        peer.ip()
    });
    listening.recv().unwrap();
    within(from, move || {
        let end = Instant::now() + DEADLINE;
        let target = SocketAddr::new(address, port);
        let mut stream = loop {
            match TcpStream::connect_timeout(&target, Duration::from_millis(500)) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < end, "{target}: {e}"),
            }
        };
        stream.write_all(&vec![7; bytes]).unwrap();
    })
    .join()
    .unwrap();
    server.join().unwrap()
}

/// A node's network, kept up on a thread in its machine's namespace until told to stop.
struct Running {
    nodes: watch::Sender<Option<BTreeMap<String, Peer>>>,
    loopback: watch::Sender<Option<BTreeSet<LoopbackPort>>>,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

fn run(n: u8, dir: &Path) -> Running {
    let (nodes, nodes_rx) = watch::channel(None);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let cleanup = manifest(dir, n);
    let (up, is_up) = std::sync::mpsc::channel();
    let thread = within(&format!("m{n}"), move || {
        block_on(async {
            // The second machine is one that is too old for nftables.
            let network = if n == 2 {
                Network::set_up_with(spec(n), FilterBackend::Iptables, &cleanup).await
            } else {
                Network::set_up(spec(n), &cleanup).await
            };
            let network = network.unwrap();
            assert_eq!(network.mtu(), 1450);
            up.send(network.loopback_ports()).unwrap();
            let troubles = |trouble| println!("machine {n}: {trouble:?}");
            network
                .maintain(nodes_rx, &cleanup, &stopped, troubles)
                .await;
        });
    });
    let loopback = is_up.recv_timeout(DEADLINE).unwrap();
    Running {
        nodes,
        loopback,
        stop,
        thread,
    }
}

fn peers(numbers: &[u8]) -> Option<BTreeMap<String, Peer>> {
    let all = numbers.iter().map(|n| {
        let spec = spec(*n);
        let peer = Peer {
            node_ip: spec.node_ip,
            pods: spec.pods,
        };
        (spec.node, peer)
    });
    Some(all.collect())
}

/// Links and rules of a machine, in words that do not depend on handles and counters.
fn state(n: u8) -> String {
    sh(&format!(
        "ip -n m{n} -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | sort
         ip netns exec m{n} nft list ruleset
         ip netns exec m{n} iptables-legacy -S FORWARD; ip -n m{n} route"
    ))
}

#[test]
fn pods_reach_each_other_with_their_own_addresses_and_the_outside_with_the_nodes() {
    const NAME: &str =
        "pods_reach_each_other_with_their_own_addresses_and_the_outside_with_the_nodes";
    if !isolated(NAME) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    machines(3);
    // Docker's policy, in both halves of the kernel's packet filter.
    // The last two make iptables' own empty tables, which it never removes.
    sh("ip netns exec m1 iptables-nft -P FORWARD DROP
        ip netns exec m2 iptables-legacy -P FORWARD DROP
        ip netns exec m2 iptables-nft -P FORWARD ACCEPT
        ip netns exec m2 iptables-nft -t nat -P POSTROUTING ACCEPT");
    let before: Vec<String> = (1..=3).map(state).collect();

    let running: Vec<Running> = (1..=3).map(|n| run(n, dir.path())).collect();
    for node in &running {
        node.nodes.send(peers(&[1, 2, 3])).unwrap();
    }
    for (from, to) in [(1, 2), (2, 1), (3, 1), (2, 3)] {
        let (source, target) = (format!("p{from}"), format!("p{to}"));
        // Much, so that packets have their full size.
        let seen = connect(&source, &target, pod(to), 8080, 1 << 20);
        assert_eq!(seen, pod(from), "{source} to {target}");
    }
    // A node itself reaches pods of others, from its own address in the pod network.
    let seen = connect("m1", "p2", pod(2), 8081, 1000);
    assert_eq!(seen, IpAddr::from(Ipv4Addr::new(10, 244, 1, 0)));
    // What leaves the pod range has the node's address.
    let outside = Ipv4Addr::new(192, 0, 2, 3).into();
    let seen = connect("p1", "m3", outside, 8082, 1000);
    assert_eq!(seen, IpAddr::from(spec(1).node_ip));

    // What somebody removes comes back with the next look, which any change of nodes causes.
    let (link, table) = (&spec(1).names.vxlan, &spec(1).names.table);
    sh(&format!(
        "ip -n m1 link del {link}; ip netns exec m1 nft delete table ip {table}
         ip netns exec m1 nft flush chain ip filter FORWARD"
    ));
    running[0].nodes.send(peers(&[1, 2, 3])).unwrap();
    for to in [2, 3] {
        let seen = connect("p1", &format!("p{to}"), pod(to), 8083, 1000);
        assert_eq!(seen, pod(1));
    }
    let seen = connect("p1", "m3", outside, 8084, 1000);
    assert_eq!(seen, IpAddr::from(spec(1).node_ip));

    // A pod's port of a loopback address is mapped while the pod asks for it, also after somebody
    // removed the table; and nothing else of 127/8 is.
    let mapped = LoopbackPort {
        address: Ipv4Addr::LOCALHOST,
        protocol: Protocol::Tcp,
        port: 8090,
        pod: Ipv4Addr::new(10, 244, 1, 5),
        target: 80,
    };
    let list = format!("ip netns exec m1 nft list chain ip {table} loopback 2>&1 || true");
    let rules = || sh(&list);
    let rule = "ip daddr 127.0.0.1 tcp dport 8090 dnat to 10.244.1.5:80";
    running[0].loopback.send(Some([mapped].into())).unwrap();
    eventually(|| rules().contains(rule));
    sh(&format!("ip netns exec m1 nft delete table ip {table}"));
    running[0].nodes.send(peers(&[1, 2, 3])).unwrap();
    eventually(|| rules().contains(rule));
    assert_eq!(rules().matches("dnat").count(), 1);
    running[0].loopback.send(Some(BTreeSet::new())).unwrap();
    eventually(|| !rules().contains("dnat"));

    // A node that goes away takes its routes with it; the others stay.
    running[0].nodes.send(peers(&[1, 2])).unwrap();
    let end = Instant::now() + DEADLINE;
    while state(1).contains("10.244.3.0/24 via") {
        assert!(Instant::now() < end, "{}", state(1));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(state(1).contains("10.244.2.0/24 via"));

    for node in running {
        node.stop.cancel();
        node.thread.join().unwrap();
    }
    // Either way leaves the machine as it was: an orderly end, and the guard with its list.
    within("m3", || block_on(sweep::node(&spec(3))).unwrap())
        .join()
        .unwrap();
    for n in 1..=3 {
        let path = dir.path().join(format!("cleanup-{n}"));
        let clean = move || Manifest::clean(&path, Some(&Owner::current().unwrap())).unwrap();
        let remaining = within(&format!("m{n}"), clean).join().unwrap();
        assert_eq!(remaining, Vec::<String>::new());
        let left = state(n);
        assert_eq!(left, before[usize::from(n) - 1]);
    }
}

#[test]
fn a_machine_with_another_node_or_a_foreign_kube_proxy_is_refused_and_a_dead_nodes_remains_go() {
    const NAME: &str = "a_machine_with_another_node_or_a_foreign_kube_proxy_is_refused_and_a_dead_nodes_remains_go";
    if !isolated(NAME) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    machines(1);
    let set_up = |number: u8| {
        let cleanup = manifest(dir.path(), number);
        let mut spec = spec(number);
        spec.node_ip = Ipv4Addr::new(192, 0, 2, 1);
        within("m1", move || {
            block_on(Network::set_up(spec, &cleanup)).map(drop)
        })
        .join()
        .unwrap()
    };

    // A kube-proxy that nobody of ours can have made.
    sh("ip netns exec m1 nft add table ip kube-proxy");
    let error = set_up(1).unwrap_err();
    assert!(matches!(
        error,
        NetworkError::Occupied(Occupied::KubeProxy { .. })
    ));
    assert!(!error.retryable());
    sh(
        "ip netns exec m1 nft delete table ip kube-proxy; ip netns exec m1 iptables-nft -t nat -N KUBE-SERVICES; ip netns exec m1 iptables-nft -t nat -A PREROUTING -j KUBE-SERVICES",
    );
    let error = set_up(1).unwrap_err();
    assert!(error.to_string().contains("KUBE-SERVICES"), "{error}");
    sh("ip netns exec m1 nft delete table ip nat");

    // A node that lives.
    let alive = run(1, dir.path());
    let error = set_up(2).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is node node-1 of the cluster test already"),
        "{error}"
    );
    alive.stop.cancel();
    alive.thread.join().unwrap();

    // The same one, dead, with all it left, its kube-proxy's rules too.
    sh("ip netns exec m1 nft add table ip kube-proxy");
    assert!(state(1).contains(&spec(1).names.vxlan));
    set_up(2).unwrap();
    let left = state(1);
    assert!(
        !left.contains(&spec(1).names.vxlan) && !left.contains(&spec(1).names.table),
        "{left}"
    );
    assert!(
        !left.contains("kube-proxy") && left.contains(&spec(2).names.vxlan),
        "{left}"
    );
}
