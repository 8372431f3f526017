//! The executor client against a server that plays the agent, most of the time with what a
//! real one said.

mod support;

use std::time::{Duration, Instant};

use mesos::Error;
use mesos::codec::{self, Encoding};
use mesos::executor::{self, ExecutorConfig, ExecutorEvent, ExecutorHandle, new_update};
use mesos::http::ClientConfig;
use mesos::pb;
use pb::executor::call::Type;
use serde_json::Value;
use support::server::{Received, Server, Stream, soon};
use support::{difference, scenario};
use tokio::sync::mpsc::Receiver;

/// The configuration that an agent at this address gives, with more or other variables.
fn config(agent: &str, more: &[(&str, &str)]) -> ExecutorConfig {
    let variables = [
        ("MESOS_AGENT_ENDPOINT", agent),
        ("MESOS_FRAMEWORK_ID", "F"),
        ("MESOS_EXECUTOR_ID", "E"),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_RECOVERY_TIMEOUT", "15mins"),
        ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5secs"),
    ];
    let lookup = |name: &str| {
        let find = |list: &[(&str, &str)]| {
            let found = list.iter().find(|(key, _)| *key == name)?;
            Some(found.1.to_owned())
        };
        find(more).or_else(|| find(&variables))
    };
    let mut config = ExecutorConfig::from_variables(ClientConfig::default(), lookup)
        .expect("what an agent gives");
    config.encoding = Encoding::Json;
    config
}

async fn next(events: &mut Receiver<ExecutorEvent>) -> ExecutorEvent {
    soon("an event", events.recv())
        .await
        .expect("the client runs")
}

async fn disconnected(events: &mut Receiver<ExecutorEvent>) -> Error {
    match next(events).await {
        ExecutorEvent::Disconnected { error } => error,
        other => panic!("{other:?}"),
    }
}

async fn subscribed(events: &mut Receiver<ExecutorEvent>) {
    match next(events).await {
        ExecutorEvent::Event(event) => {
            assert_eq!(event.r#type(), pb::executor::event::Type::Subscribed);
        }
        other => panic!("{other:?}"),
    }
}

/// Takes the next SUBSCRIBE and lets it succeed.
async fn accept(server: &mut Server) -> (Value, Stream) {
    let request = server.request().await;
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body["type"], "SUBSCRIBE");
    let stream = request
        .stream(&[("Content-Type", "application/json")])
        .await;
    stream.record(SUBSCRIBED).await;
    (body, stream)
}

const SUBSCRIBED: &[u8] = br#"{"type":"SUBSCRIBED","subscribed":{
    "executor_info":{"executor_id":{"value":"E"}},
    "framework_info":{"user":"root","name":"f"},
    "agent_info":{"hostname":"a"}}}"#;

fn same(ours: &Received, recorded: &support::Exchange, encoding: Encoding) {
    assert_eq!(ours.method, "POST");
    assert_eq!(ours.path, recorded.path());
    assert_eq!(ours.header("content-type"), Some(encoding.media_type()));
    assert_eq!(ours.header("accept"), Some(encoding.media_type()));
    assert_eq!(ours.header("mesos-stream-id"), None);
    let body: pb::executor::Call = encoding.decode(&ours.body).expect("a call");
    let (ours, theirs) = (codec::to_json(&body), recorded.json().expect("has a body"));
    assert_eq!(difference("body", &ours, theirs), None);
}

async fn call(
    handle: &ExecutorHandle,
    server: &mut Server,
    call: pb::executor::Call,
) -> (tokio::task::JoinHandle<Result<(), Error>>, Received) {
    let handle = handle.clone();
    let task = tokio::spawn(async move { handle.call(call).await });
    (task, server.request().await)
}

async fn replay(prefix: &str, conn: &str, encoding: Encoding) {
    let scenario = scenario(prefix);
    let mut accepted = scenario
        .accepted()
        .into_iter()
        .map(|(request, ..)| request)
        .filter(|request| request.conn == conn && request.path() == "/api/v1/executor");
    let subscribe = accepted.next().expect("it subscribes");
    let recorded: pb::executor::Call =
        codec::from_json(subscribe.json().expect("has a body")).expect("a call");
    let mut server = Server::start().await;
    let mut config = config(
        &server.address.to_string(),
        &[
            ("MESOS_EXECUTOR_ID", &recorded.executor_id.value),
            ("MESOS_FRAMEWORK_ID", &recorded.framework_id.value),
        ],
    );
    config.encoding = encoding;
    let (handle, mut events) = executor::spawn(config).expect("a configuration");
    let request = server.request().await;
    same(&request, &subscribe, encoding);
    let stream = request
        .stream(&[("Content-Type", encoding.media_type())])
        .await;
    for event in scenario.events(conn) {
        let event: pb::executor::Event = codec::from_json(&event).expect("an event");
        stream.record(&encoding.encode(&event)).await;
        assert!(matches!(next(&mut events).await, ExecutorEvent::Event(_)));
    }
    let mut calls = 0;
    for recorded in accepted {
        let json = recorded.json().expect("has a body");
        if json["type"] == "SUBSCRIBE" {
            break;
        }
        let mut ours: pb::executor::Call = codec::from_json(json).expect("a call");
        ours.executor_id.value.clear();
        ours.framework_id.value.clear();
        let (task, request) = call(&handle, &mut server, ours).await;
        same(&request, &recorded, encoding);
        request.answer("202 Accepted", &[], b"").await;
        soon("the call ends", task)
            .await
            .expect("no panic")
            .expect("accepted");
        calls += 1;
    }
    assert!(calls > 0, "{prefix} has no calls");
}

#[tokio::test]
async fn the_client_sends_what_a_real_agent_accepted() {
    for (prefix, conn) in [("04a-", "executor-e1"), ("12a-", "executor-e1")] {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            replay(prefix, conn, encoding).await;
        }
    }
}

#[tokio::test]
async fn after_an_agent_restart_the_executor_is_back_at_once_with_what_was_unacknowledged() {
    let mut server = Server::start().await;
    let (handle, mut events) =
        executor::spawn(config(&server.address.to_string(), &[])).expect("a configuration");
    let (_, stream) = accept(&mut server).await;
    subscribed(&mut events).await;
    let task = pb::TaskInfo {
        task_id: pb::TaskId {
            value: "t".to_owned(),
        },
        ..Default::default()
    };
    let update = new_update(task.task_id.clone(), pb::TaskState::TaskRunning);
    handle.set_unacknowledged(vec![task], vec![update.clone()]);
    let lost = Instant::now();
    drop(stream);
    disconnected(&mut events).await;
    let mut ours = Vec::new();
    // The agent recovers: it answers 503 three times.
    for _ in 0..3 {
        let request = server.request().await;
        ours.push(lost.elapsed());
        let text = b"Agent has not finished recovery";
        request.answer("503 Service Unavailable", &[], text).await;
    }
    let (body, _stream) = accept(&mut server).await;
    ours.push(lost.elapsed());
    for (index, at) in ours.iter().enumerate() {
        // With room for a busy machine; the interval itself is the machine's own test.
        let limit = Duration::from_millis(250) * (index as u32 + 1) + Duration::from_secs(1);
        assert!(*at < limit, "attempt {index} after {at:?}");
    }
    let subscribe = &body["subscribe"];
    assert_eq!(
        subscribe["unacknowledged_tasks"][0]["task_id"]["value"],
        "t"
    );
    let status = &subscribe["unacknowledged_updates"][0]["status"];
    assert_eq!(status["state"], "TASK_RUNNING");
    let uuid = codec::to_json(&update)["status"]["uuid"].clone();
    assert_eq!(status["uuid"], uuid);
    // The change of the reason was told, once.
    let error = disconnected(&mut events).await;
    assert!(
        error.to_string().contains("not finished recovery"),
        "{error}"
    );
    subscribed(&mut events).await;
}

#[tokio::test]
async fn an_executor_that_replaced_itself_hands_over_with_its_first_subscription() {
    let mut server = Server::start().await;
    let mut config = config(&server.address.to_string(), &[]);
    let update = new_update(pb::TaskId::default(), pb::TaskState::TaskFinished);
    config.unacknowledged.unacknowledged_updates = vec![update];
    let (_handle, mut events) = executor::spawn(config).expect("a configuration");
    let (body, _stream) = accept(&mut server).await;
    let updates = &body["subscribe"]["unacknowledged_updates"];
    assert_eq!(updates[0]["status"]["state"], "TASK_FINISHED");
    subscribed(&mut events).await;
}

#[tokio::test]
async fn without_checkpointing_a_lost_agent_is_the_end() {
    let mut server = Server::start().await;
    let config = config(&server.address.to_string(), &[("MESOS_CHECKPOINT", "0")]);
    let (handle, mut events) = executor::spawn(config).expect("a configuration");
    let (_, stream) = accept(&mut server).await;
    subscribed(&mut events).await;
    drop(stream);
    disconnected(&mut events).await;
    assert!(matches!(
        next(&mut events).await,
        ExecutorEvent::RecoveryTimeout
    ));
    assert!(soon("the client ends", events.recv()).await.is_none());
    let update = new_update(pb::TaskId::default(), pb::TaskState::TaskFailed);
    let call = pb::executor::Call {
        r#type: Some(Type::Update.into()),
        update: Some(update),
        ..Default::default()
    };
    assert!(matches!(handle.call(call).await, Err(Error::Stopped)));
}

#[tokio::test]
async fn an_agent_that_stays_away_for_the_recovery_timeout_is_given_up() {
    let mut server = Server::start().await;
    let more = [("MESOS_RECOVERY_TIMEOUT", "300ms")];
    let config = config(&server.address.to_string(), &more);
    let (_handle, mut events) = executor::spawn(config).expect("a configuration");
    let (_, stream) = accept(&mut server).await;
    subscribed(&mut events).await;
    drop(server);
    drop(stream);
    let ended = async {
        loop {
            match next(&mut events).await {
                ExecutorEvent::Disconnected { .. } => {}
                other => return other,
            }
        }
    };
    assert!(matches!(ended.await, ExecutorEvent::RecoveryTimeout));
}

#[tokio::test]
async fn an_agent_that_does_not_know_the_executor_is_not_asked_for_ever() {
    let mut server = Server::start().await;
    let config = config(&server.address.to_string(), &[]);
    let (_handle, mut events) = executor::spawn(config).expect("a configuration");
    let request = server.request().await;
    request
        .answer("400 Bad Request", &[], b"Executor cannot be found")
        .await;
    let error = disconnected(&mut events).await;
    assert!(
        error.to_string().contains("Executor cannot be found"),
        "{error}"
    );
    assert!(matches!(
        next(&mut events).await,
        ExecutorEvent::RecoveryTimeout
    ));
}

#[tokio::test]
async fn an_update_that_the_agent_would_refuse_is_not_sent() {
    let mut server = Server::start().await;
    let (handle, mut events) =
        executor::spawn(config(&server.address.to_string(), &[])).expect("a configuration");
    let (_, _stream) = accept(&mut server).await;
    subscribed(&mut events).await;
    let good = new_update(pb::TaskId::default(), pb::TaskState::TaskRunning);
    let mut version_7 = good.clone();
    if let Some(uuid) = &mut version_7.status.uuid {
        uuid[6] = 0x70 | (uuid[6] & 0x0f);
    }
    let mut no_uuid = good.clone();
    no_uuid.status.uuid = None;
    let mut no_source = good;
    no_source.status.source = None;
    for update in [None, Some(version_7), Some(no_uuid), Some(no_source)] {
        let call = pb::executor::Call {
            r#type: Some(Type::Update.into()),
            update,
            ..Default::default()
        };
        match handle.call(call).await {
            Err(error @ Error::InvalidCall { .. }) => assert!(!error.retryable()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_agent_with_a_domain_socket_is_reached_there_with_its_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("agent.sock");
    let mut server = Server::unix(&socket);
    let path = socket.to_string_lossy().into_owned();
    let config = config(
        "127.0.0.1:1",
        &[
            ("MESOS_DOMAIN_SOCKET", &path),
            ("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "jwt"),
        ],
    );
    assert!(!format!("{config:?}").contains("jwt"));
    let (_handle, mut events) = executor::spawn(config).expect("a configuration");
    let request = server.request().await;
    assert_eq!(request.header("authorization"), Some("Bearer jwt"));
    let stream = request
        .stream(&[("Content-Type", "application/json")])
        .await;
    stream.record(SUBSCRIBED).await;
    subscribed(&mut events).await;
}
