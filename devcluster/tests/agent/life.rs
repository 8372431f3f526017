//! Tasks and executors from their launch to their end.

use std::sync::{Arc, Mutex};

use mesos::pb;
use pb::TaskState as S;
use pb::task_status::{Reason, Source};

use super::support::{
    Cluster, Framework, Target, command_task, eventually, executor_task, sandbox,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_task_runs_and_its_end_is_told() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework
        .launch(command_task("c1", "echo hello; env | sort"))
        .await;
    let starting = framework.update().await;
    assert_eq!(starting.state(), S::TaskStarting);
    assert_eq!(starting.source(), Source::Executor);
    assert_eq!(starting.executor_id.as_ref().unwrap().value, "c1");
    let container = starting.container_status.unwrap();
    assert!(container.executor_pid.unwrap() > 1);
    let ip = &container.network_infos[0].ip_addresses[0];
    assert_eq!(ip.ip_address(), "127.0.0.1");
    assert_eq!(framework.update().await.state(), S::TaskRunning);
    let finished = framework.update().await;
    assert_eq!(finished.state(), S::TaskFinished);
    assert_eq!(finished.message(), "Command exited with status 0");

    let stdout = std::fs::read_to_string(sandbox(&cluster, "c1").join("stdout")).unwrap();
    assert!(stdout.starts_with("hello\n"), "{stdout}");
    for variable in [
        "MESOS_ALLOCATION_ROLE=r1",
        "MESOS_CHECKPOINT=1",
        "MESOS_EXECUTOR_ID=c1",
        "MESOS_RECOVERY_TIMEOUT=15mins",
    ] {
        assert!(stdout.contains(variable), "{variable}: {stdout}");
    }
    let endpoint = format!("MESOS_AGENT_ENDPOINT={}", cluster.agent_address);
    assert!(stdout.contains(&endpoint), "{stdout}");

    // The same through the agent's HTTP, by the virtual path.
    let id = &framework.id.value;
    let path = format!("/frameworks/{id}/executors/c1/runs/latest/stdout");
    let read = cluster
        .get(&format!("/files/read?path={path}&offset=0&length=6"))
        .await;
    assert_eq!(read, serde_json::json!({"data": "hello\n", "offset": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_says_how() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    for (id, command, words) in [
        ("exit3", "exit 3", "Command exited with status 3"),
        (
            "signal",
            "kill -9 $$",
            "Command terminated with signal Killed",
        ),
    ] {
        framework.launch(command_task(id, command)).await;
        // An update may come again while its acknowledgement is on its way.
        let failed = loop {
            let status = framework.update_to(S::TaskFailed).await;
            if status.task_id.value == id {
                break status;
            }
        };
        assert_eq!(failed.message(), words);
        assert!(failed.reason.is_none());
    }
    let mut absent = command_task("absent", "");
    let command = absent.command.as_mut().unwrap();
    command.shell = Some(false);
    command.value = Some("/no/such/file".into());
    framework.launch(absent).await;
    let failed = framework.update_to(S::TaskFailed).await;
    assert_eq!(failed.message(), "Command exited with status 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_fetched_fails_the_launch() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let mut task = command_task("t", "true");
    task.command.as_mut().unwrap().uris = vec![pb::command_info::Uri {
        value: "http://127.0.0.1:1/nothing".into(),
        ..Default::default()
    }];
    framework.launch(task).await;
    let failed = framework.update().await;
    assert_eq!(failed.state(), S::TaskFailed);
    assert_eq!(failed.source(), Source::Agent);
    assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
    let words = failed.message();
    assert!(
        words.starts_with("Failed to launch container: Failed to fetch all URIs"),
        "{words}"
    );
    assert!(words.ends_with("exited with status 1"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_killed_and_one_that_will_not_die_is_killed_hard() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(command_task("soft", "sleep 1000")).await;
    framework.update_to(S::TaskRunning).await;
    framework.kill("soft").await;
    let killed = framework.update_to(S::TaskKilled).await;
    assert_eq!(
        killed.message(),
        "Command terminated with signal Terminated"
    );

    let mut task = command_task("hard", "trap '' TERM; while :; do sleep 0.1; done");
    task.kill_policy = Some(pb::KillPolicy {
        grace_period: Some(pb::DurationInfo {
            nanoseconds: 300_000_000,
        }),
    });
    framework.launch(task).await;
    framework.update_to(S::TaskRunning).await;
    framework.kill("hard").await;
    let killed = framework.update_to(S::TaskKilled).await;
    assert_eq!(killed.message(), "Command terminated with signal Killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_has_several_tasks_and_talks_with_its_framework() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(executor_task("t1", "e1", &[])).await;
    let running = framework.update_to(S::TaskRunning).await;
    assert_eq!(running.message(), "up");
    assert!(running.executor_id.is_none());
    let target = Target::of(&running, "e1");
    framework.launch(executor_task("t2", "e1", &[])).await;
    let second = framework.update_to(S::TaskRunning).await;
    assert_eq!(second.task_id.value, "t2");
    assert_eq!(Target::of(&second, "e1").container, target.container);
    framework.ask(&target, "echo").await;

    let containers = cluster.get("/containers").await;
    assert_eq!(containers[0]["container_id"], target.container.as_str());
    assert_eq!(containers[0]["statistics"]["cpus_soft_limit"], 0.3);
    let state = cluster.get("/slave(1)/state").await;
    let tasks = &state["frameworks"][0]["executors"][0]["tasks"];
    assert_eq!(tasks.as_array().unwrap().len(), 2);

    framework.kill("t1").await;
    let killed = framework.update_to(S::TaskKilled).await;
    assert_eq!(killed.message(), "killed by executor");
    framework.shut_down_executor(&target).await;
    let killed = framework.update_to(S::TaskKilled).await;
    assert_eq!(killed.message(), "executor shutting down");
    let failure = framework.failure().await;
    assert_eq!(
        (failure.executor_id, failure.status),
        (Some(target.executor), Some(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_ends_is_reported_before_its_tasks_fail() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(executor_task("t1", "e1", &[])).await;
    let target = Target::of(&framework.update_to(S::TaskRunning).await, "e1");
    framework.message(&target, "exit 3").await;
    let failure = framework.failure().await;
    assert_eq!(failure.status, Some(3 << 8));
    let failed = framework.update().await;
    assert_eq!(failed.state(), S::TaskFailed);
    assert_eq!(failed.source(), Source::Agent);
    assert_eq!(failed.reason(), Reason::ExecutorTerminated);
    assert_eq!(failed.message(), "Executor terminated");
    assert_eq!(failed.executor_id, Some(target.executor));
    assert!(failed.container_status.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_does_not_register_in_time_is_ended() {
    let cluster = Cluster::start(&["--executor-registration-timeout=500ms"]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework
        .launch(executor_task("t1", "e1", &[("NEVER_SUBSCRIBE", "1")]))
        .await;
    let failure = framework.failure().await;
    assert_eq!(failure.status, Some(9));
    let failed = framework.update().await;
    assert_eq!(failed.reason(), Reason::ExecutorRegistrationTimeout);
    assert_eq!(failed.message(), "Executor did not register within 500ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_before_the_executor_registers_ends_both() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework
        .launch(executor_task("t1", "e1", &[("SUBSCRIBE_AFTER", "1500")]))
        .await;
    framework.kill("t1").await;
    let killed = framework.update().await;
    assert_eq!(killed.state(), S::TaskKilled);
    assert_eq!(killed.reason(), Reason::TaskKilledDuringLaunch);
    assert_eq!(killed.message(), "Killed before delivery to the executor");
    // It gets SHUTDOWN when it subscribes, and ends by itself.
    assert_eq!(framework.failure().await.status, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_ignores_shutdown_is_killed_after_its_own_grace() {
    let cluster = Cluster::start(&["--executor-shutdown-grace-period=1hrs"]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let mut task = executor_task("t1", "e1", &[]);
    task.executor.as_mut().unwrap().shutdown_grace_period = Some(pb::DurationInfo {
        nanoseconds: 300_000_000,
    });
    framework.launch(task).await;
    let target = Target::of(&framework.update_to(S::TaskRunning).await, "e1");
    framework.ask(&target, "deaf").await;
    framework.shut_down_executor(&target).await;
    assert_eq!(framework.failure().await.status, Some(9));
    let failed = framework.update().await;
    assert_eq!(failed.reason(), Reason::ExecutorTerminated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_are_reported_and_a_task_that_takes_too_long_fails() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let mut task = command_task("checked", "sleep 1000");
    let command = |value: &str| pb::CommandInfo {
        value: Some(value.to_owned()),
        ..Default::default()
    };
    task.health_check = Some(pb::HealthCheck {
        r#type: Some(pb::health_check::Type::Command as i32),
        command: Some(command("true")),
        delay_seconds: Some(0.0),
        ..Default::default()
    });
    task.max_completion_time = Some(pb::DurationInfo {
        nanoseconds: 1_500_000_000,
    });
    framework.launch(task).await;
    framework.update_to(S::TaskRunning).await;
    let healthy = framework.update().await;
    assert_eq!(healthy.reason(), Reason::TaskHealthCheckStatusUpdated);
    assert_eq!(healthy.healthy, Some(true));
    let failed = framework.update_to(S::TaskFailed).await;
    assert_eq!(failed.reason(), Reason::MaxCompletionTimeReached);
    assert_eq!(
        failed.message(),
        "Command terminated with signal Terminated"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_uri_is_fetched_once_for_all_containers() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let files =
        axum::Router::new().fallback(move |method: axum::http::Method, uri: axum::http::Uri| {
            log.lock().unwrap().push(format!("{method} {}", uri.path()));
            async { "#!/bin/sh\necho fetched\n" }
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, files).into_future());

    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    for id in ["one", "two"] {
        let mut task = command_task(id, "./script && cat sub/plain");
        let uri = |path: &str| pb::command_info::Uri {
            value: format!("http://{address}/{path}"),
            ..Default::default()
        };
        task.command.as_mut().unwrap().uris = vec![
            pb::command_info::Uri {
                executable: Some(true),
                cache: Some(true),
                ..uri("script")
            },
            pb::command_info::Uri {
                output_file: Some("sub/plain".into()),
                ..uri("other")
            },
        ];
        framework.launch(task).await;
        framework.update_to(S::TaskFinished).await;
        let stdout = std::fs::read_to_string(sandbox(&cluster, id).join("stdout")).unwrap();
        assert_eq!(stdout, "fetched\n#!/bin/sh\necho fetched\n");
    }
    assert_eq!(
        *asked.lock().unwrap(),
        ["HEAD /script", "GET /script", "GET /other", "GET /other"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_cannot_do_fails_the_launch_by_name() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let mut task = command_task("t", "true");
    task.container = Some(pb::ContainerInfo {
        r#type: pb::container_info::Type::Mesos as i32,
        mesos: Some(pb::container_info::MesosInfo {
            image: Some(pb::Image {
                r#type: pb::image::Type::Docker as i32,
                docker: Some(pb::image::Docker {
                    name: "busybox".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    });
    framework.launch(task).await;
    let failed = framework.update().await;
    assert_eq!(failed.reason(), Reason::ContainerLaunchFailed);
    let words = failed.message();
    assert!(
        words.contains("this agent runs no images; start it with --image-providers"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_grows_too_long_is_cut_while_the_task_runs() {
    let cluster = Cluster::start(&[]).await;
    let mut framework = Framework::subscribe(&cluster).await;
    let command = "head -c 12000000 /dev/zero; echo before; while :; do sleep 1; done";
    framework.launch(command_task("loud", command)).await;
    framework.update_to(S::TaskRunning).await;
    let sandbox = sandbox(&cluster, "loud");
    let size = |name: &str| std::fs::metadata(sandbox.join(name)).map_or(0, |m| m.len());
    eventually("the log is cut", || {
        size("stdout.1") > 10 << 20 && size("stdout") < 2 << 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_show_the_token_that_the_agent_gave_them_where_it_wants_one() {
    let cluster = Cluster::start_with(|dir| {
        let key = dir.join("key");
        std::fs::write(&key, "k".repeat(40)).unwrap();
        vec![
            "--authenticate-http-executors".to_owned(),
            format!("--executor-secret-key={}", key.display()),
        ]
    })
    .await;
    let mut framework = Framework::subscribe(&cluster).await;
    framework.launch(command_task("c1", "env | sort")).await;
    framework.update_to(S::TaskFinished).await;
    let stdout = std::fs::read_to_string(sandbox(&cluster, "c1").join("stdout")).unwrap();
    assert!(!stdout.contains("AUTHENTICATION_TOKEN"), "{stdout}");
    let call = serde_json::json!({
        "type": "SUBSCRIBE", "subscribe": {},
        "framework_id": {"value": framework.id.value}, "executor_id": {"value": "c1"},
    });
    let answer = super::support::client()
        .post(format!("http://{}/api/v1/executor", cluster.agent_address))
        .header("content-type", "application/json")
        .body(call.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    let wanted = "Bearer realm=\"mesos-agent-executor\"";
    assert_eq!(answer.headers()["www-authenticate"], wanted);
}
