//! The subscription of an executor, as a pure state machine: no sockets, no clock, no
//! randomness but from a seed. [`super::spawn`] drives it.
//!
//! ```text
//!               200               SUBSCRIBED
//!  Connecting ───────► Subscribing ─────────► Subscribed
//!   ▲     │ failure         │ failure, silence     │ end of stream, `not subscribed`
//!   │     ▼                 ▼                      │
//!   └── Waiting ◄──────────────────────────────────┘
//!         │
//!         └─► Ended: the agent was away too long, or does not know this executor
//! ```
//!
//! An agent that recovers waits 2 s (by default) for its executors, so the wait is short and
//! does not grow. How long the agent may be away: with checkpointing the recovery timeout,
//! without it not at all; before the first subscription [`Timing::first_subscription`].

use std::time::Duration;

use http::StatusCode;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::ExecutorEvent;
use crate::error::Error;
use crate::pb;
use pb::executor::event::Type;

/// A moment: the time since any fixed one.
pub type Time = Duration;

/// Times of a subscription.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Longest wait between two attempts.
    pub retry_interval: Duration,
    /// How long the agent may be away, once it was there; zero without checkpointing.
    pub recovery_timeout: Duration,
    /// How long the first subscription may take. The agent itself waits for 1 minute by
    /// default (`--executor_registration_timeout`).
    pub first_subscription: Duration,
    /// How long SUBSCRIBED may take after SUBSCRIBE was accepted.
    pub subscribe_timeout: Duration,
}

/// Where a subscription stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// SUBSCRIBE is sent, the head of the answer is not there. Whoever sends it limits the time.
    Connecting,
    /// The agent accepted the connection; its first event is not there.
    Subscribing {
        /// When to give up.
        deadline: Time,
    },
    /// Events flow.
    Subscribed,
    /// An attempt failed; the next begins in time.
    Waiting {
        /// When.
        until: Time,
    },
    /// Nothing happens any more.
    Ended,
}

/// What happens to a subscription.
#[derive(Debug)]
pub enum Input {
    /// SUBSCRIBE was answered with success.
    Accepted,
    /// SUBSCRIBE was answered otherwise, or the event stream ended or broke.
    Failed(Error),
    /// An event arrived.
    Event(Box<pb::executor::Event>),
    /// A call was answered with `not subscribed`.
    NotSubscribed,
    /// It is [`Machine::deadline`].
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Send SUBSCRIBE with what is unacknowledged at this moment; any former stream or attempt
    /// is to be dropped.
    Open,
    /// Drop the stream or the attempt.
    Close,
    /// From now on calls may be sent.
    Ready,
    /// From now on no call may be sent.
    NotReady,
    /// Tell the executor.
    Notify(ExecutorEvent),
}

/// The state machine.
#[derive(Debug)]
pub struct Machine {
    timing: Timing,
    rng: StdRng,
    state: State,
    /// When the executor has to be subscribed again, while it is not.
    give_up: Option<Time>,
    /// The last failure that was told, so that it is not told four times a second.
    told: Option<String>,
}

impl Machine {
    /// A machine at `now`, with what is to be done first.
    pub fn new(now: Time, timing: Timing, seed: u64) -> (Self, Vec<Effect>) {
        let machine = Self {
            timing,
            rng: StdRng::seed_from_u64(seed),
            state: State::Connecting,
            give_up: Some(now + timing.first_subscription),
            told: None,
        };
        (machine, vec![Effect::Open])
    }

    /// Where the subscription stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When to give [`Input::Tick`] unless something else happens before.
    pub fn deadline(&self) -> Option<Time> {
        let own = match self.state {
            State::Waiting { until } => Some(until),
            State::Subscribing { deadline } => Some(deadline),
            State::Connecting => None,
            State::Subscribed | State::Ended => return None,
        };
        own.into_iter().chain(self.give_up).min()
    }

    /// Takes what happened at `now` and says what is to be done.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Effect> {
        match (&self.state, input) {
            (State::Ended, _) => Vec::new(),
            (State::Connecting, Input::Accepted) => {
                let deadline = now + self.timing.subscribe_timeout;
                self.state = State::Subscribing { deadline };
                Vec::new()
            }
            (State::Connecting | State::Subscribing { .. }, Input::Failed(error)) => {
                self.retry(now, error)
            }
            (State::Subscribed, Input::Failed(error)) => self.lost(now, error),
            (State::Subscribed, Input::NotSubscribed) => self.lost(now, Error::NotSubscribed),
            (State::Subscribing { .. }, Input::Event(event)) => self.first(now, event),
            (State::Subscribed, Input::Event(event)) => match event.r#type() {
                // Events of a later Mesos, which we did not ask for.
                Type::Heartbeat | Type::Unknown => Vec::new(),
                _ => vec![Effect::Notify(ExecutorEvent::Event(event))],
            },
            (_, Input::Tick) => self.tick(now),
            // Late news of what is given up already.
            (_, _) => Vec::new(),
        }
    }

    fn first(&mut self, now: Time, event: Box<pb::executor::Event>) -> Vec<Effect> {
        match event.r#type() {
            // An agent that wants the executor to end says so instead of welcoming it (its tasks
            // were killed before it came); the stream is a subscription all the same.
            Type::Subscribed | Type::Shutdown => {
                self.state = State::Subscribed;
                self.give_up = None;
                self.told = None;
                vec![Effect::Ready, Effect::Notify(ExecutorEvent::Event(event))]
            }
            // Why the agent refuses, in its own words; what follows is the end of the stream.
            Type::Error => vec![Effect::Notify(ExecutorEvent::Event(event))],
            other => self.retry(
                now,
                Error::Protocol {
                    attempt: "SUBSCRIBE",
                    url: "the agent".to_owned(),
                    reason: format!("{} where SUBSCRIBED is due", other.as_str_name()),
                },
            ),
        }
    }

    fn lost(&mut self, now: Time, error: Error) -> Vec<Effect> {
        self.give_up = Some(now + self.timing.recovery_timeout);
        let mut effects = vec![Effect::NotReady];
        if self.timing.recovery_timeout.is_zero() {
            effects.push(self.tell(error));
            effects.extend(self.end());
            return effects;
        }
        effects.extend(self.retry(now, error));
        effects
    }

    fn retry(&mut self, now: Time, error: Error) -> Vec<Effect> {
        let mut effects = vec![Effect::Close];
        let unknown = does_not_know_us(&error);
        if self.told.as_deref() != Some(error.to_string().as_str()) {
            effects.push(self.tell(error));
        }
        if unknown {
            effects.extend(self.end());
            return effects;
        }
        let wait = self
            .timing
            .retry_interval
            .mul_f64(self.rng.random_range(0.8..=1.0));
        self.state = State::Waiting { until: now + wait };
        effects
    }

    fn tell(&mut self, error: Error) -> Effect {
        self.told = Some(error.to_string());
        Effect::Notify(ExecutorEvent::Disconnected { error })
    }

    fn tick(&mut self, now: Time) -> Vec<Effect> {
        if self.give_up.is_some_and(|give_up| now >= give_up) {
            let mut effects = vec![Effect::Close];
            effects.extend(self.end());
            return effects;
        }
        match self.state {
            State::Waiting { until } if now >= until => {
                self.state = State::Connecting;
                vec![Effect::Open]
            }
            State::Subscribing { deadline } if now >= deadline => {
                let after = self.timing.subscribe_timeout;
                self.retry(
                    now,
                    Error::Timeout {
                        attempt: "SUBSCRIBE",
                        url: "the agent".to_owned(),
                        after,
                    },
                )
            }
            _ => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Effect> {
        self.state = State::Ended;
        vec![Effect::Notify(ExecutorEvent::RecoveryTimeout)]
    }
}

/// An agent that has recovered answers 400 when it does not know the framework or the executor
/// (while it recovers: 503). It will not learn to know them.
fn does_not_know_us(error: &Error) -> bool {
    matches!(error, Error::Status { status, text, .. }
        if *status == StatusCode::BAD_REQUEST && text.contains("cannot be found"))
}

#[cfg(test)]
mod tests;
