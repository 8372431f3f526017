//! Deployments: how versions replace each other, locks, rollback.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::World;
use crate::marathon::core::ProbeResult;
use crate::sim::SimConfig;

fn app(version: &str, instances: u32, minimum: f64, over: f64) -> Value {
    json!({"id": "/a", "cmd": "x", "cpus": 0.1, "mem": 32, "instances": instances,
        "env": {"V": version},
        "upgradeStrategy": {"minimumHealthCapacity": minimum, "maximumOverCapacity": over}})
}

/// Upgrades and says how few and how many instances ran at any time.
fn upgraded(instances: u32, minimum: f64, over: f64) -> (usize, usize) {
    let mut world = World::new(SimConfig::default());
    world.ok("POST", "/v2/apps", app("1", instances, minimum, over));
    world.seconds(5);
    assert_eq!(world.running("/a").len(), instances as usize);
    world.ok(
        "PUT",
        "/v2/apps/a?partialUpdate=false",
        app("2", instances, minimum, over),
    );
    let (mut fewest, mut most) = (usize::MAX, 0);
    for _ in 0..3000 {
        world.run_for(Duration::from_millis(10));
        fewest = fewest.min(world.running("/a").len());
        most = most.max(world.tasks_of_master().len());
        if world.deployments().is_empty() {
            break;
        }
    }
    assert!(
        world.deployments().is_empty(),
        "the deployment does not end"
    );
    let document = world.get("/v2/apps/a");
    let version = &document["app"]["version"];
    let tasks = document["app"]["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), instances as usize);
    assert!(tasks.iter().all(|t| t["version"] == *version));
    (fewest, most)
}

#[test]
fn capacities_are_kept_while_versions_replace_each_other() {
    for (instances, minimum, over, at_least, at_most) in [
        (4, 1.0, 1.0, 4, 8),
        (4, 1.0, 0.0, 4, 5),
        (4, 0.5, 0.0, 2, 4),
        (4, 0.0, 0.0, 0, 4),
        (1, 0.0, 0.0, 0, 1),
        (1, 1.0, 1.0, 1, 2),
        (3, 0.5, 0.34, 2, 4),
    ] {
        let (fewest, most) = upgraded(instances, minimum, over);
        let what = format!("{instances} instances, {minimum}, {over}: {fewest} to {most}");
        assert!(fewest >= at_least, "{what}");
        assert!(most <= at_most, "{what}");
    }
}

#[test]
fn a_change_waits_for_the_deployment_of_the_same_app_unless_forced() {
    let mut world = World::new(SimConfig::default());
    let big = json!({"id": "/a", "cmd": "x", "cpus": 99});
    world.ok("POST", "/v2/apps", big);
    world.seconds(2);
    let id = world.deployments()[0]["id"].clone();
    let locked = world.call("PUT", "/v2/apps/a", json!({"cpus": 0.1}));
    assert_eq!(locked.status, 409);
    assert_eq!(
        locked.json,
        json!({"message": "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'.",
            "deployments": [{"id": id}]})
    );
    // Others may go on.
    world.ok(
        "POST",
        "/v2/apps",
        json!({"id": "/b", "cmd": "x", "cpus": 0.1}),
    );
    world.ok("PUT", "/v2/apps/a?force=true", json!({"cpus": 0.1}));
    world.seconds(3);
    assert!(world.deployments().is_empty());
    assert_eq!(world.running("/a").len(), 1);
    assert_eq!(world.notices_of("deployment_failed").len(), 1);
}

#[test]
fn a_deployment_is_undone_by_another_one() {
    let mut world = World::new(SimConfig::default());
    world.ok("POST", "/v2/apps", app("1", 2, 1.0, 1.0));
    world.seconds(3);
    let before = world.running("/a");
    // Never ready.
    world.answers = Box::new(|_| ProbeResult::Http {
        status: 503,
        content_type: "text/plain".to_owned(),
        body: "wait".to_owned(),
    });
    world.ok(
        "PUT",
        "/v2/apps/a",
        json!({"env": {"V": "2"}, "portDefinitions": [{"port": 0, "name": "http-api"}],
            "readinessChecks": [{"intervalSeconds": 2, "timeoutSeconds": 1, "preserveLastResponse": true}]}),
    );
    world.seconds(20);
    let deployments = world.deployments();
    assert_eq!(deployments.len(), 1);
    let results = &deployments[0]["currentActions"][0]["readinessCheckResults"];
    assert_eq!(results[0]["ready"], false, "{deployments:#?}");
    assert_eq!(results[0]["lastResponse"]["status"], 503);
    assert_eq!(deployments[0]["affectedApps"], json!(["/a"]));
    let id = deployments[0]["id"].as_str().unwrap().to_owned();

    world.ok("DELETE", &format!("/v2/deployments/{id}"), json!(null));
    world.seconds(5);
    assert!(world.deployments().is_empty());
    let after = world.running("/a");
    assert_eq!(before.len(), after.len());
    assert_eq!(world.get("/v2/apps/a")["app"]["env"]["V"], "1");
    for old in &before {
        assert!(
            after.iter().any(|i| i.id == old.id),
            "an old instance was lost"
        );
    }
    let gone = world.call("DELETE", &format!("/v2/deployments/{id}"), json!(null));
    assert_eq!(gone.status, 404);
}

#[test]
fn the_undoing_of_a_new_app_removes_it_and_its_group() {
    let mut world = World::new(SimConfig::default());
    world.ok(
        "POST",
        "/v2/apps",
        json!({"id": "/g/h/a", "cmd": "x", "cpus": 99}),
    );
    world.seconds(1);
    let id = world.deployments()[0]["id"].as_str().unwrap().to_owned();
    world.ok("DELETE", &format!("/v2/deployments/{id}"), json!(null));
    world.seconds(2);
    assert!(world.deployments().is_empty());
    assert_eq!(world.call("GET", "/v2/groups/g", json!(null)).status, 404);
    assert_eq!(world.get("/v2/apps")["apps"], json!([]));
}

#[test]
fn forced_deletion_of_a_deployment_leaves_everything_as_it_is() {
    let mut world = World::new(SimConfig::default());
    world.ok(
        "POST",
        "/v2/apps",
        json!({"id": "/a", "cmd": "x", "cpus": 99}),
    );
    let id = world.deployments()[0]["id"].as_str().unwrap().to_owned();
    let answer = world.call(
        "DELETE",
        &format!("/v2/deployments/{id}?force=true"),
        json!(null),
    );
    assert_eq!(answer.status, 202);
    assert!(world.deployments().is_empty());
    assert_eq!(world.get("/v2/apps/a")["app"]["cpus"], 99.0);
}

#[test]
fn a_restart_replaces_every_task_and_changes_nothing_else() {
    let mut world = World::new(SimConfig::default());
    world.ok("POST", "/v2/apps", app("1", 2, 1.0, 1.0));
    world.seconds(3);
    let before = world.running("/a");
    world.ok("POST", "/v2/apps/a/restart", json!(null));
    world.seconds(10);
    assert!(world.deployments().is_empty());
    let after = world.running("/a");
    assert_eq!(after.len(), 2);
    for instance in &after {
        assert!(before.iter().all(|b| b.id != instance.id));
    }
    assert_eq!(world.get("/v2/apps/a")["app"]["env"]["V"], "1");
}

#[test]
fn a_deployment_goes_on_after_a_restart_of_marathon() {
    let mut world = World::new(SimConfig::default());
    world.ok("POST", "/v2/apps", app("1", 4, 0.75, 0.0));
    world.seconds(4);
    world.ok(
        "PUT",
        "/v2/apps/a?partialUpdate=false",
        app("2", 4, 0.75, 0.0),
    );
    for _ in 0..30 {
        world.run_for(Duration::from_millis(130));
        world.kill_marathon();
        world.run_for(Duration::from_millis(70));
        world.start_marathon();
    }
    world.seconds(20);
    assert!(world.deployments().is_empty());
    assert_eq!(world.running("/a").len(), 4);
    assert_eq!(world.tasks_of_master().len(), 4);
}

#[test]
fn a_single_instance_app_never_has_two_tasks() {
    let mut world = World::new(SimConfig::default());
    let app = |v: &str| {
        json!({"id": "/a", "cmd": "x", "cpus": 0.1, "env": {"V": v},
        "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"}})
    };
    world.ok("POST", "/v2/apps", app("1"));
    world.seconds(3);
    world.ok("PUT", "/v2/apps/a", app("2"));
    for _ in 0..500 {
        world.run_for(Duration::from_millis(10));
        assert!(world.tasks_of_master().len() <= 1);
    }
    assert!(world.deployments().is_empty());
    let two = world.call("PUT", "/v2/apps/a", json!({"instances": 2}));
    assert_eq!(two.status, 422);
}
