//! The agent at work: one loop that feeds the core with what happens and carries its effects
//! out, in order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesos::codec::Encoding;
use mesos::pb;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::cgroups::{Cgroups, Wanted};
use super::config::{AgentConfig, Launcher, VERSION};
use super::container::{
    ContainerEvent, ContainerId, ContainerSpec, Containerizer, ContainerizerConfig,
    RecoveredContainer,
};
use super::core::model::StreamId;
use super::core::{Core, CoreConfig, Effect, Launch, RecoveredState, Refusal, Run, Then};
use super::fetcher::Fetcher;
use super::http;
use super::link::{self, LinkEvent};
use super::store::Store;
use super::{environment, sandbox};
use crate::clock::Time;
use crate::http::{encode, stream};
use crate::ids::{ExecutorId, FrameworkId};
use crate::protocol::{FromAgent, to_agent};

/// Requests that may wait for the loop; HTTP clients wait when they are more.
const REQUESTS: usize = 1024;
/// HEARTBEAT on executors' subscriptions (Mesos).
const EXECUTOR_HEARTBEAT: Duration = Duration::from_secs(30 * 60);
/// How long executors may take after the master has shut the agent down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);
/// How often old sandboxes are looked for.
const GC_INTERVAL: Duration = Duration::from_secs(10);

/// Why an agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its memory cannot be read or written.
    #[error(transparent)]
    Disk(#[from] super::disk::DiskError),
    /// Control groups are not as it needs them.
    #[error(transparent)]
    Cgroups(#[from] super::cgroups::CgroupError),
    /// Containers of an earlier agent process could not be taken over.
    #[error(transparent)]
    Containerizer(#[from] super::container::ContainerizerError),
    /// The fetcher's cache cannot be made.
    #[error(transparent)]
    Fetcher(#[from] super::fetcher::FetchError),
    /// It has another name, other resources or attributes than the agent whose memory it found.
    #[error(
        "Incompatible agent info detected: {what}. To register as a new agent, remove {path}; \
         its running executors are ended then",
        path = path.display()
    )]
    Incompatible {
        /// What differs.
        what: String,
        /// The link to remove.
        path: PathBuf,
    },
    /// The master does not take it.
    #[error("the master refused this agent: {0}")]
    Refused(String),
}

/// What the HTTP side asks the loop for.
pub(super) enum Request {
    /// SUBSCRIBE; the answer is the body of the response.
    Subscribe {
        framework: FrameworkId,
        executor: ExecutorId,
        call: Box<pb::executor::call::Subscribe>,
        encoding: Encoding,
        reply: oneshot::Sender<Result<axum::body::Body, Refusal>>,
    },
    /// UPDATE.
    Update {
        framework: FrameworkId,
        executor: ExecutorId,
        status: Box<pb::TaskStatus>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// MESSAGE.
    Message {
        framework: FrameworkId,
        executor: ExecutorId,
        data: Vec<u8>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Something that is answered from the state as it is.
    Look(Box<dyn FnOnce(&View<'_>) + Send>),
}

/// What operators may look at.
pub(super) struct View<'a> {
    pub core: &'a Core,
    pub containerizer: &'a Containerizer,
    pub config: &'a AgentConfig,
    pub address: SocketAddr,
    pub started: Time,
    pub connected: bool,
    pub master: Option<&'a pb::MasterInfo>,
    pub counters: Counters,
}

/// What is counted since the start of this process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub launch_errors: u64,
    pub executors_terminated: u64,
}

enum Input {
    Updated {
        container: ContainerId,
        then: Then,
        result: Result<(), String>,
    },
    StreamClosed(StreamId),
}

struct Stream {
    sender: stream::Sender,
    encoding: Encoding,
}

/// An agent that listens and has taken over what an earlier process left.
pub struct Agent {
    config: Arc<AgentConfig>,
    listener: TcpListener,
    address: SocketAddr,
    core: Core,
    store: Store,
    containerizer: Containerizer,
    container_events: mpsc::Receiver<ContainerEvent>,
    recovered: Vec<RecoveredContainer>,
    abandoned: VecDeque<(Time, Run)>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Runs an agent until `shutdown`. Executors of frameworks that checkpoint go on running then.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    Agent::start(config).await?.run(shutdown).await
}

impl Agent {
    /// Listens and recovers; nothing is answered before [`Self::run`].
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        let config = Arc::new(config);
        let listener = TcpListener::bind(config.listen)
            .await
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (bound, listener) = listener.map_err(|source| AgentError::Listen {
            address: config.listen,
            source,
        })?;
        let address = SocketAddr::new(config.ip(), bound.port());
        let cgroups = match wanted(&config) {
            Some(wanted) => Some(Cgroups::detect(&config.cgroups_root, wanted)?),
            None => None,
        };
        let (store, state) = Store::open(config.layout.clone())?;
        let fetcher = Fetcher::new(
            config.layout.cache_dir.clone(),
            config.frameworks_home.clone(),
        )?;
        let (events, container_events) = mpsc::channel(REQUESTS);
        let containerizer = Containerizer::new(
            ContainerizerConfig {
                helper: config.init_helper.clone(),
                cgroups,
                layout: config.layout.clone(),
                destroy_timeout: config.cgroups_destroy_timeout,
                max_log_bytes: config.max_log_bytes,
            },
            fetcher,
            events,
        );
        let core_config = CoreConfig {
            layout: config.layout.clone(),
            ip: address.ip(),
            registration_timeout: config.executor_registration_timeout,
            reregistration_timeout: config.executor_reregistration_timeout,
            shutdown_grace_period: config.executor_shutdown_grace_period,
            command_executor: config.command_executor.clone(),
        };
        let info = config.info(address.port());
        let random = Box::new(uuid::Uuid::new_v4);
        let mut recovered = Vec::new();
        let core = match state {
            None => Core::new(core_config, info, random),
            Some(mut state) => {
                check_compatible(&state, &info, &config)?;
                state.info.port = info.port;
                recovered = containers_of(&state, &config);
                Core::recover(core_config, state, Time::now(), random)
            }
        };
        // Of an earlier process: they were over at some time before now.
        let over = store.finished()?.into_iter();
        let abandoned = over
            .map(|(ended, run)| (ended + config.gc_delay, run))
            .collect();
        Ok(Self {
            config,
            listener,
            address,
            core,
            abandoned,
            store,
            containerizer,
            container_events,
            recovered,
        })
    }

    /// Where the agent is reached.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Works until `shutdown`, or until the master does not want it any more.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let (requests, incoming) = mpsc::channel(REQUESTS);
        let (inputs, internal) = mpsc::channel(REQUESTS);
        let (link_events, link) = mpsc::channel(REQUESTS);
        // Ends with this function, however it ends.
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let server = http::serve(self.listener, requests, stop.clone());
        tokio::spawn(server);
        tracing::info!(address = %self.address, hostname = %self.config.hostname, "agent is up");
        let mut work = Loop {
            config: self.config,
            address: self.address,
            core: self.core,
            store: self.store,
            containerizer: self.containerizer,
            inputs,
            streams: HashMap::new(),
            next_stream: 0,
            master: None,
            master_info: None,
            abandoned: self.abandoned,
            exit: None,
            started: Time::now(),
            counters: Counters::default(),
        };
        let sources = Sources {
            requests: incoming,
            internal,
            containers: self.container_events,
            link,
        };
        work.containerizer.recover(self.recovered)?;
        let mut link_start = Some((link_events, stop));
        work.run(sources, &mut link_start, &shutdown).await
    }
}

fn wanted(config: &AgentConfig) -> Option<Wanted> {
    let wanted = Wanted {
        launcher: config.launcher == Launcher::Linux,
        cpu: config.isolation.cpu,
        memory: config.isolation.memory,
        cfs: config.cgroups_enable_cfs,
    };
    (wanted.launcher || wanted.cpu || wanted.memory).then_some(wanted)
}

/// Mesos' reconfiguration policy `equal`: an agent that comes back must be what it was. Only
/// its port may be another, since tests and restarts choose it freely.
fn check_compatible(
    state: &RecoveredState,
    info: &pb::AgentInfo,
    config: &AgentConfig,
) -> Result<(), AgentError> {
    let old = &state.info;
    let mut what = Vec::new();
    if old.hostname != info.hostname {
        what.push(format!(
            "hostname was {}, is {}",
            old.hostname, info.hostname
        ));
    }
    if old.resources != info.resources {
        what.push("resources differ".to_owned());
    }
    if old.attributes != info.attributes {
        what.push("attributes differ".to_owned());
    }
    if old.domain != info.domain {
        what.push("domain differs".to_owned());
    }
    if what.is_empty() {
        return Ok(());
    }
    Err(AgentError::Incompatible {
        what: what.join(", "),
        path: config.layout.meta_agents().join("latest"),
    })
}

fn containers_of(state: &RecoveredState, config: &AgentConfig) -> Vec<RecoveredContainer> {
    let agent = state.info.id.as_ref().map_or("", |id| id.value.as_str());
    let agent = crate::ids::AgentId::from(agent);
    let mut out = Vec::new();
    for (framework, executors) in &state.frameworks {
        let framework = framework.id.as_ref().map_or("", |id| id.value.as_str());
        let framework = FrameworkId::from(framework);
        for executor in executors {
            let id = ExecutorId::from(&executor.info.executor_id);
            out.push(RecoveredContainer {
                id: executor.container.clone(),
                process: executor.process,
                sandbox: config
                    .layout
                    .sandbox(&agent, &framework, &id, &executor.container),
                grant: super::container::Grant::default(),
            });
        }
    }
    out
}

struct Sources {
    requests: mpsc::Receiver<Request>,
    internal: mpsc::Receiver<Input>,
    containers: mpsc::Receiver<ContainerEvent>,
    link: mpsc::Receiver<LinkEvent>,
}

struct Loop {
    config: Arc<AgentConfig>,
    address: SocketAddr,
    core: Core,
    store: Store,
    containerizer: Containerizer,
    inputs: mpsc::Sender<Input>,
    streams: HashMap<StreamId, Stream>,
    next_stream: u64,
    master: Option<mpsc::Sender<FromAgent>>,
    master_info: Option<pb::MasterInfo>,
    /// Runs that are over, with the time from which their sandboxes and memories may go.
    abandoned: VecDeque<(Time, Run)>,
    /// The master has shut the agent down; it ends when its containers have.
    exit: Option<(String, Time)>,
    started: Time,
    counters: Counters,
}

impl Loop {
    async fn run(
        &mut self,
        mut sources: Sources,
        link_start: &mut Option<(mpsc::Sender<LinkEvent>, CancellationToken)>,
        shutdown: &CancellationToken,
    ) -> Result<(), AgentError> {
        let mut heartbeat = tokio::time::interval(EXECUTOR_HEARTBEAT);
        heartbeat.reset();
        let mut gc = tokio::time::interval(GC_INTERVAL);
        loop {
            self.carry_out().await?;
            if !self.core.is_recovering()
                && let Some((events, stop)) = link_start.take()
            {
                tokio::spawn(link::run(self.config.master.clone(), events, stop));
            }
            if let Some((message, until)) = &self.exit
                && (self.containerizer.count() == 0 || *until <= Time::now())
            {
                return Err(AgentError::Refused(message.clone()));
            }
            let deadline = self.core.deadline();
            let wait = deadline.map_or(Duration::MAX, |at| at.since(Time::now()));
            let wait = wait.min(GC_INTERVAL);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    tracing::info!("agent ends; executors of frameworks that checkpoint go on");
                    return Ok(());
                }
                Some(event) = sources.containers.recv() => self.on_container(event),
                Some(input) = sources.internal.recv() => self.on_input(input),
                Some(event) = sources.link.recv() => self.on_link(event)?,
                Some(request) = sources.requests.recv() => self.on_request(request),
                () = tokio::time::sleep(wait) => self.core.tick(Time::now()),
                _ = heartbeat.tick() => self.beat(),
                _ = gc.tick() => self.collect().await,
            }
            // An event may have come in the stead of a deadline that has passed.
            if self.core.deadline().is_some_and(|at| at <= Time::now()) {
                self.core.tick(Time::now());
            }
        }
    }

    fn on_container(&mut self, event: ContainerEvent) {
        match event {
            ContainerEvent::Launched { id, pid } => self.core.launched(&id, pid),
            ContainerEvent::LaunchFailed { id, message } => {
                tracing::warn!(container = %id, message, "a container could not be started");
                self.counters.launch_errors += 1;
                self.core.launch_failed(&id, &message);
            }
            ContainerEvent::Terminated { id, termination } => {
                self.counters.executors_terminated += 1;
                self.core.terminated(Time::now(), &id, &termination);
            }
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Updated {
                container,
                then,
                result,
            } => self.core.updated(&container, then, result),
            Input::StreamClosed(stream) => {
                if self.streams.remove(&stream).is_some() {
                    self.core.stream_closed(stream);
                }
            }
        }
    }

    fn on_link(&mut self, event: LinkEvent) -> Result<(), AgentError> {
        match event {
            LinkEvent::Introduce(reply) => {
                // It asks again if it is not there any more.
                let _ = reply.send(self.core.introduce(VERSION, true));
            }
            LinkEvent::Connected(sender) => self.master = Some(sender),
            LinkEvent::Message(message) => {
                if let to_agent::Message::Refused(refused) = *message {
                    return Err(AgentError::Refused(refused.message));
                }
                if let to_agent::Message::Registered(registered) = &*message {
                    let id = &registered.agent_id.value;
                    tracing::info!(agent = %id, reregistered = registered.reregistered, "registered");
                    self.master_info = Some(registered.master_info.clone());
                }
                self.core.from_master(Time::now(), *message);
            }
            LinkEvent::Lost => {
                self.master = None;
                self.core.disconnected();
            }
        }
        Ok(())
    }

    fn on_request(&mut self, request: Request) {
        let now = Time::now();
        match request {
            Request::Subscribe {
                framework,
                executor,
                call,
                encoding,
                reply,
            } => {
                let stream = StreamId(self.next_stream);
                self.next_stream += 1;
                let inputs = self.inputs.clone();
                let (sender, body) = stream::channel(move || {
                    // A full queue only delays the news until the next event cannot be sent.
                    let _ = inputs.try_send(Input::StreamClosed(stream));
                });
                self.streams.insert(stream, Stream { sender, encoding });
                let answer = self
                    .core
                    .subscribe(now, &framework, &executor, stream, &call);
                if answer.is_err() {
                    self.streams.remove(&stream);
                }
                let _ = reply.send(answer.map(|()| body));
            }
            Request::Update {
                framework,
                executor,
                status,
                reply,
            } => {
                let _ = reply.send(self.core.update(now, &framework, &executor, *status));
            }
            Request::Message {
                framework,
                executor,
                data,
                reply,
            } => {
                let _ = reply.send(self.core.message(&framework, &executor, data));
            }
            Request::Look(look) => look(&View {
                core: &self.core,
                containerizer: &self.containerizer,
                config: &self.config,
                address: self.address,
                started: self.started,
                connected: self.master.is_some(),
                master: self.master_info.as_ref(),
                counters: self.counters,
            }),
        }
    }

    fn beat(&mut self) {
        let event = pb::executor::Event {
            r#type: Some(pb::executor::event::Type::Heartbeat as i32),
            ..Default::default()
        };
        let streams: Vec<_> = self.streams.keys().copied().collect();
        for stream in streams {
            self.tell(stream, &event);
        }
    }

    fn tell(&mut self, id: StreamId, event: &pb::executor::Event) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let record = encode(stream.encoding, event);
        if stream.sender.send(&record).is_err() {
            // Gone, or so slow that it has to start anew.
            self.streams.remove(&id);
            self.core.stream_closed(id);
        }
    }

    async fn carry_out(&mut self) -> Result<(), AgentError> {
        loop {
            let effects = self.core.take_effects();
            if effects.is_empty() {
                return Ok(());
            }
            for effect in effects {
                self.carry_out_one(effect)?;
            }
            // Let the sockets and containers work between long batches.
            tokio::task::yield_now().await;
        }
    }

    fn carry_out_one(&mut self, effect: Effect) -> Result<(), AgentError> {
        match effect {
            Effect::Send(message) => {
                if let Some(master) = &self.master
                    && master.try_send(FromAgent::from(*message)).is_err()
                {
                    // Full or gone: the link ends with its queue and subscribes again.
                    self.master = None;
                    self.core.disconnected();
                }
            }
            Effect::Tell(stream, event) => self.tell(stream, &event),
            Effect::Close(stream) => drop(self.streams.remove(&stream)),
            Effect::Remember(record) => self.store.remember(&record)?,
            Effect::Launch(launch) => self.launch(*launch),
            Effect::Update {
                container,
                grant,
                then,
            } => {
                let update = self.containerizer.update(&container, grant);
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let result = update.await.map_err(|error| error.to_string());
                    let done = Input::Updated {
                        container,
                        then,
                        result,
                    };
                    let _ = inputs.send(done).await;
                });
            }
            Effect::Destroy(container) => self.containerizer.destroy(&container),
            Effect::Abandon(run) => {
                let at = Time::now() + self.config.gc_delay;
                self.abandoned.push_back((at, run));
            }
            Effect::Exit(message) => {
                self.exit = Some((message, Time::now() + SHUTDOWN_PATIENCE));
            }
        }
        Ok(())
    }

    fn launch(&mut self, launch: Launch) {
        let id = launch.container.clone();
        if launch.executor.container.as_ref().is_some_and(has_image) {
            let message = "container images are not implemented by this agent; use a command \
                           on the agent's own file system";
            self.core.launch_failed(&id, message);
            let termination = super::container::Termination {
                status: None,
                cause: None,
            };
            self.core.terminated(Time::now(), &id, &termination);
            return;
        }
        // Only root may become somebody else.
        let root = nix::unistd::geteuid().is_root();
        let user = launch.user.as_deref().filter(|_| root);
        let user = match sandbox::create(&launch.sandbox, user) {
            Ok(user) => user,
            Err(error) => {
                tracing::warn!(container = %id, %error, "no sandbox");
                self.core
                    .sandbox_failed(Time::now(), &id, &error.to_string());
                return;
            }
        };
        let agent = self.core.agent_id();
        let environment: BTreeMap<String, String> =
            environment::of(&launch, &self.config, &agent, self.address);
        let run = Run {
            framework: FrameworkId::from(
                launch
                    .framework
                    .id
                    .as_ref()
                    .map_or("", |id| id.value.as_str()),
            ),
            executor: ExecutorId::from(&launch.executor.executor_id),
            container: id.clone(),
        };
        let pid_file = launch
            .framework
            .checkpoint()
            .then(|| self.store.pid_file(&run));
        self.containerizer.launch(ContainerSpec {
            id,
            command: launch.executor.command.clone().unwrap_or_default(),
            environment,
            sandbox: launch.sandbox.clone(),
            user: user.filter(|user| user.uid != 0),
            grant: launch.grant,
            command_task: launch.command_task,
            pid_file,
        });
    }

    async fn collect(&mut self) {
        let now = Time::now();
        while let Some((at, _)) = self.abandoned.front()
            && *at <= now
        {
            let Some((_, run)) = self.abandoned.pop_front() else {
                return;
            };
            // Its memory last: it is what finds the sandbox after a restart.
            for path in self.store.traces_of(&run) {
                let removed = tokio::fs::remove_dir_all(&path).await;
                if let Err(error) = removed
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "an old run leaves traces");
                }
            }
        }
    }
}

fn has_image(container: &pb::ContainerInfo) -> bool {
    container.docker.is_some() || container.mesos.as_ref().is_some_and(|m| m.image.is_some())
}
