//! A Mesos master with simulated agents, on the network: devcluster's simulation, run in real time,
//! behind the two endpoints that the framework uses. Only protobuf is spoken, as the framework does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use devcluster::clock::Time;
use devcluster::master::Answer;
use devcluster::sim::{Plan, SchedulerId, Sim, SimConfig, Step};
use futures::StreamExt;
use mesos::codec::Encoding;
use mesos::pb::{self, TaskState};
use mesos::recordio;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What every agent has: room for ten of the pods and much besides.
const RESOURCES: &str = "cpus:16;mem:65536;disk:200000;ports:[31000-31999]";
/// How long a node takes from its launch to Ready; real ones take seconds.
const NODE_START: Duration = Duration::from_millis(500);
/// How long an executor takes to answer for a pod.
const POD_START: Duration = Duration::from_millis(20);
/// And until the pod runs.
const POD_RUNS: Duration = Duration::from_millis(500);
/// A request's largest body: an ACCEPT with many tasks.
const MAX_BODY: usize = 32 << 20;
/// Media type of the v1 API's protobuf.
const PROTOBUF: &str = "application/x-protobuf";

/// The master.
pub struct Master {
    /// `host:port`.
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Something may be due earlier than before.
    wake: Notify,
    start: (Instant, Time),
}

struct Inner {
    sim: Sim,
    scheduler: Option<(SchedulerId, mpsc::UnboundedSender<Bytes>)>,
}

fn is_node(task: &pb::TaskId) -> bool {
    task.value.starts_with("node.")
}

/// Starts the agents and listens.
pub async fn start(agents: usize) -> Result<Master> {
    let plan = Plan::by(
        |task, _| {
            if is_node(&task.task_id) {
                vec![
                    Step::new(NODE_START / 2, TaskState::TaskStarting),
                    Step::new(NODE_START / 2, TaskState::TaskRunning),
                ]
            } else {
                vec![
                    Step::new(POD_START, TaskState::TaskStarting),
                    Step::new(POD_RUNS, TaskState::TaskRunning),
                ]
            }
        },
        Duration::from_millis(50),
    );
    let mut sim = Sim::new(SimConfig {
        agents,
        resources: RESOURCES.to_owned(),
        plan,
        ..SimConfig::default()
    });
    // All agents register.
    sim.run_for(Duration::from_secs(5));
    let shared = Arc::new(Shared {
        start: (Instant::now(), sim.now()),
        inner: Mutex::new(Inner {
            sim,
            scheduler: None,
        }),
        wake: Notify::new(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let app = Router::new()
        .route("/api/v1/scheduler", post(scheduler))
        .route("/api/v1", post(operator))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared.clone());
    tokio::spawn(axum::serve(listener, app).into_future());
    tokio::spawn(keep_time(shared.clone()));
    Ok(Master { address, shared })
}

impl Master {
    /// How many node tasks run, and how many of pods.
    pub fn running(&self) -> (usize, usize) {
        let inner = self.shared.lock();
        let running = TaskState::TaskRunning as i32;
        let (mut nodes, mut pods) = (0, 0);
        let tasks = (0..inner.sim.agents()).flat_map(|number| inner.sim.agent(number).live_tasks());
        for task in tasks.filter(|task| task.state == running) {
            if is_node(&task.task_id) {
                nodes += 1;
            } else {
                pods += 1;
            }
        }
        (nodes, pods)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The simulation's time that it should be.
    fn now(&self) -> Time {
        self.start.1 + self.start.0.elapsed()
    }

    /// Lets everything happen that is due, and sends what the scheduler is told.
    fn catch_up(&self, inner: &mut Inner) {
        inner.sim.run_until(self.now());
        let Some((scheduler, stream)) = &inner.scheduler else {
            return;
        };
        let mut records = Vec::new();
        for event in inner.sim.events(*scheduler) {
            records.extend(recordio::encode(&Encoding::Protobuf.encode(&event)));
        }
        let broken = !records.is_empty() && stream.send(records.into()).is_err();
        if let Some((scheduler, _)) = inner.scheduler.take_if(|_| broken) {
            inner.sim.disconnect(scheduler);
        }
    }
}

async fn keep_time(shared: Arc<Shared>) {
    loop {
        let wait = {
            let mut inner = shared.lock();
            shared.catch_up(&mut inner);
            inner.sim.next_deadline().since(shared.now())
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.wake.notified() => {}
        }
    }
}

fn bad(why: impl std::fmt::Display) -> Response {
    (StatusCode::BAD_REQUEST, why.to_string()).into_response()
}

fn answered(answer: Answer) -> Response {
    match answer {
        Answer::Accepted => StatusCode::ACCEPTED.into_response(),
        Answer::Ok | Answer::Stream => StatusCode::OK.into_response(),
        Answer::Response(response) => {
            let body = Encoding::Protobuf.encode(&*response);
            ([(header::CONTENT_TYPE, PROTOBUF)], body).into_response()
        }
        Answer::Error { status, text } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, text).into_response()
        }
    }
}

async fn scheduler(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let call: pb::scheduler::Call = match Encoding::Protobuf.decode(&body) {
        Ok(call) => call,
        Err(error) => return bad(error),
    };
    let mut inner = shared.lock();
    shared.catch_up(&mut inner);
    let response = match call.subscribe {
        Some(subscribe) => {
            let scheduler = inner.sim.subscribe(subscribe.framework_info);
            let (sender, records) = mpsc::unbounded_channel();
            inner.scheduler = Some((scheduler, sender));
            let records = UnboundedReceiverStream::new(records);
            let body = Body::from_stream(records.map(Ok::<_, std::convert::Infallible>));
            let headers = [
                (header::CONTENT_TYPE.as_str(), PROTOBUF),
                ("Mesos-Stream-Id", "the-only-one"),
            ];
            (headers, body).into_response()
        }
        None => match inner.scheduler.as_ref().map(|(scheduler, _)| *scheduler) {
            Some(scheduler) => answered(inner.sim.call(scheduler, call)),
            None => bad("nobody is subscribed"),
        },
    };
    shared.catch_up(&mut inner);
    drop(inner);
    shared.wake.notify_one();
    response
}

async fn operator(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let call: pb::master::Call = match Encoding::Protobuf.decode(&body) {
        Ok(call) => call,
        Err(error) => return bad(error),
    };
    let mut inner = shared.lock();
    shared.catch_up(&mut inner);
    answered(inner.sim.operator(call))
}
