//! Data for tests, of this crate and of those that use it (feature `testing`).

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::node::{
    Allocatable, ClusterConfig, NodeConfig, NodeOptions, NodePorts, Overhead, Payload,
};

/// Where [`free_port`] looks: not among the kernel's own choices for outgoing connections
/// (from 32768, `net.ipv4.ip_local_port_range`), nor in what agents offer (from 31000).
const PORTS: std::ops::Range<u16> = 10_000..31_000;

/// A port on which nothing listens now, and that this process is told of only once (until all
/// were tried). Port 0 would give one that any outgoing connection may take before, or between
/// two runs of, the program that is to listen there.
///
/// # Panics
///
/// When every port is taken.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        // Processes beside this one begin elsewhere.
        AtomicU16::new((RandomState::new().hash_one(0) % u64::from(u16::MAX)) as u16)
    });
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    PORTS
        .map(|_| PORTS.start + next.fetch_add(1, Ordering::Relaxed) % PORTS.len() as u16)
        .find(is_free)
        .expect("a port is free")
}

/// An ordinary node.
pub fn node_config() -> NodeConfig {
    NodeConfig {
        node_name: "agent-1.example.org".to_owned(),
        node_ip: [192, 0, 2, 11].into(),
        pod_cidr: "10.244.3.0/24".to_owned(),
        cluster: ClusterConfig {
            name: "kubernetes".to_owned(),
            api_servers: vec!["192.0.2.1:6443".to_owned()],
            ca: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            dns_ip: [10, 96, 0, 10].into(),
            dns_domain: "cluster.local".to_owned(),
            vxlan_id: 4711,
            vxlan_port: 8472,
        },
        bootstrap_token: "abcdef.0123456789abcdef".to_owned(),
        ports: NodePorts {
            kubelet: 31000,
            proxy_health: 31001,
            proxy_metrics: 31002,
            balancer: 31003,
        },
        allocatable: Allocatable {
            cpu_millis: 3500,
            memory_bytes: 12 << 30,
            disk_bytes: 100 << 30,
            pods: 110,
            gpus: 0,
        },
        overhead: Overhead {
            cpu_millis: 200,
            memory_bytes: 512 << 20,
            disk_bytes: 10 << 30,
            pod_memory_bytes: 8 << 20,
        },
        payload: Payload {
            urls: Vec::new(),
            sha256: "0".repeat(64),
            size: 0,
            ca: String::new(),
        },
        options: NodeOptions::default(),
    }
}
