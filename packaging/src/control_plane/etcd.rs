//! etcd: TLS for clients and members, both with client certificates; health on a loopback port
//! of its own, because the client port answers nobody without a certificate.

use super::{ControlPlane, Process, Readiness, flag, loopback, path_flag};
use crate::pki::{Authority, Name};

pub(super) fn process(c: &ControlPlane) -> Process {
    let client = format!("https://127.0.0.1:{}", c.ports.etcd);
    let peer = format!("https://127.0.0.1:{}", c.ports.etcd_peer);
    let health = loopback(c.ports.etcd_metrics);
    let ca = c.pki.authority_certificate(Authority::Etcd);
    Process {
        name: "etcd".to_owned(),
        program: "etcd".to_owned(),
        args: vec![
            flag("name", "default"),
            path_flag("data-dir", &c.data_dir),
            flag("listen-client-urls", &client),
            flag("advertise-client-urls", &client),
            flag("listen-peer-urls", &peer),
            flag("initial-advertise-peer-urls", &peer),
            flag("initial-cluster", format!("default={peer}")),
            flag("listen-metrics-urls", format!("http://{health}")),
            flag("client-cert-auth", true),
            path_flag("trusted-ca-file", &ca),
            path_flag("cert-file", c.pki.certificate(Name::EtcdServer)),
            path_flag("key-file", c.pki.key(Name::EtcdServer)),
            flag("peer-client-cert-auth", true),
            path_flag("peer-trusted-ca-file", &ca),
            path_flag("peer-cert-file", c.pki.certificate(Name::EtcdPeer)),
            path_flag("peer-key-file", c.pki.key(Name::EtcdPeer)),
            // 8 GiB is the largest that etcd suggests; its default, 2 GiB, stops a busy cluster.
            flag("quota-backend-bytes", 8_u64 << 30),
            flag("log-level", "warn"),
        ],
        env: Vec::new(),
        files: Vec::new(),
        directories: vec![c.data_dir.clone()],
        readiness: Readiness::Http {
            address: health,
            path: "/health".to_owned(),
        },
        after: Vec::new(),
        stop_seconds: 10,
    }
}
