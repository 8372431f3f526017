//! What is refused, and with what words.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::world::World;
use crate::sim::SimConfig;

fn with(extra: Value) -> Value {
    let mut app = json!({"id": "/a", "cmd": "x"});
    for (key, value) in extra.as_object().unwrap() {
        if value.is_null() {
            app.as_object_mut().unwrap().remove(key);
        } else {
            app[key] = value.clone();
        }
    }
    app
}

#[test]
fn definitions_that_break_rules_are_refused_with_the_words_of_marathon() {
    let mut world = World::new(SimConfig::default());
    let resident = json!({"type": "MESOS", "volumes": [{"containerPath": "data", "mode": "RW", "persistent": {"size": 10}}]});
    let volume = |v: Value| json!({"container": {"type": "MESOS", "volumes": [v]}});
    let mut text = String::new();
    for extra in [
        json!({"cmd": null}),
        json!({"args": ["x"]}),
        json!({"id": "/A"}),
        json!({"id": "/"}),
        json!({"cpus": -1}),
        json!({"cpus": "1"}),
        json!({"unknown": 1}),
        json!({"constraints": [["hostname", "UNIQUE", "x"], ["rack", "NEAR"]]}),
        json!({"healthChecks": [{"protocol": "HTTP", "portIndex": 3}]}),
        json!({"healthChecks": [{"protocol": "MESOS_HTTP"}, {"protocol": "MESOS_TCP"}]}),
        json!({"readinessChecks": [{"portName": "none", "timeoutSeconds": 30}]}),
        json!({"portDefinitions": [{"port": 80, "name": "a"}, {"port": 80, "name": "a"}]}),
        json!({"networks": [{"mode": "host"}], "container": {"type": "MESOS", "portMappings": [{"containerPort": 80}]}}),
        json!({"networks": [{"mode": "container/bridge"}, {"mode": "host"}]}),
        json!({"role": "other"}),
        json!({"acceptedResourceRoles": ["other"]}),
        json!({"acceptedResourceRoles": []}),
        json!({"env": {"A": {"secret": "none"}}}),
        json!({"container": {"type": "DOCKER"}}),
        json!({"container": {"type": "MESOS", "docker": {"image": "x", "privileged": true}}}),
        json!({"upgradeStrategy": {"minimumHealthCapacity": 2}}),
        json!({"unreachableStrategy": {"inactiveAfterSeconds": 20, "expungeAfterSeconds": 10}}),
        json!({"instances": 2, "labels": {"MARATHON_SINGLE_INSTANCE_APP": "true"}}),
        json!({"labels": {"DCOS_MIGRATION_API_VERSION": "v1"}}),
        json!({"gpus": 1}),
        json!({"resourceLimits": {"mem": 1}}),
        json!({"container": resident, "unreachableStrategy": {}}),
        json!({"container": resident, "upgradeStrategy": {"maximumOverCapacity": 1}}),
        volume(json!({"containerPath": "a/b", "persistent": {"size": 0}})),
        volume(
            json!({"containerPath": "a", "mode": "RO", "persistent": {"size": 5, "maxSize": 10}}),
        ),
        volume(json!({"containerPath": "a", "secret": "none"})),
        volume(json!({"containerPath": "a", "external": {"name": "x"}})),
        volume(json!({"containerPath": "a"})),
        json!({"env": {"BIG": "x".repeat(2_000_000)}}),
        json!({"uris": ["a"], "fetch": [{"uri": "b"}]}),
        json!({"ports": [1], "portDefinitions": [{"port": 2}]}),
    ] {
        let mut shown = extra.to_string();
        shown.truncate(110);
        let answer = world.call("POST", "/v2/apps", with(extra));
        let _ = writeln!(text, "{shown}\n  {}", answer.status);
        for detail in answer.json["details"].as_array().into_iter().flatten() {
            for error in detail["errors"].as_array().unwrap() {
                let path = detail["path"].as_str().unwrap();
                let _ = writeln!(text, "  {path}: {}", error.as_str().unwrap());
            }
        }
        if answer.status < 300 {
            let _ = writeln!(text, "  taken");
            world.ok("DELETE", "/v2/apps/a", json!(null));
            world.seconds(3);
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn deprecated_forms_mean_what_they_meant() {
    let mut world = World::new(SimConfig::default());
    let old = json!({"id": "/a", "cmd": "x", "ports": [0, 8080], "uris": ["http://h/a.tgz", "http://h/b"],
        "container": {"type": "DOCKER", "docker": {"image": "i", "network": "HOST"}},
        "tasksRunning": 3, "deployments": [], "user": null});
    let document = world.ok("POST", "/v2/apps", old);
    let mut document = document;
    document["version"] = "[version]".into();
    document["versionInfo"] = "[versions]".into();
    document["deployments"] = "[deployments]".into();
    insta::assert_snapshot!(format!("{document:#}"));
    let bridged = json!({"id": "/b", "cmd": "x",
        "container": {"type": "DOCKER", "docker": {"image": "i", "network": "BRIDGE",
            "portMappings": [{"containerPort": 80}]}}});
    let document = world.ok("POST", "/v2/apps", bridged);
    assert_eq!(document["networks"], json!([{"mode": "container/bridge"}]));
    assert_eq!(document["container"]["portMappings"][0]["hostPort"], 0);
    assert_eq!(
        document["container"]["portMappings"][0]["servicePort"],
        10001
    );
    assert_eq!(document.get("portDefinitions"), None);
}

#[test]
fn what_an_update_leaves_out_stays_or_goes_as_it_says() {
    let mut world = World::new(SimConfig::default());
    let app = json!({"id": "/a", "cmd": "x", "cpus": 0.2, "labels": {"l": "1"}, "env": {"E": "1"}});
    world.ok("POST", "/v2/apps", app);
    world.seconds(3);
    world.ok("PUT", "/v2/apps/a", json!({"env": {"F": "2"}}));
    world.seconds(5);
    let app = world.get("/v2/apps/a")["app"].clone();
    assert_eq!(app["env"], json!({"F": "2"}));
    assert_eq!(app["labels"], json!({"l": "1"}));
    assert_eq!(app["cpus"], 0.2);
    world.ok(
        "PUT",
        "/v2/apps/a?partialUpdate=false",
        json!({"cmd": "y", "cpus": 0.3}),
    );
    world.seconds(5);
    let app = world.get("/v2/apps/a")["app"].clone();
    assert_eq!(app["labels"], json!({}));
    assert_eq!(app.get("env"), None);
    let created = world.call("PUT", "/v2/apps/new", json!({"cmd": "z", "cpus": 0.1}));
    assert_eq!(created.status, 201);
    let patched = world.call("PATCH", "/v2/apps/none", json!({"cmd": "z"}));
    assert_eq!(patched.status, 404);
}
