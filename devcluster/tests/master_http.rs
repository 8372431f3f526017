//! The master on a real socket: with our own client, with an agent that speaks the agents'
//! protocol, across a restart, and against requests that are none.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use devcluster::master::{MasterConfig, MasterError, run, run_on};
use devcluster::protocol::{self, from_agent, to_agent};
use devcluster::resources::{Format, Resources};
use mesos::http::ClientConfig;
use mesos::master::MasterUrl;
use mesos::operator::OperatorClient;
use mesos::pb;
use mesos::recordio::Decoder;
use mesos::scheduler::{self, SchedulerConfig, SchedulerEvent};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(30);

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {DEADLINE:?}"),
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), MasterError>>,
}

impl Running {
    async fn start(work_dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = MasterConfig::new(address, work_dir);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run_on(listener, config, stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    async fn end(self) {
        self.stop.cancel();
        soon("the end of the master", self.task)
            .await
            .unwrap()
            .unwrap();
    }

    fn url(&self) -> MasterUrl {
        MasterUrl::parse(&self.address.to_string()).unwrap()
    }

    async fn operator(&self, kind: pb::master::call::Type) -> pb::master::Response {
        let client = OperatorClient::new(&self.url(), &ClientConfig::default()).unwrap();
        let call = pb::master::Call {
            r#type: Some(kind as i32),
            ..Default::default()
        };
        soon("an answer", client.call(&call)).await.unwrap()
    }
}

/// An agent's side of the protocol.
struct Agent {
    http: reqwest::Client,
    address: SocketAddr,
    response: reqwest::Response,
    stream: String,
    decoder: Decoder,
}

impl Agent {
    async fn subscribe(address: SocketAddr, id: Option<pb::AgentId>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let resources = Resources::parse("cpus:2;mem:1024;ports:[31000-31009]").unwrap();
        let subscribe = protocol::Subscribe {
            info: pb::AgentInfo {
                hostname: "agent1.test".to_owned(),
                port: Some(5051),
                resources: resources.to_pb(Format::PostRefinement),
                id,
                ..Default::default()
            },
            checkpoint: true,
            ..Default::default()
        };
        let response = http
            .post(format!("http://{address}{}", protocol::SUBSCRIBE_PATH))
            .body(subscribe.encode_to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let stream = response.headers()[protocol::STREAM_ID]
            .to_str()
            .unwrap()
            .to_owned();
        Self {
            http,
            address,
            response,
            stream,
            decoder: Decoder::new(protocol::MAX_MESSAGE_BYTES),
        }
    }

    /// The next message, pings aside.
    async fn next(&mut self) -> to_agent::Message {
        loop {
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                match protocol::ToAgent::decode(frame).unwrap().message.unwrap() {
                    to_agent::Message::Ping(_) => {}
                    message => return message,
                }
            }
            let chunk = soon("a message to the agent", self.response.chunk()).await;
            self.decoder
                .push(&chunk.unwrap().expect("the stream goes on"));
        }
    }

    async fn call(&self, message: from_agent::Message) -> u16 {
        let response = self
            .http
            .post(format!("http://{}{}", self.address, protocol::CALL_PATH))
            .header(protocol::STREAM_ID, &self.stream)
            .body(protocol::FromAgent::from(message).encode_to_vec())
            .send()
            .await
            .unwrap();
        response.status().as_u16()
    }
}

fn framework() -> pb::FrameworkInfo {
    use pb::framework_info::capability::Type;
    pb::FrameworkInfo {
        user: "root".to_owned(),
        name: "f".to_owned(),
        roles: vec!["r".to_owned()],
        checkpoint: Some(true),
        capabilities: [
            Type::MultiRole,
            Type::ReservationRefinement,
            Type::PartitionAware,
        ]
        .iter()
        .map(|kind| pb::framework_info::Capability {
            r#type: Some(*kind as i32),
        })
        .collect(),
        ..Default::default()
    }
}

/// The next event for which `wanted` gives something.
async fn event<T>(
    events: &mut mpsc::Receiver<SchedulerEvent>,
    what: &str,
    wanted: impl Fn(&pb::scheduler::Event) -> Option<T>,
) -> T {
    loop {
        match soon(what, events.recv()).await.expect("the client goes on") {
            SchedulerEvent::Event(event) => {
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
            SchedulerEvent::Fatal { error } => panic!("{what}: {error}"),
            SchedulerEvent::Connected { .. } | SchedulerEvent::Disconnected { .. } => {}
        }
    }
}

fn scheduler_call(kind: pb::scheduler::call::Type) -> pb::scheduler::Call {
    pb::scheduler::Call {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_from_offer_to_acknowledgement_over_tcp() {
    use pb::scheduler::call::Type;
    let dir = tempfile::tempdir().unwrap();
    let master = Running::start(dir.path()).await;
    let mut agent = Agent::subscribe(master.address, None).await;
    let to_agent::Message::Registered(registered) = agent.next().await else {
        panic!("welcome first");
    };
    let config = SchedulerConfig::new(master.url(), framework(), ClientConfig::default());
    let (handle, mut events) = scheduler::spawn(config).unwrap();
    let offer = event(&mut events, "an offer", |e| {
        Some(e.offers.as_ref()?.offers[0].clone())
    })
    .await;
    assert_eq!(offer.agent_id, registered.agent_id);
    let resource = pb::Resource {
        name: "cpus".to_owned(),
        r#type: pb::value::Type::Scalar as i32,
        scalar: Some(pb::value::Scalar { value: 1.0 }),
        ..Default::default()
    };
    let task = pb::TaskInfo {
        name: "t".to_owned(),
        task_id: pb::TaskId {
            value: "t".to_owned(),
        },
        agent_id: offer.agent_id.clone(),
        resources: vec![resource],
        command: Some(pb::CommandInfo::default()),
        ..Default::default()
    };
    let accept = pb::scheduler::Call {
        accept: Some(pb::scheduler::call::Accept {
            offer_ids: vec![offer.id],
            operations: vec![pb::offer::Operation {
                r#type: Some(pb::offer::operation::Type::Launch as i32),
                launch: Some(pb::offer::operation::Launch {
                    task_infos: vec![task],
                }),
                ..Default::default()
            }],
            filters: None,
        }),
        ..scheduler_call(Type::Accept)
    };
    soon("ACCEPT", handle.call(accept)).await.unwrap();
    let to_agent::Message::RunTask(run) = agent.next().await else {
        panic!("the task comes");
    };
    let framework_id = run.framework.id.unwrap();
    let uuid = uuid::Uuid::new_v4().as_bytes().to_vec();
    let update = protocol::Update {
        framework_id: framework_id.clone(),
        status: pb::TaskStatus {
            task_id: run.task.task_id,
            state: pb::TaskState::TaskRunning as i32,
            uuid: Some(uuid.clone()),
            agent_id: Some(registered.agent_id.clone()),
            ..Default::default()
        },
        ..Default::default()
    };
    assert_eq!(agent.call(from_agent::Message::Update(update)).await, 202);
    let status = event(&mut events, "the update", |e| {
        Some(e.update.as_ref()?.status.clone())
    })
    .await;
    assert_eq!(status.uuid.as_ref(), Some(&uuid));
    let acknowledge = pb::scheduler::Call {
        acknowledge: Some(pb::scheduler::call::Acknowledge {
            agent_id: registered.agent_id.clone(),
            task_id: status.task_id,
            uuid: uuid.clone(),
        }),
        ..scheduler_call(Type::Acknowledge)
    };
    soon("ACKNOWLEDGE", handle.call(acknowledge)).await.unwrap();
    let to_agent::Message::Acknowledge(acknowledged) = agent.next().await else {
        panic!("the acknowledgement comes");
    };
    assert_eq!(acknowledged.uuid, uuid);

    // The rest of the agent is offered; when its connection breaks that is taken back at once.
    handle.call(scheduler_call(Type::Revive)).await.unwrap();
    event(&mut events, "the rest", |e| e.offers.clone()).await;
    drop(agent);
    event(&mut events, "the rescission", |e| e.rescind.clone()).await;

    // The framework goes without a failover timeout: it is over.
    handle.shutdown();
    drop(events);
    soon("the removal of the framework", async {
        loop {
            let answer = master.operator(pb::master::call::Type::GetFrameworks).await;
            let frameworks = answer.get_frameworks.unwrap();
            if frameworks.frameworks.is_empty() && frameworks.completed_frameworks.len() == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    master.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_master_remembers_its_agents_and_ends_with_open_streams() {
    use pb::master::call::Type::GetAgents;
    let dir = tempfile::tempdir().unwrap();
    let master = Running::start(dir.path()).await;
    let mut agent = Agent::subscribe(master.address, None).await;
    let to_agent::Message::Registered(first) = agent.next().await else {
        panic!("welcome first");
    };
    assert!(!first.reregistered);
    master.end().await;
    let master = Running::start(dir.path()).await;
    let agents = master.operator(GetAgents).await.get_agents.unwrap();
    assert!(agents.agents.is_empty());
    assert_eq!(agents.recovered_agents[0].id, Some(first.agent_id.clone()));
    let mut agent = Agent::subscribe(master.address, Some(first.agent_id.clone())).await;
    let to_agent::Message::Registered(again) = agent.next().await else {
        panic!("welcome first");
    };
    assert!(again.reregistered);
    assert_eq!(again.agent_id, first.agent_id);
    assert_ne!(again.master_info.id, first.master_info.id);
    let agents = master.operator(GetAgents).await.get_agents.unwrap();
    assert_eq!((agents.agents.len(), agents.recovered_agents.len()), (1, 0));

    // A call on a stream that is no more: subscribe again.
    let newer = Agent::subscribe(master.address, Some(first.agent_id)).await;
    assert_eq!(
        agent
            .call(from_agent::Message::Pong(protocol::Pong {}))
            .await,
        409
    );
    assert_eq!(
        newer
            .call(from_agent::Message::Pong(protocol::Pong {}))
            .await,
        202
    );
    master.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_none_are_answered_and_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let master = Running::start(dir.path()).await;
    let garbage: [&[u8]; 6] = [
        b"",
        b"\xff\xff\xff\xff",
        b"{\"type\":\"SUBSCRIBE\",\"subscribe\":{\"framework_info\":",
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[b'['; 5000],
        &[0; 100],
    ];
    let paths = [
        "/api/v1/scheduler",
        "/api/v1",
        protocol::SUBSCRIBE_PATH,
        protocol::CALL_PATH,
        "/master/teardown",
        "/tasks?limit=x&%ff=&offset=99999999999999999999",
    ];
    for path in paths {
        for body in garbage {
            for media in ["application/json", "application/x-protobuf", "text/html"] {
                let mut stream = TcpStream::connect(master.address).await.unwrap();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\
                     Devcluster-Agent-Stream-Id: nonsense\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(body).await.unwrap();
                let mut answer = Vec::new();
                soon("an answer", stream.read_to_end(&mut answer))
                    .await
                    .unwrap();
                let line = String::from_utf8_lossy(&answer);
                // An empty message is an agent that says nothing of itself.
                let refused = line.starts_with("HTTP/1.1 4") || line.contains("AgentInfo has no");
                assert!(refused, "{path} {body:?}: {line}");
            }
        }
    }
    let answer = master.operator(pb::master::call::Type::GetHealth).await;
    assert!(answer.get_health.unwrap().healthy);
    master.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_stream_id_is_refused_and_the_stream_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let master = Running::start(dir.path()).await;
    let config = SchedulerConfig::new(master.url(), framework(), ClientConfig::default());
    let (handle, mut events) = scheduler::spawn(config).unwrap();
    let id = event(&mut events, "the subscription", |e| {
        Some(e.subscribed.as_ref()?.framework_id.value.clone())
    })
    .await;
    let call = serde_json::json!({"framework_id": {"value": id}, "type": "REVIVE"}).to_string();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (stream, reason) in [
        (
            Some(uuid::Uuid::new_v4().to_string()),
            "didn't match the stream ID",
        ),
        (Some("no uuid".to_owned()), "didn't match the stream ID"),
        (None, "should include the 'Mesos-Stream-Id' header"),
    ] {
        let mut request = http
            .post(format!("http://{}/api/v1/scheduler", master.address))
            .header("Content-Type", "application/json")
            .body(call.clone());
        if let Some(stream) = &stream {
            request = request.header("Mesos-Stream-Id", stream);
        }
        let response = soon("an answer", request.send()).await.unwrap();
        assert_eq!(response.status().as_u16(), 400, "{stream:?}");
        let text = response.text().await.unwrap();
        assert!(text.contains(reason), "{stream:?}: {text}");
    }
    // Who is really subscribed goes on.
    let revive = pb::scheduler::Call {
        r#type: Some(pb::scheduler::call::Type::Revive as i32),
        ..Default::default()
    };
    soon("the call", handle.call(revive)).await.unwrap();
    master.end().await;
}

#[tokio::test]
async fn what_keeps_a_master_from_starting_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let attempt = |address: SocketAddr| {
        run(
            MasterConfig::new(address, dir.path()),
            CancellationToken::new(),
        )
    };
    let error = soon("an error", attempt(address))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {address}")),
        "{error}"
    );
    let error = soon("an error", attempt("0.0.0.0:0".parse().unwrap()))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("an address to advertise must be given"),
        "{error}"
    );
    std::fs::write(dir.path().join("registry.json"), "{").unwrap();
    let error = soon("an error", attempt("127.0.0.1:0".parse().unwrap()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("registry.json is damaged"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_older_clients_set_quota_and_take_machines_down() {
    let dir = tempfile::tempdir().unwrap();
    let master = Running::start(dir.path()).await;
    let mut agent = Agent::subscribe(master.address, None).await;
    let to_agent::Message::Registered(_) = agent.next().await else {
        panic!("the agent is registered first");
    };
    let post = async |path: &str, body: serde_json::Value| {
        let url = format!("http://{}{path}", master.address);
        let answer = agent.http.post(url).json(&body).send();
        let answer = soon("an answer", answer).await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.text().await.unwrap())
    };
    let cpus = serde_json::json!({"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}});
    let set = serde_json::json!({
        "type": "SET_QUOTA",
        "set_quota": {"quota_request": {"role": "eng", "guarantee": [cpus]}},
    });
    assert_eq!(post("/api/v1", set.clone()).await, (200, String::new()));
    let (status, text) = post("/api/v1", set).await;
    assert_eq!(status, 400);
    assert!(text.contains("role 'eng' has a quota already"), "{text}");
    let status = master.operator(pb::master::call::Type::GetQuota).await;
    let configs = status.get_quota.unwrap().status.configs;
    assert_eq!(configs[0].guarantees, configs[0].limits);
    assert_eq!(configs[0].limits["cpus"].value, 1.0);

    let remove = serde_json::json!({"type": "REMOVE_QUOTA", "remove_quota": {"role": "eng"}});
    assert_eq!(post("/api/v1", remove.clone()).await.0, 200);
    let (status, text) = post("/api/v1", remove).await;
    assert_eq!(status, 400);
    assert!(text.contains("role 'eng' has none"), "{text}");

    let machine = serde_json::json!({"hostname": "agent1.test", "ip": "127.0.0.1"});
    let (status, text) = post("/machine/down", serde_json::json!([machine])).await;
    assert_eq!(status, 400, "it is in no schedule: {text}");
    let schedule = serde_json::json!({
        "type": "UPDATE_MAINTENANCE_SCHEDULE",
        "update_maintenance_schedule": {"schedule": {"windows": [{
            "machine_ids": [machine], "unavailability": {"start": {"nanoseconds": 1}},
        }]}},
    });
    assert_eq!(post("/api/v1", schedule).await.0, 200);
    let both = serde_json::json!([machine]);
    assert_eq!(post("/machine/down", both.clone()).await.0, 200);
    assert_eq!(post("/master/machine/up", both).await.0, 200);
    assert_eq!(post("/machine/up", serde_json::json!({})).await.0, 400);
    master.end().await;
}
