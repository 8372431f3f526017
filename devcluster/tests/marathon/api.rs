//! HTTP's side of the API.

use futures::StreamExt as _;
use serde_json::json;

use super::support::PATIENCE;
use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_have_the_status_and_the_words_of_marathon() {
    let world = World::start().await;
    let answer = async |method: &str, path: &str, body| world.call(method, path, body).await;

    let info = world.get("/v2/info").await;
    assert_eq!(info["name"], "marathon");
    assert_eq!(info["marathon_config"]["mesos_role"], "*");
    assert_eq!(info["marathon_config"]["features"], json!(["secrets"]));
    assert!(info["frameworkId"].is_string());
    let leader = world.get("/v2/leader").await;
    assert_eq!(
        format!("http://{}", leader["leader"].as_str().unwrap()),
        world.base
    );

    let missing = answer("GET", "/v2/apps/none", None).await;
    assert_eq!(missing.status, 404);
    assert_eq!(
        missing.json,
        json!({"message": "App '/none' does not exist"})
    );
    let route = answer("GET", "/v3", None).await;
    assert_eq!(route.status, 404);
    assert_eq!(
        answer("POST", "/v2/info", Some(json!({}))).await.status,
        405
    );

    let invalid = answer("POST", "/v2/apps", Some(json!({"id": "/a"}))).await;
    assert_eq!(invalid.status, 422);
    assert_eq!(
        invalid.json,
        json!({"message": "Object is not valid", "details": [{"path": "/", "errors": [
            "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."]}]})
    );
    let unknown = json!({"id": "/a", "cmd": "x", "portDefinitions": [{"prot": 1}]});
    let unknown = answer("POST", "/v2/apps", Some(unknown)).await;
    assert_eq!(unknown.status, 422);
    assert_eq!(unknown.json["message"], "Invalid JSON");
    assert_eq!(
        unknown.json["details"][0]["path"],
        "/portDefinitions(0)/prot"
    );

    let text = world
        .client
        .post(format!("{}/v2/apps", world.base))
        .header("content-type", "application/json")
        .body("{")
        .send()
        .await
        .unwrap();
    assert_eq!(text.status().as_u16(), 400);

    let app = json!({"id": "/a", "cmd": "sleep 100", "cpus": 0.1, "mem": 32});
    let created = answer("POST", "/v2/apps", Some(app.clone())).await;
    assert_eq!(created.status, 201);
    assert_eq!(
        created.json["deployments"][0]["id"],
        json!(created.deployment)
    );
    let twice = answer("POST", "/v2/apps", Some(app)).await;
    assert_eq!(twice.status, 409);
    assert_eq!(twice.json["message"], "An app with id [/a] already exists.");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_told_to_those_who_listen_for_them() {
    let world = World::start().await;
    let url = format!("{}/v2/events", world.base);
    let without = world.client.get(&url).send().await.unwrap();
    assert_eq!(without.status().as_u16(), 405);

    let stream = world
        .client
        .get(format!(
            "{url}?event_type=deployment_success&event_type=event_stream_attached"
        ))
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    let mut chunks = stream.bytes_stream();
    let mut text = String::new();
    let mut until = async |word: &str, text: &mut String| {
        while !text.contains(word) {
            let chunk = tokio::time::timeout(PATIENCE, chunks.next()).await;
            let chunk = chunk.expect("an event in time").unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    until("event: event_stream_attached", &mut text).await;
    world
        .run(json!({"id": "/a", "cmd": "sleep 100", "cpus": 0.1, "mem": 32}))
        .await;
    until("event: deployment_success", &mut text).await;
    assert!(!text.contains("status_update_event"), "{text}");
}
