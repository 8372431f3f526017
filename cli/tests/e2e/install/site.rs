//! Mesos and Marathon that are no part of the cluster, and a cluster that is installed there.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use seam::testing::free_port;
use serde_json::Value;

use super::installed::free_ports;
use super::strict::Strict;
use crate::support::{Cluster, Running};

/// Mesos and Marathon.
pub struct Site {
    marathon_process: Option<Running>,
    mesos: Vec<Running>,
    pub master: String,
    pub marathon: String,
    pub address: IpAddr,
    pub(super) agents: usize,
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
