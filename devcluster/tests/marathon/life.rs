//! Apps from their creation to their end.

use serde_json::json;

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_runs_is_restarted_when_it_dies_and_is_gone_when_deleted() {
    let world = World::start().await;
    let app = json!({
        "id": "/shop/web",
        "cmd": "echo PORT0=$PORT0 PORT_HTTP=$PORT_HTTP HOST=$HOST APP=$MARATHON_APP_ID TASK=$MESOS_TASK_ID; exec sleep 1000",
        "cpus": 0.1,
        "mem": 32,
        "backoffSeconds": 0,
        "portDefinitions": [{"port": 0, "name": "http"}],
    });
    world.run(app).await;
    let first = world.running("/shop/web", 1).await.remove(0);
    let task = world.tasks("/shop/web").await.remove(0);
    let port = task["ports"][0].as_u64().unwrap();
    assert!((31000..32000).contains(&port), "{task}");
    assert_eq!(task["host"], "127.0.0.1");
    assert!(first.starts_with("shop_web.instance-"), "{first}");
    let said = world
        .until("output", async || {
            let text = world.stdout(&first).await;
            text.contains("TASK=").then_some(text)
        })
        .await;
    assert!(
        said.contains(&format!(
            "PORT0={port} PORT_HTTP={port} HOST=127.0.0.1 APP=/shop/web TASK={first}"
        )),
        "{said}"
    );

    // It dies; another one takes its place.
    let killed = world
        .call("DELETE", &format!("/v2/apps/shop/web/tasks/{first}"), None)
        .await;
    assert_eq!(killed.ok()["task"]["id"], first.as_str());
    let second = world
        .until("another task", async || {
            let tasks = world.tasks("/shop/web").await;
            let running = tasks.iter().find(|t| t["state"] == "TASK_RUNNING")?;
            let id = running["id"].as_str().unwrap();
            (id != first).then(|| id.to_owned())
        })
        .await;
    assert_ne!(first, second);

    world.call("DELETE", "/v2/apps/shop/web", None).await.ok();
    world.settled().await;
    assert_eq!(
        world.call("GET", "/v2/apps/shop/web", None).await.status,
        404
    );
    world
        .until("freed resources", async || {
            (world.used_cpus().await == 0.0).then_some(())
        })
        .await;
}

/// A server in a shell would need one: busybox or python may be missing, a port is enough.
const LISTENER: &str = "exec python3 -c \"import os, http.server as s; s.HTTPServer(('', int(os.environ['PORT0'])), s.SimpleHTTPRequestHandler).serve_forever()\"";

fn has_python() -> bool {
    let python = std::process::Command::new("python3")
        .arg("--version")
        .output();
    if python.is_err() {
        eprintln!("skipped: python3 is not there");
    }
    python.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_waits_for_health_before_the_old_task_goes() {
    if !has_python() {
        return;
    }
    let world = World::start().await;
    let app = |version: &str| {
        json!({
            "id": "/web",
            "cmd": LISTENER,
            "cpus": 0.1,
            "mem": 64,
            "env": {"V": version},
            "healthChecks": [{
                "protocol": "HTTP", "path": "/", "gracePeriodSeconds": 30,
                "intervalSeconds": 1, "timeoutSeconds": 2, "maxConsecutiveFailures": 0,
            }],
            "upgradeStrategy": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 1.0},
        })
    };
    world.run(app("1")).await;
    let document = world.get("/v2/apps/web").await;
    assert_eq!(document["app"]["tasksHealthy"], 1, "{document:#}");
    let first = world.running("/web", 1).await;

    let put = world
        .call("PUT", "/v2/apps/web?partialUpdate=false", Some(app("2")))
        .await;
    assert!(put.deployment.is_some());
    put.ok();
    // At no time fewer than one healthy task.
    world
        .until("the end of the deployment", async || {
            let document = world.get("/v2/apps/web").await;
            assert!(
                document["app"]["tasksHealthy"].as_u64() >= Some(1),
                "{document:#}"
            );
            (document["app"]["deployments"] == json!([])).then_some(())
        })
        .await;
    let second = world.running("/web", 1).await;
    assert_ne!(first, second);
    let document = world.get("/v2/apps/web").await;
    assert_eq!(document["app"]["env"]["V"], "2");
    assert_eq!(document["app"]["lastTaskFailure"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_outlive_marathon_and_are_taken_up_again() {
    let mut world = World::start().await;
    world
        .run(json!({"id": "/a", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 2}))
        .await;
    let mut before = world.running("/a", 2).await;
    before.sort();
    let id = world.get("/v2/info").await["frameworkId"].clone();
    world.stop_marathon().await;

    world.start_marathon().await;
    assert_eq!(world.get("/v2/info").await["frameworkId"], id);
    let mut after = world.running("/a", 2).await;
    after.sort();
    assert_eq!(before, after);
    // Still in charge: scaling works.
    world
        .call("PUT", "/v2/apps/a", Some(json!({"instances": 1})))
        .await
        .ok();
    world.settled().await;
    let left = world.running("/a", 1).await;
    assert!(before.contains(&left[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_of_mesos_count_too() {
    let world = World::start().await;
    world
        .run(json!({
            "id": "/checked", "cmd": "touch good; exec sleep 1000", "cpus": 0.1, "mem": 32,
            "healthChecks": [{
                "protocol": "COMMAND", "command": {"value": "test -e good"},
                "intervalSeconds": 1, "delaySeconds": 0, "gracePeriodSeconds": 5,
            }],
        }))
        .await;
    let document = world.get("/v2/apps/checked").await;
    assert_eq!(document["app"]["tasksHealthy"], 1, "{document:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_never_healthy_is_replaced_and_its_deployment_rolled_back() {
    let world = World::start().await;
    world
        .run(json!({"id": "/a", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32}))
        .await;
    let good = world.running("/a", 1).await;
    let bad = json!({
        "healthChecks": [{
            "protocol": "TCP", "portIndex": 0, "gracePeriodSeconds": 0,
            "intervalSeconds": 1, "timeoutSeconds": 1, "maxConsecutiveFailures": 1,
        }],
    });
    let put = world.call("PUT", "/v2/apps/a", Some(bad)).await;
    let deployment = put.deployment.clone().unwrap();
    put.ok();
    world
        .until("a failure", async || {
            let document = world.get("/v2/apps/a").await;
            let failure = &document["app"]["lastTaskFailure"];
            (failure["state"] == "TASK_KILLED").then_some(())
        })
        .await;
    let locked = world
        .call("PUT", "/v2/apps/a", Some(json!({"instances": 2})))
        .await;
    assert_eq!(locked.status, 409);
    assert_eq!(locked.json["deployments"], json!([{"id": deployment}]));

    let rollback = world
        .call("DELETE", &format!("/v2/deployments/{deployment}"), None)
        .await;
    rollback.ok();
    world.settled().await;
    assert_eq!(world.running("/a", 1).await, good);
    let document = world.get("/v2/apps/a").await;
    assert_eq!(document["app"]["healthChecks"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_to_a_persistent_volume_outlives_tasks_and_agents() {
    let mut world = World::with_role("apps").await;
    world
        .run(json!({
            "id": "/db", "cmd": "date +%s%N >> data/log; exec sleep 1000",
            "cpus": 0.1, "mem": 32, "backoffSeconds": 0,
            "container": {"type": "MESOS", "volumes": [
                {"containerPath": "data", "mode": "RW", "persistent": {"size": 16}}]},
        }))
        .await;
    let lines = async |world: &World| {
        let text = world.volume_file("log").unwrap_or_default();
        text.lines().count()
    };
    assert_eq!(lines(&world).await, 1);
    let first = world.running("/db", 1).await.remove(0);
    world
        .call("DELETE", &format!("/v2/apps/db/tasks/{first}"), None)
        .await
        .ok();
    world
        .until("a second task with the same data", async || {
            (lines(&world).await == 2).then_some(())
        })
        .await;
    world.running("/db", 1).await;

    // The agent comes back with its reservations and volumes.
    world.cluster.kill_agent();
    world.cluster.start_agent();
    world.running("/db", 1).await;
    assert_eq!(lines(&world).await, 2);

    world.call("DELETE", "/v2/apps/db", None).await.ok();
    world
        .until("the end of the volume", async || {
            world.volume_file("log").is_none().then_some(())
        })
        .await;
    world
        .until("unreserved resources", async || {
            (world.reserved_cpus().await == 0.0).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_reach_tasks_but_no_document() {
    let world = World::start().await;
    let dir = world.cluster.dir.path().join("secrets/team");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("key"), "open-sesame").unwrap();
    world
        .run(json!({
            "id": "/s", "cmd": "echo \"env=$KEY file=$(cat keys/key)\"; exec sleep 1000",
            "cpus": 0.1, "mem": 32,
            "env": {"KEY": {"secret": "k"}},
            "secrets": {"k": {"source": "/team/key"}},
            "container": {"type": "MESOS", "volumes": [
                {"containerPath": "keys/key", "secret": "k"}]},
        }))
        .await;
    let task = world.running("/s", 1).await.remove(0);
    world
        .until("output", async || {
            let text = world.stdout(&task).await;
            text.contains("env=open-sesame file=open-sesame")
                .then_some(())
        })
        .await;
    for path in ["/v2/apps/s", "/v2/tasks", "/v2/groups"] {
        let document = world.get(path).await.to_string();
        assert!(!document.contains("sesame"), "{path}");
    }
    let state = std::fs::read_to_string(world.work_dir().join("marathon.json")).unwrap();
    assert!(!state.contains("sesame"));

    // One that is not there is a failure that says which.
    let missing = json!({
        "id": "/m", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32,
        "env": {"KEY": {"secret": "k"}}, "secrets": {"k": {"source": "none"}},
    });
    world.call("POST", "/v2/apps", Some(missing)).await.ok();
    let message = world
        .until("a failure", async || {
            let document = world.get("/v2/apps/m").await;
            let failure = document["app"]["lastTaskFailure"]["message"].as_str()?;
            Some(failure.to_owned())
        })
        .await;
    assert!(message.contains("secret 'none'"), "{message}");
}
