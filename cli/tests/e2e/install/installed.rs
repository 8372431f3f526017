//! A cluster that is installed on a site, and the commands that an operator gives about it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use seam::testing::free_port;
use serde_json::Value;

use super::site::Site;
use crate::support::{Cluster, Running};

pub fn free_ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| free_port()).collect()
}

/// Options that name ports, all of which one agent in the machine's network has to have free.
pub const PORTS: [&str; 12] = [
    "etcd.client_port",
    "etcd.peer_port",
    "etcd.metrics_port",
    "apiserver.port",
    "apiserver.konnectivity_port",
    "apiserver.konnectivity_admin_port",
    "apiserver.konnectivity_health_port",
    "controller_manager.port",
    "proxy.port",
    "proxy.http_port",
    "proxy.metrics_port",
    "framework.port",
];

/// What each app takes of the machine: agents may not offer more than it has, which may be little.
pub const LITTLE: [&str; 5] = [
    "etcd.cpus",
    "apiserver.cpus",
    "controller_manager.cpus",
    "framework.cpus",
    "proxy.cpus",
];

/// An installation, whose record is in a folder of the test's.
pub struct Installed<'a> {
    pub cluster: &'a Cluster,
    pub site: &'a Site,
    state: &'a str,
    args: Vec<String>,
}

impl<'a> Installed<'a> {
    /// Nothing is installed yet; `sets` are options.
    pub fn new(cluster: &'a Cluster, site: &'a Site, state: &'a str, sets: &[&str]) -> Self {
        let ports = free_ports(PORTS.len() + 1);
        let dir = |name: &str| cluster.dir().join(name).display().to_string();
        let mut args = vec![
            format!("--marathon={}", site.marathon),
            "--serve".to_owned(),
            "--yes".to_owned(),
            format!("--serve-listen={}:{}", site.address, ports[PORTS.len()]),
            format!("--set=etcd.host_path={}", dir("etcd")),
            format!("--set=nodes.data_dir={}", dir("node")),
            format!("--set=artifacts.agent_dir={}", dir("kept")),
            format!("--set=nodes.run_dir={}", dir("run")),
            "--set=marathon.backoff=1".to_owned(),
            // Nobody's connections have to be told.
            "--set=apiserver.shutdown_delay=1".to_owned(),
            "--set=nodes.min=1".to_owned(),
        ];
        args.extend(LITTLE.map(|option| format!("--set={option}=0.1")));
        if site.agents == 1 {
            args.push("--set=marathon.require_ports=false".to_owned());
            let named = PORTS.iter().zip(&ports);
            args.extend(named.map(|(name, port)| format!("--set={name}={port}")));
        }
        args.extend(sets.iter().map(|set| format!("--set={set}")));
        Self {
            cluster,
            site,
            state,
            args,
        }
    }

    /// Arguments of a command that serves the artifacts, as the installation did.
    pub fn serve(&self) -> Vec<String> {
        let serves = |a: &&String| a.starts_with("--serve");
        self.args.iter().filter(serves).cloned().collect()
    }

    /// Where the framework serves HTTP.
    pub fn framework(&self) -> String {
        let port = self.record()["options"]["framework"]["port"].clone();
        let port = port.as_u64().unwrap_or(10251);
        format!("http://{}:{port}", self.site.address)
    }

    /// The directory into which the apps' keys are written for whoever brings them.
    pub fn bundles(&self) -> PathBuf {
        self.cluster.dir().join(self.state).join("bundles")
    }

    fn command(&self, words: &[&str], more: &[&str]) -> Command {
        let mut all = self.install_args(words);
        all.extend(more);
        self.cluster.command_in(self.state, &all)
    }

    /// `k8sm install` or `restore`, with the arguments of this cluster.
    pub fn install(&self, words: &[&str], more: &[&str]) -> String {
        finished(self.command(words, more), words)
    }

    /// The same, killed with -9 as soon as it has said that a step is done that is called so.
    pub fn install_killed_after(&self, step: &str) {
        killed_after(self.command(&["install"], &[]), step);
    }

    /// Another command about this cluster.
    pub fn k8sm(&self, args: &[&str]) -> String {
        finished(self.cluster.command_in(self.state, args), args)
    }

    /// Begins another command, waits until it says that a step is done, then runs `meanwhile`;
    /// returns the exit code.
    pub fn while_after(&self, args: &[&str], step: &str, meanwhile: impl FnOnce()) -> Option<i32> {
        let mut running = after(self.cluster.command_in(self.state, args), step);
        meanwhile();
        running.0.wait().unwrap().code()
    }

    /// The same, killed.
    pub fn killed_after(&self, args: &[&str], step: &str) {
        killed_after(self.cluster.command_in(self.state, args), step);
    }

    /// A command that is killed with -9 after each of its steps, and goes on each time, the last
    /// time to its end. `plan` shows the steps, `go_on` are the arguments once it has begun.
    pub fn killed_after_each_step(&self, plan: &[&str], go_on: &[&str]) {
        let words: Vec<&str> = plan
            .iter()
            .copied()
            .chain(["--dry-run", "-ojson"])
            .collect();
        let plan_of: Value = serde_json::from_str(&self.k8sm(&words)).unwrap();
        let steps = plan_of["steps"].as_array().unwrap();
        assert!(steps.len() > 2, "{plan_of:#}");
        let mut args = plan;
        // The last ones take no time: a command might end before the signal comes.
        for step in &steps[..steps.len() - 2] {
            let command = self.cluster.command_in(self.state, args);
            if reached(command, step.as_str().unwrap()).is_err() {
                // It was faster than the signal, and is through.
                return;
            }
            args = go_on;
        }
        self.k8sm(go_on);
    }

    /// All arguments of an installation.
    pub fn install_args<'b>(&'b self, words: &[&'b str]) -> Vec<&'b str> {
        let args = self.args.iter().map(String::as_str);
        words.iter().copied().chain(args).collect()
    }

    /// Everything that a command says, whatever it ends with.
    pub fn k8sm_says(&self, args: &[&str]) -> String {
        let output = self.cluster.command_in(self.state, args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        eprintln!("{args:?}: {}\n{text}", output.status);
        text
    }

    /// A command that must fail with this exit code; what it said.
    pub fn k8sm_fails(&self, args: &[&str], code: i32) -> String {
        let output = self.cluster.command_in(self.state, args).output().unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "k8sm {args:?}: {text}");
        text
    }

    /// The record of the installation.
    pub fn record(&self) -> Value {
        let path = self.cluster.dir().join(self.state).join("install.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// What `status` says.
    pub fn status(&self) -> Value {
        let mut command = self
            .cluster
            .command_in(self.state, &["status", "-o", "json"]);
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// kubectl with the kubeconfig that was written.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        kubectl_with(
            &self.cluster.dir().join(self.state).join("kubeconfig"),
            args,
        )
    }

    /// The same, which must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args)
            .unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    /// A pod's container id and restarts, once it is ready.
    pub fn container(&self, pod: &str) -> Option<(String, u64)> {
        ready_container(&self.try_kubectl(&["get", "pod", pod, "-o", "json"]).ok()?)
    }

    /// Starts a pod of the image that every node has, and waits until it is ready.
    pub fn run_pod(&self, name: &str) -> (String, u64) {
        let image = format!("--image={}", cli::cluster::prepare::PAUSE_IMAGE);
        self.kubectl(&["run", name, &image]);
        self.cluster
            .wait("the pod is ready", 90, || self.container(name).is_some());
        self.container(name).unwrap()
    }
}

/// kubectl with a kubeconfig.
pub fn kubectl_with(kubeconfig: &Path, args: &[&str]) -> Result<String, String> {
    let programs = PathBuf::from(std::env::var_os("K8SM_UPSTREAM_BIN").unwrap_or_default());
    let output = Command::new(programs.join("kubectl"))
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--request-timeout=10s")
        .args(args)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The container id and restarts of a pod, given as JSON, if it is ready.
pub fn ready_container(pod: &str) -> Option<(String, u64)> {
    let pod: Value = serde_json::from_str(pod).ok()?;
    let status = &pod["status"]["containerStatuses"][0];
    (status["ready"] == true).then(|| {
        let id = status["containerID"].as_str().unwrap_or_default();
        (id.to_owned(), status["restartCount"].as_u64().unwrap_or(99))
    })
}

pub fn finished(mut command: Command, what: &[&str]) -> String {
    let begun = Instant::now();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "k8sm {what:?}: {}\n{}{said}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
    );
    eprintln!("{what:?} took {:.1} s", begun.elapsed().as_secs_f64());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn killed_after(command: Command, step: &str) {
    // Dropped, it is killed with -9.
    drop(after(command, step));
}

/// A command that has said that a step is done.
fn after(command: Command, step: &str) -> Running {
    reached(command, step).unwrap_or_else(|said| panic!("`{step}` was not done:\n{said}"))
}

/// The same; what it said where it ended well without that step.
fn reached(mut command: Command, step: &str) -> Result<Running, String> {
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let errors = child.stderr.take().unwrap();
    let running = Running(child);
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.contains('✔') && line.contains(step) => return Ok(running),
            Ok(line) => seen.push(line),
            Err(error) => {
                let mut running = running;
                let said = format!("{error}\n{}", seen.join("\n"));
                let code = match error {
                    RecvTimeoutError::Disconnected => running.0.wait().ok().and_then(|s| s.code()),
                    RecvTimeoutError::Timeout => None,
                };
                assert_eq!(code, Some(0), "before `{step}`: {said}");
                return Err(said);
            }
        }
    }
}
