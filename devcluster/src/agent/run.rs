//! The agent at work: one loop that feeds the core with what happens and carries its effects
//! out, in order.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesos::codec::Encoding;
use mesos::pb;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::config::{AgentConfig, VERSION};
use super::container::{ContainerEvent, ContainerId, ContainerSpec, Containerizer};
use super::core::model::StreamId;
use super::core::{Core, Effect, Launch, Refusal, Run, Then};
use super::images::rootfs::ContainerImage;
use super::link::{self, LinkEvent};
use super::secrets::{self, Secrets};
use super::start::AgentError;
use super::store::Store;
use super::subscriptions::Subscriptions;
use super::{disk, environment, images, sandbox, volumes};
use crate::clock::Time;
use crate::ids::{ExecutorId, FrameworkId};
use crate::protocol::{FromAgent, to_agent};

/// Requests that may wait for the loop; HTTP clients wait when they are more.
pub(super) const REQUESTS: usize = 1024;
/// HEARTBEAT on executors' subscriptions (Mesos).
const EXECUTOR_HEARTBEAT: Duration = Duration::from_secs(30 * 60);
/// How long executors may take after the master has shut the agent down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);
/// How often old sandboxes are looked for.
const GC_INTERVAL: Duration = Duration::from_secs(10);
/// How often it is looked how full the disk is: Mesos' default of `--disk_watch_interval`.
const DISK_WATCH_INTERVAL: Duration = Duration::from_secs(60);

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
    Look(Look),
}

/// Something that is answered from the state as it is.
pub(super) type Look = Box<dyn FnOnce(&View<'_>) + Send>;

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

pub(super) enum Input {
    Updated {
        container: ContainerId,
        then: Then,
        result: Result<(), String>,
    },
    StreamClosed(StreamId),
}

pub(super) struct Sources {
    pub requests: mpsc::Receiver<Request>,
    pub internal: mpsc::Receiver<Input>,
    pub containers: mpsc::Receiver<ContainerEvent>,
    pub link: mpsc::Receiver<LinkEvent>,
}

pub(super) struct Loop {
    pub config: Arc<AgentConfig>,
    pub address: SocketAddr,
    pub core: Core,
    pub store: Store,
    pub containerizer: Containerizer,
    pub secrets: Secrets,
    pub inputs: mpsc::Sender<Input>,
    pub subscriptions: Subscriptions,
    pub master: Option<mpsc::Sender<FromAgent>>,
    pub master_info: Option<pb::MasterInfo>,
    /// Runs that are over, with the time from which their sandboxes and memories may go.
    pub abandoned: VecDeque<(Time, Run)>,
    /// How much earlier they go, since the disk is as full as it is.
    pub early: Duration,
    /// The master has shut the agent down; it ends when its containers have.
    pub exit: Option<(String, Time)>,
    pub started: Time,
    pub counters: Counters,
}

impl Loop {
    pub async fn run(
        &mut self,
        mut sources: Sources,
        link_start: &mut Option<(mpsc::Sender<LinkEvent>, CancellationToken)>,
        shutdown: &CancellationToken,
    ) -> Result<(), AgentError> {
        let mut heartbeat = tokio::time::interval(EXECUTOR_HEARTBEAT);
        heartbeat.reset();
        let mut gc = tokio::time::interval(GC_INTERVAL);
        let mut disk_watch = tokio::time::interval(DISK_WATCH_INTERVAL);
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
                    if self.containerizer.count() == 0 {
                        self.containerizer.remove_root();
                    }
                    return Ok(());
                }
                Some(event) = sources.containers.recv() => self.on_container(event),
                Some(input) = sources.internal.recv() => self.on_input(input),
                Some(event) = sources.link.recv() => self.on_link(event)?,
                Some(request) = sources.requests.recv() => self.on_request(request),
                () = tokio::time::sleep(wait) => self.core.tick(Time::now()),
                _ = heartbeat.tick() => self.beat(),
                _ = gc.tick() => self.collect().await,
                _ = disk_watch.tick() => self.watch_disk(),
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
                if self.subscriptions.close(stream) {
                    self.core.stream_closed(stream);
                }
            }
        }
    }

    fn on_link(&mut self, event: LinkEvent) -> Result<(), AgentError> {
        match event {
            LinkEvent::Introduce { reply, outgoing } => {
                self.master = Some(outgoing);
                // It asks again if it is not there any more.
                let _ = reply.send(self.core.introduce(VERSION, true));
            }
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
        let look = self
            .subscriptions
            .answer(&mut self.core, Time::now(), request);
        if let Some(look) = look {
            look(&View {
                core: &self.core,
                containerizer: &self.containerizer,
                config: &self.config,
                address: self.address,
                started: self.started,
                connected: self.core.is_connected(),
                master: self.master_info.as_ref(),
                counters: self.counters,
            });
        }
    }

    fn beat(&mut self) {
        let event = pb::executor::Event {
            r#type: Some(pb::executor::event::Type::Heartbeat as i32),
            ..Default::default()
        };
        self.subscriptions.tell_all(&mut self.core, &event);
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
            Effect::Tell(stream, mut event) => {
                self.secrets.fill_in(&mut event);
                self.subscriptions.tell(&mut self.core, stream, &event);
            }
            Effect::Close(stream) => {
                self.subscriptions.close(stream);
            }
            Effect::Remember(record) => self.store.remember(&record)?,
            Effect::Launch(launch) => self.launch(*launch),
            Effect::CreateVolume(volume) => {
                volumes::create(&self.config.layout, &volume)?;
                tracing::info!(role = volume.role, id = volume.id, "volume made");
            }
            Effect::RemoveVolume(volume) => {
                volumes::remove(&self.config.layout, &volume)?;
                tracing::info!(role = volume.role, id = volume.id, "volume removed");
            }
            Effect::Update {
                container,
                grant,
                sandbox,
                volumes,
                then,
            } => {
                let note = self.config.layout.container(&container);
                let note = note.join(ContainerImage::FILE);
                let linked = match super::disk::read_json::<ContainerImage>(&note) {
                    Ok(Some(image)) => images::persistent(&self.config.layout, &volumes)
                        .and_then(|wanted| image.rootfs.sees(&wanted)),
                    _ => volumes::link(&self.config.layout, &sandbox, &volumes, None),
                };
                if let Err(why) = linked {
                    self.core.updated(&container, then, Err(why));
                    return Ok(());
                }
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
        let image = not_implemented(&launch.executor)
            .map_or(Ok(()), |what| {
                Err(format!(
                    "{what} not implemented by this agent; use a command on the agent's own file system"
                ))
            })
            .and_then(|()| {
                let container = launch.executor.container.as_ref();
                let config = self.config.images.as_ref();
                let mut image = images::wanted(container, config, &self.secrets)?;
                if let Some(image) = &mut image {
                    let volumes = images::persistent(&self.config.layout, &launch.volumes)?;
                    image.binds.extend(volumes);
                }
                Ok(image)
            });
        let image = match image {
            Ok(image) => image,
            Err(message) => {
                self.core.launch_failed(&id, &message);
                let termination = super::container::Termination {
                    status: None,
                    cause: None,
                };
                self.core.terminated(Time::now(), &id, &termination);
                return;
            }
        };
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
        let linked = match image {
            // A link would lead nowhere from inside.
            Some(_) => volumes::own(&self.config.layout, &launch.volumes, user.as_ref()),
            None => volumes::link(
                &self.config.layout,
                &launch.sandbox,
                &launch.volumes,
                user.as_ref(),
            ),
        };
        let missing = launch
            .secrets
            .iter()
            .find_map(|s| self.secrets.resolve(s).err())
            .or_else(|| {
                let container = launch.executor.container.as_ref();
                let files = container.map_or(&[][..], |c| &c.volumes);
                let sandbox = &launch.sandbox;
                let written = self.secrets.write_files(sandbox, files, user.as_ref());
                written.err()
            })
            .map(|error| error.to_string());
        if let Some(why) = linked.err().or(missing) {
            tracing::warn!(container = %id, why, "not launched");
            self.core.launch_failed(&id, &why);
            let termination = super::container::Termination {
                status: None,
                cause: None,
            };
            self.core.terminated(Time::now(), &id, &termination);
            return;
        }
        let agent = self.core.agent_id();
        let environment: BTreeMap<String, String> =
            environment::of(&launch, &self.config, &agent, self.address, &self.secrets);
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
            image,
            pid_file,
        });
    }

    /// The fuller the disk, the earlier sandboxes go.
    fn watch_disk(&mut self) {
        let used = disk::usage(&self.config.layout.work_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "how full is the disk?");
            0.0
        });
        let delay = self.config.gc_delay;
        self.early = delay.saturating_sub(largest_age(delay, self.config.gc_disk_headroom, used));
    }

    async fn collect(&mut self) {
        let due = Time::now() + self.early;
        while let Some((at, _)) = self.abandoned.front()
            && *at <= due
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

/// How old sandboxes may be while the disk is `used` (0 to 1): Mesos' rule, all of `delay` on an
/// empty disk, and nothing when no more than `headroom` is free.
fn largest_age(delay: Duration, headroom: f64, used: f64) -> Duration {
    delay.mul_f64((1.0 - headroom - used).clamp(0.0, 1.0))
}

/// What an executor asks for that this agent cannot do, with its verb.
fn not_implemented(executor: &pb::ExecutorInfo) -> Option<&'static str> {
    if executor.r#type() == pb::executor_info::Type::Default {
        return Some("the default executor is");
    }
    let container = executor.container.as_ref()?;
    let named = |n: &pb::NetworkInfo| n.name.is_some();
    let image =
        container.docker.is_some() || container.mesos.as_ref().is_some_and(|m| m.image.is_some());
    if !image && !container.volumes.iter().all(secrets::is_secret) {
        Some("volumes without an image are")
    } else if container.network_infos.iter().any(named) {
        Some("container networks are")
    } else if container.tty_info.is_some() || container.rlimit_info.is_some() {
        Some("terminals and resource limits of processes are")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_go_earlier_the_fuller_the_disk_is() {
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(largest_age(week, 0.0, 0.0), week);
        assert_eq!(largest_age(week, 0.1, 0.4).as_secs(), week.as_secs() / 2);
        assert_eq!(largest_age(week, 0.1, 0.95), Duration::ZERO);
    }
}
