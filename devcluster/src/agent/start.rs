//! An agent from its configuration to its first event: what it needs of the machine, and what
//! an earlier process has left.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use mesos::pb;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cgroups::{Cgroups, Wanted};
use super::config::{AgentConfig, Launcher};
use super::container::{ContainerEvent, Containerizer, ContainerizerConfig, RecoveredContainer};
use super::core::{Core, CoreConfig, RecoveredState, Run};
use super::fetcher::Fetcher;
use super::http;
use super::images;
use super::run::{Counters, Loop, REQUESTS, Sources};
use super::secrets::Secrets;
use super::store::Store;
use super::subscriptions::Subscriptions;
use crate::clock::Time;
use crate::ids::{ExecutorId, FrameworkId};

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
    /// The store of images cannot be used.
    #[error("--docker-store-dir: {0}")]
    Images(#[from] super::images::store::Error),
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
        let images = config.images.clone();
        let (events, container_events) = mpsc::channel(REQUESTS);
        let containerizer = Containerizer::new(
            ContainerizerConfig {
                helper: config.init_helper.clone(),
                cgroups,
                layout: config.layout.clone(),
                destroy_timeout: config.cgroups_destroy_timeout,
                max_log_bytes: config.max_log_bytes,
                images: images
                    .map(|i| images::store::Store::open(i, config.layout.clone()))
                    .transpose()?,
                enter_helper: config.enter_helper.clone(),
            },
            fetcher,
            events,
        );
        let (core, recovered) = core_of(&config, address, state, Time::now())?;
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
        let key = self.config.executor_key.clone();
        let server = http::serve(self.listener, requests, key, stop.clone());
        tokio::spawn(server);
        tracing::info!(address = %self.address, hostname = %self.config.hostname, "agent is up");
        let mut work = Loop {
            secrets: Secrets::new(self.config.secrets_dir.clone()),
            config: self.config,
            address: self.address,
            core: self.core,
            store: self.store,
            containerizer: self.containerizer,
            subscriptions: Subscriptions::new(inputs.clone()),
            inputs,
            master: None,
            master_info: None,
            abandoned: self.abandoned,
            early: std::time::Duration::ZERO,
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

/// The core of an agent at this address, with what an earlier process has left, and the
/// containers of that.
pub(super) fn core_of(
    config: &AgentConfig,
    address: SocketAddr,
    state: Option<RecoveredState>,
    now: Time,
) -> Result<(Core, Vec<RecoveredContainer>), AgentError> {
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
    let Some(mut state) = state else {
        return Ok((Core::new(core_config, info, random), Vec::new()));
    };
    check_compatible(&state, &info, config)?;
    state.info.port = info.port;
    let containers = containers_of(&state, config);
    let core = Core::recover(core_config, state, now, random);
    Ok((core, containers))
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
