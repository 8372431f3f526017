//! cgroups as the kernel has them. Needs root; says so and does nothing without.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use executor::cgroup::{self, CgroupSetup, CgroupVersion, kill};
use executor::core::PodLimits;
use executor::guard;
use executor::guard::manifest::{Leftover, Manifest, Owner, beside, start_time};

const DEADLINE: Duration = Duration::from_secs(30);

/// A tree of its own, removed with the test.
struct Tree(CgroupSetup);

impl Tree {
    fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: making cgroups needs root");
            return None;
        }
        let id = format!("test-{name}-{}", std::process::id());
        let setup = cgroup::discover().unwrap().plan(&id).unwrap();
        setup.make().unwrap();
        Some(Self(setup))
    }

    fn run_in(&self, cgroup: &str) -> Child {
        let dirs: Vec<String> = self
            .0
            .dirs(cgroup)
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        Command::new(env!("CARGO_BIN_EXE_k8sm-executor"))
            .args(["launch", &dirs.join(":"), "/bin/sleep", "1000"])
            .spawn()
            .unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for dir in self.0.dirs(&self.0.base) {
            kill::kill(&dir, DEADLINE);
            kill::remove(&dir, DEADLINE);
            let _ = fs::remove_dir(dir.parent().unwrap());
        }
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn limits(mib: u64) -> PodLimits {
    PodLimits {
        cpu_millis: 1500,
        memory: mib << 20,
        node_cpu_millis: 250,
        node_memory: Some(256 << 20),
    }
}

#[test]
fn a_launched_process_is_in_its_cgroup_of_every_hierarchy_and_is_killed_with_it() {
    let Some(tree) = Tree::new("kill") else {
        return;
    };
    tree.0.make().unwrap();
    let mut child = tree.run_in(&tree.0.node);
    let pid = i32::try_from(child.id()).unwrap();
    for dir in tree.0.dirs(&tree.0.node) {
        wait_until("it has joined", || kill::processes(&dir).contains(&pid));
    }
    let dirs: Vec<PathBuf> = tree
        .0
        .leftovers()
        .into_iter()
        .filter_map(|leftover| match leftover {
            Leftover::Cgroup(dir) => Some(dir),
            _ => None,
        })
        .collect();
    assert_eq!(
        dirs.iter()
            .map(|dir| kill::kill(dir, DEADLINE))
            .sum::<usize>(),
        0
    );
    child.wait().unwrap();
    assert!(dirs.iter().all(|dir| kill::remove(dir, DEADLINE)));
}

#[test]
fn the_pods_limit_is_set_raised_and_lowered() {
    let Some(tree) = Tree::new("limits") else {
        return;
    };
    let file = match tree.0.version {
        CgroupVersion::V1 => "memory.limit_in_bytes",
        CgroupVersion::V2 => "memory.max",
    };
    let read = |cgroup: &str| -> u64 {
        let path = tree.0.dir_of("memory", cgroup).unwrap().join(file);
        // v2 says "max".
        fs::read_to_string(path)
            .unwrap()
            .trim()
            .parse()
            .unwrap_or(u64::MAX)
    };
    for mib in [100, 500, 80] {
        cgroup::apply(&tree.0, &limits(mib)).unwrap();
        assert_eq!(read(&tree.0.pods), mib << 20);
        assert_eq!(read(&tree.0.base), (mib + 256) << 20);
    }
    cgroup::apply(&tree.0, &limits(0)).unwrap();
    assert_eq!(read(&tree.0.pods), 64 << 20, "room for the cgroup itself");
}

#[test]
fn a_pod_is_empty_when_no_process_is_in_any_of_its_containers() {
    let Some(tree) = Tree::new("pod") else {
        return;
    };
    let container = format!("{}/kubepods/burstable/podu/c", tree.0.pods);
    assert!(tree.0.pod_is_empty("u"), "none at all");
    for dir in tree.0.dirs(&container) {
        fs::create_dir_all(&dir).unwrap();
    }
    assert!(tree.0.pod_is_empty("u"));
    // Not the cpuset hierarchy, where each level would have to be filled first.
    let dirs: Vec<PathBuf> = tree
        .0
        .dirs(&container)
        .into_iter()
        .filter(|dir| !dir.join("cpuset.cpus").exists())
        .collect();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    for dir in &dirs {
        fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    assert!(!tree.0.pod_is_empty("u"));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("it is empty", || tree.0.pod_is_empty("u"));
}

#[tokio::test]
async fn the_guard_ends_every_process_and_removes_every_cgroup_its_own_too() {
    let Some(tree) = Tree::new("guard") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut executor = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(executor.id()).unwrap();
    let owner = Owner {
        pid,
        start_time: start_time(pid).unwrap(),
        ..Owner::current().unwrap()
    };
    let path = dir.path().join("list");
    let manifest = Manifest::create(path.clone(), &owner).unwrap();
    for leftover in tree.0.leftovers() {
        manifest.add(&leftover).unwrap();
    }
    guard::start(
        std::path::Path::new(env!("CARGO_BIN_EXE_k8sm-executor")),
        &path,
        &tree.0.dirs(&tree.0.guard),
        &beside(&path, "log"),
    )
    .await
    .unwrap();
    let mut children = [tree.run_in(&tree.0.node), tree.run_in(&tree.0.shims)];
    let shims = tree.0.dirs(&tree.0.shims);
    wait_until("both run", || {
        shims.iter().all(|dir| kill::processes(dir).len() == 1)
    });
    executor.kill().unwrap();
    executor.wait().unwrap();
    for child in &mut children {
        child.wait().unwrap();
    }
    let trees = tree.0.dirs(&tree.0.base);
    wait_until("everything is gone", || {
        !path.exists() && trees.iter().all(|dir| !dir.exists())
    });
}
