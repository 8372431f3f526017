//! The admin router's side and this machine's side between real sockets.

mod support;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ApiServer, Authority, Door, connect, get, next_line, request, send, wait};

const POD: &str = include_str!("../../examples/pod.json");
/// What curl says of a body that `-d` gives.
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_router_passes_bearer_tokens_and_nobody_elses_identity() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &[]).await;
    door.wait_ready(1).await;
    let at = door.at.http.unwrap();
    for credentials in ["", "Basic YTpi", "token=abc"] {
        let headers = [("authorization", credentials)];
        let asked = request(Method::GET, "/echo", &headers, "");
        let (code, text) = send(connect(at).await, asked).await;
        assert_eq!(code, StatusCode::UNAUTHORIZED, "{credentials}: {text}");
        assert_eq!(parse(&text)["kind"], "Status");
    }
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    let headers = [
        ("authorization", "Bearer abc"),
        ("x-remote-user", "admin"),
        ("x-remote-group", "system:masters"),
        ("impersonate-user", "admin"),
        ("x-ssl-client-cert", "x"),
        ("cookie", "dcos-acs-auth-cookie=x"),
        ("x-forwarded-for", "192.0.2.1"),
        ("host", "dcos.example"),
    ];
    let asked = request(Method::PUT, "/echo?a=b%2Fc", &headers, "body");
    let (code, text) = send(connect(at).await, asked).await;
    assert_eq!(code, StatusCode::OK);
    let echo = parse(&text);
    assert_eq!(echo["target"], "/echo?a=b%2Fc");
    assert_eq!(echo["body"], "body");
    assert_eq!(
        echo["headers"],
        json!({
            "authorization": "Bearer abc", "content-length": "4", "host": "kubernetes.default.svc",
            "x-forwarded-for": "192.0.2.1, 127.0.0.1",
        })
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgraded_connections_and_watches_pass_the_admin_routers_side() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &[]).await;
    door.wait_ready(1).await;
    let at = door.at.http.unwrap();
    for protocol in ["websocket", "SPDY/3.1"] {
        let headers = [
            ("authorization", "Bearer abc"),
            ("connection", "Upgrade"),
            ("upgrade", protocol),
        ];
        let mut sender = connect(at).await;
        let asked = request(Method::POST, "/upgrade", &headers, "");
        let answer = sender.send_request(asked).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()["upgrade"], protocol);
        let upgraded = hyper::upgrade::on(answer).await.unwrap();
        let mut stream = hyper_util::rt::TokioIo::new(upgraded);
        stream.write_all(b"there and back").await.unwrap();
        let mut back = [0; 14];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"there and back");
    }
    let mut sender = connect(at).await;
    let headers = [("authorization", "Bearer abc")];
    let asked = request(Method::GET, "/api/v1/pods?watch=1", &headers, "");
    let mut events = sender.send_request(asked).await.unwrap().into_body();
    wait("the watch has reached the server", async || {
        server.change("/api/v1/pods", json!({})) == 1
    })
    .await;
    assert!(next_line(&mut events).await.contains("MODIFIED"));
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_when_a_server_dies_between_them() {
    let authority = Authority::new();
    let a = ApiServer::start(&authority, "a").await;
    let b = ApiServer::start(&authority, "b").await;
    let door = Door::open(&authority, &[&a, &b], &[]).await;
    door.wait_ready(2).await;
    let at = door.at.http.unwrap();
    let name = async || {
        let headers = [("authorization", "Bearer abc")];
        let asked = request(Method::GET, "/name", &headers, "");
        send(connect(at).await, asked).await
    };
    for _ in 0..4 {
        assert_eq!(name().await.0, StatusCode::OK);
    }
    drop(a);
    for _ in 0..10 {
        assert_eq!(name().await, (StatusCode::OK, "b".to_owned()));
    }
    drop(b);
    wait("nobody is left", async || {
        name().await.0 == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_machines_side_acts_with_its_own_identity_and_refuses_foreign_pages() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &[]).await;
    door.wait_ready(1).await;
    let at = door.at.local.unwrap();
    let local = format!("localhost:{}", at.port());
    let headers = [
        ("host", local.as_str()),
        ("authorization", "Bearer theirs"),
        ("impersonate-user", "admin"),
        ("origin", &format!("http://{local}")),
        ("sec-fetch-site", "same-origin"),
    ];
    let (code, text) = send(
        connect(at).await,
        request(Method::GET, "/echo", &headers, ""),
    )
    .await;
    assert_eq!(code, StatusCode::OK, "{text}");
    let seen = &parse(&text)["headers"];
    assert_eq!(seen["authorization"], "Bearer limited");
    assert!(seen["impersonate-user"].is_null() && seen["origin"].is_null());
    // A changed token is used from the next request on.
    std::fs::write(authority.token_file(), "renewed").unwrap();
    let (_, text) = get(connect(at).await, "/echo").await;
    assert_eq!(parse(&text)["headers"]["authorization"], "Bearer renewed");

    let before = server.seen().len();
    let foreign: [&[(&str, &str)]; 5] = [
        &[("host", "evil.example")],
        &[("host", "localhost:1")],
        &[("host", &local), ("origin", "http://evil.example")],
        &[("host", &local), ("origin", "null")],
        &[("host", &local), ("sec-fetch-site", "cross-site")],
    ];
    for headers in foreign {
        for path in ["/api/v1/namespaces/default/pods", "/api/v1beta1/pods"] {
            let asked = request(Method::POST, path, headers, POD);
            let (code, text) = send(connect(at).await, asked).await;
            assert_eq!(code, StatusCode::FORBIDDEN, "{headers:?}: {text}");
        }
    }
    assert_eq!(server.seen().len(), before);
    assert!(
        door.metrics()
            .await
            .contains(r#"k8sm_proxy_refused_total{side="Local",reason="Foreign"} 10"#)
    );
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_readmes_commands_work() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &[]).await;
    door.wait_ready(1).await;
    let at = door.at.local.unwrap();
    let asked = request(Method::POST, "/api/v1beta1/pods", &FORM, POD);
    let (code, text) = send(connect(at).await, asked).await;
    assert_eq!(code, StatusCode::CREATED, "{text}");
    let created = parse(&text);
    assert_eq!(created["kind"], "Pod");
    assert_eq!(created["id"], "php");
    let sent = server.seen().pop().unwrap();
    assert_eq!(sent.target, "/api/v1/namespaces/default/pods");
    assert_eq!(sent.headers["content-type"], "application/json");
    assert_eq!(sent.headers["authorization"], "Bearer limited");

    let (code, text) = get(connect(at).await, "/api/v1beta1/pods").await;
    assert_eq!(code, StatusCode::OK);
    let list = parse(&text);
    assert_eq!(list["kind"], "PodList");
    let container = &list["items"][0]["desiredState"]["manifest"]["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["port"], "8080");
    assert_eq!(container["ports"][0]["hostPort"], 8080);

    let (_, one) = get(connect(at).await, "/api/v1beta1/pods/php").await;
    assert_eq!(parse(&one)["apiVersion"], "v1beta1");
    let (code, gone) = get(connect(at).await, "/api/v1beta1/pods/other").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(parse(&gone)["details"]["id"], "other");
    let (code, _) = get(connect(at).await, "/api/v1beta1/endpoints").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_updated_without_losing_what_v1beta1_does_not_know_and_deleted() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &[]).await;
    door.wait_ready(1).await;
    let at = door.at.local.unwrap();
    let pods = "/api/v1beta1/pods";
    send(connect(at).await, request(Method::POST, pods, &FORM, POD)).await;

    let changed = POD.replace("hello:v0.1.0", "hello:v0.2.0");
    let put = async |body: &str| {
        let asked = request(Method::PUT, "/api/v1beta1/pods/php", &FORM, body);
        send(connect(at).await, asked).await
    };
    let (code, text) = put(&changed).await;
    assert!(code.is_success(), "{text}");
    let v1 = "/api/v1/namespaces/default/pods/php";
    let stored = parse(&get(connect(at).await, v1).await.1);
    assert_eq!(
        stored["spec"]["containers"][0]["image"],
        "k8s.mesosphere.io/hello:v0.2.0"
    );
    assert_eq!(stored["spec"]["schedulerName"], "default-scheduler");
    // A client that names a version that is no more is in conflict.
    let mut old = parse(&text);
    old["resourceVersion"] = json!(1);
    assert_eq!(put(&old.to_string()).await.0, StatusCode::CONFLICT);
    let mut other = parse(&text);
    other["id"] = json!("other");
    assert_eq!(put(&other.to_string()).await.0, StatusCode::BAD_REQUEST);
    let (code, text) = put(r#"{"id": "php", "spec": {}}"#).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(parse(&text)["message"].as_str().unwrap().contains("spec"));

    let delete = async || {
        let asked = request(Method::DELETE, "/api/v1beta1/pods/php", &[], "");
        send(connect(at).await, asked).await
    };
    let (code, text) = delete().await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(parse(&text)["status"], "Success");
    assert_eq!(delete().await.0, StatusCode::NOT_FOUND);
    let (code, _) = send(
        connect(at).await,
        request(Method::PATCH, "/api/v1beta1/pods/php", &[], "{}"),
    )
    .await;
    assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_says_each_change_in_v1beta1() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &[]).await;
    door.wait_ready(1).await;
    let mut sender = connect(door.at.local.unwrap()).await;
    let target = "/api/v1beta1/watch/pods?labels=name%3Dfoo";
    let asked = request(Method::GET, target, &[], "");
    let mut events = sender.send_request(asked).await.unwrap().into_body();
    let collection = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "php"}, "spec": {"containers": []}, "status": {"phase": "Pending"}});
    wait("the watch has reached the server", async || {
        server.change(collection, pod.clone()) == 1
    })
    .await;
    let event = parse(&next_line(&mut events).await);
    assert_eq!(event["type"], "MODIFIED");
    assert_eq!(event["object"]["id"], "php");
    assert_eq!(event["object"]["currentState"]["status"], "Waiting");
    let seen = server.seen().pop().unwrap();
    assert_eq!(
        seen.target,
        format!("{collection}?watch=1&labelSelector=name%3Dfoo")
    );
    drop((events, sender));
    wait("the server's watch ends with the client's", async || {
        server.change(collection, pod.clone()) == 0
    })
    .await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_with_503() {
    let authority = Authority::new();
    let server = ApiServer::start(&authority, "a").await;
    let door = Door::open(&authority, &[&server], &["--max-connections=1"]).await;
    door.wait_ready(1).await;
    let at = door.at.local.unwrap();
    let first = connect(at).await;
    wait("the first connection has its place", async || {
        door.metrics()
            .await
            .contains(r#"k8sm_proxy_connections_open{side="Local"} 1"#)
    })
    .await;
    let (code, _) = get(connect(at).await, "/name").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    drop(first);
    wait("there is room again", async || {
        get(connect(at).await, "/name").await.0 == StatusCode::OK
    })
    .await;
    door.close().await;
}
