//! The guard as the process that it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use executor::guard;
use executor::guard::manifest::{Leftover, Manifest, Owner, beside, start_time};

const DEADLINE: Duration = Duration::from_secs(30);

/// A stand-in for the executor; ends with the test.
struct Executor(Child);

impl Executor {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn owner(&self) -> Owner {
        let pid = i32::try_from(self.0.id()).unwrap();
        Owner {
            pid,
            start_time: start_time(pid).unwrap(),
            ..Owner::current().unwrap()
        }
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn start_guard(manifest: &Path, cgroups: &[PathBuf]) -> i32 {
    let program = Path::new(env!("CARGO_BIN_EXE_k8sm-executor"));
    guard::start(program, manifest, cgroups, &beside(manifest, "log"))
        .await
        .unwrap();
    let text = fs::read_to_string(beside(manifest, "guard")).unwrap();
    text.split_once(' ').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn the_guard_waits_for_the_executors_end_and_then_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    fs::create_dir_all(data.join("deep/er")).unwrap();
    let mut executor = Executor::start();
    let path = dir.path().join("cleanup/node");
    let manifest = Manifest::create(path.clone(), &executor.owner()).unwrap();
    let pid = start_guard(&path, &[]).await;
    // Noted after the guard started: it reads the list only at the end.
    manifest.add(&Leftover::Dir(data.clone())).unwrap();
    assert!(guard::find(&path).is_some());
    assert!(data.exists());
    executor.kill();
    wait_until("the guard ends", || start_time(pid).is_none());
    assert!(!data.exists() && !path.exists());
    let rest: Vec<_> = fs::read_dir(dir.path().join("cleanup")).unwrap().collect();
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn a_guard_whose_executor_is_dead_already_cleans_up_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    fs::create_dir(&data).unwrap();
    let mut executor = Executor::start();
    let owner = executor.owner();
    executor.kill();
    let path = dir.path().join("node.list");
    let manifest = Manifest::create(path.clone(), &owner).unwrap();
    manifest.add(&Leftover::Dir(data.clone())).unwrap();
    let _ = guard::start(
        Path::new(env!("CARGO_BIN_EXE_k8sm-executor")),
        &path,
        &[],
        &beside(&path, "log"),
    )
    .await;
    wait_until("all is clean", || !path.exists() && !data.exists());
}

#[tokio::test]
async fn a_guard_leaves_alone_what_a_successor_has_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    fs::create_dir(&data).unwrap();
    let mut executor = Executor::start();
    let path = dir.path().join("node.list");
    let manifest = Manifest::create(path.clone(), &executor.owner()).unwrap();
    manifest.add(&Leftover::Dir(data.clone())).unwrap();
    let pid = start_guard(&path, &[]).await;
    Manifest::create(path.clone(), &Owner::current().unwrap()).unwrap();
    executor.kill();
    wait_until("the guard ends", || start_time(pid).is_none());
    assert!(data.exists() && path.exists());
}

#[tokio::test]
async fn the_guard_is_small_and_nobodys_child() {
    let dir = tempfile::tempdir().unwrap();
    let mut executor = Executor::start();
    let path = dir.path().join("node.list");
    let _manifest = Manifest::create(path.clone(), &executor.owner()).unwrap();
    let pid = start_guard(&path, &[]).await;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert_ne!(field("PPid:"), u64::from(std::process::id()));
    assert_eq!(field("Threads:"), 1);
    // What is its own; the rest is the executor's program, mapped once for both.
    let own = field("RssAnon:");
    assert!(own < 3 * 1024, "{own} KiB");
    println!(
        "guard: {} KiB resident, {own} KiB of its own",
        field("VmRSS:")
    );
    executor.kill();
    wait_until("the guard ends", || start_time(pid).is_none());
}
