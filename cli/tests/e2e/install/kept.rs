//! Agents keep the artifacts, and those that join get them from the framework.

use super::installed::Installed;
use super::nothing_is_left;
use super::site::Site;
use crate::support::Cluster;

#[test]
fn slow_an_agent_that_joins_gets_the_artifacts_from_the_framework() {
    let cluster = Cluster::prepare(&[]);
    let site = Site::start(&cluster, 1);
    let sets = ["etcd.count=1", "apiserver.instances=1", "pki.source=env"];
    let here = Installed::new(&cluster, &site, "state", &sets);
    here.install(&["install"], &[]);
    let pod = here.run_pod("stays");

    let (kept, other) = (cluster.dir().join("kept"), cluster.dir().join("other"));
    std::fs::create_dir(&other).unwrap();
    let agent = site.join(&cluster, "joined", &kept, &other);
    let doctor = here.k8sm_says(&["doctor"]);
    let told = "no app of the control plane runs on joined";
    assert!(doctor.contains(told), "{doctor}");
    let plan = here.k8sm(&["upgrade", "--dry-run"]);
    assert!(plan.contains("artifacts: joined get them"), "{plan}");
    let there = other.join("kubernetes");
    assert!(!there.exists(), "a dry run changes nothing");

    here.k8sm(&["upgrade", "--yes"]);
    for (name, entry) in here.record()["artifacts"]["files"].as_object().unwrap() {
        let digest = entry["sha256"].as_str().unwrap();
        let file = there.join("artifacts").join(digest).join(name);
        let size = std::fs::metadata(&file).unwrap().len();
        assert_eq!(Some(size), entry["size"].as_u64(), "{name}");
    }
    let agents = here.record()["kept"]["agents"].clone();
    assert_eq!(agents.as_object().unwrap().len(), 2, "{agents}");
    let doctor = here.k8sm_says(&["doctor"]);
    assert!(!doctor.contains(told), "{doctor}");
    assert_eq!(here.status()["healthy"], true);
    assert_eq!(here.container("stays").as_ref(), Some(&pod));

    here.k8sm(&["uninstall", "--yes"]);
    nothing_is_left(&site);
    assert!(!kept.join("kubernetes").exists() && !there.exists());
    drop(agent);
    drop(site);
    cluster.finish();
}
