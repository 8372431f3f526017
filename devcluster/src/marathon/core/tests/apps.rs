//! Apps: placement, failures, unreachable agents, restarts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesos::pb::TaskState;
use serde_json::json;

use super::world::World;
use crate::marathon::core::ProbeResult;
use crate::sim::{Plan, SimConfig, Step};

fn world() -> World {
    World::new(SimConfig::default())
}

#[test]
fn an_app_gets_its_instances_and_gives_everything_back() {
    let mut world = world();
    let app = json!({"id": "/a", "cmd": "x", "instances": 3, "cpus": 0.5, "mem": 64});
    world.ok("POST", "/v2/apps", app);
    assert_eq!(world.deployments().len(), 1);
    world.seconds(3);
    assert_eq!(world.running("/a").len(), 3);
    assert!(world.deployments().is_empty());
    let document = world.get("/v2/apps//a");
    assert_eq!(document["app"]["tasksRunning"], 3);
    assert_eq!(document["app"]["tasks"].as_array().unwrap().len(), 3);

    world.ok("PUT", "/v2/apps/a", json!({"instances": 1}));
    world.seconds(2);
    assert_eq!(world.instances("/a").len(), 1);
    assert_eq!(world.tasks_of_master().len(), 1);

    world.ok("DELETE", "/v2/apps/a", json!(null));
    assert_eq!(world.call("GET", "/v2/apps/a", json!(null)).status, 404);
    world.seconds(2);
    assert!(world.tasks_of_master().is_empty());
    assert!(world.core.durable().instances.is_empty());
    assert_eq!(world.notices_of("app_terminated_event").len(), 1);
    assert_eq!(world.notices_of("deployment_success").len(), 3);
}

/// Tasks that fail so many times before they run.
fn failing(times: usize) -> SimConfig {
    let left = Arc::new(Mutex::new(times));
    let millis = Duration::from_millis;
    let plan = Plan::by(
        move |_, _| {
            let mut left = left.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return vec![Step::new(millis(20), TaskState::TaskFailed)];
            }
            vec![Step::new(millis(20), TaskState::TaskRunning)]
        },
        millis(20),
    );
    SimConfig {
        plan,
        ..SimConfig::default()
    }
}

#[test]
fn failures_delay_the_next_launch_more_and_more_until_the_delay_is_reset() {
    let mut world = World::new(failing(4));
    let app =
        json!({"id": "/a", "cmd": "x", "cpus": 0.1, "backoffSeconds": 20, "backoffFactor": 2});
    world.ok("POST", "/v2/apps", app);
    world.seconds(1);
    let queue = world.get("/v2/queue");
    let item = &queue["queue"][0];
    assert_eq!(item["count"], 1);
    assert_eq!(item["delay"]["overdue"], false);
    let left = item["delay"]["timeLeftSeconds"].as_u64().unwrap();
    assert!((18..=20).contains(&left), "{left}");
    let document = world.get("/v2/apps/a");
    assert_eq!(document["app"]["lastTaskFailure"]["state"], "TASK_FAILED");
    // 20 s, then 40 s.
    world.seconds(21);
    let left = world.get("/v2/queue")["queue"][0]["delay"]["timeLeftSeconds"].clone();
    assert!(left.as_u64().unwrap() > 35, "{left}");
    assert_eq!(world.instances("/a")[0].attempts, 2);

    assert_eq!(
        world
            .call("DELETE", "/v2/queue//a/delay", json!(null))
            .status,
        204
    );
    world.seconds(1);
    assert_eq!(world.instances("/a")[0].attempts, 3);
    world.seconds(21);
    world.seconds(41);
    assert_eq!(world.running("/a").len(), 1);
    assert!(world.deployments().is_empty());
    assert_eq!(
        world
            .call("DELETE", "/v2/queue//a/delay", json!(null))
            .status,
        404
    );
}

#[test]
fn what_does_not_fit_waits_and_the_queue_says_why() {
    let mut world = world();
    let app = json!({"id": "/big", "cmd": "x", "cpus": 99});
    world.ok("POST", "/v2/apps", app);
    world.seconds(5);
    let queue = world.get("/v2/queue");
    let item = &queue["queue"][0];
    assert_eq!(
        item["delay"],
        json!({"timeLeftSeconds": 0, "overdue": true})
    );
    let last = item["processedOffersSummary"]["rejectSummaryLastOffers"]
        .as_array()
        .unwrap();
    let cpus = last
        .iter()
        .find(|s| s["reason"] == "InsufficientCpus")
        .unwrap();
    assert_eq!(cpus["declined"], 3, "{queue:#}");
    assert_eq!(world.deployments().len(), 1);
    // It starts as soon as an agent comes that has enough.
    world.sim.add_agent(
        "large",
        "cpus:128;mem:1024;disk:1024;ports:[31000-31010]",
        "",
    );
    world.seconds(3);
    assert_eq!(world.running("/big").len(), 1);
}

#[test]
fn required_ports_are_the_ports_of_the_host() {
    let mut world = world();
    let app = json!({"id": "/p", "cmd": "x", "cpus": 0.1, "requirePorts": true,
        "instances": 3, "portDefinitions": [{"port": 31777}, {"port": 0}]});
    world.ok("POST", "/v2/apps", app);
    world.seconds(3);
    let running = world.running("/p");
    assert_eq!(running.len(), 3);
    let mut hosts = Vec::new();
    for instance in &running {
        let ports = &instance.task.as_ref().unwrap().host_ports;
        assert_eq!(ports[0], Some(31777));
        assert!(ports[1].is_some_and(|p| (31000..32000).contains(&p) && p != 31777));
        hosts.push(instance.agent.as_ref().unwrap().host.clone());
    }
    hosts.sort();
    assert_eq!(hosts, ["agent0", "agent1", "agent2"]);
}

#[test]
fn service_ports_are_given_once_and_kept() {
    let mut world = world();
    let app = |id: &str| json!({"id": id, "cmd": "x", "cpus": 0.1, "portDefinitions": [{"port": 0}, {"port": 0}]});
    world.ok("POST", "/v2/apps", app("/a"));
    world.ok("POST", "/v2/apps", app("/b"));
    let ports = |world: &mut World, id: &str| {
        let document = world.get(&format!("/v2/apps{id}"));
        let list = document["app"]["portDefinitions"]
            .as_array()
            .unwrap()
            .clone();
        list.iter()
            .map(|d| d["port"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(&mut world, "/a"), [10000, 10001]);
    assert_eq!(ports(&mut world, "/b"), [10002, 10003]);
    world.seconds(3);
    // The same definition again is no change at all.
    let answer = world.ok("PUT", "/v2/apps/a?partialUpdate=false", app("/a"));
    assert!(answer["deploymentId"].is_string());
    assert!(world.deployments().is_empty());
    assert_eq!(ports(&mut world, "/a"), [10000, 10001]);
}

#[test]
fn a_task_that_fails_its_checks_is_killed_and_replaced() {
    let mut world = world();
    let good = Arc::new(Mutex::new(true));
    let answer = Arc::clone(&good);
    world.answers = Box::new(move |_| match *answer.lock().unwrap() {
        true => ProbeResult::Connected,
        false => ProbeResult::Failed {
            reason: "connection refused".to_owned(),
        },
    });
    let app = json!({"id": "/a", "cmd": "x", "cpus": 0.1, "healthChecks": [{
        "protocol": "TCP", "gracePeriodSeconds": 5, "intervalSeconds": 10,
        "maxConsecutiveFailures": 2}]});
    world.ok("POST", "/v2/apps", app);
    world.seconds(3);
    assert!(world.deployments().is_empty());
    let first = world.running("/a").remove(0);
    assert_eq!(first.healthy, Some(true));
    *good.lock().unwrap() = false;
    world.seconds(11);
    assert_eq!(world.running("/a")[0].healthy, Some(false));
    let document = world.get("/v2/apps/a");
    assert_eq!(document["app"]["tasksUnhealthy"], 1);
    let result = &document["app"]["tasks"][0]["healthCheckResults"][0];
    assert_eq!(result["alive"], false);
    assert_eq!(result["consecutiveFailures"], 1);
    assert_eq!(result["lastFailureCause"], "connection refused");
    *good.lock().unwrap() = true;
    world.seconds(10);
    assert_eq!(world.running("/a")[0].healthy, Some(true));
    *good.lock().unwrap() = false;
    world.seconds(25);
    *good.lock().unwrap() = true;
    world.seconds(15);
    assert_eq!(world.notices_of("unhealthy_instance_kill_event").len(), 1);
    let second = world.running("/a").remove(0);
    assert_ne!(first.task.unwrap().id, second.task.unwrap().id);
    assert_eq!(second.healthy, Some(true));
}

#[test]
fn instances_on_unreachable_agents_are_replaced_and_surplus_goes_when_they_return() {
    let mut world = world();
    let app = json!({"id": "/a", "cmd": "x", "cpus": 0.1, "instances": 2,
        "constraints": [["hostname", "UNIQUE"]],
        "unreachableStrategy": {"inactiveAfterSeconds": 30, "expungeAfterSeconds": 600}});
    world.ok("POST", "/v2/apps", app);
    world.seconds(3);
    let lost = world.running("/a").remove(0);
    let host = lost.agent.as_ref().unwrap().host.clone();
    let number = host.trim_start_matches("agent").parse().unwrap();
    world.sim.partition(number, true);
    // Five pings of 15 s.
    world.seconds(95);
    assert_eq!(world.running("/a").len(), 1);
    world.seconds(40);
    assert_eq!(world.running("/a").len(), 2);
    assert_eq!(world.instances("/a").len(), 3);
    world.sim.partition(number, false);
    world.seconds(120);
    assert_eq!(world.running("/a").len(), 2);
    assert_eq!(world.instances("/a").len(), 2);
    assert_eq!(world.tasks_of_master().len(), 2);
}

#[test]
fn tasks_are_taken_up_after_a_restart_and_unknown_ones_are_killed() {
    let mut world = world();
    world.ok(
        "POST",
        "/v2/apps",
        json!({"id": "/a", "cmd": "x", "cpus": 0.1, "instances": 3}),
    );
    world.seconds(3);
    let before = world.tasks_of_master();
    world.kill_marathon();
    world.seconds(60);
    world.start_marathon();
    world.seconds(5);
    assert_eq!(world.tasks_of_master(), before);
    assert_eq!(world.running("/a").len(), 3);

    // With its memory lost, what runs is not known and must end.
    world.kill_marathon();
    let framework_id = world.saved.framework_id.clone();
    world.saved = crate::marathon::core::Durable {
        framework_id,
        ..Default::default()
    };
    world.start_marathon();
    world.seconds(5);
    assert!(world.tasks_of_master().is_empty());
}

#[test]
fn going_back_to_a_version_brings_its_definition() {
    let mut world = world();
    world.ok(
        "POST",
        "/v2/apps",
        json!({"id": "/a", "cmd": "old", "cpus": 0.1}),
    );
    world.seconds(3);
    let first = world.get("/v2/apps/a")["app"]["version"].clone();
    world.ok("PUT", "/v2/apps/a", json!({"cmd": "new"}));
    world.seconds(5);
    let versions = world.get("/v2/apps/a/versions");
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);
    let old = world.get(&format!("/v2/apps/a/versions/{}", first.as_str().unwrap()));
    assert_eq!(old["cmd"], "old");
    world.ok("PUT", "/v2/apps/a", json!({"version": first}));
    world.seconds(5);
    assert_eq!(world.get("/v2/apps/a")["app"]["cmd"], "old");
    let refused = world.call("PUT", "/v2/apps/a", json!({"version": first, "cmd": "x"}));
    assert_eq!(refused.status, 422);
}

#[test]
fn killing_with_scale_takes_that_very_instance() {
    let mut world = world();
    world.ok(
        "POST",
        "/v2/apps",
        json!({"id": "/a", "cmd": "x", "cpus": 0.1, "instances": 3}),
    );
    world.seconds(3);
    let victim = world.running("/a").remove(1);
    let task = victim.task.unwrap().id;
    world.ok(
        "DELETE",
        &format!("/v2/apps/a/tasks/{task}?scale=true"),
        json!(null),
    );
    world.seconds(3);
    assert_eq!(world.get("/v2/apps/a")["app"]["instances"], 2);
    let left = world.running("/a");
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|i| i.id != victim.id));
    let both = world.call(
        "DELETE",
        "/v2/apps/a/tasks?scale=true&wipe=true",
        json!(null),
    );
    assert_eq!(both.status, 400);
}
