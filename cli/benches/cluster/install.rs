//! `k8sm install` on three agents, artifacts present, to a Ready node; and how soon each process of
//! its control plane is healthy again after `kill -9`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use seam::testing::free_port;
use serde_json::Value;

use crate::table::Row;

/// What each agent offers besides the machine's processors, which the control plane's apps here
/// ask little of: the ports of the control plane, and others.
const RESOURCES: &str = "mem:6144;disk:20480;ports:[2379-2381,6443-6444,6480-6481,8132-8134,10251-10251,10257-10257,31000-32000]";
/// Apps whose program is killed.
const APPS: [(&str, &str); 5] = [
    ("/kubernetes-cp/etcd-0", "etcd"),
    ("/kubernetes-cp/apiserver", "kube-apiserver"),
    (
        "/kubernetes-cp/controller-manager",
        "kube-controller-manager",
    ),
    ("/kubernetes", "k8sm-framework"),
    ("/kubernetes-cp/proxy", "k8sm-proxy"),
];
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// The goals.
const INSTALL: Duration = Duration::from_secs(45);
const HEALTHY: Duration = Duration::from_secs(10);

/// A process that ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Mesos with three agents and Marathon, in a folder of their own.
struct Site {
    marathon: String,
    _marathon: Running,
    mesos: Option<Running>,
    folder: tempfile::TempDir,
}

fn program() -> PathBuf {
    std::env::var_os("K8SM_BIN")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_k8sm").into())
        .into()
}

fn start(dir: &Path, name: &str, args: &[String]) -> Result<Running> {
    let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
    let child = Command::new(program())
        .arg("dev")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    Ok(Running(child))
}

fn serve(artifacts: &str, listen: &str) -> Result<Running> {
    let child = Command::new(program())
        .args(["artifacts", "serve", artifacts, "--listen", listen])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Running(child))
}

impl Site {
    async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("k8sm-bench-")
            .tempdir_in("/var/tmp")?;
        let dir = folder.path();
        let net = format!("10.191.{}", std::process::id() % 250);
        let (master, marathon) = (free_port(), free_port());
        let mesos = [
            "mesos".to_owned(),
            "--agents=3".to_owned(),
            format!("--work-dir={}", dir.join("mesos").display()),
            format!("--port={master}"),
            format!("--subnet={net}.0/24"),
            format!("--resources={RESOURCES}"),
        ];
        let mesos = start(dir, "mesos", &mesos)?;
        let state = format!("http://{net}.1:{master}/state");
        wait("three agents", async || {
            get(&state)
                .await
                .is_some_and(|s| s["activated_slaves"].as_f64() == Some(3.0))
        })
        .await?;
        let args = [
            "marathon".to_owned(),
            format!("--mesos={net}.1:{master}"),
            format!("--listen={net}.1:{marathon}"),
            format!("--work-dir={}", dir.join("marathon").display()),
        ];
        let site = Self {
            _marathon: start(dir, "marathon", &args)?,
            marathon: format!("http://{net}.1:{marathon}"),
            mesos: Some(mesos),
            folder,
        };
        let info = format!("{}/v2/info", site.marathon);
        wait("Marathon", async || get(&info).await.is_some()).await?;
        Ok(site)
    }

    /// The machine's address that agents reach.
    fn host(&self) -> &str {
        let address = self.marathon.trim_start_matches("http://");
        address.split(':').next().unwrap_or(address)
    }

    fn k8sm(&self, args: &[&str]) -> Result<()> {
        let state = self.folder.path().join("state");
        let status = Command::new(program())
            .arg("--state-dir")
            .arg(state)
            .args(args)
            .stdin(Stdio::null())
            .status()?;
        ensure!(status.success(), "k8sm {}: {status}", args.join(" "));
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.mesos.take();
        let _ = Command::new(program())
            .args(["dev", "mesos", "--down", "--work-dir"])
            .arg(self.folder.path().join("mesos"))
            .status();
    }
}

async fn get(url: &str) -> Option<Value> {
    let client = cli::http::client(None, Duration::from_secs(5)).ok()?;
    client.get(url).send().await.ok()?.json().await.ok()
}

async fn wait(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !condition().await {
        if begun.elapsed() > PATIENCE {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Installs a cluster, hurts it, and removes it.
pub async fn measure() -> Result<Vec<Row>> {
    let site = Site::start().await?;
    let artifacts = site.folder.path().join("artifacts").display().to_string();
    site.k8sm(&["artifacts", "build", &artifacts])?;
    let (marathon, path) = (
        format!("--marathon={}", site.marathon),
        format!("--artifacts={artifacts}"),
    );
    let dir = |name: &str| site.folder.path().join(name).display().to_string();
    // Until the end: an app that is killed may come up on an agent that has fetched nothing yet.
    let host = site.host();
    let listen = format!("{host}:{}", free_port());
    let _server = serve(&artifacts, &listen)?;
    let listen = format!("--artifacts-url=http://{listen}");
    let mut sets = vec![
        format!("--set=etcd.host_path={}", dir("etcd")),
        format!("--set=nodes.data_dir={}", dir("node")),
        format!("--set=nodes.run_dir={}", dir("run")),
    ];
    for app in [
        "etcd",
        "apiserver",
        "controller_manager",
        "framework",
        "proxy",
    ] {
        sets.push(format!("--set={app}.cpus=0.1"));
    }
    let mut install = vec![
        "install",
        &marathon,
        &path,
        &listen,
        "--yes",
        "--quiet",
        "--set=nodes.min=1",
        "--set=etcd.count=1",
        "--set=apiserver.instances=1",
    ];
    install.extend(sets.iter().map(String::as_str));
    let begun = Instant::now();
    site.k8sm(&install)?;
    let took = begun.elapsed();
    let mut rows = vec![Row {
        what: "k8sm install, three agents, artifacts present, to a Ready node".to_owned(),
        measured: format!("{:.1} s", took.as_secs_f64()),
        reach: format!("{} s", INSTALL.as_secs()),
        reached: took <= INSTALL,
    }];
    let mut parts = Vec::new();
    let mut worst = Duration::ZERO;
    for (app, program) in APPS {
        let took = kill(&site, app, program).await?;
        worst = worst.max(took);
        parts.push(format!("{program} {:.1}", took.as_secs_f64()));
    }
    rows.push(Row {
        what: "a control-plane process killed to healthy again".to_owned(),
        measured: format!("{:.1} s ({})", worst.as_secs_f64(), parts.join(", ")),
        reach: format!("{} s", HEALTHY.as_secs()),
        reached: worst <= HEALTHY,
    });
    site.k8sm(&["uninstall", "--yes", "--quiet"])?;
    Ok(rows)
}

/// Kills an app's program; how long it takes until a new task of it is healthy.
async fn kill(site: &Site, app: &str, program: &str) -> Result<Duration> {
    let url = format!("{}/v2/apps{app}", site.marathon);
    let task = |found: &Value| {
        let id = found["app"]["tasks"][0]["id"].as_str();
        id.map(str::to_owned)
    };
    let before = get(&url).await.as_ref().and_then(task);
    let before = before.with_context(|| format!("{app} has no task"))?;
    let begun = Instant::now();
    let mut killed = false;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let link = |name: &str| std::fs::read_link(entry.path().join(name)).unwrap_or_default();
        let own = link("cwd").to_string_lossy().contains(&before);
        if own && link("exe").file_name().is_some_and(|name| name == program) {
            let pid = entry.file_name().to_string_lossy().parse()?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)?;
            killed = true;
        }
    }
    ensure!(killed, "{app} has no process {program}");
    wait(&format!("{app} healthy again"), async || {
        let Some(found) = get(&url).await else {
            return false;
        };
        task(&found).is_some_and(|id| id != before) && found["app"]["tasksHealthy"] == 1
    })
    .await?;
    Ok(begun.elapsed())
}
