//! An agent in its caller's hands: what it decides, remembers and says on HTTP is the real
//! agent's, but the time, the way to the master and the containers are the caller's. With it
//! recordings are replayed in no time, and the same each time.

use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::extract::State;
use axum::http::Request as HttpRequest;
use axum::response::Response;
use mesos::pb;
use tokio::sync::mpsc;

use super::config::AgentConfig;
use super::container::{Containerizer, ContainerizerConfig, ProcessRef};
use super::core::{Core, Effect, Run};
use super::disk;
use super::fetcher::Fetcher;
use super::http::{self, Requests};
use super::run::{Counters, Input, REQUESTS, Request, View};
use super::start::{AgentError, core_of};
use super::store::Store;
use super::subscriptions::Subscriptions;
use crate::clock::Time;
use crate::protocol::to_agent;

/// An agent without sockets, processes and clock.
pub struct LocalAgent {
    config: AgentConfig,
    address: SocketAddr,
    core: Core,
    store: Store,
    subscriptions: Subscriptions,
    inputs: mpsc::Receiver<Input>,
    requests: Requests,
    incoming: mpsc::Receiver<Request>,
    /// Has no containers: those of the caller are not known to it.
    containerizer: Containerizer,
    started: Time,
    master: Option<pb::MasterInfo>,
}

impl std::fmt::Debug for LocalAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalAgent")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl LocalAgent {
    /// An agent that has taken over what an earlier one left in its directories.
    pub fn start(config: AgentConfig, now: Time) -> Result<Self, AgentError> {
        let address = SocketAddr::new(config.ip(), config.listen.port());
        let (store, state) = Store::open(config.layout.clone())?;
        let (core, _) = core_of(&config, address, state, now)?;
        let fetcher = Fetcher::new(config.layout.cache_dir.clone(), None)?;
        // Never used, so nobody needs to hear of its containers.
        let (events, _) = mpsc::channel(1);
        let containerizer = Containerizer::new(
            ContainerizerConfig {
                helper: Vec::new(),
                cgroups: None,
                layout: config.layout.clone(),
                destroy_timeout: config.cgroups_destroy_timeout,
                max_log_bytes: config.max_log_bytes,
                images: None,
                enter_helper: Vec::new(),
            },
            fetcher,
            events,
        );
        let (ended, inputs) = mpsc::channel(REQUESTS);
        let (requests, incoming) = mpsc::channel(REQUESTS);
        Ok(Self {
            config,
            address,
            core,
            store,
            subscriptions: Subscriptions::new(ended),
            inputs,
            requests,
            incoming,
            containerizer,
            started: now,
            master: None,
        })
    }

    /// The master has said something.
    pub fn hear(&mut self, now: Time, message: to_agent::Message) {
        if let to_agent::Message::Registered(registered) = &message {
            self.master = Some(registered.master_info.clone());
        }
        self.core.from_master(now, message);
    }

    /// What decides. What it is told has its effects with the next [`Self::effects`].
    pub const fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    /// A container's first process runs: it is remembered, as the process itself does it.
    pub fn launched(&mut self, run: &Run, process: ProcessRef) -> Result<(), AgentError> {
        disk::write_json(&self.store.pid_file(run), &process)?;
        self.core.launched(&run.container, process.pid);
        Ok(())
    }

    /// When the core has something to do by itself.
    pub fn deadline(&self) -> Time {
        self.core.deadline().unwrap_or(Time::NEVER)
    }

    /// Answers a request whose body is all there. `None`: it waits for something else than
    /// this agent, such as a file.
    pub fn request(&mut self, now: Time, request: HttpRequest<Body>) -> Option<Response> {
        self.hear_of_ends();
        let shared = http::Shared::new(self.requests.clone(), self.config.executor_key.clone());
        let mut answer = pin!(http::handle(State(shared), request));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(response) = answer.as_mut().poll(&mut context) {
                return Some(response);
            }
            let request = self.incoming.try_recv().ok()?;
            let look = self.subscriptions.answer(&mut self.core, now, request);
            if let Some(look) = look {
                look(&View {
                    core: &self.core,
                    containerizer: &self.containerizer,
                    config: &self.config,
                    address: self.address,
                    started: self.started,
                    connected: self.core.is_connected(),
                    master: self.master.as_ref(),
                    counters: Counters::default(),
                });
            }
        }
    }

    /// What is left for the caller to do, in order: executors were told and what is to be
    /// remembered is on disk. Empty when the agent has come to rest.
    pub fn effects(&mut self) -> Result<Vec<Effect>, AgentError> {
        self.hear_of_ends();
        let mut left = Vec::new();
        for effect in self.core.take_effects() {
            match effect {
                Effect::Tell(stream, event) => {
                    self.subscriptions.tell(&mut self.core, stream, &event);
                }
                Effect::Close(stream) => {
                    self.subscriptions.close(stream);
                }
                Effect::Remember(record) => self.store.remember(&record)?,
                effect => left.push(effect),
            }
        }
        Ok(left)
    }

    /// Executors that have closed their streams.
    fn hear_of_ends(&mut self) {
        while let Ok(input) = self.inputs.try_recv() {
            if let Input::StreamClosed(stream) = input
                && self.subscriptions.close(stream)
            {
                self.core.stream_closed(stream);
            }
        }
    }
}
