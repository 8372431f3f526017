//! A real agent in a replay. Time and the way to the master are the player's; what the
//! processes of its executors did, and when, is in the recording, so it needs none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use devcluster::agent::config::VERSION;
use devcluster::agent::container::{ContainerId, ProcessRef, Termination};
use devcluster::agent::core::{Effect, Run, Then};
use devcluster::agent::{AgentConfig, LocalAgent, duration};
use devcluster::clock::{ManualClock, Time};
use devcluster::ids::{ExecutorId, FrameworkId};
use devcluster::master::Master;
use devcluster::resources::Resources;
use mesos::master::MasterUrl;
use serde_json::Value;

use crate::link::Link;
use crate::recording::arg;

/// How long after its recovery an agent registers: Mesos draws up to a second; the recorded
/// ones took nearly all of it.
const BACKOFF: Duration = Duration::from_millis(950);

/// How late the recorded agents noticed the end of a process that was not their own child.
const NOT_A_CHILD: Duration = Duration::from_millis(1900);

pub struct Node {
    config: AgentConfig,
    peer: IpAddr,
    clock: ManualClock,
    /// None while its process is dead.
    agent: Option<LocalAgent>,
    link: Option<Link>,
    /// When it registers.
    registers: Option<Time>,
    /// The runs of its executors, by executor. They outlive its process.
    runs: BTreeMap<String, Run>,
    /// Executors that an earlier process of it has started.
    inherited: BTreeSet<String>,
    /// Executors that it, or they themselves, have killed.
    killed: BTreeSet<String>,
    /// Executors that have ended, and when it notices.
    ends: Vec<(Time, String, i32)>,
    /// Containers that are to get a new grant. It comes when the recording shows that it has.
    grants: VecDeque<(ContainerId, Then)>,
}

impl Node {
    /// From the recorded command line.
    pub fn new(entry: &Value, dir: &Path, clock: &ManualClock) -> Self {
        let peer: IpAddr = arg(entry, "ip").unwrap().parse().unwrap();
        let port: u16 = arg(entry, "port").unwrap().parse().unwrap();
        let master = MasterUrl::parse(arg(entry, "master").unwrap()).unwrap();
        let mut config = AgentConfig::new((peer, port).into(), master, dir, &[]);
        config.hostname = arg(entry, "hostname").unwrap().to_owned();
        config.resources = Resources::parse(arg(entry, "resources").unwrap()).unwrap();
        let flags = [
            (
                "executor_registration_timeout",
                &mut config.executor_registration_timeout,
            ),
            (
                "executor_reregistration_timeout",
                &mut config.executor_reregistration_timeout,
            ),
            (
                "executor_shutdown_grace_period",
                &mut config.executor_shutdown_grace_period,
            ),
            ("recovery_timeout", &mut config.recovery_timeout),
        ];
        for (flag, setting) in flags {
            if let Some(value) = arg(entry, flag) {
                *setting = duration::parse(value).unwrap();
            }
        }
        Self {
            config,
            peer,
            clock: clock.clone(),
            agent: None,
            link: None,
            registers: None,
            runs: BTreeMap::new(),
            inherited: BTreeSet::new(),
            killed: BTreeSet::new(),
            ends: Vec::new(),
            grants: VecDeque::new(),
        }
    }

    /// Its directories here, by the flags that name the recorded ones.
    pub fn directories(&self) -> [(&'static str, &Path); 3] {
        let layout = &self.config.layout;
        [
            ("work_dir", &layout.work_dir),
            ("runtime_dir", &layout.runtime_dir),
            ("fetcher_cache_dir", &layout.cache_dir),
        ]
    }

    /// Its process starts.
    pub fn start(&mut self, master: &Master) {
        let now = self.clock.now();
        let mut agent = LocalAgent::start(self.config.clone(), now).unwrap();
        let recovering = agent.core().is_recovering();
        self.agent = Some(agent);
        self.inherited = self.runs.keys().cloned().collect();
        for (at, _, _) in &mut self.ends {
            *at = now;
        }
        if !recovering {
            self.register(master);
        }
    }

    /// Its process is killed.
    pub fn kill(&mut self) {
        self.agent = None;
        self.link = None;
        self.registers = None;
        self.grants.clear();
    }

    fn register(&mut self, master: &Master) {
        self.registers = None;
        let Some(agent) = &mut self.agent else { return };
        let subscribe = agent.core().introduce(VERSION, true);
        self.link = Some(Link::open(master, self.peer, &subscribe));
        self.pump(master);
    }

    /// When it has something to do by itself.
    pub fn deadline(&self) -> Time {
        if self.agent.is_none() {
            return Time::NEVER;
        }
        let ends = self.ends.iter().map(|(at, _, _)| *at);
        let ends = ends.min().unwrap_or(Time::NEVER);
        let own = self
            .agent
            .as_ref()
            .map_or(Time::NEVER, LocalAgent::deadline);
        own.min(ends).min(self.registers.unwrap_or(Time::NEVER))
    }

    /// Time has passed.
    pub fn tick(&mut self, master: &Master) {
        let now = self.clock.now();
        if self.registers.is_some_and(|at| at <= now) {
            return self.register(master);
        }
        let due = |(at, _, _): &mut (Time, String, i32)| *at <= now;
        let ends: Vec<_> = self.ends.extract_if(.., due).collect();
        for (_, executor, status) in ends {
            self.noticed(&executor, status);
        }
        let Some(agent) = &mut self.agent else { return };
        let core = agent.core();
        let recovered = core.is_recovering();
        core.tick(now);
        if recovered && !core.is_recovering() {
            self.registers = Some(now + BACKOFF);
        }
    }

    /// A request to it; nobody answers when its process is dead.
    pub fn request(&mut self, request: Request<Body>) -> Option<Response> {
        let answer = self.agent.as_mut()?.request(self.clock.now(), request);
        Some(answer.expect("it waits for nothing"))
    }

    /// Does what the agent wants done, and lets it hear what the master says.
    pub fn pump(&mut self, master: &Master) {
        loop {
            let Some(agent) = &mut self.agent else { return };
            let effects = agent.effects().unwrap();
            if !effects.is_empty() {
                for effect in effects {
                    self.carry_out(master, effect);
                }
            } else if let Some(message) = self.link.as_mut().and_then(Link::next) {
                agent.hear(self.clock.now(), message);
            } else {
                return;
            }
        }
    }

    fn carry_out(&mut self, master: &Master, effect: Effect) {
        match effect {
            Effect::Send(message) => {
                if let Some(link) = &self.link {
                    link.call(master, *message);
                }
            }
            Effect::Launch(launch) => {
                let executor = ExecutorId::from(&launch.executor.executor_id);
                let run = Run {
                    framework: FrameworkId::from(launch.framework.id.as_ref().unwrap()),
                    executor: executor.clone(),
                    container: launch.container,
                };
                self.runs.insert(executor.to_string(), run);
            }
            Effect::Update {
                container, then, ..
            } => self.grants.push_back((container, then)),
            // Its end is recorded like any other.
            Effect::Destroy(container) => {
                let of = |(_, run): &(&String, &Run)| run.container == container;
                if let Some((executor, _)) = self.runs.iter().find(of) {
                    self.killed.insert(executor.clone());
                }
            }
            Effect::Abandon(_) => {}
            other => panic!("not in these recordings: {other:?}"),
        }
    }

    /// The next container gets its new grant. Whether there was any that waited for one.
    pub fn grant(&mut self, master: &Master) -> bool {
        let Some((container, then)) = self.grants.pop_front() else {
            return false;
        };
        if let Some(agent) = &mut self.agent {
            agent.core().updated(&container, then, Ok(()));
        }
        self.pump(master);
        true
    }

    /// The first process of an executor's container runs.
    pub fn launched(&mut self, executor: &str, pid: u32) {
        let (Some(run), Some(agent)) = (self.runs.get(executor), &mut self.agent) else {
            return;
        };
        let process = ProcessRef { pid, start_time: 0 };
        agent.launched(run, process).unwrap();
    }

    /// An executor kills itself.
    pub fn kills_itself(&mut self, executor: &str) {
        self.killed.insert(executor.to_owned());
    }

    /// Whether an executor was killed.
    pub fn was_killed(&self, executor: &str) -> bool {
        self.killed.contains(executor)
    }

    /// An executor ends, with this wait status.
    pub fn exited(&mut self, executor: &str, status: i32) {
        let mut at = self.clock.now();
        if self.inherited.contains(executor) {
            at += NOT_A_CHILD;
        }
        self.ends.push((at, executor.to_owned(), status));
    }

    /// The agent sees that an executor has ended.
    pub fn noticed(&mut self, executor: &str, status: i32) {
        let (Some(run), Some(agent)) = (self.runs.remove(executor), &mut self.agent) else {
            return;
        };
        let termination = Termination {
            status: Some(status),
            cause: None,
        };
        let now = self.clock.now();
        agent.core().terminated(now, &run.container, &termination);
    }
}
