//! A whole cluster for a test: started by `k8sm up` in a folder of its own, on ports of its own,
//! removed by `k8sm down` also when the test fails, and then looked for: a process, mount, cgroup,
//! link or network namespace that is left is a failure of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The image that tests use for a shell: Debian's static busybox.
pub const BUSYBOX: &str = "k8sm.test/busybox:v1";

/// A running cluster.
pub struct Cluster {
    state: tempfile::TempDir,
    before: Traces,
    up: Vec<String>,
    down: bool,
}

impl Cluster {
    /// Starts a cluster and waits until hello answers.
    pub fn up(agents: u32, more: &[&str]) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "end-to-end tests start Mesos agents: run them as root (make e2e does)"
        );
        // Unix sockets below it must stay under 108 bytes.
        let state = tempfile::Builder::new()
            .prefix("k8sm-e2e-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let image = state.path().join("busybox.tar");
        busybox_image(&image);
        let mut up: Vec<String> = ["up", "--api-port=0", "--mesos-port=0"]
            .map(str::to_owned)
            .into();
        up.push(format!("--agents={agents}"));
        up.push(format!("--image={}", image.display()));
        up.extend(more.iter().map(|it| (*it).to_owned()));
        let cluster = Self {
            before: Traces::take(),
            state,
            up,
            down: false,
        };
        cluster.up_again();
        cluster
    }

    /// `k8sm up` once more, with the same arguments.
    pub fn up_again(&self) {
        let args: Vec<&str> = self.up.iter().map(String::as_str).collect();
        self.k8sm(&args);
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

    fn command(&self, args: &[&str]) -> Command {
        // K8SM_BIN: another build of it, for instance the optimised one.
        let program =
            std::env::var_os("K8SM_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_k8sm").into());
        let mut command = Command::new(program);
        command
            .arg("--state-dir")
            .arg(self.dir().join("state"))
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

    /// Applies manifests.
    pub fn apply(&self, manifest: &str) {
        let file = self.dir().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
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

    /// What the Mesos master says.
    pub fn mesos_state(&self) -> Value {
        let settings: Value =
            serde_json::from_slice(&std::fs::read(self.dir().join("state/settings.json")).unwrap())
                .unwrap();
        let port = &settings["mesos"]["own"]["master_port"];
        let address = settings["address"].as_str().unwrap_or("127.0.0.1");
        let output = Command::new("curl")
            .args([
                "-fsS",
                "--max-time",
                "10",
                &format!("http://{address}:{port}/state"),
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "Mesos' /state: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Ids of the running tasks of all frameworks, from Mesos.
    pub fn tasks(&self) -> Vec<String> {
        let state = self.mesos_state();
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

    /// Container ids of the pods with a label, by pod name.
    pub fn containers(&self, selector: &str) -> Vec<(String, String)> {
        self.get(&["pods", "-l", selector])["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| {
                (
                    it["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    it["status"]["containerStatuses"][0]["containerID"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                )
            })
            .collect()
    }

    fn keep_logs(&self) -> PathBuf {
        let target = std::env::temp_dir().join(format!(
            "k8sm-e2e-logs-{}",
            self.dir().file_name().unwrap_or_default().to_string_lossy()
        ));
        let _ = std::fs::create_dir_all(&target);
        for source in ["state/logs", "state/nodes", "state/mesos"] {
            let source = self.dir().join(source);
            let _ = Command::new("sh")
                .arg("-c")
                .arg("cd \"$0\" 2>/dev/null && find . \\( -name '*.log' -o -name stderr -o -name stdout \\) -type f -size -20M -exec cp --parents {} \"$1\" \\; || true")
                .arg(&source)
                .arg(&target)
                .status();
        }
        target
    }

    /// `k8sm down`, and a look at what it left.
    pub fn finish(mut self) {
        self.end();
        let left = Traces::take().since(&self.before);
        assert!(
            left.is_empty(),
            "left behind after k8sm down:\n{}",
            left.join("\n")
        );
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
        }
        self.end();
    }
}

/// A child that ends with the test.
pub struct Running(pub std::process::Child);

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

fn busybox_image(path: &Path) {
    use packaging::image::{Content, File, Image};
    let mut image = Image::of_program(BUSYBOX, "busybox", PathBuf::from("/bin/busybox"));
    "/bin/busybox".clone_into(&mut image.files[0].path);
    image.files[0].content = Content::File(PathBuf::from("/bin/busybox"));
    image.files.push(File {
        path: "/etc/passwd".to_owned(),
        mode: 0o644,
        content: Content::Bytes(b"root:x:0:0:root:/:/bin/busybox\n".to_vec()),
    });
    image.entrypoint = vec!["/bin/busybox".to_owned()];
    image.user = 0;
    image
        .write(std::io::BufWriter::new(
            std::fs::File::create(path).unwrap(),
        ))
        .unwrap();
}

/// What a cluster leaves on a machine if it leaves anything.
struct Traces(std::collections::BTreeSet<String>);

impl Traces {
    fn take() -> Self {
        let mut found = std::collections::BTreeSet::new();
        // Mounts, without those that come and go with others.
        for line in std::fs::read_to_string("/proc/self/mounts")
            .unwrap_or_default()
            .lines()
        {
            if let Some(target) = line.split(' ').nth(1) {
                found.insert(format!("mount {target}"));
            }
        }
        for entry in std::fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten()
        {
            found.insert(format!("link {}", entry.file_name().to_string_lossy()));
        }
        for entry in std::fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten()
        {
            found.insert(format!("netns {}", entry.file_name().to_string_lossy()));
        }
        let roots = [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/pids",
            "/sys/fs/cgroup/cpu",
            "/sys/fs/cgroup/freezer",
            "/sys/fs/cgroup/systemd",
        ];
        for root in roots {
            for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    found.insert(format!("cgroup {}", entry.path().display()));
                }
            }
        }
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Ok(pid) = name.to_string_lossy().parse::<u32>() else {
                continue;
            };
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains("k8sm-e2e-") && pid != std::process::id() {
                found.insert(format!("process {pid} {line}"));
            }
        }
        let rules = Command::new("nft").args(["list", "tables"]).output();
        if let Ok(rules) = rules {
            for line in String::from_utf8_lossy(&rules.stdout).lines() {
                found.insert(format!("nft {line}"));
            }
        }
        Self(found)
    }

    fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}
