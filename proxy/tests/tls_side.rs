//! The TLS side between real sockets: what passes, where it goes, and what is refused.

mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use support::{
    ApiServer, Authority, DEADLINE, Door, connect_tls, get, next_line, request, send,
    try_connect_tls, wait, write_list,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_pass_untouched_and_tls_is_the_servers_own() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &[]).await;
    door.wait_ready(1).await;
    // The client checks the API server's certificate itself: the door has none.
    let sender = connect_tls(&authority, door.at.tls.unwrap()).await;
    let headers = [("x-remote-user", "kept"), ("authorization", "Basic kept")];
    let asked = request(Method::POST, "/echo?a=b", &headers, "body");
    let (code, text) = send(sender, asked).await;
    assert_eq!(code, StatusCode::OK);
    let echo: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(echo["target"], "/echo?a=b");
    assert_eq!(echo["body"], "body");
    assert_eq!(echo["headers"]["x-remote-user"], "kept");
    assert_eq!(echo["headers"]["authorization"], "Basic kept");
    let stranger = Authority::new();
    assert!(
        try_connect_tls(&stranger, door.at.tls.unwrap())
            .await
            .is_err()
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn megabytes_and_upgraded_connections_pass() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &[]).await;
    door.wait_ready(1).await;
    let sender = connect_tls(&authority, door.at.tls.unwrap()).await;
    let (_, text) = get(sender, "/bytes?8000000").await;
    assert_eq!(text.len(), 8_000_000);
    for protocol in ["websocket", "SPDY/3.1"] {
        let mut sender = connect_tls(&authority, door.at.tls.unwrap()).await;
        let headers = [("connection", "Upgrade"), ("upgrade", protocol)];
        let asked = request(Method::GET, "/upgrade", &headers, "");
        let answer = sender.send_request(asked).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let upgraded = hyper::upgrade::on(answer).await.unwrap();
        let mut stream = hyper_util::rt::TokioIo::new(upgraded);
        stream.write_all(b"there and back").await.unwrap();
        let mut back = [0; 14];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"there and back");
        // One half ends, the other one still speaks.
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut back).await.unwrap(), 0);
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drains_keeps_its_watches_and_gets_nothing_new() {
    let authority = Authority::new();
    let a = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&a], &[]).await;
    door.wait_ready(1).await;
    let at = door.at.tls.unwrap();
    let mut watcher = connect_tls(&authority, at).await;
    let asked = request(Method::GET, "/api/v1/pods?watch=1", &[], "");
    let mut events = watcher.send_request(asked).await.unwrap().into_body();

    // A new server in the list gets connections at once.
    let b = ApiServer::start(&authority, "b").await;
    write_list(&authority.dir.path().join("servers"), &[&a, &b]);
    door.wait_ready(2).await;
    assert_eq!(get(connect_tls(&authority, at).await, "/name").await.1, "b");

    a.set_ready(false);
    door.wait_ready(1).await;
    for _ in 0..10 {
        assert_eq!(get(connect_tls(&authority, at).await, "/name").await.1, "b");
    }
    assert_eq!(a.change("/api/v1/pods", json!({"metadata": {}})), 1);
    assert!(next_line(&mut events).await.contains("MODIFIED"));

    // It also lives on when the server leaves the list.
    write_list(&authority.dir.path().join("servers"), &[&b]);
    wait("the list has one server", async || {
        !support::get(support::connect(door.at.status.unwrap()).await, "/readyz")
            .await
            .1
            .contains(&a.address.to_string())
    })
    .await;
    assert_eq!(a.change("/api/v1/pods", json!({"metadata": {}})), 1);
    assert!(next_line(&mut events).await.contains("MODIFIED"));
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_costs_no_new_connection() {
    let authority = Authority::new();
    let a = ApiServer::start(&authority, "a").await;
    let b = ApiServer::start(&authority, "b").await;
    let door = Door::open(&authority, &[&a, &b], &[]).await;
    door.wait_ready(2).await;
    drop(a);
    for _ in 0..10 {
        let sender = connect_tls(&authority, door.at.tls.unwrap()).await;
        assert_eq!(get(sender, "/name").await.1, "b");
    }
    door.wait_ready(1).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_server_is_never_chosen_and_none_at_all_resets() {
    let authority = Authority::new();
    let stranger = ApiServer::start(&Authority::new(), "stranger").await;
    let ours = ApiServer::start(&authority, "ours").await;
    let door = Door::open(&authority, &[&stranger, &ours], &[]).await;
    door.wait_ready(1).await;
    let at = door.at.tls.unwrap();
    wait("the stranger is known", async || {
        let status = support::connect(door.at.status.unwrap()).await;
        get(status, "/readyz").await.1.contains("not one of ours")
    })
    .await;
    for _ in 0..4 {
        let sender = connect_tls(&authority, at).await;
        assert_eq!(get(sender, "/name").await.1, "ours");
    }
    drop(ours);
    door.wait_ready(0).await;
    let error = try_connect_tls(&authority, at).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    let (code, _) = get(support::connect(door.at.status.unwrap()).await, "/readyz").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        door.metrics()
            .await
            .contains(r#"k8sm_proxy_refused_total{side="Tls",reason="NoBackend"}"#)
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_in_words_of_tls_and_there_is_room_again_later() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &["--max-connections=1"]).await;
    door.wait_ready(1).await;
    let at = door.at.tls.unwrap();
    let mut first = connect_tls(&authority, at).await;
    let asked = request(Method::GET, "/api/v1/pods?watch=1", &[], "");
    let _events = first.send_request(asked).await.unwrap();
    let error = try_connect_tls(&authority, at).await.err().unwrap();
    assert!(error.to_string().contains("InternalError"), "{error}");
    drop((first, _events));
    wait("there is room again", async || {
        try_connect_tls(&authority, at).await.is_ok()
    })
    .await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_listeners_close_and_connections_have_a_while() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(
        &authority,
        &[&server],
        &["--shutdown-delay-seconds=1", "--drain-seconds=2"],
    )
    .await;
    door.wait_ready(1).await;
    let at = door.at.tls.unwrap();
    let mut watcher = connect_tls(&authority, at).await;
    let asked = request(Method::GET, "/api/v1/pods?watch=1", &[], "");
    let mut events = watcher.send_request(asked).await.unwrap().into_body();
    door.ask_to_end();
    wait(
        "/readyz says no while new connections are taken",
        async || {
            let status = support::connect(door.at.status.unwrap()).await;
            get(status, "/readyz").await.0 == StatusCode::SERVICE_UNAVAILABLE
        },
    )
    .await;
    assert!(try_connect_tls(&authority, at).await.is_ok());
    wait("the listener is closed", async || {
        try_connect_tls(&authority, at).await.is_err()
    })
    .await;
    assert_eq!(server.change("/api/v1/pods", json!({})), 1);
    assert!(next_line(&mut events).await.contains("MODIFIED"));
    tokio::time::timeout(DEADLINE, door.close()).await.unwrap();
    let rest = http_body_util::BodyExt::frame(&mut events);
    let rest = tokio::time::timeout(Duration::from_secs(5), rest).await;
    assert!(matches!(rest.unwrap(), None | Some(Err(_))));
}
