//! The loop of a scheduler client: carries out what the machine decides.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::machine::{Effect, Input, Machine, State};
use super::{ENDPOINT, Registration, SchedulerConfig, SchedulerEvent, Session};
use crate::connection::{Arrival, Connection, Opening, at};
use crate::http::{Client, Request, StreamId};
use crate::master::{Detection, Detector, MasterAddress};
use crate::pb;

pub(super) struct Io {
    pub(super) config: SchedulerConfig,
    pub(super) client: Client,
    pub(super) session: watch::Sender<Option<Session>>,
    pub(super) registration: Arc<watch::Sender<Registration>>,
    pub(super) hints: mpsc::Receiver<Option<StreamId>>,
    pub(super) events: mpsc::Sender<SchedulerEvent>,
    pub(super) stop: CancellationToken,
}

pub(super) async fn run(io: Io) {
    let stop = io.stop.clone();
    let session = io.session.clone();
    Loop::new(io).run().await;
    session.send_replace(None);
    // Calls say from now on that the client has stopped.
    stop.cancel();
}

struct Loop {
    io: Io,
    machine: Machine,
    detector: Detector,
    connection: Connection,
    /// Events that the receiver has not taken. While there are any, no more are read.
    outbox: VecDeque<SchedulerEvent>,
    start: Instant,
}

impl Loop {
    fn new(io: Io) -> Self {
        Self {
            machine: Machine::new(io.config.timing, rand::random()),
            detector: Detector::spawn(&io.config.master, io.client.scheme()),
            connection: Connection::None,
            outbox: VecDeque::new(),
            start: Instant::now(),
            io,
        }
    }

    async fn run(mut self) {
        let Detection { candidates, error } = self.detector.current();
        self.step(Input::Detected { candidates, error });
        let stop = self.io.stop.clone();
        let events = self.io.events.clone();
        loop {
            if self.outbox.is_empty() && *self.machine.state() == State::Ended {
                return;
            }
            let idle = self.outbox.is_empty();
            // While the receiver is slow, silence on the stream is ours, not the master's.
            let deadline = self
                .machine
                .deadline()
                .filter(|_| idle || !matches!(self.machine.state(), State::Subscribed { .. }))
                .map(|deadline| self.start + deadline);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                permit = events.reserve(), if !idle => {
                    let Ok(permit) = permit else { return };
                    if let Some(event) = self.outbox.pop_front() {
                        permit.send(event);
                    }
                    if self.outbox.is_empty() {
                        self.step(Input::Resumed);
                    }
                }
                () = events.closed(), if idle => return,
                Some(stream_id) = self.io.hints.recv() => self.hint(stream_id),
                Detection { candidates, error } = self.detector.changed() => {
                    self.step(Input::Detected { candidates, error });
                }
                arrival = self.connection.arrival(), if idle => self.arrived(arrival),
                () = at(deadline) => self.step(Input::Tick),
            }
        }
    }

    /// A call over this subscription was answered with "not subscribed".
    fn hint(&mut self, stream_id: Option<StreamId>) {
        let session = self
            .io
            .session
            .borrow()
            .as_ref()
            .map(|s| s.stream_id.clone());
        // It may be about an earlier subscription.
        if session == Some(stream_id) {
            self.step(Input::NotSubscribed);
        }
    }

    fn arrived(&mut self, arrival: Arrival<pb::scheduler::Event>) {
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
        let now = self.start.elapsed();
        for effect in self.machine.step(now, input) {
            match effect {
                Effect::Open { master } => {
                    tracing::debug!(%master, "SUBSCRIBE");
                    self.connection = Connection::Opening(self.open(master));
                }
                Effect::Close => self.connection = Connection::None,
                Effect::Ready {
                    master,
                    framework_id,
                } => {
                    let stream_id = match &self.connection {
                        Connection::Open(stream) => stream.stream_id().cloned(),
                        Connection::None | Connection::Opening(_) => None,
                    };
                    self.io
                        .registration
                        .send_modify(|r| r.subscribed(framework_id.clone()));
                    self.io.session.send_replace(Some(Session {
                        master,
                        stream_id,
                        framework_id,
                    }));
                }
                Effect::NotReady => {
                    self.io.session.send_replace(None);
                }
                Effect::Notify(event) => self.outbox.push_back(event),
            }
        }
    }

    fn open(&self, master: MasterAddress) -> Opening {
        let call = self.io.registration.borrow().subscribe_call();
        let client = self.io.client.clone();
        let encoding = self.io.config.encoding;
        let limit = self.io.config.max_event_bytes;
        Box::pin(async move {
            let url = master.endpoint(ENDPOINT);
            let request = Request {
                attempt: "SUBSCRIBE",
                url: &url,
                encoding,
                stream_id: None,
            };
            client
                .open_stream(request, encoding.encode(&call), limit)
                .await
        })
    }
}
