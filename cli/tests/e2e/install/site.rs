//! Mesos and Marathon that are no part of the cluster, and a cluster that is installed there.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use seam::testing::free_port;
use serde_json::Value;

use super::strict::Strict;
use crate::support::{Cluster, Running};

/// Mesos and Marathon.
pub struct Site {
    marathon_process: Option<Running>,
    mesos: Vec<Running>,
    pub master: String,
    pub marathon: String,
    pub address: IpAddr,
    agents: usize,
    work_dir: PathBuf,
    program: PathBuf,
    /// DC/OS before it.
    pub dcos: String,
    /// Keys and flags of strict mode.
    pub strict: Option<Strict>,
    /// How the master is started, so that it can be once more.
    master_args: Vec<String>,
    front: Option<Running>,
}

/// Each app that is started again has copies of programs of 200 MB on average.
const GC_DELAY: &str = "--gc-delay=20secs";

/// What each of several agents offers: the ports of the control plane, and others.
const RESOURCES: &str = "mem:6144;disk:20480;ports:[2379-2381,6443-6444,6480-6481,8132-8134,10251-10251,10257-10257,31000-32000]";

impl Site {
    /// One agent in the machine's own network, and a Marathon that has secrets; or several agents
    /// with namespaces of their own, and a Marathon that can reserve.
    pub fn start(cluster: &Cluster, agents: usize) -> Self {
        Self::begin(cluster, agents, Vec::new(), false)
    }

    /// DC/OS in strict mode, before one agent in the machine's own network that offers these ports,
    /// beside nodes', and has the images of a folder.
    pub fn start_offering(cluster: &Cluster, ports: &[u16], images: &Path) -> Self {
        let ports: String = ports.iter().map(|port| format!("{port}-{port},")).collect();
        let flags = vec![
            format!("--resources=mem:6144;disk:20480;ports:[{ports}31000-32000]"),
            format!("--docker-registry={}", images.display()),
        ];
        Self::begin(cluster, 1, flags, true)
    }

    fn begin(cluster: &Cluster, agents: usize, flags: Vec<String>, dcos: bool) -> Self {
        let work_dir = cluster.dir().join("mesos");
        let dir = |name: &str| work_dir.join(name).display().to_string();
        let several = agents > 1;
        let subnet = format!("10.190.{}", std::process::id() % 250);
        let address: IpAddr = match several {
            false => cli::preflight::facts::own_address().expect("the machine has an address"),
            true => format!("{subnet}.1").parse().unwrap(),
        };
        let ports = free_ports(4);
        let url = format!("http://{address}:{}", ports[3]);
        let strict = dcos.then(|| Strict::new(cluster, url.clone()));
        let mut site = Self {
            marathon_process: None,
            mesos: Vec::new(),
            master: format!("{address}:{}", ports[0]),
            marathon: format!("http://{address}:{}", ports[2]),
            address,
            agents,
            work_dir: work_dir.clone(),
            program: cluster.program(),
            dcos: url,
            strict,
            master_args: Vec::new(),
            front: None,
        };
        let more =
            |flags: fn(&Strict) -> Vec<String>| site.strict.as_ref().map(flags).unwrap_or_default();
        let (for_master, for_agent, for_marathon, for_dcos) = (
            more(Strict::master),
            more(Strict::agent),
            more(Strict::marathon),
            more(Strict::dcos),
        );
        if dcos {
            // First: Marathon logs in there.
            let mut args = vec![
                format!("--marathon={}", site.marathon),
                format!("--mesos=http://{}", site.master),
                format!("--listen={address}:{}", ports[3]),
                format!("--work-dir={}", cluster.dir().join("dcos").display()),
                "--uninstall-poll=500".to_owned(),
            ];
            args.extend(for_dcos);
            site.front = Some(start(cluster, "dcos", &["dcos"], &args));
        }
        if several {
            let all = [
                format!("--agents={agents}"),
                format!("--work-dir={}", work_dir.display()),
                format!("--port={}", ports[0]),
                format!("--subnet={subnet}.0/24"),
                format!("--resources={RESOURCES}"),
                GC_DELAY.to_owned(),
            ];
            site.mesos = vec![start(cluster, "mesos", &["mesos"], &all)];
        } else {
            let mut master = vec![
                format!("--listen={}", site.master),
                format!("--work-dir={}", dir("master")),
            ];
            master.extend(for_master);
            let mut agent = vec![
                format!("--master={}", site.master),
                format!("--listen={address}:{}", ports[1]),
                format!("--work-dir={}", dir("agent")),
                format!("--cgroups-root={}", site.cgroups()),
                format!("--secrets-dir={}", cluster.dir().join("secrets").display()),
                GC_DELAY.to_owned(),
            ];
            agent.extend(flags);
            agent.extend(for_agent);
            site.master_args.clone_from(&master);
            let master = start(cluster, "master", &["mesos", "master"], &master);
            let agent = start(cluster, "agent", &["mesos", "agent"], &agent);
            site.mesos = vec![agent, master];
        }
        cluster.wait("the agents register", 60, || {
            site.state()["activated_slaves"].as_f64() == Some(agents as f64)
        });
        let mut args = vec![
            format!("--mesos={}", site.master),
            format!("--listen={address}:{}", ports[2]),
            format!("--work-dir={}", dir("marathon")),
        ];
        args.extend(match several {
            true => vec![
                "--mesos-role=marathon".to_owned(),
                "--mesos-principal=marathon".to_owned(),
            ],
            false => vec!["--enable-features=secrets".to_owned()],
        });
        args.extend(for_marathon);
        site.marathon_process = Some(start(cluster, "marathon", &["marathon"], &args));
        cluster.wait("Marathon answers", 60, || !site.get("/v2/info").is_null());
        site
    }

    /// Another agent joins, beside the one in the machine's network; it offers too little for a
    /// node. Where the others have the directory `there`, it has `here`.
    pub fn join(&self, cluster: &Cluster, hostname: &str, there: &Path, here: &Path) -> Running {
        let port = free_port();
        let mount = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;
        let log = std::fs::File::create(cluster.dir().join("joined.log")).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", mount, "sh"])
            .args([here, there])
            .arg(cluster.program())
            .args(["dev", "mesos", "agent"])
            .args([
                format!("--master={}", self.master),
                format!("--listen={}:{port}", self.address),
                format!("--hostname={hostname}"),
                "--resources=cpus:0.5;mem:400;disk:2048;ports:[32001-32100]".to_owned(),
                format!("--work-dir={}", self.work_dir.join(hostname).display()),
                format!("--cgroups-root={}", self.cgroups_joined()),
                GC_DELAY.to_owned(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let agent = Running(child);
        cluster.wait("the agent registers", 60, || {
            self.state()["activated_slaves"].as_f64() == Some(2.0)
        });
        agent
    }

    /// The master is killed with -9 and started again.
    pub fn restart_master(&mut self, cluster: &Cluster) {
        // Dropped, it is killed.
        drop(self.mesos.pop());
        let master = start(
            cluster,
            "master-again",
            &["mesos", "master"],
            &self.master_args,
        );
        self.mesos.push(master);
    }

    /// A client's arguments, with an operator's token where one is wanted.
    fn curl(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["-fsS", "--max-time", "10"]);
        if let Some(strict) = &self.strict {
            command.arg(format!("-HAuthorization: token={}", strict.operator()));
        }
        command
    }

    /// A test that fails leaves a cluster. Executors' guards clean up after them, so they end by
    /// themselves.
    fn end_what_is_left(&self) {
        let dir = self.work_dir.parent().expect("the cluster's directory");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = crate::support::processes::naming(dir);
            if left.is_empty() || Instant::now() >= deadline {
                return;
            }
            for process in left.iter().filter(|p| !p.line.contains(" guard")) {
                process.signal(Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn cgroups(&self) -> String {
        format!("mesos-e2e-{}", std::process::id())
    }

    /// The same of an agent that joins.
    fn cgroups_joined(&self) -> String {
        format!("{}-joined", self.cgroups())
    }

    /// What Marathon answers; null when it does not.
    pub fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.marathon);
        let output = self.curl().arg(url).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Ends the time for which Marathon waits after an app's failures.
    pub fn reset_delay(&self, app: &str) {
        let app = app.trim_start_matches('/');
        let url = format!("{}/v2/queue/{app}/delay", self.marathon);
        // There is none where the app is just being started.
        let _ = self.curl().args(["-sXDELETE", &url]).output().unwrap();
    }

    /// What the Mesos master says.
    pub fn state(&self) -> Value {
        let url = format!("http://{}/state", self.master);
        let output = self.curl().args(["--location", &url]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// What Mesos says of its executors, as text.
    pub fn executors(&self) -> String {
        let output = self
            .curl()
            .args([
                "-HContent-Type: application/json",
                "-HAccept: application/json",
                "-d{\"type\": \"GET_EXECUTORS\"}",
            ])
            .arg(format!("http://{}/api/v1", self.master))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Versions of apps, by id.
    pub fn apps(&self) -> BTreeMap<String, String> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        self.get("/v2/apps")["apps"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|app| (text(&app["id"]), text(&app["version"])))
            .collect()
    }

    /// Ids of an app's tasks.
    pub fn tasks(&self, app: &str) -> Vec<String> {
        self.get(&format!("/v2/apps{app}/tasks"))["tasks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t["id"].as_str().map(str::to_owned))
            .collect()
    }

    /// Names of the registered frameworks.
    pub fn frameworks(&self) -> Vec<String> {
        let state = self.state();
        let frameworks = state["frameworks"].as_array().cloned().unwrap_or_default();
        frameworks
            .iter()
            .filter_map(|f| f["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// Everything that is reserved at run time, and every task.
    pub fn held(&self) -> Vec<String> {
        let state = self.state();
        let slaves = state["slaves"].as_array().cloned().unwrap_or_default();
        let mut held: Vec<String> = slaves
            .iter()
            .filter_map(|s| s["reserved_resources"].as_object())
            .flat_map(|roles| roles.keys().map(|role| format!("reserved for {role}")))
            .collect();
        held.extend(crate::support::tasks_in(&state));
        held
    }

    /// An agent of several goes silent, and everything that runs there ends, as if its machine were
    /// gone.
    pub fn lose(&self, agent: &str) {
        let output = |args: &[&str]| {
            let output = Command::new("ip").args(args).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let spaces = output(&["netns", "list"]);
        let own = spaces
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .find(|name| output(&["-n", name, "address"]).contains(&format!(" {agent}/")))
            .expect("the agent has a network namespace");
        let signal = |pid: i32, signal: Signal| {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        };
        // Who started the agents ends with them, so this one only stops.
        let agents: Vec<i32> = crate::support::processes::naming(&self.work_dir)
            .into_iter()
            .filter(|p| p.line.contains(&format!("--listen={agent}:")))
            .map(|p| p.pid)
            .collect();
        for pid in &agents {
            signal(*pid, Signal::SIGSTOP);
        }
        let inside = output(&["netns", "pids", own]);
        for pid in inside.lines().filter_map(|pid| pid.parse().ok()) {
            if !agents.contains(&pid) {
                signal(pid, Signal::SIGKILL);
            }
        }
    }

    /// Processes of a program below a sandbox whose path contains this, and the sandboxes.
    pub fn processes(&self, sandbox: &str, program: &str) -> Vec<(i32, PathBuf)> {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter_map(|pid: i32| {
                let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).ok();
                let own = |cwd: &PathBuf| {
                    cwd.starts_with(&self.work_dir) && cwd.to_string_lossy().contains(sandbox)
                };
                let cwd = link("cwd").filter(own)?;
                (link("exe")?.file_name()? == program).then_some((pid, cwd))
            })
            .collect()
    }

    /// Kills the process `program` of an app's only task; returns the task's id.
    pub fn kill(&self, app: &str, program: &str) -> String {
        let task = self.tasks(app).pop().expect("the app has a task");
        let pids = self.processes(&task, program);
        assert!(!pids.is_empty(), "{app} has no process {program}");
        for (pid, _) in pids {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        task
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.marathon_process.take());
        drop(self.front.take());
        self.mesos.clear();
        self.end_what_is_left();
        if self.agents > 1 {
            let down = Command::new(&self.program)
                .args(["dev", "mesos", "--down", "--work-dir"])
                .arg(&self.work_dir)
                .status();
            eprintln!("dev mesos --down: {down:?}");
        }
        // What the agent's executors leave is the agent's: its cgroup goes with the test.
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup");
        for hierarchy in hierarchies.into_iter().flatten().flatten() {
            remove_cgroups(&hierarchy.path().join(self.cgroups()));
            remove_cgroups(&hierarchy.path().join(self.cgroups_joined()));
        }
    }
}

/// Removes a cgroup with those in it.
fn remove_cgroups(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

/// Serves the files of a directory over HTTP until the test ends; returns the address.
pub fn serve(dir: PathBuf, address: IpAddr) -> String {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = String::new();
            let _ = BufReader::new(&stream).read_line(&mut request);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default();
            let (status, body) = match std::fs::read(dir.join(name)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
    });
    url
}

fn start(cluster: &Cluster, name: &str, words: &[&str], args: &[String]) -> Running {
    let log = std::fs::File::create(cluster.dir().join(format!("{name}.log"))).unwrap();
    let child = Command::new(cluster.program())
        .arg("dev")
        .args(words)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Running(child)
}

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
