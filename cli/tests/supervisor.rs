//! The supervisor on real processes: what it starts outlives it, and its successor takes it over.
//! Needs no root and no upstream programs.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cli::instance::{Mesos, Paths, PortChooser, Settings};
use cli::procfs::{self, ProcessId};
use cli::supervise::{ProcessSpec, Spec, Stage, Supervisor};
use packaging::control_plane::Readiness;
use rustix::process::Signal;

/// Bounds a failure; nothing here takes longer than a moment.
const PATIENCE: Duration = Duration::from_secs(20);

struct Instance {
    _dir: tempfile::TempDir,
    paths: Paths,
    id: String,
    supervisor: Option<Child>,
}

impl Instance {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run_root = dir.path().join("run");
        std::fs::create_dir(&run_root).unwrap();
        let paths = Paths::with_run_root(&dir.path().join("state"), &run_root).unwrap();
        paths.create().unwrap();
        let id = uuid::Uuid::new_v4().to_string();
        let settings = Settings {
            version: Settings::current_version(),
            id: id.clone(),
            name: "test".to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            ports: PortChooser::default().control_plane(6443).unwrap(),
            framework_port: 1,
            mesos: Mesos::Existing {
                url: "localhost:5050".to_owned(),
            },
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            programs: PathBuf::new(),
            upstream: PathBuf::new(),
            images: vec![],
            registry_mirrors: vec![],
            framework_args: vec![],
            absent_before: vec![],
            forwarding_before: None,
            front_door: None,
            marathon: None,
            owner: (0, 0),
        };
        settings.write(&paths).unwrap();
        Self {
            _dir: dir,
            paths,
            id,
            supervisor: None,
        }
    }

    /// Writes the specification and starts a supervisor, as `k8sm up` does with its own binary.
    fn start(&mut self, spec: &Spec) {
        spec.write(&self.paths.spec()).unwrap();
        let log = std::fs::File::create(self.paths.log("supervisor")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_k8sm"))
            .args(["dev", "supervise", "--state-dir"])
            .arg(self.paths.state())
            .arg("--run-root")
            .arg(self.paths.run_root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.supervisor = Some(child);
    }

    fn pid(&self, name: &str) -> Option<u32> {
        let status = Supervisor::new(&self.paths).status()?;
        status.of(name)?.pid
    }

    fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(
                begun.elapsed() < PATIENCE,
                "not in time: {what}\n{:#?}\n{}",
                Supervisor::new(&self.paths).status(),
                std::fs::read_to_string(self.paths.log("supervisor")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_ready(&self, generation: u64, names: &[&str]) {
        self.wait(&format!("{names:?} are ready"), |instance| {
            Supervisor::new(&instance.paths).status().is_some_and(|s| {
                s.generation >= generation
                    && names
                        .iter()
                        .all(|n| s.of(n).is_some_and(|r| r.stage == Stage::Ready))
            })
        });
    }

    fn signal_supervisor(&mut self, signal: Signal) {
        let child = self.supervisor.as_mut().unwrap();
        ProcessId::of(child.id()).unwrap().signal(signal).unwrap();
        if signal != Signal::HUP {
            child.wait().unwrap();
            self.supervisor = None;
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(child) = &mut self.supervisor {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in procfs::of_instance(&self.id) {
            if let Some(process) = ProcessId::of(pid) {
                let _ = process.signal(Signal::KILL);
            }
        }
    }
}

fn process(name: &str, after: &[&str]) -> ProcessSpec {
    ProcessSpec {
        name: name.to_owned(),
        program: program("sleep"),
        args: vec!["600".to_owned()],
        env: vec![("SOME".to_owned(), "value".to_owned())],
        readiness: Readiness::Running,
        after: after.iter().map(|a| (*a).to_owned()).collect(),
        stop_seconds: 5,
        fingerprint: String::new(),
    }
    .seal(&[])
}

fn program(name: &str) -> PathBuf {
    ["/usr/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
        .unwrap()
}

fn spec(generation: u64, processes: Vec<ProcessSpec>) -> Spec {
    Spec {
        generation,
        processes,
    }
}

#[test]
fn a_process_that_is_killed_is_started_again() {
    let mut instance = Instance::new();
    instance.start(&spec(
        1,
        vec![process("one", &[]), process("two", &["one"])],
    ));
    instance.wait_ready(1, &["one", "two"]);
    let (one, two) = (instance.pid("one").unwrap(), instance.pid("two").unwrap());
    ProcessId::of(one).unwrap().signal(Signal::KILL).unwrap();
    instance.wait("another process", |i| {
        i.pid("one").is_some_and(|pid| pid != one)
    });
    instance.wait_ready(1, &["one"]);
    assert_eq!(instance.pid("two"), Some(two), "its dependant goes on");
}

#[test]
fn what_runs_outlives_its_supervisor_and_is_taken_over() {
    let mut instance = Instance::new();
    let processes = vec![process("one", &[]), process("two", &[])];
    instance.start(&spec(1, processes.clone()));
    instance.wait_ready(1, &["one", "two"]);
    let (one, two) = (instance.pid("one").unwrap(), instance.pid("two").unwrap());
    instance.signal_supervisor(Signal::KILL);
    assert!(ProcessId::of(one).is_some_and(|p| p.is_alive()));
    // As if it had been killed before it could write this down: the mark in the environment tells.
    std::fs::remove_file(instance.paths.pids().join("two.json")).unwrap();
    instance.start(&spec(2, processes));
    instance.wait_ready(2, &["one", "two"]);
    assert_eq!(instance.pid("one"), Some(one), "the same process");
    instance.wait("what has no record is replaced", |i| {
        i.pid("two").is_some_and(|pid| pid != two)
            && !ProcessId::of(two).is_some_and(|p| p.is_alive())
    });
    instance.wait_ready(2, &["one", "two"]);
    let marked = procfs::of_instance(&instance.id);
    assert_eq!(marked.len(), 2, "nothing runs twice: {marked:?}");
}

#[test]
fn a_changed_specification_replaces_only_what_changed() {
    let mut instance = Instance::new();
    instance.start(&spec(
        1,
        vec![
            process("kept", &[]),
            process("changed", &[]),
            process("gone", &[]),
        ],
    ));
    instance.wait_ready(1, &["kept", "changed", "gone"]);
    let pids: Vec<u32> = ["kept", "changed", "gone"]
        .iter()
        .map(|n| instance.pid(n).unwrap())
        .collect();
    let mut changed = process("changed", &[]);
    changed.args = vec!["601".to_owned()];
    let second = spec(2, vec![process("kept", &[]), changed.seal(&[])]);
    second.write(&instance.paths.spec()).unwrap();
    instance.signal_supervisor(Signal::HUP);
    instance.wait("the changed one is replaced", |i| {
        i.pid("changed").is_some_and(|pid| pid != pids[1])
    });
    instance.wait_ready(2, &["kept", "changed"]);
    instance.wait("the third is gone", |i| {
        !ProcessId::of(pids[2]).is_some_and(|p| p.is_alive()) && i.pid("gone").is_none()
    });
    assert_eq!(instance.pid("kept"), Some(pids[0]));
}

#[test]
fn asked_to_end_it_stops_everything() {
    let mut instance = Instance::new();
    instance.start(&spec(
        1,
        vec![process("one", &[]), process("two", &["one"])],
    ));
    instance.wait_ready(1, &["one", "two"]);
    instance.signal_supervisor(Signal::TERM);
    assert!(procfs::of_instance(&instance.id).is_empty());
    assert!(Supervisor::new(&instance.paths).process().is_none());
}

#[test]
fn a_second_supervisor_is_refused_by_name() {
    let mut instance = Instance::new();
    instance.start(&spec(1, vec![process("one", &[])]));
    instance.wait_ready(1, &["one"]);
    let output = Command::new(env!("CARGO_BIN_EXE_k8sm"))
        .args(["dev", "supervise", "--state-dir"])
        .arg(instance.paths.state())
        .arg("--run-root")
        .arg(instance.paths.run_root())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("another supervisor holds"), "{text}");
}
