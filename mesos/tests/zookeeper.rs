//! Leader detection in a real ZooKeeper, as Debian packages it.
//! What it needs: `support/zookeeper.rs`.

mod support;

use std::time::Duration;

use mesos::http::{ClientConfig, Scheme};
use mesos::master::{DetectError, Detection, Detector, MasterUrl};
use mesos::scheduler::{self, SchedulerConfig, SchedulerEvent};
use mesos::{Error, pb};
use serde_json::json;
use support::server::{Server, soon};
use support::zookeeper::ZooKeeper;
use zookeeper_client as zk;

/// A ZooKeeper server of its own, as soon as it answers; `None` if it is to be left out.
async fn start() -> Option<ZooKeeper> {
    let zookeeper = ZooKeeper::start()?;
    drop(connected(&zookeeper).await);
    Some(zookeeper)
}

/// A client, as soon as the server answers.
async fn connected(zookeeper: &ZooKeeper) -> zk::Client {
    let connect = async {
        loop {
            let connector = zk::Client::connector()
                .with_connection_timeout(Duration::from_secs(2))
                .with_session_timeout(Duration::from_secs(4))
                .with_auth("digest", b"mesos:s3cret");
            match connector.connect(&zookeeper.address()).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), connect).await {
        Ok(client) => client,
        Err(_) => panic!("ZooKeeper does not answer: {}", zookeeper.log()),
    }
}

fn url(zookeeper: &ZooKeeper, credentials: &str) -> MasterUrl {
    // The first server of the ensemble is never there.
    let hosts = format!("127.0.0.1:1,{}", zookeeper.address());
    let text = format!("zk://{credentials}{hosts}/mesos/cluster");
    MasterUrl::parse(&text).expect("a URL")
}

const PATH: &str = "/mesos/cluster";

/// What a master of Mesos 1.12 writes.
fn master_info(port: u16) -> Vec<u8> {
    json!({
        "address": {"hostname": "master.test", "ip": "127.0.0.1", "port": port},
        "capabilities": [{"type": "AGENT_UPDATE"}],
        "hostname": "master.test", "id": "id", "ip": 16_777_343, "pid": "master@127.0.0.1:5050",
        "port": port, "version": "1.12.0",
    })
    .to_string()
    .into_bytes()
}

async fn register(client: &zk::Client, port: u16, acls: zk::Acls<'_>) -> String {
    let parents = zk::CreateMode::Persistent.with_acls(acls);
    client.mkdir(PATH, &parents).await.expect("a path");
    let options = zk::CreateMode::EphemeralSequential.with_acls(acls);
    let (_, sequence) = client
        .create(&format!("{PATH}/json.info_"), &master_info(port), &options)
        .await
        .expect("a node");
    format!("{PATH}/json.info_{sequence}")
}

async fn until(
    detector: &mut Detector,
    what: &str,
    wanted: impl Fn(&Detection) -> bool,
) -> Detection {
    let wait = async {
        let mut detection = detector.current();
        while !wanted(&detection) {
            detection = detector.changed().await;
        }
        detection
    };
    match tokio::time::timeout(Duration::from_secs(60), wait).await {
        Ok(detection) => detection,
        Err(_) => panic!("{what}: {:?}", detector.current()),
    }
}

fn leads(detection: &Detection, port: u16) -> bool {
    let first = detection.candidates.first();
    first.is_some_and(|first| first.url().port() == Some(port))
}

#[tokio::test]
async fn the_lowest_node_leads_and_changes_are_followed() {
    let Some(mut zookeeper) = start().await else {
        return;
    };
    let mut detector = Detector::spawn(&url(&zookeeper, ""), Scheme::Http);
    // Nothing there yet, not even the path.
    let none = until(&mut detector, "no master", |d| {
        matches!(d.error, Some(DetectError::NoMaster { .. }))
    })
    .await;
    assert!(none.candidates.is_empty());

    let client = connected(&zookeeper).await;
    let first = register(&client, 5001, zk::Acls::anyone_all()).await;
    let found = until(&mut detector, "the first", |d| leads(d, 5001)).await;
    let candidates: Vec<String> = found.candidates.iter().map(ToString::to_string).collect();
    assert_eq!(
        candidates,
        ["http://127.0.0.1:5001", "http://master.test:5001"]
    );
    let second_client = connected(&zookeeper).await;
    register(&second_client, 5002, zk::Acls::anyone_all()).await;
    // Other nodes than masters' do not count.
    let other = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    for name in ["log_replicas", "info_0000000000", "json.info_x"] {
        client
            .create(&format!("{PATH}/{name}"), b"", &other)
            .await
            .expect("a node");
    }
    client.delete(&first, None).await.expect("deleted");
    until(&mut detector, "the second", |d| leads(d, 5002)).await;

    // A master's session ends with its process.
    let third_client = connected(&zookeeper).await;
    register(&third_client, 5003, zk::Acls::anyone_all()).await;
    drop(second_client);
    until(&mut detector, "the third", |d| leads(d, 5003)).await;

    // ZooKeeper's own absence does not take the leader away.
    zookeeper.stop();
    let started = tokio::time::Instant::now();
    zookeeper.restart();
    let back = connected(&zookeeper).await;
    assert!(
        leads(&detector.current(), 5003),
        "after {:?}",
        started.elapsed()
    );
    drop(third_client);
    register(&back, 5004, zk::Acls::anyone_all()).await;
    until(&mut detector, "the fourth", |d| leads(d, 5004)).await;
}

#[tokio::test]
async fn a_path_with_an_access_list_needs_user_and_password() {
    let Some(zookeeper) = start().await else {
        return;
    };
    let client = connected(&zookeeper).await;
    register(&client, 5001, zk::Acls::creator_all()).await;
    let mut detector = Detector::spawn(&url(&zookeeper, "mesos:s3cret@"), Scheme::Https);
    let found = until(&mut detector, "the leader", |d| leads(d, 5001)).await;
    assert_eq!(
        found.candidates[0].to_string(),
        "https://master.test:5001",
        "with TLS the name counts, since certificates are for names"
    );
    for credentials in ["", "mesos:wrong@"] {
        let mut detector = Detector::spawn(&url(&zookeeper, credentials), Scheme::Http);
        let refused = until(&mut detector, "a refusal", |d| d.error.is_some()).await;
        let error = refused.error.expect("there is one");
        assert!(matches!(error, DetectError::Unauthorized { .. }), "{error}");
        assert!(!error.retryable());
    }
}

#[tokio::test]
async fn a_scheduler_moves_to_the_new_leader() {
    let Some(zookeeper) = start().await else {
        return;
    };
    let mut first = Server::start().await;
    let mut second = Server::start().await;
    let client = connected(&zookeeper).await;
    let node = register(&client, first.address.port(), zk::Acls::anyone_all()).await;
    register(&client, second.address.port(), zk::Acls::anyone_all()).await;
    let framework = pb::FrameworkInfo {
        user: "root".to_owned(),
        name: "test".to_owned(),
        ..Default::default()
    };
    let config = SchedulerConfig::new(url(&zookeeper, ""), framework, ClientConfig::default());
    let (_handle, mut events) = scheduler::spawn(config).expect("a configuration");
    let subscribed = json!({"type": "SUBSCRIBED", "subscribed": {"framework_id": {"value": "F"}}});
    let head = [
        ("Content-Type", "application/json"),
        ("Mesos-Stream-Id", "s"),
    ];
    let old = first.request().await.stream(&head).await;
    old.record(subscribed.to_string().as_bytes()).await;
    for _ in 0..2 {
        soon("an event", events.recv())
            .await
            .expect("the client runs");
    }
    client.delete(&node, None).await.expect("deleted");
    match soon("an event", events.recv()).await {
        Some(SchedulerEvent::Disconnected {
            error: Error::LeaderChanged { .. },
            retry_in,
        }) => assert!(retry_in.is_zero()),
        other => panic!("{other:?}"),
    }
    old.closed().await;
    let request = second.request().await;
    let call: pb::scheduler::Call = mesos::codec::Encoding::Protobuf
        .decode(&request.body)
        .expect("a call");
    assert_eq!(call.framework_id.expect("has one").value, "F");
}
