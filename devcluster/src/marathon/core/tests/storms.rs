//! Everything at once, many times: whatever happened, in the end there is what was asked for.

use std::time::Duration;

use mesos::pb::TaskState;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::world::World;
use crate::sim::{Plan, SimConfig, Step};

/// Tasks that start slowly and now and then fail.
fn plan() -> Plan {
    let millis = Duration::from_millis;
    Plan::by(
        move |_, rng| {
            let start = Step::new(millis(rng.random_range(10..400)), TaskState::TaskStarting);
            if rng.random_bool(0.15) {
                return vec![start, Step::new(millis(50), TaskState::TaskFailed)];
            }
            let run = Step::new(millis(rng.random_range(0..200)), TaskState::TaskRunning);
            if rng.random_bool(0.1) {
                let lives = Duration::from_secs(rng.random_range(5..60));
                return vec![start, run, Step::new(lives, TaskState::TaskFinished)];
            }
            vec![start, run]
        },
        millis(80),
    )
}

fn storm(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(SimConfig {
        agents: 4,
        seed,
        plan: plan(),
        ..SimConfig::default()
    });
    let apps = ["/a", "/g/b", "/g/c", "/d"];
    let mut up = true;
    for _ in 0..60 {
        let app = apps[rng.random_range(0..apps.len())];
        let agent = rng.random_range(0..4);
        match rng.random_range(0..12) {
            0..=3 if up => {
                let body = json!({"cmd": "x", "cpus": 0.1, "mem": 16, "backoffSeconds": 1,
                    "maxLaunchDelaySeconds": 5,
                    "instances": rng.random_range(0..5),
                    "env": {"V": rng.random_range(0..3).to_string()},
                    "upgradeStrategy": {
                        "minimumHealthCapacity": f64::from(rng.random_range(0..=2)) / 2.0,
                        "maximumOverCapacity": f64::from(rng.random_range(0..=1))}});
                let answer = world.call("PUT", &format!("/v2/apps{app}?force=true"), body);
                assert!(answer.status < 300, "{}", answer.json);
            }
            4 if up => {
                let answer = world.call("DELETE", &format!("/v2/apps{app}"), json!(null));
                assert!([200, 404].contains(&answer.status), "{}", answer.json);
            }
            5 if up => {
                world.call(
                    "POST",
                    &format!("/v2/apps{app}/restart?force=true"),
                    json!(null),
                );
            }
            6 => {
                if up {
                    world.kill_marathon();
                } else {
                    world.start_marathon();
                }
                up = !up;
            }
            7 => world.restart_master(),
            8 => {
                // Long enough for the agent to notice: what the simulation loses in a shorter
                // one TCP would still deliver.
                world.sim.partition(agent, true);
                world.run_for(Duration::from_secs(rng.random_range(80..200)));
                world.sim.partition(agent, false);
            }
            9 => {
                world.sim.kill_agent(agent);
                world.run_for(Duration::from_millis(500));
                world.sim.start_agent(agent);
            }
            10 if up => {
                if let Some(deployment) = world.deployments().first() {
                    let id = deployment["id"].as_str().unwrap().to_owned();
                    world.ok("DELETE", &format!("/v2/deployments/{id}"), json!(null));
                }
            }
            _ => {}
        }
        world.run_for(Duration::from_millis(rng.random_range(5..20_000)));
    }
    if !up {
        world.start_marathon();
    }
    // No task may fail any more that would be replaced just when it is looked at.
    let deadline = world.sim.now() + Duration::from_secs(3600);
    loop {
        world.seconds(5);
        if agrees(&mut world) {
            return;
        }
        if world.sim.now() >= deadline {
            let deployments = world.deployments();
            let tasks = world.tasks_of_master();
            let durable = world.core.durable();
            panic!(
                "seed {seed}: no agreement\ndeployments {deployments:#?}\nmaster {tasks:#?}\n{:#?}\n{:#?}",
                durable.root.apps, durable.instances,
            );
        }
    }
}

/// Every app has its instances, each of its version, and the master runs nothing else.
fn agrees(world: &mut World) -> bool {
    let durable = world.core.durable().clone();
    let mut ours = Vec::new();
    for app in durable.root.apps.values() {
        let instances: Vec<_> = durable.instances_of(&app.id).collect();
        if instances.len() != app.instances as usize || !instances.iter().all(|i| i.runs()) {
            return false;
        }
        ours.extend(
            instances
                .iter()
                .filter_map(|i| i.task.as_ref().map(|t| t.id.to_string())),
        );
    }
    ours.sort();
    durable.deployments.is_empty()
        && durable
            .instances
            .keys()
            .all(|a| durable.root.apps.contains_key(a))
        && ours == world.tasks_of_master()
}

#[test]
fn whatever_happens_in_the_end_there_is_what_was_asked_for() {
    for seed in 0..40 {
        storm(seed);
    }
}
