//! etcd: TLS for clients and members, both with client certificates; health on a loopback port
//! of its own, because the client port answers nobody without a certificate.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::{ControlPlane, Process, Readiness, flag, loopback, path_flag};
use crate::pki::{Authority, Name, Pki};

/// A member of etcd.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Certificates.
    pub pki: Pki,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Address at which clients and other members reach it, beside loopback for clients.
    pub address: IpAddr,
    /// Port for clients.
    pub client_port: u16,
    /// Port for members.
    pub peer_port: u16,
    /// Port for health and metrics, loopback.
    pub metrics_port: u16,
    /// Name and address of every member, itself included.
    pub members: Vec<(String, IpAddr)>,
    /// How it begins, where that must be said.
    pub beginning: Option<Beginning>,
    /// Largest size of the store, bytes.
    pub quota_bytes: u64,
    /// How long it may take to end, seconds.
    pub stop_seconds: u64,
    /// Further arguments.
    pub extra_args: Vec<String>,
}

/// How a member without data begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Tells the members of this cluster from those of others.
    pub token: String,
    /// Whether it joins a cluster that exists.
    pub existing: bool,
}

/// 8 GiB is the largest that etcd suggests; its default, 2 GiB, stops a busy cluster.
pub const QUOTA_BYTES: u64 = 8 << 30;

impl Member {
    /// URL of a member for members.
    pub fn peer_url(address: IpAddr, port: u16) -> String {
        format!("https://{address}:{port}")
    }

    /// Its process.
    pub fn process(&self) -> Process {
        let client = |address: IpAddr| format!("https://{address}:{}", self.client_port);
        let peer = Self::peer_url(self.address, self.peer_port);
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut listen = client(self.address);
        if self.address != local {
            listen = format!("{},{listen}", client(local));
        }
        let cluster: Vec<String> = self
            .members
            .iter()
            .map(|(name, address)| format!("{name}={}", Self::peer_url(*address, self.peer_port)))
            .collect();
        let health = loopback(self.metrics_port);
        let ca = self.pki.authority_certificate(Authority::Etcd);
        let mut args = vec![
            flag("name", &self.name),
            path_flag("data-dir", &self.data_dir),
            flag("listen-client-urls", listen),
            flag("advertise-client-urls", client(self.address)),
            flag("listen-peer-urls", &peer),
            flag("initial-advertise-peer-urls", &peer),
            flag("initial-cluster", cluster.join(",")),
            flag("listen-metrics-urls", format!("http://{health}")),
            flag("client-cert-auth", true),
            path_flag("trusted-ca-file", &ca),
            path_flag("cert-file", self.pki.certificate(Name::EtcdServer)),
            path_flag("key-file", self.pki.key(Name::EtcdServer)),
            flag("peer-client-cert-auth", true),
            path_flag("peer-trusted-ca-file", &ca),
            path_flag("peer-cert-file", self.pki.certificate(Name::EtcdPeer)),
            path_flag("peer-key-file", self.pki.key(Name::EtcdPeer)),
            flag("quota-backend-bytes", self.quota_bytes),
            flag("log-level", "warn"),
        ];
        if let Some(beginning) = &self.beginning {
            let state = if beginning.existing {
                "existing"
            } else {
                "new"
            };
            args.push(flag("initial-cluster-token", &beginning.token));
            args.push(flag("initial-cluster-state", state));
        }
        args.extend(self.extra_args.iter().cloned());
        Process {
            name: "etcd".to_owned(),
            program: "etcd".to_owned(),
            args,
            env: Vec::new(),
            files: Vec::new(),
            directories: vec![self.data_dir.clone()],
            readiness: Readiness::Http {
                address: health,
                path: "/health".to_owned(),
            },
            after: Vec::new(),
            stop_seconds: self.stop_seconds,
        }
    }
}

pub(super) fn process(c: &ControlPlane) -> Process {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Member {
        name: "default".to_owned(),
        pki: c.pki.clone(),
        data_dir: c.data_dir.clone(),
        address,
        client_port: c.ports.etcd,
        peer_port: c.ports.etcd_peer,
        metrics_port: c.ports.etcd_metrics,
        members: vec![("default".to_owned(), address)],
        beginning: None,
        quota_bytes: QUOTA_BYTES,
        stop_seconds: 10,
        extra_args: Vec::new(),
    }
    .process()
}
