//! The loop of an executor client: carries out what the machine decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::machine::{Effect, Input, Machine, State, Timing};
use super::{ENDPOINT, ExecutorConfig, ExecutorEvent};
use crate::connection::{Arrival, Connection, Opening, at};
use crate::http::{Client, Request};
use crate::pb;

/// The agent's own default for `--executor_registration_timeout`.
const FIRST_SUBSCRIPTION: Duration = Duration::from_secs(60);
/// How long SUBSCRIBED may take: an agent sends it at once.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) struct Io {
    pub(super) config: Arc<ExecutorConfig>,
    pub(super) client: Client,
    pub(super) subscribed: watch::Sender<bool>,
    pub(super) unacknowledged: watch::Receiver<pb::executor::call::Subscribe>,
    pub(super) hints: mpsc::Receiver<()>,
    pub(super) events: mpsc::Sender<ExecutorEvent>,
    pub(super) stop: CancellationToken,
}

pub(super) async fn run(io: Io) {
    let stop = io.stop.clone();
    let subscribed = io.subscribed.clone();
    let timing = Timing {
        retry_interval: io.config.retry_interval,
        recovery_timeout: if io.config.checkpoint {
            io.config.recovery_timeout
        } else {
            Duration::ZERO
        },
        first_subscription: FIRST_SUBSCRIPTION,
        subscribe_timeout: SUBSCRIBE_TIMEOUT,
    };
    let (machine, effects) = Machine::new(Duration::ZERO, timing, rand::random());
    let mut this = Loop {
        machine,
        connection: Connection::None,
        outbox: VecDeque::new(),
        start: Instant::now(),
        io,
    };
    this.carry_out(effects);
    this.run().await;
    subscribed.send_replace(false);
    // Calls say from now on that the client has stopped.
    stop.cancel();
}

struct Loop {
    io: Io,
    machine: Machine,
    connection: Connection,
    /// Events that the receiver has not taken. While there are any, no more are read.
    outbox: VecDeque<ExecutorEvent>,
    start: Instant,
}

impl Loop {
    async fn run(mut self) {
        let stop = self.io.stop.clone();
        let events = self.io.events.clone();
        loop {
            let idle = self.outbox.is_empty();
            if idle && *self.machine.state() == State::Ended {
                return;
            }
            let deadline = self
                .machine
                .deadline()
                .map(|deadline| self.start + deadline);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                permit = events.reserve(), if !idle => {
                    let Ok(permit) = permit else { return };
                    if let Some(event) = self.outbox.pop_front() {
                        permit.send(event);
                    }
                }
                () = events.closed(), if idle => return,
                Some(()) = self.io.hints.recv() => self.step(Input::NotSubscribed),
                arrival = self.connection.arrival(), if idle => self.arrived(arrival),
                () = at(deadline) => self.step(Input::Tick),
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival<pb::executor::Event>) {
        match arrival {
            Arrival::Opened(stream) => {
                self.connection = Connection::Open(stream);
                self.step(Input::Accepted);
            }
            Arrival::Event(event) => self.step(Input::Event(event)),
            Arrival::Failed(error) => {
                self.connection = Connection::None;
                self.step(Input::Failed(error));
            }
        }
    }

    fn step(&mut self, input: Input) {
        let effects = self.machine.step(self.start.elapsed(), input);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Open => self.connection = Connection::Opening(self.open()),
                Effect::Close => self.connection = Connection::None,
                Effect::Ready => {
                    self.io.subscribed.send_replace(true);
                }
                Effect::NotReady => {
                    self.io.subscribed.send_replace(false);
                }
                Effect::Notify(event) => self.outbox.push_back(event),
            }
        }
    }

    fn open(&self) -> Opening {
        let config = Arc::clone(&self.io.config);
        let client = self.io.client.clone();
        let call = pb::executor::Call {
            executor_id: config.executor_id.clone(),
            framework_id: config.framework_id.clone(),
            r#type: Some(pb::executor::call::Type::Subscribe.into()),
            subscribe: Some(self.io.unacknowledged.borrow().clone()),
            ..Default::default()
        };
        Box::pin(async move {
            let url = config.agent.endpoint(ENDPOINT);
            let request = Request {
                attempt: "SUBSCRIBE",
                url: &url,
                encoding: config.encoding,
                stream_id: None,
            };
            client
                .open_stream(
                    request,
                    config.encoding.encode(&call),
                    config.max_event_bytes,
                )
                .await
        })
    }
}
