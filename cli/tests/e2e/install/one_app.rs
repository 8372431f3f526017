//! The one app of the DC/OS package, which installs its siblings, killed with -9 after each of its
//! steps: at the installation, at a change of options, and while it removes itself.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::dcos::{Begun, Dcos, pod_that_stays};
use super::nothing_is_left;
use super::site::Site;
use crate::support::Cluster;

/// How long one command may take with all its deaths.
const LONGEST: Duration = Duration::from_secs(600);

/// The app's process, and the log of its task.
fn app(site: &Site) -> Option<(i32, PathBuf)> {
    let found = site.processes("/executors/kubernetes.", "k8sm");
    // Its executor is a k8sm as well, but not one that was fetched into the sandbox.
    let (pid, sandbox) = found.into_iter().find(|(pid, sandbox)| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
        exe.is_ok_and(|exe| exe.starts_with(sandbox))
    })?;
    Some((pid, sandbox.join("stderr")))
}

/// The steps that a task has said are done, without their times.
fn steps(log: &PathBuf) -> Vec<String> {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    said.lines()
        .filter_map(|line| line.strip_prefix('✔'))
        .map(|step| {
            let end = step.rfind(" (").unwrap_or(step.len());
            // What was found out may differ the next time; what was done does not.
            let name = step[..end].split(": ").next().unwrap_or_default();
            name.trim().to_owned()
        })
        .collect()
}

/// Kills the app once after each step that it says is done, until everything is as it is to be;
/// returns the steps.
fn killed_after_each_step(site: &Site, what: &str, done: impl Fn() -> bool) -> Vec<String> {
    let begun = Instant::now();
    let (mut seen, mut killed) = (BTreeSet::new(), Vec::new());
    let (mut looked, mut delayed) = (Instant::now(), false);
    loop {
        assert!(
            begun.elapsed() < LONGEST,
            "{what}: not done, killed after {killed:?}"
        );
        if let Some((pid, log)) = app(site)
            && let Some(step) = steps(&log).into_iter().find(|s| !seen.contains(s))
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            seen.insert(step.clone());
            killed.push(step);
            delayed = true;
            continue;
        }
        if looked.elapsed() > Duration::from_secs(1) {
            // It waits longer with each death; how long is Marathon's affair, not this test's.
            if delayed && app(site).is_none() {
                site.reset_delay("/kubernetes");
            }
            delayed = app(site).is_none();
            if done() {
                break;
            }
            looked = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!(
        "{what}: {:.0} s, killed after {} steps: {killed:?}",
        begun.elapsed().as_secs_f64(),
        killed.len()
    );
    killed
}

#[test]
fn slow_the_packages_app_that_is_killed_after_each_of_its_steps_goes_on() {
    let cluster = Cluster::prepare(&[]);
    let Begun { site, options } = Begun::new(&cluster);
    let dcos = Dcos::start(&cluster, &site);
    let one_cluster = || {
        let mut frameworks = site.frameworks();
        frameworks.sort();
        assert_eq!(frameworks, ["kubernetes", "marathon"]);
        let apps = site.apps();
        // Framework, state, etcd, API server, controller manager, front door.
        assert_eq!(apps.len(), 6, "{apps:?}");
    };

    dcos.add_repository();
    dcos.package(
        "install",
        &json!({"packageName": "kubernetes", "options": options}),
    );
    let killed = killed_after_each_step(&site, "install", || dcos.says_that_it_runs());
    assert!(killed.len() > 4, "{killed:?}");
    one_cluster();
    let file = dcos.kubeconfig();
    let container = || pod_that_stays(&file);
    let pod = dcos.run_pod(&file);

    dcos.update(&json!({
        "etcd": {"mem": 600}, "apiserver": {"mem": 1100},
        "controller_manager": {"mem": 600}, "framework": {"mem": 600},
    }));
    let mem = |app: &str| {
        let app = site.get(&format!("/v2/apps{app}"));
        app["app"]["mem"]
            .as_f64()
            .filter(|_| app["app"]["tasksHealthy"] == 1)
    };
    let killed = killed_after_each_step(&site, "change", || {
        mem("/kubernetes-cp/controller-manager") == Some(600.0)
            && mem("/kubernetes-cp/etcd-0") == Some(600.0)
            && mem("/kubernetes-cp/apiserver") == Some(1100.0)
            && mem("/kubernetes") == Some(600.0)
            && dcos.says_that_it_runs()
    });
    assert!(killed.len() > 2, "{killed:?}");
    one_cluster();
    cluster.wait("the API answers", 60, || container().is_some());
    assert_eq!(container(), pod);

    dcos.package("uninstall", &json!({"packageName": "kubernetes"}));
    let killed = killed_after_each_step(&site, "uninstall", || {
        site.apps().is_empty() && site.held().is_empty()
    });
    assert!(killed.len() > 2, "{killed:?}");
    nothing_is_left(&site);
    assert!(!cluster.dir().join("etcd/kubernetes").exists());
    drop(dcos);
    drop(site);
    cluster.finish();
}
