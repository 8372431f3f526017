//! Clusters that are installed by way of Marathon, on devcluster's Mesos and Marathon: installed,
//! installed again, hurt, changed, stopped, started, saved and removed; then nothing is left.

mod dcos;
mod hurt;
mod installed;
mod kept;
mod load;
mod moved;
mod older;
mod one_app;
mod site;
mod strict;

use std::process::Command;
use std::time::Instant;

use installed::Installed;
use site::{Site, serve};

use crate::support::Cluster;

/// Apps with the program that each is about.
const APPS: [(&str, &str); 5] = [
    ("/kubernetes-cp/etcd-0", "etcd"),
    ("/kubernetes-cp/apiserver", "kube-apiserver"),
    (
        "/kubernetes-cp/controller-manager",
        "kube-controller-manager",
    ),
    ("/kubernetes", "k8sm-framework"),
    ("/kubernetes-cp/proxy", "k8sm-proxy"),
];

/// A Marathon app that is healthy again has a new task and an answer from it.
const HEALTHY_AGAIN_SECONDS: u64 = 60;

#[test]
fn a_cluster_installed_by_marathon_is_changed_stopped_and_removed_without_a_trace() {
    let cluster = Cluster::prepare(&[]);
    let site = Site::start(&cluster, 1);
    let sets = ["etcd.count=1", "apiserver.instances=1", "pki.source=env"];
    let here = Installed::new(&cluster, &site, "state", &sets);

    let plan = here.install(&["install"], &["--dry-run"]);
    assert!(plan.contains("+ create /kubernetes-cp/etcd-0"), "{plan}");
    assert!(site.apps().is_empty(), "a dry run changes nothing");

    here.install(&["install"], &[]);
    let apps = site.apps();
    assert_eq!(apps.len(), APPS.len(), "{apps:?}");
    here.install(&["install"], &[]);
    assert_eq!(site.apps(), apps, "installed again, nothing changes");
    let status = here.status();
    assert_eq!(status["healthy"], true, "{status:#}");
    assert_eq!(status["nodes"][0], 1, "{status:#}");
    let pod = here.run_pod("stays");
    here.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);

    // Marathon starts them again without the artifacts being served: agents keep them.
    kept_by_agents(&here);
    for (app, program) in APPS {
        kill_once(&here, app, program);
        assert_eq!(here.container("stays").as_ref(), Some(&pod), "{app}");
    }

    let more = "--set=controller_manager.mem=600";
    let result = here.k8sm(&["upgrade", "--yes", "--output=json", more]);
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["phase"], "installed", "{result:#}");
    let steps = result["steps"].to_string();
    assert!(steps.contains("controller-manager"), "{result:#}");
    let now = site.apps();
    let changed: Vec<_> = now
        .iter()
        .filter(|app| apps.get(app.0) != Some(app.1))
        .collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(changed[0].0, "/kubernetes-cp/controller-manager");
    let refused = here.k8sm_fails(&["upgrade", "--yes", "--set=etcd.count=3"], 1);
    assert!(refused.contains("etcd.count"), "{refused}");
    let bad = "--set=controller_manager.extra_args=[\"--no-such-flag\"]";
    let back = here.k8sm_fails(&["upgrade", "--yes", "--timeout=8", bad], 1);
    assert!(back.contains("was taken back"), "{back}");
    assert_eq!(here.status()["healthy"], true);
    assert_eq!(here.container("stays").as_ref(), Some(&pod));
    let doctor = here.k8sm(&["doctor", "-o", "json"]);
    assert!(!doctor.contains("is not as the options say"), "{doctor}");

    let archive = cluster.dir().join("backup.tar.gz");
    here.k8sm(&["backup", archive.to_str().unwrap()]);

    here.k8sm(&["stop", "--yes"]);
    assert_eq!(site.frameworks(), ["marathon"]);
    here.k8sm(&["start"]);
    let status = here.status();
    assert_eq!(status["healthy"], true, "{status:#}");
    here.run_pod("after-start");

    here.k8sm(&["uninstall", "--yes", "--keep-data"]);
    assert_eq!(site.frameworks(), ["marathon"]);
    keys_are_secrets(&here);
    here.install(&["install"], &["--set=pki.source=secrets"]);
    here.kubectl(&["get", "configmap", "kept"]);

    here.k8sm(&["uninstall", "--yes"]);
    nothing_is_left(&site);

    let there = Installed::new(&cluster, &site, "second", &sets);
    let restore = ["restore", archive.to_str().unwrap()];
    let keys = format!("--set=pki.uri={}", serve(there.bundles(), site.address));
    // They were built for the first one, and take as much space as all else.
    let built = cluster.dir().join("state/artifacts");
    let built = format!("--artifacts={}", built.display());
    let more = ["--name=second", "--set=pki.source=uri", &keys, &built];
    there.install(&restore, &more);
    there.kubectl(&["get", "configmap", "kept"]);
    there.run_pod("restored");
    there.k8sm(&["uninstall", "--yes", "--name=second"]);
    nothing_is_left(&site);
    assert!(!cluster.dir().join("etcd/kubernetes").exists());
    assert!(!cluster.dir().join("etcd/second").exists());
    assert!(!cluster.dir().join("kept/kubernetes").exists());
    assert!(!cluster.dir().join("kept/second").exists());
    drop(site);
    cluster.finish();
}

/// Whoever served the artifacts is gone: apps' are files of their agents, and the framework serves
/// them to agents that join.
fn kept_by_agents(here: &Installed<'_>) {
    let kept = here.cluster.dir().join("kept/kubernetes/artifacts");
    let url = format!("file://{}/", kept.display());
    for (app, _) in APPS {
        let found = here.site.get(&format!("/v2/apps{app}"));
        let uris = found["app"]["fetch"].as_array().unwrap().iter();
        let uris: Vec<&str> = uris.filter_map(|f| f["uri"].as_str()).collect();
        assert!(uris.iter().all(|u| u.starts_with(&url)), "{app}: {uris:?}");
    }
    let files = here.record()["artifacts"]["files"].clone();
    for (name, entry) in files.as_object().unwrap() {
        let digest = entry["sha256"].as_str().unwrap();
        let url = format!("{}/artifacts/{digest}/{name}", here.framework());
        let head = Command::new("curl").args(["-fsSI", &url]).output().unwrap();
        assert!(head.status.success(), "{url}: {head:?}");
    }
}

/// The operator's part: the keys become secrets under the names that are wanted.
fn keys_are_secrets(here: &Installed<'_>) {
    let secrets = here.cluster.dir().join("secrets");
    for (folder, component) in [
        ("kubernetes-cp", "etcd-0"),
        ("kubernetes-cp", "apiserver"),
        ("kubernetes-cp", "controller-manager"),
        ("kubernetes-cp", "proxy"),
        ("kubernetes", "framework"),
    ] {
        let folder = secrets.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let bundle = here.bundles().join(format!("{component}.json"));
        std::os::unix::fs::symlink(bundle, folder.join(format!("pki-{component}"))).unwrap();
    }
}

/// Kills an app's program; waits until Marathon has started it again and it is healthy.
fn kill_once(here: &Installed<'_>, app: &str, program: &str) {
    // Those that the one before took with it are back.
    here.cluster
        .wait("everything is healthy", HEALTHY_AGAIN_SECONDS, || {
            here.status()["healthy"] == true
        });
    let begun = Instant::now();
    let task = here.site.kill(app, program);
    let what = format!("{app} is healthy again");
    here.cluster.wait(&what, HEALTHY_AGAIN_SECONDS, || {
        let tasks = here.site.tasks(app);
        let found = here.site.get(&format!("/v2/apps{app}"));
        !tasks.is_empty() && !tasks.contains(&task) && found["app"]["tasksHealthy"] == 1
    });
    eprintln!(
        "{app}: healthy {:.1} s after kill -9",
        begun.elapsed().as_secs_f64()
    );
    here.cluster.wait("the API answers", 30, || {
        here.try_kubectl(&["get", "nodes"]).is_ok()
    });
}

fn nothing_is_left(site: &Site) {
    assert!(site.apps().is_empty(), "{:?}", site.apps());
    assert_eq!(site.frameworks(), ["marathon"]);
    assert_eq!(site.held(), Vec::<String>::new());
}
