//! The subscription of a scheduler, as a pure state machine: no sockets, no clock, no
//! randomness but from a seed. [`super::spawn`] drives it; simulations can as well.
//!
//! ```text
//!              candidates known             200                SUBSCRIBED
//!  Detecting ────────────────► Connecting ───────► Subscribing ──────────► Subscribed
//!     ▲                         │  ▲  │ 307: the other master  │                │
//!     │ no candidates           │  │  └──────────┘             │                │
//!     │                failure  │  │ next candidate            │ failure, silence, end of
//!     │                         ▼  │ of the round, or time up  ▼ stream, another leader
//!     └────────────────────── Waiting ◄──────────────────────────────────────────┘
//!
//!  Connecting: 400, 405, 406, 415 ─► Ended         Subscribing, Subscribed: ERROR ─► Ended
//! ```
//!
//! A round tries every candidate once without waiting in between; a new round begins after the
//! back-off. The back-off doubles from [`Timing::backoff`] to [`Timing::backoff_max`], and each
//! wait is between half of it and all of it, so that frameworks that lost the same master do
//! not come back in the same instant. It starts small again after a subscription that lasted.
//!
//! What ends for good and what is tried again:
//!
//! | answer | what follows |
//! |---|---|
//! | 307 | the named master at once, at most [`MAX_REDIRECTS`] times in a row |
//! | 400, 405, 406, 415 to SUBSCRIBE | fatal: the master will never take this SUBSCRIBE |
//! | 401, 403, a secret that cannot be read | the longest back-off: somebody has to act, and may be about to |
//! | 503 | back-off: the master is not leading, or is still recovering |
//! | 403 `not subscribed` to a call | the master sees no subscription where we see one: subscribe anew |
//! | ERROR | fatal, see [`crate::Refusal`] |
//! | silence for [`Timing::missed_heartbeats`] intervals | subscribe anew |

use std::time::Duration;

use http::StatusCode;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{ENDPOINT, SchedulerEvent};
use crate::error::{Error, Refusal};
use crate::http::refuses_client;
use crate::master::{DetectError, MasterAddress};
use crate::pb;
use pb::scheduler::event::Type;

/// How often one attempt follows redirects before it counts as failed.
pub const MAX_REDIRECTS: u32 = 4;

/// The interval that counts when SUBSCRIBED does not tell it: Mesos' own.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);

/// A moment: the time since any fixed one.
pub type Time = Duration;

/// Times of a subscription.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// First back-off. Default: 250 ms.
    pub backoff: Duration,
    /// Longest back-off. Default: 15 s.
    pub backoff_max: Duration,
    /// How many heartbeat intervals of silence end a subscription. Default: 5.
    pub missed_heartbeats: u32,
    /// How long SUBSCRIBED may take after SUBSCRIBE was accepted. Default: 15 s.
    pub subscribe_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(15),
            missed_heartbeats: 5,
            subscribe_timeout: Duration::from_secs(15),
        }
    }
}

/// Where a subscription stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// No master is known to try.
    Detecting,
    /// An attempt failed; the next round begins in time.
    Waiting {
        /// When.
        until: Time,
    },
    /// SUBSCRIBE is sent, the head of the answer is not there. Whoever sends it limits the time.
    Connecting {
        /// To whom.
        master: MasterAddress,
        /// How many redirects led there.
        redirects: u32,
    },
    /// The master accepted the connection; its first event is not there.
    Subscribing {
        /// Which master.
        master: MasterAddress,
        /// When to give up.
        deadline: Time,
    },
    /// Events flow.
    Subscribed {
        /// Which master.
        master: MasterAddress,
        /// The interval that it promised.
        heartbeat: Duration,
        /// When it was heard last.
        heard: Time,
        /// Since when.
        since: Time,
    },
    /// Nothing happens any more.
    Ended,
}

/// What happens to a subscription.
#[derive(Debug)]
pub enum Input {
    /// The detector has news.
    Detected {
        /// Masters to try, in this order.
        candidates: Vec<MasterAddress>,
        /// Why there are none.
        error: Option<DetectError>,
    },
    /// SUBSCRIBE was answered with success.
    Accepted,
    /// SUBSCRIBE was answered otherwise, or the event stream ended or broke.
    Failed(Error),
    /// An event arrived.
    Event(Box<pb::scheduler::Event>),
    /// Reading goes on after it had stopped for our own reasons: the silence was ours.
    Resumed,
    /// A call over this subscription was answered with `not subscribed`.
    NotSubscribed,
    /// It is [`Machine::deadline`].
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Send SUBSCRIBE; any former stream or attempt is to be dropped.
    Open {
        /// To whom.
        master: MasterAddress,
    },
    /// Drop the stream or the attempt.
    Close,
    /// From now on calls may be sent to this master as this framework, and the next SUBSCRIBE
    /// carries this id.
    Ready {
        /// The master.
        master: MasterAddress,
        /// The framework.
        framework_id: pb::FrameworkId,
    },
    /// From now on no call may be sent.
    NotReady,
    /// Tell the framework.
    Notify(SchedulerEvent),
}

/// The state machine: [`Machine::step`] takes inputs and says what to do.
#[derive(Debug)]
pub struct Machine {
    timing: Timing,
    rng: StdRng,
    state: State,
    candidates: Vec<MasterAddress>,
    /// Which candidate is next in this round.
    next: usize,
    backoff: Duration,
    /// The last one that was told, so that it is told once.
    detect_error: Option<DetectError>,
}

impl Machine {
    /// A machine that waits for [`Input::Detected`].
    pub fn new(timing: Timing, seed: u64) -> Self {
        Self {
            timing,
            rng: StdRng::seed_from_u64(seed),
            state: State::Detecting,
            candidates: Vec::new(),
            next: 0,
            backoff: timing.backoff,
            detect_error: None,
        }
    }

    /// Where the subscription stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When to give [`Input::Tick`] unless something else happens before.
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Subscribing { deadline, .. } => Some(*deadline),
            State::Subscribed {
                heartbeat, heard, ..
            } => Some(*heard + self.patience(*heartbeat)),
            State::Detecting | State::Connecting { .. } | State::Ended => None,
        }
    }

    /// Takes what happened at `now` and says what is to be done.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Effect> {
        if self.state == State::Ended {
            return Vec::new();
        }
        match input {
            Input::Detected { candidates, error } => self.detected(candidates, error),
            Input::Accepted => self.accepted(now),
            Input::Failed(error) => self.failed(now, error),
            Input::Event(event) => self.event(now, event),
            Input::Resumed => {
                if let State::Subscribed { heard, .. } = &mut self.state {
                    *heard = now;
                }
                Vec::new()
            }
            Input::NotSubscribed => match self.state {
                State::Subscribed { .. } => self.failed(now, Error::NotSubscribed),
                _ => Vec::new(),
            },
            Input::Tick => self.tick(now),
        }
    }

    fn patience(&self, heartbeat: Duration) -> Duration {
        heartbeat.saturating_mul(self.timing.missed_heartbeats.max(1))
    }

    fn detected(
        &mut self,
        candidates: Vec<MasterAddress>,
        error: Option<DetectError>,
    ) -> Vec<Effect> {
        let changed = candidates != self.candidates;
        self.candidates = candidates;
        if changed {
            self.next = 0;
        }
        match &self.state {
            State::Detecting | State::Waiting { .. } if self.candidates.is_empty() => {
                self.state = State::Detecting;
                let news = error.filter(|error| self.detect_error.as_ref() != Some(error));
                let Some(error) = news else {
                    return Vec::new();
                };
                self.detect_error = Some(error.clone());
                vec![Effect::Notify(SchedulerEvent::Disconnected {
                    error: error.into(),
                    retry_in: Duration::ZERO,
                })]
            }
            State::Detecting => self.connect_next(),
            State::Waiting { .. } if changed => {
                self.backoff = self.timing.backoff;
                self.connect_next()
            }
            State::Connecting { master, .. }
            | State::Subscribing { master, .. }
            | State::Subscribed { master, .. }
                if changed && !self.candidates.is_empty() && !self.candidates.contains(master) =>
            {
                let error = Error::LeaderChanged {
                    url: master.to_string(),
                };
                let mut effects = self.leave();
                self.backoff = self.timing.backoff;
                effects.push(disconnected(error, Duration::ZERO));
                effects.extend(self.connect_next());
                effects
            }
            // That ZooKeeper names no leader does not end a subscription that works.
            _ => Vec::new(),
        }
    }

    fn accepted(&mut self, now: Time) -> Vec<Effect> {
        if let State::Connecting { master, .. } = &self.state {
            self.state = State::Subscribing {
                master: master.clone(),
                deadline: now + self.timing.subscribe_timeout,
            };
        }
        Vec::new()
    }

    fn failed(&mut self, now: Time, error: Error) -> Vec<Effect> {
        match &self.state {
            State::Connecting { master, redirects } => {
                if let Error::Redirect { location, .. } = &error
                    && *redirects < MAX_REDIRECTS
                    && let Some(other) = master.redirected(ENDPOINT, location)
                {
                    let redirects = redirects + 1;
                    return self.connect(other, redirects);
                }
                if refuses_subscribe(&error) {
                    return self.end(error);
                }
                let mut effects = self.leave();
                effects.extend(self.go_on(now, error));
                effects
            }
            State::Subscribing { .. } => {
                let mut effects = self.leave();
                effects.extend(self.go_on(now, error));
                effects
            }
            State::Subscribed { since, .. } => {
                if now.saturating_sub(*since) >= self.timing.backoff_max {
                    self.backoff = self.timing.backoff;
                }
                let mut effects = self.leave();
                self.next = 0;
                effects.extend(self.wait(now, error));
                effects
            }
            // Late news of what is given up already.
            State::Detecting | State::Waiting { .. } | State::Ended => Vec::new(),
        }
    }

    fn event(&mut self, now: Time, event: Box<pb::scheduler::Event>) -> Vec<Effect> {
        let kind = event.r#type();
        if kind == Type::Error
            && matches!(
                self.state,
                State::Subscribing { .. } | State::Subscribed { .. }
            )
        {
            let message = event.error.map(|error| error.message).unwrap_or_default();
            return self.end(Error::Refused {
                refusal: Refusal::classify(&message),
                message,
            });
        }
        match &mut self.state {
            State::Subscribing { master, .. } => {
                let master = master.clone();
                match event.subscribed {
                    Some(ref subscribed) if kind == Type::Subscribed => {
                        let framework_id = subscribed.framework_id.clone();
                        self.state = State::Subscribed {
                            master: master.clone(),
                            heartbeat: heartbeat(subscribed),
                            heard: now,
                            since: now,
                        };
                        self.detect_error = None;
                        self.next = 0;
                        vec![
                            Effect::Ready {
                                master: master.clone(),
                                framework_id,
                            },
                            Effect::Notify(SchedulerEvent::Connected {
                                master: master.to_string(),
                            }),
                            Effect::Notify(SchedulerEvent::Event(event)),
                        ]
                    }
                    _ => self.failed(
                        now,
                        Error::Protocol {
                            attempt: "SUBSCRIBE",
                            url: master.to_string(),
                            reason: format!("{} where SUBSCRIBED is due", kind.as_str_name()),
                        },
                    ),
                }
            }
            State::Subscribed { heard, .. } => {
                *heard = now;
                match kind {
                    // Events of a later Mesos, which we did not ask for.
                    Type::Heartbeat | Type::Unknown => Vec::new(),
                    _ => vec![Effect::Notify(SchedulerEvent::Event(event))],
                }
            }
            _ => Vec::new(),
        }
    }

    fn tick(&mut self, now: Time) -> Vec<Effect> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match &self.state {
            State::Waiting { .. } => self.connect_next(),
            State::Subscribing { master, .. } => {
                let error = Error::Timeout {
                    attempt: "SUBSCRIBE",
                    url: master.to_string(),
                    after: self.timing.subscribe_timeout,
                };
                self.failed(now, error)
            }
            State::Subscribed { master, heard, .. } => {
                let error = Error::HeartbeatsMissed {
                    url: master.to_string(),
                    silence: now.saturating_sub(*heard),
                };
                self.failed(now, error)
            }
            State::Detecting | State::Connecting { .. } | State::Ended => Vec::new(),
        }
    }

    /// After a failed attempt: the next candidate of the round, or wait for the next round.
    fn go_on(&mut self, now: Time, error: Error) -> Vec<Effect> {
        self.next += 1;
        if self.next < self.candidates.len() {
            return self.connect_next();
        }
        self.next = 0;
        self.wait(now, error)
    }

    fn wait(&mut self, now: Time, error: Error) -> Vec<Effect> {
        if self.candidates.is_empty() {
            self.state = State::Detecting;
            return vec![disconnected(error, Duration::ZERO)];
        }
        let longest = needs_somebody(&error);
        let base = if longest {
            self.timing.backoff_max
        } else {
            self.backoff
        };
        let wait = base.mul_f64(self.rng.random_range(0.5..=1.0));
        self.backoff = (self.backoff * 2).min(self.timing.backoff_max);
        self.state = State::Waiting { until: now + wait };
        vec![disconnected(error, wait)]
    }

    fn connect_next(&mut self) -> Vec<Effect> {
        let Some(master) = self.candidates.get(self.next).cloned() else {
            self.next = 0;
            self.state = State::Detecting;
            return Vec::new();
        };
        self.connect(master, 0)
    }

    fn connect(&mut self, master: MasterAddress, redirects: u32) -> Vec<Effect> {
        self.state = State::Connecting {
            master: master.clone(),
            redirects,
        };
        vec![Effect::Open { master }]
    }

    /// Gives up the stream or the attempt; the caller sets the next state.
    fn leave(&mut self) -> Vec<Effect> {
        match self.state {
            State::Subscribed { .. } => vec![Effect::NotReady, Effect::Close],
            _ => vec![Effect::Close],
        }
    }

    fn end(&mut self, error: Error) -> Vec<Effect> {
        let mut effects = self.leave();
        self.state = State::Ended;
        effects.push(Effect::Notify(SchedulerEvent::Fatal { error }));
        effects
    }
}

fn disconnected(error: Error, retry_in: Duration) -> Effect {
    Effect::Notify(SchedulerEvent::Disconnected { error, retry_in })
}

/// Whether an answer to SUBSCRIBE says that no later one will be different.
fn refuses_subscribe(error: &Error) -> bool {
    matches!(error, Error::Status { status, .. } if matches!(
        *status,
        StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
    ))
}

/// Whether an error stays until somebody changes a secret or a permission.
fn needs_somebody(error: &Error) -> bool {
    match error {
        Error::Status { status, .. } => refuses_client(*status) && !error.says_not_subscribed(),
        Error::Config(_) => true,
        _ => false,
    }
}

/// The promised interval, if it makes sense.
fn heartbeat(subscribed: &pb::scheduler::event::Subscribed) -> Duration {
    subscribed
        .heartbeat_interval_seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|interval| !interval.is_zero())
        .unwrap_or(DEFAULT_HEARTBEAT)
}

#[cfg(test)]
mod tests;
