//! etcd, an API server and a controller manager, plus the framework's part in a node's life: the
//! Node object, the bootstrap token and the approval of certificates.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;

use super::pki::Pki;
use super::{ADDRESS, eventually, free_port};

pub const TOKEN: &str = "abcdef.0123456789abcdef";

/// A control plane; its processes end with it.
pub struct ControlPlane {
    pub client: Client,
    pub api_server: String,
    pub ca: String,
    pub kubeconfig: String,
    children: Vec<(&'static str, Child)>,
    command: Command,
    dir: PathBuf,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn command(bin: &Path, dir: &Path, program: &str, args: &[String]) -> Command {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("{program}.log")))
        .unwrap();
    let mut command = Command::new(bin.join(program));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
}

impl ControlPlane {
    /// Starts everything and waits until it can serve a node.
    pub async fn start(bin: &Path, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let pki = Pki::new(&dir.join("pki"));
        pki.sign(
            "api",
            "kube-apiserver",
            None,
            &["127.0.0.1", ADDRESS, "10.96.0.1", "localhost"],
        );
        pki.sign(
            "kubelet-client",
            "kubelet-client",
            Some("system:masters"),
            &[],
        );
        pki.sign("admin", "admin", Some("system:masters"), &[]);
        pki.sign("kcm", "system:kube-controller-manager", None, &[]);
        pki.key("sa");
        let (etcd, peer, port) = (free_port(), free_port(), free_port());
        let server = format!("https://{ADDRESS}:{port}");
        let mut children = Vec::new();
        let mut start = |program: &'static str, args: &[String]| {
            let child = command(bin, dir, program, args).spawn().unwrap();
            children.push((program, child));
        };
        start(
            "etcd",
            &[
                format!("--data-dir={}", dir.join("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let api_args = [
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            format!("--secure-port={port}"),
            format!("--advertise-address={ADDRESS}"),
            format!("--tls-cert-file={}", pki.file("api.crt")),
            format!("--tls-private-key-file={}", pki.file("api.key")),
            format!("--client-ca-file={}", pki.file("ca.crt")),
            format!(
                "--kubelet-client-certificate={}",
                pki.file("kubelet-client.crt")
            ),
            format!("--kubelet-client-key={}", pki.file("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--service-account-key-file={}", pki.file("sa.pub")),
            format!("--service-account-signing-key-file={}", pki.file("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--enable-bootstrap-token-auth".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        ];
        start("kube-apiserver", &api_args);
        let kubeconfig = pki.kubeconfig("admin", &server);
        let config = Kubeconfig::read_from(&kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        let client = Client::try_from(config.unwrap()).unwrap();
        eventually("API server", Duration::from_secs(120), async || {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            client.request_text(request).await.ok()
        })
        .await;
        let kcm = pki.kubeconfig("kcm", &server);
        start(
            "kube-controller-manager",
            &[
                format!("--kubeconfig={kcm}"),
                format!("--authentication-kubeconfig={kcm}"),
                format!("--authorization-kubeconfig={kcm}"),
                format!("--service-account-private-key-file={}", pki.file("sa.key")),
                "--use-service-account-credentials".to_owned(),
                format!("--root-ca-file={}", pki.file("ca.crt")),
                format!("--cluster-signing-cert-file={}", pki.file("ca.crt")),
                format!("--cluster-signing-key-file={}", pki.file("ca.key")),
                "--leader-elect=false".to_owned(),
                "--allocate-node-cidrs".to_owned(),
                "--cluster-cidr=10.244.0.0/16".to_owned(),
                format!("--secure-port={}", free_port()),
            ],
        );
        let this = Self {
            client,
            api_server: format!("{ADDRESS}:{port}"),
            ca: pki.ca_pem.clone(),
            kubeconfig,
            children,
            command: command(bin, dir, "kube-apiserver", &api_args),
            dir: dir.to_owned(),
        };
        this.roles().await;
        this.approve_everything();
        this
    }

    /// Kills the API server and starts it again.
    pub async fn restart_api_server(&mut self) {
        for (name, child) in &mut self.children {
            if *name == "kube-apiserver" {
                child.kill().unwrap();
                child.wait().unwrap();
                *child = self.command.spawn().unwrap();
            }
        }
        eventually("API server", Duration::from_secs(120), async || {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            self.client.request_text(request).await.ok()
        })
        .await;
    }

    async fn roles(&self) {
        for (role, group) in [
            ("system:node-bootstrapper", seam::names::BOOTSTRAP_GROUP),
            ("system:node-bootstrapper", seam::names::PROXY_GROUP),
            ("system:node-proxier", seam::names::PROXY_GROUP),
        ] {
            self.create(
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                    "metadata": {"generateName": "test-"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
                }),
            )
            .await;
        }
        let (id, secret) = TOKEN.split_once('.').unwrap();
        self.create(
            "/api/v1/namespaces/kube-system/secrets",
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
                "metadata": {"name": format!("bootstrap-token-{id}")},
                "stringData": {
                    "token-id": id, "token-secret": secret,
                    "usage-bootstrap-authentication": "true",
                    "auth-extra-groups": seam::names::BOOTSTRAP_GROUP,
                },
            }),
        )
        .await;
    }

    /// Creates an object.
    pub async fn create(&self, path: &str, object: serde_json::Value) {
        eventually(path, Duration::from_secs(30), async || {
            let request = http::Request::post(path)
                .header("content-type", "application/json")
                .body(object.to_string().into_bytes())
                .unwrap();
            match self.client.request::<serde_json::Value>(request).await {
                Ok(_) => Some(()),
                Err(kube::Error::Api(status)) if status.code == 409 => Some(()),
                Err(error) => {
                    println!("{path}: {error}");
                    None
                }
            }
        })
        .await;
    }

    /// The framework approves after careful checks; here nobody else asks.
    fn approve_everything(&self) {
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let Ok(all) = requests.list(&Default::default()).await else {
                    continue;
                };
                for csr in all {
                    let status = csr.status.unwrap_or_default();
                    if status.conditions.is_some_and(|c| !c.is_empty()) {
                        continue;
                    }
                    let name = csr.metadata.name.unwrap_or_default();
                    let approved = json!({"status": {"conditions": [
                        {"type": "Approved", "status": "True", "reason": "Test", "message": ""}]}});
                    let patch = Patch::Merge(approved);
                    let _ = requests
                        .patch_approval(&name, &PatchParams::default(), &patch)
                        .await;
                }
            }
        });
    }

    /// The Node as the framework creates it; gives its pod range.
    pub async fn create_node(&self, name: &str) -> String {
        self.create(
            "/api/v1/nodes",
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}),
        )
        .await;
        let nodes: Api<Node> = Api::all(self.client.clone());
        eventually("pod range", Duration::from_secs(60), async || {
            nodes.get(name).await.ok()?.spec?.pod_cidr
        })
        .await
    }

    /// Sets a Node's address and nothing else, as if it ran elsewhere.
    pub async fn set_node_address(&self, name: &str, address: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// The end of a program's log, for failures.
    pub fn log(&self, program: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join(format!("{program}.log")));
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
