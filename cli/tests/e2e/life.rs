//! The life of an instance: interrupted, repeated, stopped, started, killed whole, damaged,
//! removed. And what `up` refuses before it changes anything.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;

use crate::support::{Cluster, Running};

/// Exit codes that `k8sm --help` documents.
const UNFIT: i32 = 3;
const NOT_UP: i32 = 6;
const DAMAGED: i32 = 7;
const INTERRUPTED: i32 = 130;

/// Somebody who called sudo: Debian's `nobody` and `nogroup`.
const CALLER: (u32, u32) = (65534, 65534);

#[test]
fn an_instance_survives_interrupts_stops_and_the_death_of_everything() {
    let cluster = Cluster::prepare(&["--agents=1", "--mesos-port=0"]);
    up_is_interrupted_and_goes_on(&cluster);
    the_kubeconfig_belongs_to_the_caller(&cluster);
    others_are_refused_before_anything_changes(&cluster);
    the_death_of_the_supervisor_ends_nothing(&cluster);
    what_is_wrong_with_a_certificate_is_mended_while_it_runs(&cluster);
    stop_and_start_keep_everything(&cluster);
    killed_whole_it_starts_again(&cluster);
    damaged_and_killed_it_is_still_removed(&cluster);
    cluster.finish();
}

/// Ctrl-C early (nothing but settings), and while the control plane starts.
fn up_is_interrupted_and_goes_on(cluster: &Cluster) {
    let state = cluster.dir().join("state");
    let etcd = state.join("etcd/member");
    // What the first one has started goes on, so the second one is there once it says something.
    for (reached, speaks) in [(state.join("settings.json"), false), (etcd, true)] {
        let mut up = Running(
            up_as_caller(cluster)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut errors = up.0.stderr.take().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let mut some = [0; 1024];
            while let Ok(length @ 1..) = errors.read(&mut some) {
                heard.lock().unwrap().extend_from_slice(&some[..length]);
            }
        });
        cluster.wait(&format!("{} is there", reached.display()), 120, || {
            reached.exists() && (!speaks || !said.lock().unwrap().is_empty())
        });
        let pid = nix::unistd::Pid::from_raw(up.0.id().cast_signed());
        nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        let mut code = None;
        cluster.wait("up ends at Ctrl-C", 30, || {
            code = up.0.try_wait().unwrap();
            code.is_some()
        });
        assert_eq!(code.unwrap().code(), Some(INTERRUPTED));
        // The supervisor has its own standard error, so this one ends with `up`.
        reader.join().unwrap();
        let said = String::from_utf8_lossy(&said.lock().unwrap()).into_owned();
        assert!(said.contains("run the same command again"), "{said}");
    }
    let output = up_as_caller(cluster).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(cluster.ready("app=hello") > 0);
    let status = cluster.k8sm(&["status"]);
    assert!(status.contains("ready"), "{status}");
}

/// `sudo k8sm up`, as sudo makes it look.
fn up_as_caller(cluster: &Cluster) -> Command {
    let mut command = cluster.command(&cluster.up_args());
    command
        .env("SUDO_UID", CALLER.0.to_string())
        .env("SUDO_GID", CALLER.1.to_string());
    command
}

fn the_kubeconfig_belongs_to_the_caller(cluster: &Cluster) {
    let kubeconfig = cluster.dir().join("state/kubeconfig");
    let metadata = std::fs::metadata(&kubeconfig).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), CALLER);
    assert_eq!(metadata.mode() & 0o777, 0o600);
    // Plain kubectl, without root. Upstream's folder may be below a home that others cannot read.
    let upstream = cluster.settings()["upstream"].as_str().unwrap().to_owned();
    let kubectl = cluster.dir().join("kubectl");
    std::fs::copy(format!("{upstream}/kubectl"), &kubectl).unwrap();
    let output = Command::new(&kubectl)
        .args(["get", "nodes", "-o", "name", "--cache-dir=/nonexistent"])
        .env_clear()
        .env("KUBECONFIG", &kubeconfig)
        .uid(CALLER.0)
        .gid(CALLER.1)
        .current_dir("/")
        .output()
        .unwrap();
    std::fs::remove_file(&kubectl).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"node/"), "{output:?}");
}

fn others_are_refused_before_anything_changes(cluster: &Cluster) {
    let other = cluster.dir().join("other");
    let k8sm = |args: &[&str]| cluster.command_in("other", args).output().unwrap();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (more, parts) in [
        (
            vec!["--agents=1".to_owned()],
            vec![
                "another instance uses this machine's network".to_owned(),
                cluster.dir().join("state").display().to_string(),
                "--agents 2".to_owned(),
            ],
        ),
        (
            vec!["--agents=2".to_owned(), format!("--api-port={port}")],
            vec![
                format!("port {port} (the API server) is taken"),
                format!("pid {}", std::process::id()),
                "--api-port".to_owned(),
            ],
        ),
    ] {
        let mut args = vec!["up", "--mesos-port=0"];
        args.extend(more.iter().map(String::as_str));
        if more.len() == 1 {
            args.push("--api-port=0");
        }
        let output = k8sm(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(UNFIT), "{said}");
        for part in parts {
            assert!(said.contains(&part), "`{part}` is not in: {said}");
        }
        assert!(!other.join("settings.json").exists(), "nothing was made");
    }
    for verb in ["start", "stop", "status"] {
        let output = k8sm(&[verb]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(NOT_UP), "{verb}: {said}");
        assert!(said.contains("`k8sm up` makes one"), "{said}");
    }
    assert!(k8sm(&["down"]).status.success(), "nothing to remove");
}

fn the_death_of_the_supervisor_ends_nothing(cluster: &Cluster) {
    let before = (cluster.containers("app=hello"), cluster.tasks());
    let supervisors: Vec<_> = cluster
        .processes()
        .into_iter()
        .filter(|it| it.line.contains(" dev supervise"))
        .collect();
    assert_eq!(supervisors.len(), 1, "{supervisors:?}");
    supervisors[0].signal(Signal::SIGKILL);
    cluster.wait("status says that the supervisor is gone", 20, || {
        let output = cluster.command(&["status"]).output().unwrap();
        output.status.code() == Some(NOT_UP)
            && String::from_utf8_lossy(&output.stdout).contains("supervisor")
    });
    cluster.k8sm(&["start"]);
    cluster.k8sm(&["status"]);
    let after = (cluster.containers("app=hello"), cluster.tasks());
    assert_eq!(after, before, "what ran was taken over");
}

/// One that cannot be read stands for one that is about to expire: it is due for the same renewal,
/// which the supervisor has done at a reload, and otherwise twice a day.
fn what_is_wrong_with_a_certificate_is_mended_while_it_runs(cluster: &Cluster) {
    let path = cluster.dir().join("state/pki/controller-manager.crt");
    let before = std::fs::read(&path).unwrap();
    std::fs::write(&path, "no certificate").unwrap();
    let status = |field: &str| {
        let output = cluster.command(&["status", "-o", "json"]).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        status[field].clone()
    };
    let due = status("certificatesDue");
    assert_eq!(due[0]["name"], "controller-manager", "{due}");
    assert!(status("warnings").to_string().contains("due for renewal"));
    for process in cluster.processes() {
        if process.line.contains(" dev supervise") {
            process.signal(Signal::SIGHUP);
        }
    }
    cluster.wait(
        "the certificate is a new one, and its user runs with it",
        120,
        || {
            let now = std::fs::read(&path).unwrap_or_default();
            now.starts_with(b"-----BEGIN CERTIFICATE")
                && now != before
                && status("certificatesDue")
                    .as_array()
                    .is_some_and(Vec::is_empty)
                && status("ready") == true
        },
    );
}

fn stop_and_start_keep_everything(cluster: &Cluster) {
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}");
    cluster.k8sm(&["stop"]);
    let said = cluster.k8sm_fails(&["status"], NOT_UP);
    assert!(said.contains("is stopped"), "{said}");
    assert!(
        !said.contains("NODE"),
        "a stopped cluster's nodes are not shown as if they were there: {said}"
    );
    assert!(
        cluster.processes().is_empty(),
        "after stop: {:?}",
        cluster.processes()
    );
    cluster.k8sm(&["stop"]);
    cluster.k8sm(&["start"]);
    let status = cluster.k8sm(&["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["nodes"][0]["ready"], true, "{status}");
    assert_eq!(cluster.get(&["configmap", "kept"])["data"]["a"], "b");
    cluster.wait("hello is ready again", 120, || {
        cluster.ready("app=hello") == 2
    });
}

fn kill_everything(cluster: &Cluster) {
    let id = cluster.settings()["id"].as_str().unwrap().to_owned();
    cluster.wait("every process is dead", 60, || {
        let mut all = cluster.processes();
        all.extend(crate::support::processes::with_variable(
            "K8SM_INSTANCE",
            &id,
        ));
        for process in &all {
            process.signal(Signal::SIGKILL);
        }
        all.is_empty()
    });
}

fn killed_whole_it_starts_again(cluster: &Cluster) {
    kill_everything(cluster);
    let said = cluster.k8sm_fails(&["status"], NOT_UP);
    assert!(said.contains("k8sm start"), "{said}");
    cluster.k8sm(&["start"]);
    cluster.wait("hello is ready again", 120, || {
        cluster.ready("app=hello") == 2
    });
    for (pod, _) in cluster.containers("app=hello") {
        let running = crate::support::processes::with_variable("POD_NAME", &pod);
        assert_eq!(running.len(), 1, "processes of pod {pod}: {running:?}");
    }
    assert_eq!(cluster.get(&["configmap", "kept"])["data"]["a"], "b");
}

/// `finish` sees whether everything is gone.
fn damaged_and_killed_it_is_still_removed(cluster: &Cluster) {
    kill_everything(cluster);
    let settings = cluster.dir().join("state/settings.json");
    let whole = std::fs::read(&settings).unwrap();
    for damage in [&whole[..whole.len() / 2], b"", b"{}", b"\xff\xfe"] {
        std::fs::write(&settings, damage).unwrap();
        for command in ["start", "status"] {
            let said = cluster.k8sm_fails(&[command], DAMAGED);
            assert!(said.contains("settings.json is damaged"), "{said}");
            assert!(said.contains("`k8sm down` removes the instance"), "{said}");
        }
    }
}
