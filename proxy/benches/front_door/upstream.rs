//! A real kube-apiserver with an etcd of its own, as small as they come: on loopback, in a folder
//! that goes with it, without nodes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use http::{Method, StatusCode};
use tokio::process::{Child, Command};

use crate::free_port;
use crate::support::{Authority, request, send, try_connect_tls, wait};

/// A token of the file that the API server reads, as a header.
pub const AUTHORIZATION: &str = "Bearer bench";

/// Both processes; they end when dropped.
pub struct ApiServer {
    pub address: SocketAddr,
    _processes: Vec<Child>,
    _dir: tempfile::TempDir,
}

impl ApiServer {
    pub async fn start(bin: &Path, authority: &Authority) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [address, client, peer] = [free_port(), free_port(), free_port()];
        let file = |name: &str| dir.path().join(name);
        let [certificate, key, public] = authority.server_pem();
        std::fs::write(file("server.crt"), certificate).unwrap();
        std::fs::write(file("server.key"), key).unwrap();
        std::fs::write(file("server.pub"), public).unwrap();
        std::fs::write(file("tokens.csv"), "bench,bench,bench,system:masters\n").unwrap();
        let start = |program: &str, args: &[String]| {
            let log = std::fs::File::create(file(&format!("{program}.log"))).unwrap();
            Command::new(bin.join(program))
                .args(args)
                .current_dir(dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::from(log))
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}"))
        };
        let etcd = start(
            "etcd",
            &[
                "--data-dir=etcd".to_owned(),
                format!("--listen-client-urls=http://{client}"),
                format!("--advertise-client-urls=http://{client}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster=default=http://{peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let api = start(
            "kube-apiserver",
            &[
                format!("--etcd-servers=http://{client}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", address.port()),
                "--tls-cert-file=server.crt".to_owned(),
                "--tls-private-key-file=server.key".to_owned(),
                "--token-auth-file=tokens.csv".to_owned(),
                // With AlwaysAllow nobody may be anonymous, as those are who ask for its health.
                "--authorization-mode=RBAC".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--service-account-key-file=server.pub".to_owned(),
                "--service-account-signing-key-file=server.key".to_owned(),
            ],
        );
        wait("the API server is ready", async || {
            let Ok(sender) = try_connect_tls(authority, address).await else {
                return false;
            };
            let asked = request(
                Method::GET,
                "/api/v1/namespaces/default",
                &[("authorization", AUTHORIZATION)],
                "",
            );
            send(sender, asked).await.0 == StatusCode::OK
        })
        .await;
        Self {
            address,
            _processes: vec![etcd, api],
            _dir: dir,
        }
    }
}
