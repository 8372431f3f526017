//! Groups: dependencies, dry run, what is left out goes.

use serde_json::json;

use super::world::World;
use crate::sim::SimConfig;

fn group() -> serde_json::Value {
    json!({"id": "/shop", "groups": [
        {"id": "back", "apps": [{"id": "db", "cmd": "x", "cpus": 0.1}]},
        {"id": "front", "dependencies": ["/shop/back"], "apps": [
            {"id": "web", "cmd": "x", "cpus": 0.1, "instances": 2},
            {"id": "cache", "cmd": "x", "cpus": 0.1}]}]})
}

#[test]
fn a_dry_run_says_the_steps_and_does_nothing() {
    let mut world = World::new(SimConfig::default());
    let steps = world.ok("PUT", "/v2/groups/shop?dryRun=true", group());
    assert_eq!(
        steps,
        json!({"steps": [
            {"actions": [
                {"action": "StartApplication", "app": "/shop/back/db"},
                {"action": "StartApplication", "app": "/shop/front/cache"},
                {"action": "StartApplication", "app": "/shop/front/web"}]},
            {"actions": [{"action": "ScaleApplication", "app": "/shop/back/db"}]},
            {"actions": [
                {"action": "ScaleApplication", "app": "/shop/front/cache"},
                {"action": "ScaleApplication", "app": "/shop/front/web"}]}]})
    );
    assert!(world.deployments().is_empty());
    assert_eq!(world.get("/v2/apps")["apps"], json!([]));
}

#[test]
fn a_group_is_made_shown_changed_and_deleted() {
    let mut world = World::new(SimConfig::default());
    let answer = world.call("POST", "/v2/groups", group());
    assert_eq!(answer.status, 201);
    // The front waits for the back.
    assert!(world.running("/shop/front/web").is_empty());
    world.seconds(6);
    assert!(world.deployments().is_empty());
    assert_eq!(world.running("/shop/front/web").len(), 2);
    let document = world.get("/v2/groups/shop");
    assert_eq!(document["groups"][1]["apps"][1]["id"], "/shop/front/web");
    assert_eq!(document["groups"][1]["apps"][1]["tasksRunning"], 2);
    assert_eq!(document["groups"][1]["dependencies"], json!(["/shop/back"]));
    let again = world.call("POST", "/v2/groups", group());
    assert_eq!(again.status, 409);
    let taken = world.call("POST", "/v2/apps", json!({"id": "/shop", "cmd": "x"}));
    assert_eq!(taken.status, 422, "{}", taken.json);

    // An app that is left out is stopped.
    world.ok(
        "PUT",
        "/v2/groups/shop/front",
        json!({"apps": [{"id": "web", "cmd": "x", "cpus": 0.1, "instances": 2}]}),
    );
    world.seconds(4);
    assert_eq!(
        world
            .call("GET", "/v2/apps/shop/front/cache", json!(null))
            .status,
        404
    );
    assert_eq!(world.running("/shop/front/web").len(), 2);
    assert_eq!(world.tasks_of_master().len(), 3);

    world.ok("PUT", "/v2/groups/shop", json!({"scaleBy": 2}));
    world.seconds(4);
    assert_eq!(world.running("/shop/front/web").len(), 4);
    assert_eq!(world.running("/shop/back/db").len(), 2);
    let versions = world.get("/v2/groups/shop/versions");
    assert_eq!(versions.as_array().unwrap().len(), 3);

    world.ok("DELETE", "/v2/groups/shop", json!(null));
    world.seconds(4);
    assert!(world.tasks_of_master().is_empty());
    assert_eq!(
        world.call("GET", "/v2/groups/shop", json!(null)).status,
        404
    );
    assert_eq!(
        world.call("DELETE", "/v2/groups/shop", json!(null)).status,
        404
    );
}

#[test]
fn cyclic_dependencies_and_strangers_are_refused() {
    let mut world = World::new(SimConfig::default());
    let cycle = json!({"id": "/g", "apps": [
        {"id": "a", "cmd": "x", "dependencies": ["b"]},
        {"id": "b", "cmd": "x", "dependencies": ["a"]}]});
    let answer = world.call("PUT", "/v2/groups", cycle);
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.json["details"][0]["errors"][0],
        "Dependency graph has cyclic dependencies."
    );
    let stranger = json!({"id": "/g", "apps": [{"id": "/h/a", "cmd": "x"}]});
    let answer = world.call("PUT", "/v2/groups", stranger);
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json["details"][0]["path"], "/apps(0)/id");
    assert!(world.core.durable().root.apps.is_empty());
}
