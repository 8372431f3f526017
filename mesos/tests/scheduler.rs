//! The scheduler client against a server that plays the master, most of the time with what a
//! real one said.

mod support;

use std::time::Duration;

use mesos::codec::{self, Encoding};
use mesos::http::{ClientConfig, Credentials, Secret, SecretSource};
use mesos::master::MasterUrl;
use mesos::pb;
use mesos::recordio::RecordIoError;
use mesos::scheduler::{self, SchedulerConfig, SchedulerEvent, SchedulerHandle};
use mesos::{Error, Refusal};
use pb::scheduler::call::Type;
use serde_json::{Value, json};
use support::server::{Received, Server, Stream, nobody, soon};
use support::{difference, scenario};
use tokio::sync::mpsc::Receiver;

fn config(masters: &str) -> SchedulerConfig {
    let framework = pb::FrameworkInfo {
        user: "root".to_owned(),
        name: "test".to_owned(),
        roles: vec!["a".to_owned()],
        ..Default::default()
    };
    let master = MasterUrl::parse(masters).expect("addresses");
    let mut config = SchedulerConfig::new(master, framework, ClientConfig::default());
    config.encoding = Encoding::Json;
    config.timing.backoff = Duration::from_millis(10);
    config
}

fn subscribed(heartbeat: f64) -> Vec<u8> {
    json!({"type": "SUBSCRIBED", "subscribed": {
        "framework_id": {"value": "F"}, "heartbeat_interval_seconds": heartbeat}})
    .to_string()
    .into_bytes()
}

async fn next(events: &mut Receiver<SchedulerEvent>) -> SchedulerEvent {
    soon("an event", events.recv())
        .await
        .expect("the client runs")
}

async fn disconnected(events: &mut Receiver<SchedulerEvent>) -> (Error, Duration) {
    match next(events).await {
        SchedulerEvent::Disconnected { error, retry_in } => (error, retry_in),
        other => panic!("{other:?}"),
    }
}

async fn fatal(events: &mut Receiver<SchedulerEvent>) -> Error {
    match next(events).await {
        SchedulerEvent::Fatal { error } => error,
        other => panic!("{other:?}"),
    }
}

/// Takes the next SUBSCRIBE and lets it succeed.
async fn accept(server: &mut Server, stream_id: &str, heartbeat: f64) -> (Value, Stream) {
    let request = server.request().await;
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body["type"], "SUBSCRIBE");
    let stream = request.stream(&head(stream_id, Encoding::Json)).await;
    stream.record(&subscribed(heartbeat)).await;
    (body, stream)
}

fn head(stream_id: &str, encoding: Encoding) -> [(&'static str, &str); 2] {
    [
        ("Content-Type", encoding.media_type()),
        ("Mesos-Stream-Id", stream_id),
    ]
}

async fn connected(events: &mut Receiver<SchedulerEvent>) {
    assert!(matches!(
        next(events).await,
        SchedulerEvent::Connected { .. }
    ));
    match next(events).await {
        SchedulerEvent::Event(event) => {
            assert_eq!(event.r#type(), pb::scheduler::event::Type::Subscribed);
        }
        other => panic!("{other:?}"),
    }
}

fn revive() -> pb::scheduler::Call {
    pb::scheduler::Call {
        r#type: Some(Type::Revive.into()),
        ..Default::default()
    }
}

/// A call in the background, and the request that it makes.
async fn call(
    handle: &SchedulerHandle,
    server: &mut Server,
    call: pb::scheduler::Call,
) -> (tokio::task::JoinHandle<Result<(), Error>>, Received) {
    let handle = handle.clone();
    let task = tokio::spawn(async move { handle.call(call).await });
    (task, server.request().await)
}

/// Replays a recorded scheduler: our client must send what Mesos accepted.
async fn replay(prefix: &str, encoding: Encoding) {
    let scenario = scenario(prefix);
    let mut accepted = scenario.accepted().into_iter().filter(|(request, ..)| {
        request.conn == "scheduler" && request.path() == "/api/v1/scheduler"
    });
    let (subscribe, recorded_head, _) = accepted.next().expect("it subscribes");
    let stream_id = recorded_head.header("Mesos-Stream-Id").expect("has one");
    let recorded: pb::scheduler::Call =
        codec::from_json(subscribe.json().expect("has a body")).expect("a call");
    let recorded = recorded.subscribe.expect("it subscribes");

    let mut server = Server::start().await;
    let mut config = config(&server.address.to_string());
    config.encoding = encoding;
    config.framework = recorded.framework_info;
    config.suppressed_roles = recorded.suppressed_roles;
    let (handle, mut events) = scheduler::spawn(config).expect("a configuration");
    let request = server.request().await;
    same(&request, &subscribe, encoding, None);
    let stream = request.stream(&head(stream_id, encoding)).await;
    let said: Vec<Value> = scenario.events("scheduler");
    let heard = said.iter().filter(|e| e["type"] != "HEARTBEAT").count();
    for event in &said {
        let event: pb::scheduler::Event = codec::from_json(event).expect("an event");
        stream.record(&encoding.encode(&event)).await;
    }
    assert!(matches!(
        next(&mut events).await,
        SchedulerEvent::Connected { .. }
    ));
    for _ in 0..heard {
        assert!(matches!(next(&mut events).await, SchedulerEvent::Event(_)));
    }
    let mut calls = 0;
    for (recorded, ..) in accepted {
        // After a first subscription there may be others.
        let json = recorded.json().expect("has a body");
        if json["type"] == "SUBSCRIBE" || recorded.header("Mesos-Stream-Id") != Some(stream_id) {
            break;
        }
        let mut ours: pb::scheduler::Call = codec::from_json(json).expect("a call");
        ours.framework_id = None;
        let (task, request) = call(&handle, &mut server, ours).await;
        same(&request, &recorded, encoding, Some(stream_id));
        request.answer("202 Accepted", &[], b"").await;
        soon("the call ends", task)
            .await
            .expect("no panic")
            .expect("accepted");
        calls += 1;
    }
    assert!(calls > 0, "{prefix} has no calls");
}

/// Compares a request of ours with a recorded one, which was JSON.
fn same(
    ours: &Received,
    recorded: &support::Exchange,
    encoding: Encoding,
    stream_id: Option<&str>,
) {
    assert_eq!(ours.method, "POST");
    assert_eq!(ours.path, recorded.path());
    assert_eq!(ours.header("content-type"), Some(encoding.media_type()));
    assert_eq!(ours.header("accept"), Some(encoding.media_type()));
    assert_eq!(ours.header("mesos-stream-id"), stream_id);
    assert_eq!(
        ours.header("mesos-stream-id"),
        recorded.header("mesos-stream-id")
    );
    let body: pb::scheduler::Call = encoding.decode(&ours.body).expect("a call");
    assert_eq!(
        difference(
            "body",
            &codec::to_json(&body),
            recorded.json().expect("has a body")
        ),
        None
    );
}

#[tokio::test]
async fn the_client_sends_what_a_real_master_accepted() {
    for prefix in ["01-", "02a-", "03a-", "06-", "07-"] {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            replay(prefix, encoding).await;
        }
    }
}

#[tokio::test]
async fn a_redirect_leads_to_the_leader_and_calls_go_there() {
    let mut follower = Server::start().await;
    let mut leader = Server::start().await;
    let (handle, mut events) =
        scheduler::spawn(config(&follower.address.to_string())).expect("a configuration");
    let location = format!("//{}/api/v1/scheduler", leader.address);
    let request = follower.request().await;
    request
        .answer("307 Temporary Redirect", &[("Location", &location)], b"")
        .await;
    let (_, _stream) = accept(&mut leader, "s1", 15.0).await;
    connected(&mut events).await;
    let (task, request) = call(&handle, &mut leader, revive()).await;
    assert_eq!(request.header("mesos-stream-id"), Some("s1"));
    request.answer("202 Accepted", &[], b"").await;
    soon("the call ends", task)
        .await
        .expect("no panic")
        .expect("accepted");
}

#[tokio::test]
async fn masters_of_a_list_are_tried_one_after_the_other() {
    let mut second = Server::start().await;
    let masters = format!("{},{}", nobody().await, second.address);
    let (_handle, mut events) = scheduler::spawn(config(&masters)).expect("a configuration");
    let (_, _stream) = accept(&mut second, "s1", 15.0).await;
    connected(&mut events).await;
}

#[tokio::test]
async fn after_a_broken_stream_the_framework_comes_back_under_its_id() {
    let mut server = Server::start().await;
    let (handle, mut events) =
        scheduler::spawn(config(&server.address.to_string())).expect("a configuration");
    let (first, stream) = accept(&mut server, "s1", 15.0).await;
    assert!(first.get("framework_id").is_none(), "{first}");
    connected(&mut events).await;
    drop(stream);
    let (error, retry_in) = disconnected(&mut events).await;
    assert!(error.retryable(), "{error}");
    assert!(retry_in <= Duration::from_millis(10), "{retry_in:?}");
    assert!(matches!(
        handle.call(revive()).await,
        Err(Error::NotSubscribed)
    ));
    let (again, _stream) = accept(&mut server, "s2", 15.0).await;
    assert_eq!(again["framework_id"]["value"], "F");
    assert_eq!(again["subscribe"]["framework_info"]["id"]["value"], "F");
    connected(&mut events).await;
    let (_task, request) = call(&handle, &mut server, revive()).await;
    assert_eq!(request.header("mesos-stream-id"), Some("s2"));
}

#[tokio::test]
async fn what_was_suppressed_and_updated_holds_for_the_next_subscription() {
    let mut server = Server::start().await;
    let (handle, mut events) =
        scheduler::spawn(config(&server.address.to_string())).expect("a configuration");
    let (_, stream) = accept(&mut server, "s1", 15.0).await;
    connected(&mut events).await;
    let info = pb::FrameworkInfo {
        user: "root".to_owned(),
        name: "renamed".to_owned(),
        ..Default::default()
    };
    let update = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.update_framework(info).await })
    };
    let request = server.request().await;
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body["type"], "UPDATE_FRAMEWORK");
    assert_eq!(body["framework_id"]["value"], "F");
    assert_eq!(
        body["update_framework"]["framework_info"]["id"]["value"],
        "F"
    );
    // Mesos answers this one call with 200.
    request.answer("200 OK", &[], b"").await;
    soon("the call ends", update)
        .await
        .expect("no panic")
        .expect("accepted");
    drop(stream);
    disconnected(&mut events).await;
    let (again, _stream) = accept(&mut server, "s2", 15.0).await;
    assert_eq!(again["subscribe"]["framework_info"]["name"], "renamed");
}

#[tokio::test]
async fn an_error_event_ends_the_client_and_says_what_it_means() {
    for (message, refusal) in [
        ("Framework failed over", Refusal::FailedOver),
        ("Framework has been removed", Refusal::Removed),
        (
            "Not authorized to register framework  with roles { r9 }",
            Refusal::Unauthorized,
        ),
        (
            "Changing framework's principal is not allowed.",
            Refusal::Invalid,
        ),
    ] {
        let mut server = Server::start().await;
        let (handle, mut events) =
            scheduler::spawn(config(&server.address.to_string())).expect("a configuration");
        let stream = server
            .request()
            .await
            .stream(&head("s1", Encoding::Json))
            .await;
        let event = json!({"type": "ERROR", "error": {"message": message}});
        stream.record(event.to_string().as_bytes()).await;
        match fatal(&mut events).await {
            Error::Refused {
                refusal: found,
                message: text,
            } => {
                assert_eq!((found, text.as_str()), (refusal, message));
            }
            other => panic!("{other}"),
        }
        assert!(soon("the client ends", events.recv()).await.is_none());
        stream.closed().await;
        assert!(matches!(handle.call(revive()).await, Err(Error::Stopped)));
    }
}

#[tokio::test]
async fn a_master_that_falls_silent_is_left() {
    let mut server = Server::start().await;
    let mut config = config(&server.address.to_string());
    config.timing.missed_heartbeats = 2;
    let (_handle, mut events) = scheduler::spawn(config).expect("a configuration");
    let (_, stream) = accept(&mut server, "s1", 0.1).await;
    connected(&mut events).await;
    stream.record(br#"{"type":"HEARTBEAT"}"#).await;
    match disconnected(&mut events).await.0 {
        Error::HeartbeatsMissed { silence, .. } => {
            assert!(silence >= Duration::from_millis(200), "{silence:?}");
        }
        other => panic!("{other}"),
    }
    stream.closed().await;
    let (_, _stream) = accept(&mut server, "s2", 15.0).await;
    connected(&mut events).await;
}

#[tokio::test]
async fn a_recovering_master_is_tried_again_and_a_refused_call_is_not() {
    let mut server = Server::start().await;
    let (_handle, mut events) =
        scheduler::spawn(config(&server.address.to_string())).expect("a configuration");
    let text = b"Master has not finished recovery";
    let request = server.request().await;
    request.answer("503 Service Unavailable", &[], text).await;
    let (error, _) = disconnected(&mut events).await;
    assert!(error.retryable());
    assert!(
        error.to_string().contains("has not finished recovery"),
        "{error}"
    );
    let request = server.request().await;
    request
        .answer("400 Bad Request", &[], b"Failed to validate")
        .await;
    let error = fatal(&mut events).await;
    assert!(!error.retryable(), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_told_and_tried_again_only_after_the_longest_wait() {
    let mut server = Server::start().await;
    let (_handle, mut events) =
        scheduler::spawn(config(&server.address.to_string())).expect("a configuration");
    let request = server.request().await;
    request
        .answer("401 Unauthorized", &[], b"401 Unauthorized.")
        .await;
    let (error, retry_in) = disconnected(&mut events).await;
    assert!(!error.retryable(), "{error}");
    assert!(retry_in >= Duration::from_secs(7), "{retry_in:?}");
}

#[tokio::test]
async fn a_subscription_that_only_we_see_is_renewed() {
    let mut server = Server::start().await;
    let (handle, mut events) =
        scheduler::spawn(config(&server.address.to_string())).expect("a configuration");
    let (_, stream) = accept(&mut server, "s1", 15.0).await;
    connected(&mut events).await;
    let (task, request) = call(&handle, &mut server, revive()).await;
    request
        .answer("403 Forbidden", &[], b"Framework is not subscribed")
        .await;
    let error = soon("the call ends", task)
        .await
        .expect("no panic")
        .expect_err("refused");
    assert!(error.says_not_subscribed() && error.retryable(), "{error}");
    disconnected(&mut events).await;
    stream.closed().await;
    let (_, _stream) = accept(&mut server, "s2", 15.0).await;
    connected(&mut events).await;
}

#[tokio::test]
async fn a_stream_that_is_not_recordio_is_left_with_a_reason() {
    let mut server = Server::start().await;
    let mut config = config(&server.address.to_string());
    config.max_event_bytes = 4096;
    let (_handle, mut events) = scheduler::spawn(config).expect("a configuration");
    let (_, stream) = accept(&mut server, "s1", 15.0).await;
    connected(&mut events).await;
    stream.chunk(b"<html>").await;
    let (error, _) = disconnected(&mut events).await;
    assert!(
        matches!(&error, Error::RecordIo(RecordIoError::BadLength { found }) if found == "<html>"),
        "{error}"
    );
    let (_, stream) = accept(&mut server, "s2", 15.0).await;
    connected(&mut events).await;
    stream.chunk(b"999999999999\n").await;
    let (error, _) = disconnected(&mut events).await;
    assert!(
        matches!(
            error,
            Error::RecordIo(RecordIoError::TooLong { limit: 4096, .. })
        ),
        "{error}"
    );
    let (_, stream) = accept(&mut server, "s3", 15.0).await;
    connected(&mut events).await;
    stream.chunk(b"100\n{\"type\"").await;
    stream.end().await;
    let (error, _) = disconnected(&mut events).await;
    assert!(
        matches!(
            error,
            Error::RecordIo(RecordIoError::Truncated { missing: 93 })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn secrets_go_into_every_request_and_into_no_message() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    std::fs::write(&file, "s3cret\n").expect("written");
    let mut server = Server::start().await;
    let mut config = config(&server.address.to_string());
    config.client.credentials = Credentials::Basic {
        principal: "golden".to_owned(),
        secret: SecretSource::File(file.clone()),
    };
    assert!(!format!("{config:?}").contains("s3cret"));
    let (handle, mut events) = scheduler::spawn(config).expect("a configuration");
    assert!(!format!("{handle:?}").contains("s3cret"));
    let request = server.request().await;
    // As recorded in scenario 14a.
    let basic = "Basic Z29sZGVuOnMzY3JldA==";
    assert_eq!(request.header("authorization"), Some(basic));
    let stream = request.stream(&head("s1", Encoding::Json)).await;
    stream.record(&subscribed(15.0)).await;
    connected(&mut events).await;
    std::fs::write(&file, "other").expect("written");
    let (_task, request) = call(&handle, &mut server, revive()).await;
    assert_eq!(
        request.header("authorization"),
        Some("Basic Z29sZGVuOm90aGVy"),
        "a replaced secret counts at once"
    );
}

#[tokio::test]
async fn a_token_is_sent_as_bearer() {
    let mut server = Server::start().await;
    let mut config = config(&server.address.to_string());
    config.client.credentials = Credentials::Bearer {
        token: SecretSource::Value(Secret::new("abc")),
    };
    assert!(!format!("{config:?}").contains("abc"));
    let (_handle, _events) = scheduler::spawn(config).expect("a configuration");
    let request = server.request().await;
    assert_eq!(request.header("authorization"), Some("Bearer abc"));
}

#[tokio::test]
async fn a_token_of_dcos_is_sent_as_its_access_control_wants_it() {
    let mut server = Server::start().await;
    let mut config = config(&server.address.to_string());
    config.client.credentials = Credentials::Token {
        token: SecretSource::Value(Secret::new("abc")),
    };
    assert!(!format!("{config:?}").contains("abc"));
    let (_handle, _events) = scheduler::spawn(config).expect("a configuration");
    let request = server.request().await;
    assert_eq!(request.header("authorization"), Some("token=abc"));
}

#[tokio::test]
async fn a_slow_receiver_loses_nothing_and_costs_no_subscription() {
    let mut server = Server::start().await;
    let mut config = config(&server.address.to_string());
    config.buffered_events = 1;
    config.timing.missed_heartbeats = 1;
    let (_handle, mut events) = scheduler::spawn(config).expect("a configuration");
    let (_, stream) = accept(&mut server, "s1", 0.2).await;
    for number in 0..50 {
        let event =
            json!({"type": "RESCIND", "rescind": {"offer_id": {"value": number.to_string()}}});
        stream.record(event.to_string().as_bytes()).await;
    }
    // Longer than the master may be silent. Nothing can be waited for: that nothing happens is
    // the point.
    tokio::time::sleep(Duration::from_millis(400)).await;
    connected(&mut events).await;
    for number in 0..50 {
        match next(&mut events).await {
            SchedulerEvent::Event(event) => {
                let rescind = event.rescind.expect("a rescind");
                assert_eq!(rescind.offer_id.value, number.to_string());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn dropping_the_receiver_closes_the_stream() {
    let mut server = Server::start().await;
    let (handle, mut events) =
        scheduler::spawn(config(&server.address.to_string())).expect("a configuration");
    let (_, stream) = accept(&mut server, "s1", 15.0).await;
    connected(&mut events).await;
    drop(events);
    stream.closed().await;
    drop(handle);
}

#[tokio::test]
async fn a_call_that_only_the_client_may_send_is_refused_here() {
    let server = Server::start().await;
    let (handle, _events) =
        scheduler::spawn(config(&server.address.to_string())).expect("a configuration");
    for kind in [Type::Subscribe, Type::Unknown] {
        let call = pb::scheduler::Call {
            r#type: Some(kind.into()),
            ..Default::default()
        };
        assert!(matches!(
            handle.call(call).await,
            Err(Error::InvalidCall { .. })
        ));
    }
}
