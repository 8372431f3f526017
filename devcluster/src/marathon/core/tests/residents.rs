//! Apps with persistent volumes.

use mesos::pb;
use serde_json::{Value, json};

use super::world::World;
use crate::master::Answer;
use crate::sim::SimConfig;

fn app(instances: u32) -> Value {
    json!({"id": "/db", "cmd": "x", "cpus": 0.5, "mem": 64, "instances": instances,
        "constraints": [["hostname", "UNIQUE"]],
        "portDefinitions": [{"port": 0}],
        "container": {"type": "MESOS", "volumes": [
            {"containerPath": "data", "mode": "RW", "persistent": {"size": 100}}]}})
}

/// What is reserved and made into volumes on all agents: MiB of disk, and ids.
fn reserved(world: &mut World) -> (f64, Vec<String>) {
    let call = pb::master::Call {
        r#type: Some(pb::master::call::Type::GetAgents as i32),
        ..Default::default()
    };
    let Answer::Response(response) = world.sim.operator(call) else {
        panic!("no answer to GET_AGENTS");
    };
    let mut disk = 0.0;
    let mut volumes = Vec::new();
    for agent in response.get_agents.unwrap().agents {
        for resource in agent.total_resources {
            if resource.reservations.is_empty() {
                continue;
            }
            if resource.name == "disk" {
                disk += resource.scalar.unwrap().value;
            }
            if let Some(persistence) = resource.disk.and_then(|d| d.persistence) {
                volumes.push(persistence.id);
            }
        }
    }
    volumes.sort();
    (disk, volumes)
}

#[test]
fn volumes_are_made_kept_over_failures_and_updates_and_destroyed_with_the_app() {
    let mut world = World::new(SimConfig::default());
    world.ok("POST", "/v2/apps", app(2));
    world.seconds(5);
    assert!(world.deployments().is_empty());
    let before = world.running("/db");
    assert_eq!(before.len(), 2);
    let (disk, volumes) = reserved(&mut world);
    assert_eq!(disk, 200.0);
    assert_eq!(volumes.len(), 2);
    let tasks = world.get("/v2/apps/db/tasks");
    let shown = &tasks["tasks"][0]["localVolumes"][0];
    assert_eq!(shown["containerPath"], "data");
    assert!(volumes.iter().any(|v| shown["persistenceId"] == v.as_str()));

    // Killed: the same instance, on the same agent, with the same volume and port.
    let victim = &before[0];
    let task = victim.task.as_ref().unwrap();
    world.ok(
        "DELETE",
        &format!("/v2/apps/db/tasks/{}", task.id),
        json!(null),
    );
    world.seconds(5);
    let after = world.running("/db");
    let again = after.iter().find(|i| i.id == victim.id).unwrap();
    assert_eq!(again.agent, victim.agent);
    assert_eq!(again.task.as_ref().unwrap().host_ports, task.host_ports);
    assert_ne!(again.task.as_ref().unwrap().id, task.id);

    // Updated: likewise.
    world.ok("PUT", "/v2/apps/db", json!({"env": {"V": "2"}}));
    world.seconds(10);
    assert!(world.deployments().is_empty());
    assert_eq!(world.running("/db").len(), 2);
    assert_eq!(reserved(&mut world).1, volumes);

    // Suspended: nothing runs, the data stays, and is found again.
    world.ok("PUT", "/v2/apps/db", json!({"instances": 0}));
    world.seconds(5);
    assert!(world.tasks_of_master().is_empty());
    assert_eq!(reserved(&mut world).1, volumes);
    world.kill_marathon();
    world.seconds(2);
    world.start_marathon();
    world.ok("PUT", "/v2/apps/db", json!({"instances": 2}));
    world.seconds(10);
    assert_eq!(world.running("/db").len(), 2);
    assert_eq!(reserved(&mut world).1, volumes);

    world.ok("DELETE", "/v2/apps/db", json!(null));
    world.seconds(10);
    assert_eq!(reserved(&mut world), (0.0, Vec::new()));
    assert!(world.core.durable().garbage.is_empty());
    assert!(world.core.durable().instances.is_empty());
}

#[test]
fn data_waits_for_its_agent_and_goes_nowhere_else() {
    let mut world = World::new(SimConfig::default());
    world.ok("POST", "/v2/apps", app(1));
    world.seconds(5);
    let instance = world.running("/db").remove(0);
    let host = instance.agent.as_ref().unwrap().host.clone();
    let number = host.trim_start_matches("agent").parse().unwrap();
    world.sim.partition(number, true);
    world.seconds(200);
    assert_eq!(world.instances("/db").len(), 1);
    assert!(world.running("/db").is_empty());
    world.sim.partition(number, false);
    world.seconds(120);
    let back = world.running("/db").remove(0);
    assert_eq!(back.id, instance.id);
    assert_eq!(back.agent, instance.agent);
}

#[test]
fn wiping_destroys_the_data_and_begins_anew() {
    let mut world = World::new(SimConfig::default());
    world.ok("POST", "/v2/apps", app(1));
    world.seconds(5);
    let (_, before) = reserved(&mut world);
    let task = world.running("/db").remove(0).task.unwrap().id;
    world.ok(
        "DELETE",
        &format!("/v2/apps/db/tasks/{task}?wipe=true"),
        json!(null),
    );
    world.seconds(10);
    let (disk, after) = reserved(&mut world);
    assert_eq!(disk, 100.0);
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
    assert_eq!(world.running("/db").len(), 1);
}

#[test]
fn what_is_reserved_cannot_be_changed() {
    let mut world = World::new(SimConfig::default());
    world.ok("POST", "/v2/apps", app(1));
    world.seconds(5);
    let more = world.call("PUT", "/v2/apps/db", json!({"cpus": 1}));
    assert_eq!(more.status, 422);
    assert_eq!(more.json["details"][0]["path"], "/cpus");
    let volume = json!({"container": {"type": "MESOS", "volumes": [
        {"containerPath": "data", "mode": "RW", "persistent": {"size": 200}}]}});
    let larger = world.call("PUT", "/v2/apps/db", volume);
    assert_eq!(larger.status, 422);
    assert_eq!(
        larger.json["details"][0]["errors"][0],
        "Persistent volumes can not be changed!"
    );
    world.ok("PUT", "/v2/apps/db", json!({"instances": 2}));
}
