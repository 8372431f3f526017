//! A cluster of `k8sm up`, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A folder for a cluster, and the cluster in it once it was started.
pub struct Cluster {
    // Removed, when this is dropped, after `k8sm down` has ended what used it.
    _folder: tempfile::TempDir,
    dir: PathBuf,
}

impl Cluster {
    /// A new folder. Unix sockets below it must stay under 108 bytes.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("k8sm-bench-")
            .tempdir_in("/var/tmp")?;
        Ok(Self {
            dir: folder.path().join("state"),
            _folder: folder,
        })
    }

    /// Its state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn command(&self, args: &[&str]) -> Command {
        let program =
            std::env::var_os("K8SM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_k8sm").into());
        let mut command = Command::new(program);
        command.arg("--state-dir").arg(&self.dir).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Begins `k8sm up` with more arguments.
    pub fn begin_up(&self, more: &[&str]) -> Result<Child> {
        let mut args = vec!["up", "--api-port=0", "--mesos-port=0", "--quiet"];
        args.extend(more);
        self.command(&args).spawn().context("k8sm up")
    }

    /// `k8sm up`, and how long it took.
    pub fn up(&self, more: &[&str]) -> Result<Duration> {
        let start = Instant::now();
        let status = self.begin_up(more)?.wait()?;
        ensure!(status.success(), "k8sm up: {status}");
        Ok(start.elapsed())
    }

    /// `k8sm down`: nothing is left.
    pub fn down(&self) -> Result<()> {
        let status = self.command(&["down", "--quiet"]).status()?;
        ensure!(status.success(), "k8sm down: {status}");
        Ok(())
    }

    /// A client with the administrator's rights.
    pub async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.dir.join("kubeconfig"))?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Client::try_from(config)?)
    }

    /// Pods of the default namespace, and the name of a node.
    pub async fn pods_and_node(&self) -> Result<(Api<Pod>, String)> {
        let client = self.client().await?;
        let nodes: Api<Node> = Api::all(client.clone());
        let node = nodes.list(&ListParams::default()).await?.items;
        let node = node.first().and_then(|it| it.metadata.name.clone());
        Ok((
            Api::default_namespaced(client),
            node.context("the cluster has no node")?,
        ))
    }
}
