//! What goes into the master's core and what comes out.

use std::fmt;
use std::net::IpAddr;

use mesos::pb;
use uuid::Uuid;

use crate::protocol::{Subscribe, from_agent, to_agent};

/// Names one response stream: of a scheduler, an agent, or an operator. The loop makes it up;
/// for schedulers it is also the `Mesos-Stream-Id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub Uuid);

impl StreamId {
    /// A new random one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// A given one, for simulations.
    pub const fn from_u128(value: u128) -> Self {
        Self(Uuid::from_u128(value))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Nothing but time. Due at [`super::MasterState::next_deadline`].
    Tick,
    /// A scheduler subscribes; `stream` is its response.
    FrameworkSubscribe {
        /// Its response stream.
        stream: StreamId,
        /// The call; already validated by [`super::validate::scheduler_call`].
        subscribe: Box<pb::scheduler::call::Subscribe>,
    },
    /// Any other call of a scheduler, validated likewise.
    FrameworkCall {
        /// The header `Mesos-Stream-Id`.
        stream: Option<String>,
        /// The call.
        call: Box<pb::scheduler::Call>,
    },
    /// A stream broke or its reader was too slow.
    Disconnected {
        /// Which.
        stream: StreamId,
    },
    /// An agent subscribes.
    AgentSubscribe {
        /// Its response stream.
        stream: StreamId,
        /// From where.
        peer: IpAddr,
        /// What it says of itself.
        subscribe: Box<Subscribe>,
    },
    /// A call of an agent.
    AgentCall {
        /// The stream it names.
        stream: StreamId,
        /// What it says.
        message: Box<from_agent::Message>,
    },
    /// An operator subscribes to what happens in the cluster.
    OperatorSubscribe {
        /// Its response stream.
        stream: StreamId,
    },
    /// Any other call of an operator.
    OperatorCall(Box<pb::master::Call>),
}

/// What the core wants done, in this order, before the call is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Keep [`super::MasterState::registry`] on disk. Everything after it waits until it is
    /// there.
    SaveRegistry,
    /// An event for a scheduler.
    ToScheduler {
        /// Its stream.
        stream: StreamId,
        /// The event.
        event: Box<pb::scheduler::Event>,
    },
    /// A message for an agent.
    ToAgent {
        /// Its stream.
        stream: StreamId,
        /// The message.
        message: Box<to_agent::Message>,
    },
    /// An event for an operator.
    ToOperator {
        /// Its stream.
        stream: StreamId,
        /// The event.
        event: Box<pb::master::Event>,
    },
    /// End a stream after what was sent on it.
    Close(StreamId),
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// 202 without a body.
    Accepted,
    /// 200 without a body.
    Ok,
    /// 200 and a stream.
    Stream,
    /// 200 and a response.
    Response(Box<pb::master::Response>),
    /// An error with its text.
    Error {
        /// HTTP status.
        status: u16,
        /// What the client is told.
        text: String,
    },
}

impl Answer {
    /// 400 with this text.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::error(400, text)
    }

    /// An error with its text.
    pub fn error(status: u16, text: impl Into<String>) -> Self {
        Self::Error {
            status,
            text: text.into(),
        }
    }
}

/// What one event leads to.
#[derive(Debug)]
pub struct Outcome {
    /// The answer to the call; [`Answer::Ok`] where nobody asked.
    pub answer: Answer,
    /// What is to be done.
    pub effects: Vec<Effect>,
}
