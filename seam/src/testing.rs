//! Data for tests, of this crate and of those that use it (feature `testing`).

use crate::node::{
    Allocatable, ClusterConfig, NodeConfig, NodeOptions, NodePorts, Overhead, Payload,
};

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
