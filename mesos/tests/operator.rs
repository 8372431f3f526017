//! The operator client against a server that answers what a real master answered.

mod support;

use mesos::Error;
use mesos::codec::{self, Encoding};
use mesos::http::ClientConfig;
use mesos::master::{MasterAddress, MasterUrl};
use mesos::operator::OperatorClient;
use mesos::pb;
use support::server::{Server, nobody, soon};
use support::{difference, scenario};

fn client(masters: &str) -> OperatorClient {
    let url = MasterUrl::parse(masters).expect("addresses");
    OperatorClient::new(&url, &ClientConfig::default()).expect("a configuration")
}

fn get_agents() -> pb::master::Call {
    pb::master::Call {
        r#type: Some(pb::master::call::Type::GetAgents.into()),
        ..Default::default()
    }
}

#[tokio::test]
async fn calls_are_those_that_a_real_master_accepted_and_its_answers_are_understood() {
    let mut server = Server::start().await;
    let mut calls = 0;
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let client = client(&server.address.to_string()).with_encoding(encoding);
        for (request, _, body) in scenario("12a-").accepted() {
            let Some(json) = request.json() else { continue };
            if request.conn != "operator" || json["type"] == "SUBSCRIBE" {
                continue;
            }
            let call: pb::master::Call = codec::from_json(json).expect("a call");
            let task = {
                let client = client.clone();
                let call = call.clone();
                tokio::spawn(async move { client.call(&call).await })
            };
            let ours = server.request().await;
            assert_eq!(
                (ours.method.as_str(), ours.path.as_str()),
                ("POST", "/api/v1")
            );
            assert_eq!(ours.header("content-type"), Some(encoding.media_type()));
            assert_eq!(ours.header("accept"), Some(encoding.media_type()));
            let sent: pb::master::Call = encoding.decode(&ours.body).expect("a call");
            assert_eq!(sent, call);
            let answer = body.as_ref().and_then(|body| body.json());
            match answer {
                None => ours.answer("202 Accepted", &[], b"").await,
                Some(json) => {
                    let answer: pb::master::Response = codec::from_json(json).expect("an answer");
                    let headers = [("Content-Type", encoding.media_type())];
                    ours.answer("200 OK", &headers, &encoding.encode(&answer))
                        .await;
                }
            }
            let got = soon("the answer", task)
                .await
                .expect("no panic")
                .expect("an answer");
            if let Some(json) = answer {
                assert_eq!(difference("answer", &codec::to_json(&got), json), None);
            }
            calls += 1;
        }
    }
    assert!(calls > 20, "only {calls} calls");
}

#[tokio::test]
async fn a_dead_master_is_passed_over_and_a_follower_leads_to_the_leader() {
    let mut follower = Server::start().await;
    let mut leader = Server::start().await;
    let client = client(&format!("{},{}", nobody().await, follower.address));
    let answer = br#"{"type":"GET_AGENTS","get_agents":{}}"#;
    let headers = [("Content-Type", "application/json")];
    let location = format!("//{}/api/v1", leader.address);
    for round in 0..2 {
        let task = {
            let client = client.clone();
            tokio::spawn(async move { client.call(&get_agents()).await })
        };
        if round == 0 {
            let request = follower.request().await;
            request
                .answer("307 Temporary Redirect", &[("Location", &location)], b"")
                .await;
        }
        // The second call goes straight to who answered the first.
        leader
            .request()
            .await
            .answer("200 OK", &headers, answer)
            .await;
        soon("the answer", task)
            .await
            .expect("no panic")
            .expect("an answer");
    }
}

#[tokio::test]
async fn a_subscription_shows_what_a_real_master_showed() {
    let scenario = scenario("12a-");
    let mut server = Server::start().await;
    let client = client(&server.address.to_string());
    let task = tokio::spawn(async move { client.subscribe().await });
    let request = server.request().await;
    let encoding = Encoding::Protobuf;
    let sent: pb::master::Call = encoding.decode(&request.body).expect("a call");
    assert_eq!(sent.r#type(), pb::master::call::Type::Subscribe);
    let stream = request
        .stream(&[("Content-Type", encoding.media_type())])
        .await;
    let mut subscription = soon("the subscription", task)
        .await
        .expect("no panic")
        .expect("accepted");
    let said = scenario.events("operator-subscribe");
    assert!(said.len() > 5);
    for json in &said {
        let event: pb::master::Event = codec::from_json(json).expect("an event");
        stream.record(&encoding.encode(&event)).await;
        let got = soon("the event", subscription.next())
            .await
            .expect("an event");
        assert_eq!(got, event);
    }
    stream.end().await;
    let end = soon("the end", subscription.next()).await;
    assert!(matches!(end, Err(Error::StreamEnded { .. })), "{end:?}");
}

#[tokio::test]
async fn a_refusal_keeps_the_masters_words() {
    let mut server = Server::start().await;
    let address = format!("http://{}/mesos", server.address);
    let address = MasterAddress::new(address.parse().expect("a URL"));
    let client =
        OperatorClient::direct(address, &ClientConfig::default()).expect("a configuration");
    let task = tokio::spawn(async move { client.call(&get_agents()).await });
    let request = server.request().await;
    assert_eq!(request.path, "/mesos/api/v1", "behind a proxy's prefix");
    request.answer("403 Forbidden", &[], b"not for you\n").await;
    let error = soon("the answer", task)
        .await
        .expect("no panic")
        .expect_err("refused");
    assert!(!error.retryable());
    assert!(
        error.to_string().ends_with("403 Forbidden: not for you"),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_longer_than_the_limit_is_refused() {
    let mut server = Server::start().await;
    let config = ClientConfig {
        max_answer_bytes: 16,
        ..ClientConfig::default()
    };
    let url = MasterUrl::parse(&server.address.to_string()).expect("an address");
    let client = OperatorClient::new(&url, &config).expect("a configuration");
    let task = tokio::spawn(async move { client.call(&get_agents()).await });
    let headers = [("Content-Type", "application/json")];
    let request = server.request().await;
    request.answer("200 OK", &headers, &[b' '; 17]).await;
    let error = soon("the answer", task)
        .await
        .expect("no panic")
        .expect_err("too long");
    assert!(error.to_string().contains("limit of 16 bytes"), "{error}");
}
