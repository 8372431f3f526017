//! What containers enforce, and that nothing of them stays. Most need root and cgroups.

use std::path::PathBuf;

use devcluster::agent::container::ProcessRef;
use mesos::pb;
use pb::TaskState as S;
use pb::task_status::Reason;

use super::support::{
    Cluster, Framework, Target, command_task, eventually, executor_task, is_root,
};

/// A container's cgroup in a hierarchy of version 1, or the one of version 2.
fn cgroup(cluster: &Cluster, controller: &str, target: &Target) -> PathBuf {
    let v1 = PathBuf::from("/sys/fs/cgroup").join(controller);
    let mount = if v1.is_dir() {
        v1
    } else {
        "/sys/fs/cgroup".into()
    };
    mount.join(&cluster.cgroups_root).join(&target.container)
}

fn is_v1() -> bool {
    PathBuf::from("/sys/fs/cgroup/memory").is_dir()
}

async fn running(cluster: &Cluster) -> (Framework, Target) {
    let mut framework = Framework::subscribe(cluster).await;
    framework.launch(executor_task("t1", "e1", &[])).await;
    let target = Target::of(&framework.update_to(S::TaskRunning).await, "e1");
    (framework, target)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_uses_too_much_memory_is_ended_as_a_whole() {
    if !is_root("a_container_that_uses_too_much_memory_is_ended_as_a_whole") {
        return;
    }
    let cluster = Cluster::start(&[]).await;
    let (mut framework, target) = running(&cluster).await;
    framework.message(&target, "leak 1000").await;
    let failed = framework.update().await;
    assert_eq!(failed.state(), S::TaskFailed);
    assert_eq!(failed.reason(), Reason::ContainerLimitationMemory);
    let words = failed.message();
    assert!(words.starts_with("Memory limit exceeded: "), "{words}");
    if is_v1() {
        assert!(
            words.contains("Requested: 128MB Maximum Used: 128MB"),
            "{words}"
        );
    }
    let limit = &failed.limitation.unwrap().resources[0];
    assert_eq!(
        (limit.name.as_str(), limit.scalar.unwrap().value),
        ("mem", 128.0)
    );
    assert!(!cgroup(&cluster, "memory", &target).exists());
    assert!(!cgroup(&cluster, "freezer", &target).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_follow_the_tasks_but_the_hard_one_only_rises() {
    if !is_root("limits_follow_the_tasks_but_the_hard_one_only_rises") {
        return;
    }
    let cluster = Cluster::start(&[]).await;
    let (mut framework, target) = running(&cluster).await;
    let memory = cgroup(&cluster, "memory", &target);
    let cpu = cgroup(&cluster, "cpu", &target);
    let (hard, soft, shares) = if is_v1() {
        (
            "memory.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "cpu.shares",
        )
    } else {
        ("memory.max", "memory.low", "cpu.weight")
    };
    let mib = |file: &str| {
        let text = std::fs::read_to_string(memory.join(file)).unwrap();
        text.trim().parse::<u64>().unwrap() >> 20
    };
    assert_eq!((mib(hard), mib(soft)), (128, 128));
    let mut second = executor_task("t2", "e1", &[]);
    second.limits = [("cpus", 0.5), ("mem", 300.0)]
        .map(|(name, value)| (name.to_owned(), pb::value::Scalar { value }))
        .into();
    framework.launch(second).await;
    framework.update_to(S::TaskRunning).await;
    // 64 of the executor, 64 of the first task, which has no limit, 300 of the second.
    assert_eq!((mib(hard), mib(soft)), (428, 192));
    let shares = std::fs::read_to_string(cpu.join(shares)).unwrap();
    assert_eq!(shares.trim(), if is_v1() { "307" } else { "30" });
    if is_v1() {
        // 0.1 + 0.1 + 0.5 CPUs of 100 ms.
        let quota = std::fs::read_to_string(cpu.join("cpu.cfs_quota_us")).unwrap();
        assert_eq!(quota.trim(), "70000");
    }
    framework.kill("t2").await;
    framework.update_to(S::TaskKilled).await;
    eventually("the soft limit falls", || mib(soft) == 128).await;
    assert_eq!(mib(hard), 428);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_executor_started_ends_with_it() {
    if !is_root("whatever_an_executor_started_ends_with_it") {
        return;
    }
    let cluster = Cluster::start(&[]).await;
    let (mut framework, target) = running(&cluster).await;
    framework.ask(&target, "fork").await;
    let procs = if is_v1() {
        cgroup(&cluster, "freezer", &target).join("cgroup.procs")
    } else {
        cgroup(&cluster, "freezer", &target).join("leaf/cgroup.procs")
    };
    let inside = || -> Vec<ProcessRef> {
        let text = std::fs::read_to_string(&procs).unwrap_or_default();
        text.lines()
            .filter_map(|pid| ProcessRef::of(pid.parse().ok()?).ok())
            .collect()
    };
    // The init process, the executor, the shell, and its `sleep`.
    eventually("the shell runs", || inside().len() >= 4).await;
    let all = inside();
    if is_v1() {
        // Foreign cgroups below a container's are ignored at recovery and end with it.
        let nested = cgroup(&cluster, "freezer", &target).join("k8s/pod");
        std::fs::create_dir_all(&nested).unwrap();
        let moved = all.last().unwrap().pid.to_string();
        std::fs::write(nested.join("cgroup.procs"), moved).unwrap();
    }
    framework.message(&target, "exit 0").await;
    framework.failure().await;
    assert_eq!(all.iter().filter(|p| p.is_alive()).count(), 0);
    assert!(!cgroup(&cluster, "freezer", &target).exists());
    assert!(!cgroup(&cluster, "cpuacct", &target).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory_is_still_seen_after_a_restart_of_the_agent() {
    if !is_root("out_of_memory_is_still_seen_after_a_restart_of_the_agent") {
        return;
    }
    let mut cluster = Cluster::start(&[]).await;
    let (mut framework, target) = running(&cluster).await;
    if is_v1() {
        let nested = cgroup(&cluster, "memory", &target).join("k8s");
        std::fs::create_dir_all(nested).unwrap();
    }
    cluster.kill_agent();
    cluster.start_agent();
    framework.wait("offer", |e| e.offers).await;
    framework.message(&target, "leak 1000").await;
    let failed = framework.update_to(S::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ContainerLimitationMemory);
    assert!(!cgroup(&cluster, "memory", &target).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_cgroups_the_executor_s_session_ends_with_it() {
    let flags = ["--launcher=posix", "--isolation=posix/cpu,posix/mem"];
    let cluster = Cluster::start(&flags).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework
        .launch(command_task("c", "sleep 1000 & sleep 1000"))
        .await;
    let running = framework.update_to(S::TaskRunning).await;
    let target = Target::of(&running, "c");
    let init = ProcessRef::of(target.pid).unwrap();
    let containers = cluster.get("/containers").await;
    assert!(
        containers[0]["statistics"]["mem_rss_bytes"]
            .as_u64()
            .unwrap()
            > 0
    );
    // The executor itself dies: its container goes, and with it what the task had started.
    let children = format!("/proc/{0}/task/{0}/children", target.pid);
    let executor = std::fs::read_to_string(children).unwrap();
    let executor = ProcessRef::of(executor.trim().parse().unwrap()).unwrap();
    devcluster::agent::container::kill(executor.pid);
    let failed = framework.update_to(S::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::ExecutorTerminated);
    assert!(!init.is_alive() && !executor.is_alive());
}
