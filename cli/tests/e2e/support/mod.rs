//! A whole cluster for a test: started by `k8sm up` in a folder of its own, on ports of its own,
//! removed by `k8sm down` also when the test fails, and then looked for: a process, mount, cgroup,
//! link or network namespace that is left is a failure of its own.

mod images;
pub mod processes;
mod traces;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use images::BUSYBOX;
use traces::Traces;

/// A running cluster.
pub struct Cluster {
    state: tempfile::TempDir,
    before: Traces,
    up: Vec<String>,
    environment: Vec<(String, String)>,
    down: bool,
}

impl Cluster {
    /// Starts a cluster and waits until hello answers.
    pub fn up(agents: u32, more: &[&str]) -> Self {
        let agents = format!("--agents={agents}");
        let mut args = vec!["--mesos-port=0", &agents];
        args.extend(more);
        let cluster = Self::prepare(&args);
        cluster.up_again();
        cluster
    }

    /// A cluster that is not started yet: a folder, images, and the arguments of `up`, which
    /// begin with these.
    pub fn prepare(more: &[&str]) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "end-to-end tests start Mesos agents: run them as root (make e2e does)"
        );
        // Unix sockets below it must stay under 108 bytes.
        let state = tempfile::Builder::new()
            .prefix("k8sm-e2e-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in("/var/tmp")
            .unwrap();
        let mut up: Vec<String> = vec!["up".to_owned(), "--api-port=0".to_owned()];
        for (name, _) in images::ALL {
            up.push(format!("--image={}", state.path().join(name).display()));
        }
        up.extend(more.iter().map(|it| (*it).to_owned()));
        let cluster = Self {
            before: Traces::take(state.path()),
            state,
            up,
            environment: Vec::new(),
            down: false,
        };
        cluster.write_images();
        cluster
    }

    /// Writes the images that `up` names into the cluster's folder.
    pub fn write_images(&self) {
        for (name, write) in images::ALL {
            write(&self.dir().join(name));
        }
    }

    /// One more argument of `up`.
    pub fn up_with(&mut self, argument: &str) {
        self.up.push(argument.to_owned());
    }

    /// A variable of the environment of every `k8sm` from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The arguments of `k8sm up`, the verb first.
    pub fn up_args(&self) -> Vec<&str> {
        self.up.iter().map(String::as_str).collect()
    }

    /// `k8sm up` once more, with the same arguments.
    pub fn up_again(&self) {
        self.k8sm(&self.up_args());
    }

    /// Adds agents until there are this many.
    pub fn grow(&self, agents: u32) {
        let wanted = format!("--agents={agents}");
        let args: Vec<&str> = self
            .up
            .iter()
            .map(|it| match it.strip_prefix("--agents=") {
                Some(_) => wanted.as_str(),
                None => it.as_str(),
            })
            .collect();
        self.k8sm(&args);
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        self.state.path()
    }

    /// The program under test.
    pub fn program(&self) -> PathBuf {
        // K8SM_BIN: another build of it, for instance the optimised one.
        std::env::var_os("K8SM_BIN")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_k8sm").into())
            .into()
    }

    /// `k8sm` with these arguments, for this cluster, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_in("state", args)
    }

    /// The same for another instance, whose state is in this folder below the cluster's.
    pub fn command_in(&self, state: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg("--state-dir")
            .arg(self.dir().join(state))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs `k8sm`; fails the test with its output unless it succeeds.
    pub fn k8sm(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "k8sm {args:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `k8sm`, which must fail with this exit code; what it said.
    pub fn k8sm_fails(&self, args: &[&str], code: i32) -> String {
        let output = self.command(args).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "k8sm {args:?}: {}",
            text(&output)
        );
        text(&output)
    }

    /// Processes of this cluster.
    pub fn processes(&self) -> Vec<processes::Process> {
        processes::naming(self.dir())
    }

    /// What was chosen for this cluster.
    pub fn settings(&self) -> Value {
        let path = self.dir().join("state/settings.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Runs kubectl; fails the test unless it succeeds.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args)
            .unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    /// Runs kubectl.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut all = vec!["kubectl"];
        all.extend(args);
        let output = self.command(&all).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(text(&output))
        }
    }

    /// A kubectl that goes on running, for port-forward.
    pub fn spawn_kubectl(&self, args: &[&str]) -> Running {
        let mut all = vec!["kubectl"];
        all.extend(args);
        Running(self.command(&all).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Runs kubectl with something on its standard input, to its end.
    pub fn kubectl_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut all = vec!["kubectl"];
        all.extend(args);
        let mut child = self
            .command(&all)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // It may end without having read everything.
            scope.spawn(move || std::io::Write::write_all(&mut stdin, input));
            child.wait_with_output().unwrap()
        })
    }

    /// Applies manifests; fails the test unless that succeeds.
    pub fn apply(&self, manifest: &str) {
        self.try_apply(manifest)
            .unwrap_or_else(|error| panic!("apply {manifest}: {error}"));
    }

    /// Applies manifests.
    pub fn try_apply(&self, manifest: &str) -> Result<(), String> {
        let file = self.dir().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        self.try_kubectl(&["apply", "-f", file.to_str().unwrap()])
            .map(drop)
    }

    /// An object, or null when there is none.
    pub fn get(&self, args: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        self.try_kubectl(&all)
            .ok()
            .and_then(|it| serde_json::from_str(&it).ok())
            .unwrap_or(Value::Null)
    }

    /// What the Mesos master says; null while it does not answer.
    pub fn mesos_state(&self) -> Value {
        let settings = self.settings();
        let port = &settings["mesos"]["own"]["master_port"];
        let address = settings["address"].as_str().unwrap_or("127.0.0.1");
        mesos_state_of(&format!("http://{address}:{port}"), false)
    }

    /// Ids of the running tasks of all frameworks, from Mesos.
    pub fn tasks(&self) -> Vec<String> {
        tasks_in(&self.mesos_state())
    }

    /// Waits for a condition; the deadline only bounds a failure.
    pub fn wait(&self, what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            if start.elapsed() > Duration::from_secs(seconds) {
                let pods = self.try_kubectl(&["get", "pods,nodes", "-A", "-o", "wide"]);
                let events = self.try_kubectl(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
                panic!(
                    "not within {seconds} s: {what}\n{}\n{}\nlogs: {}",
                    pods.unwrap_or_else(|it| it),
                    events.unwrap_or_else(|it| it),
                    self.keep_logs().display()
                );
            }
            // A poll interval, not a synchronisation: the loop ends with the condition.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a pod is Ready.
    pub fn wait_ready(&self, pod: &str, seconds: u64) {
        self.wait(&format!("pod {pod} is Ready"), seconds, || {
            self.is_ready(pod)
        });
    }

    /// Whether a pod of the default namespace is Ready.
    pub fn is_ready(&self, pod: &str) -> bool {
        conditions(&self.get(&["pod", pod]), "Ready")
    }

    /// Number of Ready pods with a label.
    pub fn ready(&self, selector: &str) -> usize {
        self.get(&["pods", "-l", selector])["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|it| conditions(it, "Ready") && it["metadata"]["deletionTimestamp"].is_null())
            .count()
    }

    /// Id of the first container of each pod with a label, by pod name.
    pub fn containers(&self, selector: &str) -> Vec<(String, String)> {
        first_containers(&self.get(&["pods", "-l", selector]))
            .into_iter()
            .map(|(pod, id)| {
                let name = pod.rsplit('/').next().unwrap_or_default().to_owned();
                (name, id)
            })
            .collect()
    }

    /// The same for all pods, by `namespace/name`.
    pub fn all_containers(&self) -> Vec<(String, String)> {
        first_containers(&self.get(&["pods", "-A"]))
    }

    fn keep_logs(&self) -> PathBuf {
        let target = std::env::temp_dir().join(format!(
            "k8sm-e2e-logs-{}",
            self.dir().file_name().unwrap_or_default().to_string_lossy()
        ));
        let _ = std::fs::create_dir_all(&target);
        // The last two are of a site with Mesos and Marathon of its own.
        for (source, depth) in [
            ("state/logs", "9"),
            ("state/nodes", "9"),
            ("state/mesos", "99"),
            ("mesos", "99"),
            (".", "1"),
        ] {
            let source = self.dir().join(source);
            let _ = Command::new("sh")
                .arg("-c")
                .arg("cd \"$0\" 2>/dev/null && find . -maxdepth \"$2\" \\( -name '*.log' -o -name stderr -o -name stdout \\) -type f -size -20M -exec cp --parents {} \"$1\" \\; || true")
                .arg(&source)
                .arg(&target)
                .arg(depth)
                .status();
        }
        target
    }

    /// `k8sm down`, and a look at what it left.
    pub fn finish(mut self) {
        let containers = traces::containers(self.dir());
        self.end();
        let mut now = Traces::take(self.dir());
        now.add_containers(&containers);
        let left = now.since(&self.before);
        assert!(
            left.is_empty(),
            "left behind after k8sm down:\n{}",
            left.join("\n")
        );
    }

    /// The same for a cluster whose folder is a disk of its own, which goes before it is looked
    /// whether anything is left.
    pub fn finish_on(mut self, disk: impl Drop) {
        self.end();
        drop(disk);
        self.finish();
    }

    fn end(&mut self) {
        if !self.down {
            self.down = true;
            let output = self.command(&["down"]).output();
            if let Ok(output) = &output
                && !output.status.success()
            {
                eprintln!("k8sm down: {}", text(output));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.down {
            eprintln!("logs of the failed test: {}", self.keep_logs().display());
            // A full disk makes everything fail, in ways that do not look like it.
            if let Ok(stat) = nix::sys::statvfs::statvfs(self.dir()) {
                let free = (stat.blocks_available() * stat.fragment_size()) >> 20;
                eprintln!("{free} MiB are free below {}", self.dir().display());
            }
        }
        self.end();
    }
}

/// What the Mesos master at an address says; null while it does not answer, or while it redirects
/// and that is not followed.
pub fn mesos_state_of(url: &str, follow: bool) -> Value {
    let mut command = Command::new("curl");
    command.args(["-fsS", "--max-time", "10"]);
    if follow {
        command.arg("--location");
    }
    let output = command.arg(format!("{url}/state")).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Ids of the running tasks of all frameworks, in order.
pub fn tasks_in(state: &Value) -> Vec<String> {
    let mut ids: Vec<String> = state["frameworks"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|it| it["tasks"].as_array().into_iter().flatten())
        .filter_map(|it| it["id"].as_str().map(str::to_owned))
        .collect();
    ids.sort();
    ids
}

fn first_containers(pods: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| {
            let of = &it["metadata"];
            (
                format!("{}/{}", text(&of["namespace"]), text(&of["name"])),
                text(&it["status"]["containerStatuses"][0]["containerID"]),
            )
        })
        .collect()
}

/// A child that ends with the test.
pub struct Running(pub std::process::Child);

impl Running {
    /// Its output, as it comes. Once; it must have been piped.
    pub fn lines(&mut self) -> Lines {
        let output = self.0.stdout.take().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Lines(lines)
    }
}

/// Lines of a child's output, waited for with a deadline.
pub struct Lines(std::sync::mpsc::Receiver<String>);

impl Lines {
    /// The next line that is wanted; fails the test when none comes within 30 s.
    pub fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.0.recv_timeout(left) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("{what}: {error}; seen was {seen:?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a condition of an object is `True`.
pub fn conditions(object: &Value, kind: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|it| it["type"] == kind && it["status"] == "True")
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
