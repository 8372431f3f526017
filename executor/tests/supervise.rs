//! The supervisor with real processes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use executor::component::{Component, Liveness, Readiness, Sign};
use executor::supervise::{Settings, SuperviseError, Supervisor};
use seam::message::ToFramework;
use tokio::sync::mpsc;

/// Nothing here takes longer unless something is broken.
const DEADLINE: Duration = Duration::from_secs(30);

struct Bench {
    dir: tempfile::TempDir,
    reports: mpsc::Receiver<ToFramework>,
    supervisor: Supervisor,
}

fn settings(dir: &tempfile::TempDir) -> Settings {
    fs::create_dir_all(dir.path().join("logs")).unwrap();
    Settings {
        launcher: env!("CARGO_BIN_EXE_k8sm-executor").into(),
        cgroups: Vec::new(),
        logs: dir.path().join("logs"),
        records: dir.path().join("children"),
        log_bytes: 1 << 20,
    }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (tx, reports) = mpsc::channel(16);
        let supervisor = Supervisor::new(settings(&dir), tx);
        Self {
            dir,
            reports,
            supervisor,
        }
    }

    fn shell(&self, name: &str, script: &str) -> Component {
        Component {
            name: name.to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: self.dir.path().to_owned(),
            readiness: Readiness::Running,
            start_deadline: Duration::from_secs(10),
            liveness: None,
            stop_grace: Duration::from_secs(10),
        }
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.supervisor.log_of(name)).unwrap()
    }

    fn pid(&self, name: &str) -> Option<i32> {
        let path = self.dir.path().join(format!("children/{name}.json"));
        let record: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        record["pid"].as_i64()?.try_into().ok()
    }

    async fn report(&mut self) -> (String, String, String, bool) {
        let report = tokio::time::timeout(DEADLINE, self.reports.recv())
            .await
            .expect("a report in time")
            .expect("a supervisor");
        let ToFramework::Component {
            component,
            reason,
            message,
            warning,
        } = report
        else {
            panic!("a report about a component: {report:?}");
        };
        (component, reason, message, warning)
    }

    /// Waits for a file that a component makes.
    async fn file(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let made = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, made).await.expect(name);
        path
    }
}

fn alive(pid: i32) -> bool {
    executor::guard::manifest::start_time(pid).is_some()
}

#[tokio::test]
async fn a_component_logs_to_its_file_and_ends_when_asked() {
    let bench = Bench::new();
    let script = "echo hello; trap 'echo bye; exit 0' TERM; touch up; while :; do sleep 0.05; done";
    bench
        .supervisor
        .start(bench.shell("worker", script))
        .await
        .unwrap();
    bench.file("up").await;
    let pid = bench.pid("worker").unwrap();
    bench.supervisor.stop("worker").await;
    assert!(!alive(pid));
    assert_eq!(bench.log("worker"), "hello\nbye\n");
    assert_eq!(bench.pid("worker"), None, "no record of what does not run");
}

#[tokio::test]
async fn one_that_ignores_sigterm_is_killed_after_its_grace() {
    let bench = Bench::new();
    let script = "trap '' TERM; touch up; while :; do sleep 0.05; done";
    let mut component = bench.shell("stubborn", script);
    component.stop_grace = Duration::from_millis(100);
    bench.supervisor.start(component).await.unwrap();
    bench.file("up").await;
    let pid = bench.pid("stubborn").unwrap();
    bench.supervisor.stop_all().await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_component_that_is_killed_runs_again_and_both_are_told() {
    let mut bench = Bench::new();
    bench
        .supervisor
        .start(bench.shell("worker", "exec sleep 1000"))
        .await
        .unwrap();
    assert!(
        bench
            .supervisor
            .runs(&bench.shell("worker", "exec sleep 1000"))
    );
    assert!(
        !bench
            .supervisor
            .runs(&bench.shell("worker", "exec sleep 2000"))
    );
    let first = bench.pid("worker").unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(first).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let (component, reason, message, warning) = bench.report().await;
    assert_eq!(
        (component.as_str(), reason.as_str()),
        ("worker", "Restarted")
    );
    assert!(
        warning && message.contains("signal 9") && message.contains("worker.log"),
        "{message}"
    );
    let (_, reason, _, warning) = bench.report().await;
    assert_eq!((reason.as_str(), warning), ("Recovered", false));
    let second = bench.pid("worker").unwrap();
    assert_ne!(first, second);
    bench.supervisor.stop_all().await;
    assert!(!alive(second));
}

#[tokio::test]
async fn a_component_that_hangs_is_ended_and_runs_again() {
    let mut bench = Bench::new();
    // The first one stops itself, as a deadlock would. (On a busy machine it may be ended before.)
    let script = "[ -e hung ] && exec sleep 1000; touch hung; kill -STOP $$";
    let mut component = bench.shell("worker", script);
    component.stop_grace = Duration::from_millis(100);
    component.liveness = Some(Liveness {
        sign: Sign::Notify {
            socket: bench.dir.path().join("notify"),
            first: Duration::from_millis(300),
        },
        every: Duration::from_millis(50),
        patience: Duration::from_millis(300),
    });
    bench.supervisor.start(component).await.unwrap();
    let first = bench.pid("worker").unwrap();
    let (_, reason, message, warning) = bench.report().await;
    assert_eq!((reason.as_str(), warning), ("Restarted", true));
    assert!(message.contains("no sign of life"), "{message}");
    assert!(!alive(first));
    let (_, reason, ..) = bench.report().await;
    assert_eq!(reason, "Recovered");
    bench.supervisor.stop_all().await;
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_left_running() {
    let mut bench = Bench::new();
    // Stands for a full disk: the directory of the records cannot be made.
    fs::write(bench.dir.path().join("children"), "").unwrap();
    let component = bench.shell("worker", "echo $$ >> pids; exec sleep 1000");
    bench.supervisor.start(component).await.unwrap_err();
    let (_, reason, message, _) = bench.report().await;
    assert_eq!(reason, "Restarted");
    assert!(message.contains("noting it in"), "{message}");
    bench.supervisor.stop_all().await;
    let pids = fs::read_to_string(bench.dir.path().join("pids")).unwrap_or_default();
    assert!(pids.lines().all(|pid| !alive(pid.parse().unwrap())));
}

#[tokio::test]
async fn one_that_never_gets_ready_is_an_error_that_names_its_end_and_its_log() {
    let bench = Bench::new();
    let mut component = bench.shell("broken", "echo no config >&2; exit 3");
    component.readiness = Readiness::UnixSocket(bench.dir.path().join("none.sock"));
    component.start_deadline = Duration::from_secs(1);
    let error = bench.supervisor.start(component).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, SuperviseError::NotReady { .. }));
    assert!(
        text.contains("exit status 3") && text.contains("broken.log"),
        "{text}"
    );
    assert!(bench.log("broken").contains("no config"));
    bench.supervisor.stop_all().await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_says_so_in_the_log() {
    let bench = Bench::new();
    let mut component = bench.shell("missing", "");
    component.program = "/nonexistent/kubelet".into();
    component.readiness = Readiness::UnixSocket(bench.dir.path().join("none.sock"));
    component.start_deadline = Duration::from_millis(500);
    bench.supervisor.start(component).await.unwrap_err();
    assert!(bench.log("missing").contains("/nonexistent/kubelet"));
    bench.supervisor.stop_all().await;
}

/// As after `exec`: the tasks of the first supervisor are gone, the processes are not.
#[test]
fn a_successor_takes_over_what_runs_and_replaces_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let component = |name: &str, seconds: &str| Component {
        name: name.to_owned(),
        program: "/bin/sleep".into(),
        args: vec![seconds.to_owned()],
        env: Vec::new(),
        cwd: dir.path().to_owned(),
        readiness: Readiness::Running,
        start_deadline: Duration::from_secs(10),
        liveness: None,
        stop_grace: Duration::from_secs(10),
    };
    let pid = |name: &str| -> i64 {
        let path = dir.path().join(format!("children/{name}.json"));
        let record: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        record["pid"].as_i64().unwrap()
    };
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (tx, _reports) = mpsc::channel(16);
    let first = runtime();
    first.block_on(async {
        let supervisor = Supervisor::new(settings(&dir), tx.clone());
        supervisor.start(component("same", "1000")).await.unwrap();
        supervisor
            .start(component("changed", "1000"))
            .await
            .unwrap();
    });
    drop(first);
    let (same, changed) = (pid("same"), pid("changed"));
    runtime().block_on(async {
        let supervisor = Supervisor::new(settings(&dir), tx);
        supervisor.start(component("same", "1000")).await.unwrap();
        supervisor
            .start(component("changed", "2000"))
            .await
            .unwrap();
        assert_eq!(pid("same"), same);
        assert_ne!(pid("changed"), changed);
        assert!(!alive(i32::try_from(changed).unwrap()));
        supervisor.stop_all().await;
        assert!(!alive(i32::try_from(same).unwrap()));
    });
}
