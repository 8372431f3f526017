//! Executors that listen, and their calls, without sockets or clocks: a response body goes out
//! for each SUBSCRIBE, events go into it.

use std::collections::HashMap;

use axum::body::Body;
use mesos::codec::Encoding;
use mesos::pb;
use tokio::sync::mpsc;

use super::core::Core;
use super::core::model::StreamId;
use super::run::{Input, Look, Request};
use crate::clock::Time;
use crate::http::{encode, stream};

struct Subscription {
    sender: stream::Sender,
    encoding: Encoding,
}

/// The subscriptions that are open.
pub(super) struct Subscriptions {
    open: HashMap<StreamId, Subscription>,
    next: u64,
    /// Hears of those whose readers have gone.
    inputs: mpsc::Sender<Input>,
}

impl Subscriptions {
    pub(super) fn new(inputs: mpsc::Sender<Input>) -> Self {
        Self {
            open: HashMap::new(),
            next: 0,
            inputs,
        }
    }

    /// Answers an executor's call; gives back what is none.
    pub(super) fn answer(&mut self, core: &mut Core, now: Time, request: Request) -> Option<Look> {
        // Whoever asked may be gone, and then nobody reads the answer.
        match request {
            Request::Subscribe {
                framework,
                executor,
                call,
                encoding,
                reply,
            } => {
                let (stream, body) = self.open(encoding);
                let answer = core.subscribe(now, &framework, &executor, stream, &call);
                if answer.is_err() {
                    self.close(stream);
                }
                let _ = reply.send(answer.map(|()| body));
            }
            Request::Update {
                framework,
                executor,
                status,
                reply,
            } => {
                let _ = reply.send(core.update(now, &framework, &executor, *status));
            }
            Request::Message {
                framework,
                executor,
                data,
                reply,
            } => {
                let _ = reply.send(core.message(&framework, &executor, data));
            }
            Request::Look(look) => return Some(look),
        }
        None
    }

    fn open(&mut self, encoding: Encoding) -> (StreamId, Body) {
        let stream = StreamId(self.next);
        self.next += 1;
        let inputs = self.inputs.clone();
        let (sender, body) = stream::channel(move || {
            // A full queue only delays the news until the next event cannot be sent.
            let _ = inputs.try_send(Input::StreamClosed(stream));
        });
        self.open.insert(stream, Subscription { sender, encoding });
        (stream, body)
    }

    /// Ends a subscription after what was told before. Whether it was open.
    pub(super) fn close(&mut self, stream: StreamId) -> bool {
        self.open.remove(&stream).is_some()
    }

    /// Tells one executor.
    pub(super) fn tell(&mut self, core: &mut Core, id: StreamId, event: &pb::executor::Event) {
        let Some(subscription) = self.open.get(&id) else {
            return;
        };
        let record = encode(subscription.encoding, event);
        if subscription.sender.send(&record).is_err() {
            // Gone, or so slow that it has to start anew.
            self.open.remove(&id);
            core.stream_closed(id);
        }
    }

    /// Tells all of them.
    pub(super) fn tell_all(&mut self, core: &mut Core, event: &pb::executor::Event) {
        let streams: Vec<_> = self.open.keys().copied().collect();
        for stream in streams {
            self.tell(core, stream, event);
        }
    }
}
