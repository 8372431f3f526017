//! The life of each container, one task per container.

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command as Program};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::init::InitSpec;
use super::start::{Line, Process};
use super::{
    Cause, ContainerEvent, ContainerId, ContainerSpec, Grant, ProcessRef, RecoveredContainer,
    Termination, posix,
};
use crate::agent::cgroups::{CgroupError, Cgroups, OutOfMemory};
use crate::agent::disk::{self, DiskError};
use crate::agent::fetcher::Fetcher;
use crate::agent::images::rootfs::{ContainerImage, Rootfs};
use crate::agent::images::store::{Store, Stored};
use crate::agent::images::{Manner, Wanted, runtime as image_runtime};
use crate::agent::paths::Layout;
use crate::agent::sandbox;

/// How often the logs of a container are measured.
const LOG_INTERVAL: Duration = Duration::from_secs(2);
/// How long the word of an out-of-memory may come after the end that it caused.
const OOM_GRACE: Duration = Duration::from_millis(20);
/// Commands that may wait for one container; the agent waits when they are more.
const COMMANDS: usize = 64;
/// Wait status of a fetcher that failed (exit code 1), which Mesos reports.
const FETCH_FAILED: i32 = 1 << 8;

/// What all containers of an agent share.
#[derive(Debug)]
pub struct ContainerizerConfig {
    /// Program and first arguments with which this program becomes [`super::init::main`].
    pub helper: Vec<OsString>,
    /// The machine's control groups, if the agent uses any.
    pub cgroups: Option<Cgroups>,
    /// The agent's directories.
    pub layout: Layout,
    /// How long the processes of a container may take to die (`--cgroups_destroy_timeout`).
    pub destroy_timeout: Duration,
    /// Longest log of a sandbox in bytes.
    pub max_log_bytes: u64,
    /// The images, if the agent runs any.
    pub images: Option<Store>,
    /// Program and arguments that become [`crate::agent::images::enter::main`].
    pub enter_helper: Vec<String>,
}

/// Why the containerizer could not do something.
#[derive(Debug, thiserror::Error)]
pub enum ContainerizerError {
    /// Control groups refused.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A file could not be written or read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no such container (any more).
    #[error("unknown container {0}")]
    Unknown(ContainerId),
}

pub(super) enum Command {
    Update {
        grant: Grant,
        reply: oneshot::Sender<Result<(), ContainerizerError>>,
    },
    Destroy,
}

#[derive(Debug)]
pub(super) struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) grant: Grant,
    pub(super) pid: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ContainerizerConfig,
    pub(super) fetcher: Fetcher,
    pub(super) containers: Mutex<HashMap<ContainerId, Handle>>,
    pub(super) events: mpsc::Sender<ContainerEvent>,
}

/// Ends the containers that an agent with this runtime directory has left, as far as their
/// init processes or sessions live, and forgets them. For the end of a cluster whose agents
/// may have been killed.
pub async fn sweep(
    runtime_dir: &std::path::Path,
    patience: Duration,
) -> Result<(), ContainerizerError> {
    let containers = runtime_dir.join("containers");
    for name in disk::list_dir(&containers)? {
        let dir = containers.join(name);
        let process = disk::read_json::<ProcessRef>(&dir.join("pid"))?;
        if let Some(process) = process.filter(|p| p.is_alive()) {
            kill_session(process.pid, patience).await?;
        }
        std::fs::remove_dir_all(&dir).map_err(disk::io_error("remove", &dir))?;
    }
    Ok(())
}

/// The init process, started by this agent or by one before it.
enum Init {
    Own(Child),
    Recovered(ProcessRef),
    /// Recovered, and its pid was never remembered: it cannot have run anything.
    Unknown,
}

/// Why a container's life ended.
enum End {
    /// By itself, with this wait status.
    Exited(Option<i32>),
    OutOfMemory {
        event: OutOfMemory,
        /// The wait status, if the init process ended before the word came.
        status: Option<Option<i32>>,
    },
    Destroyed,
}

impl Shared {
    pub(super) fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, Handle>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(
        &self,
        id: &ContainerId,
        grant: Grant,
        pid: Option<u32>,
    ) -> mpsc::Receiver<Command> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let handle = Handle {
            commands,
            grant,
            pid,
        };
        self.containers().insert(id.clone(), handle);
        receiver
    }

    async fn tell(&self, event: ContainerEvent) {
        // The receiver is gone only while the agent ends.
        let _ = self.events.send(event).await;
    }

    pub(super) async fn run_new(
        self: Arc<Self>,
        spec: ContainerSpec,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let id = spec.id.clone();
        match self.start(&spec, &mut commands).await {
            Ok(Some(child)) => {
                let pid = child.id().unwrap_or(0);
                if let Some(handle) = self.containers().get_mut(&id) {
                    handle.pid = Some(pid);
                }
                self.tell(ContainerEvent::Launched {
                    id: id.clone(),
                    pid,
                })
                .await;
                self.live(&id, Init::Own(child), pid, &spec.sandbox, commands)
                    .await;
            }
            Ok(None) => {
                let cleaned = self.clean(&id, None).await.map(|()| None);
                self.end(&id, End::Destroyed, cleaned).await;
            }
            Err((message, status)) => {
                self.tell(ContainerEvent::LaunchFailed {
                    id: id.clone(),
                    message,
                })
                .await;
                let cleaned = self.clean(&id, None).await.map(|()| None);
                self.end(&id, End::Exited(status), cleaned).await;
            }
        }
    }

    pub(super) async fn run_recovered(
        self: Arc<Self>,
        container: RecoveredContainer,
        commands: mpsc::Receiver<Command>,
    ) {
        let id = container.id;
        let (init, pid) = match container.process {
            Some(process) => (Init::Recovered(process), process.pid),
            None => (Init::Unknown, 0),
        };
        self.live(&id, init, pid, &container.sandbox, commands)
            .await;
    }

    /// Everything up to the running command. `None`: it was destroyed meanwhile.
    async fn start(
        &self,
        spec: &ContainerSpec,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<Option<Child>, (String, Option<i32>)> {
        let failed = |error: &dyn std::fmt::Display| (error.to_string(), None);
        let log = |name| sandbox::open_log(&spec.sandbox, name, spec.user.as_ref());
        let stdout = log("stdout").map_err(|e| failed(&e))?;
        let stderr = log("stderr").map_err(|e| failed(&e))?;

        let fetch = self
            .fetcher
            .fetch(&spec.command.uris, &spec.sandbox, spec.user.as_ref());
        let fetched = tokio::select! {
            fetched = fetch => fetched,
            () = destroyed(commands) => return Ok(None),
        };
        if let Err(error) = fetched {
            use std::io::Write;
            let _ = writeln!(&stderr, "Failed to fetch: {error}");
            tracing::warn!(container = %spec.id, %error, "fetching failed");
            return Err((
                format!(
                    "Failed to fetch all URIs for container '{}': exited with status 1",
                    spec.id
                ),
                Some(FETCH_FAILED),
            ));
        }

        let stored = match &spec.image {
            None => None,
            Some(wanted) => {
                let images = self.config.images.as_ref();
                let images = images.ok_or_else(|| failed(&"this agent runs no images"))?;
                tokio::select! {
                    stored = images.get(wanted) => Some((wanted, stored.map_err(|e| failed(&e))?)),
                    () = destroyed(commands) => return Ok(None),
                }
            }
        };

        if let Some(cgroups) = &self.config.cgroups {
            cgroups.create(&spec.id).map_err(|e| failed(&e))?;
            let grant = self
                .containers()
                .get(&spec.id)
                .map_or(spec.grant, |h| h.grant);
            cgroups
                .update(&spec.id, &grant, true)
                .map_err(|e| failed(&e))?;
        }
        let runtime = self.config.layout.container(&spec.id);
        disk::make_dir(&runtime).map_err(|e| failed(&e))?;
        let init = match &stored {
            None => self.init_spec(spec).map_err(|e| failed(&e))?,
            Some((wanted, stored)) => self
                .init_spec_of_image(spec, wanted, stored)
                .map_err(|e| failed(&e))?,
        };
        // From here on the container's own note keeps the image.
        drop(stored);
        let mut message = serde_json::to_vec(&init).map_err(|e| failed(&e))?;
        message.push(b'\n');

        let (first, rest) = self
            .config
            .helper
            .split_first()
            .ok_or_else(|| failed(&"no helper program is configured"))?;
        let mut child = Program::new(first)
            .args(rest)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr))
            .kill_on_drop(false)
            .spawn()
            .map_err(|e| {
                let program = std::path::Path::new(first).display();
                failed(&format!("cannot start {program}: {e}"))
            })?;
        match self.release(spec, &mut child, &message).await {
            Ok(()) => Ok(Some(child)),
            Err(error) => {
                // It waits for its specification, so it has done nothing.
                let _ = child.kill().await;
                Err(failed(&error))
            }
        }
    }

    /// What the init process of a container on the agent's own file system is told.
    fn init_spec(&self, spec: &ContainerSpec) -> Result<InitSpec, String> {
        Ok(InitSpec {
            process: Process {
                line: Line::of(&spec.command)?,
                environment: spec.environment.clone(),
                directory: spec.sandbox.clone(),
                user: spec.user.as_ref().map(|u| (u.uid, u.gid)),
            },
            status: self.config.layout.container_status(&spec.id),
            image: None,
        })
    }

    /// The same with an image. The executor of a command task stays outside as who the agent is,
    /// finds the image by the container's note, and has its task enter; others enter themselves.
    fn init_spec_of_image(
        &self,
        spec: &ContainerSpec,
        wanted: &Wanted,
        stored: &Stored,
    ) -> Result<InitSpec, String> {
        let dir = self.config.layout.container(&spec.id);
        let user = match wanted.manner {
            Manner::Mesos => spec.user.as_ref().map(|u| (u.uid, u.gid)),
            Manner::Docker => {
                let text = |path: &str| {
                    std::fs::read_to_string(stored.rootfs.join(path)).unwrap_or_default()
                };
                let (passwd, group) = (text("etc/passwd"), text("etc/group"));
                Some(image_runtime::user(&stored.run, &passwd, &group)?)
            }
        };
        let image = ContainerImage {
            rootfs: Rootfs {
                lower: stored.rootfs.clone(),
                dir: dir.clone(),
                sandbox: spec.sandbox.clone(),
                binds: wanted.binds.clone(),
                privileged: wanted.privileged,
            },
            run: stored.run.clone(),
            manner: wanted.manner,
            user,
            helper: self.config.enter_helper.clone(),
        };
        image.rootfs.prepare().map_err(|e| e.to_string())?;
        let note = dir.join(ContainerImage::FILE);
        disk::write_json(&note, &image).map_err(|e| e.to_string())?;
        if spec.command_task {
            let mut init = self.init_spec(spec)?;
            init.process.user = None;
            let argument = format!("--image={}", note.display());
            init.process.line.arguments.push(argument);
            return Ok(init);
        }
        let line = image_runtime::line(&spec.command, &stored.run, wanted.manner)?;
        // Variables of the executor's own command go over the image's, what else the agent says
        // does not.
        let own = spec.command.environment.iter().flat_map(|e| &e.variables);
        let own: Vec<&str> = own.map(|v| v.name.as_str()).collect();
        let (task, agent): (Vec<_>, Vec<_>) = spec
            .environment
            .clone()
            .into_iter()
            .partition(|(name, _)| own.contains(&name.as_str()) || name.starts_with("MESOS_"));
        Ok(InitSpec {
            process: Process {
                line,
                environment: image_runtime::environment(agent, &stored.run, task),
                directory: image_runtime::directory(&stored.run, wanted.manner).into(),
                user,
            },
            status: self.config.layout.container_status(&spec.id),
            image: Some((image.rootfs, image.helper)),
        })
    }

    /// Puts the waiting init process into its cgroups, remembers it, and lets it go on.
    async fn release(
        &self,
        spec: &ContainerSpec,
        child: &mut Child,
        message: &[u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let pid = child.id().ok_or("the init process ended at once")?;
        if let Some(cgroups) = &self.config.cgroups {
            cgroups.assign(&spec.id, pid)?;
        }
        let process = ProcessRef::of(pid)?;
        disk::write_json(&self.config.layout.container_pid(&spec.id), &process)?;
        if let Some(path) = &spec.pid_file {
            disk::write_json(path, &process)?;
        }
        if spec.command_task {
            prefer_for_oom(pid, &spec.grant);
        }
        let mut stdin = child.stdin.take().ok_or("the init process has no input")?;
        stdin.write_all(message).await?;
        stdin.shutdown().await?;
        Ok(())
    }

    /// From the running command to the end.
    async fn live(
        &self,
        id: &ContainerId,
        init: Init,
        pid: u32,
        sandbox: &std::path::Path,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let layout = &self.config.layout;
        let status_file = layout.container_status(id);
        let mut exited: Pin<Box<dyn Future<Output = Option<i32>> + Send>> = match init {
            Init::Own(mut child) => Box::pin(async move {
                match child.wait().await {
                    Ok(status) => Some(status.into_raw()),
                    Err(_) => None,
                }
            }),
            Init::Recovered(process) => Box::pin(async move {
                if let Err(error) = process.ended().await {
                    tracing::warn!(pid = process.pid, %error, "a process cannot be watched");
                    while process.is_alive() {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
                read_status(status_file)
            }),
            Init::Unknown => Box::pin(std::future::ready(None)),
        };
        let mut out_of_memory: Pin<Box<dyn Future<Output = OutOfMemory> + Send + '_>> =
            match &self.config.cgroups {
                Some(cgroups) if cgroups.exists(id) => Box::pin(async move {
                    match cgroups.out_of_memory(id).await {
                        Ok(event) => event,
                        Err(error) => {
                            tracing::warn!(container = %id, %error, "memory is not watched");
                            std::future::pending().await
                        }
                    }
                }),
                _ => Box::pin(std::future::pending()),
            };
        let mut logs = tokio::time::interval(LOG_INTERVAL);
        let end = loop {
            tokio::select! {
                biased;
                event = &mut out_of_memory => break End::OutOfMemory { event, status: None },
                status = &mut exited => {
                    // The kernel kills and tells at the same time: who is killed may be seen first.
                    if status != Some(0)
                        && let Ok(event) = timeout(OOM_GRACE, &mut out_of_memory).await
                    {
                        break End::OutOfMemory { event, status: Some(status) };
                    }
                    break End::Exited(status);
                }
                command = commands.recv() => match command {
                    Some(Command::Update { grant, reply }) => {
                        let done = self.apply(id, &grant);
                        let _ = reply.send(done);
                    }
                    Some(Command::Destroy) => break End::Destroyed,
                    // The agent itself ends and leaves its containers running.
                    None => return,
                },
                _ = logs.tick() => {
                    let (path, max) = (sandbox.to_owned(), self.config.max_log_bytes);
                    // Copying megabytes is no work for the reactor.
                    let _ = tokio::task::spawn_blocking(move || sandbox::bound_logs(&path, max)).await;
                }
            }
        };
        drop(out_of_memory);
        let cleaned = match &end {
            End::Exited(_)
            | End::OutOfMemory {
                status: Some(_), ..
            } => self.clean(id, Some(pid)).await.map(|()| None),
            End::OutOfMemory { status: None, .. } | End::Destroyed => {
                // The init process has to be reaped while the others are killed.
                let patience = self.config.destroy_timeout;
                let (cleaned, status) =
                    tokio::join!(self.clean(id, Some(pid)), timeout(patience, exited));
                // Whoever was killed by us wrote no status: it was SIGKILL.
                cleaned.map(|()| status.ok().flatten().or(Some(nix::libc::SIGKILL)))
            }
        };
        self.end(id, end, cleaned).await;
    }

    fn apply(&self, id: &ContainerId, grant: &Grant) -> Result<(), ContainerizerError> {
        match &self.config.cgroups {
            Some(cgroups) => Ok(cgroups.update(id, grant, false)?),
            None => Ok(()),
        }
    }

    async fn end(
        &self,
        id: &ContainerId,
        end: End,
        cleaned: Result<Option<i32>, ContainerizerError>,
    ) {
        let (mut status, mut cause) = (None, None);
        match cleaned {
            Ok(found) => status = found,
            Err(error) => {
                tracing::error!(container = %id, %error, "a container does not end");
                cause = Some(Cause::DestroyFailed(error.to_string()));
            }
        }
        match end {
            End::Exited(found) => status = found.or(status),
            End::OutOfMemory {
                event,
                status: found,
            } => {
                status = found.flatten().or(status);
                cause = Some(Cause::Memory {
                    message: event.message,
                    limit_mib: event.limit_mib,
                });
            }
            End::Destroyed => {}
        }
        self.containers().remove(id);
        self.tell(ContainerEvent::Terminated {
            id: id.clone(),
            termination: Termination { status, cause },
        })
        .await;
    }

    /// Kills what is left of a container and removes everything that was made for it.
    pub(super) async fn clean(
        &self,
        id: &ContainerId,
        pid: Option<u32>,
    ) -> Result<(), ContainerizerError> {
        let patience = self.config.destroy_timeout;
        let mut tracked = false;
        if let Some(cgroups) = &self.config.cgroups {
            cgroups.destroy(id, patience).await?;
            tracked = cgroups.tracks_processes();
        }
        if let Some(pid) = pid.filter(|pid| *pid > 1 && !tracked) {
            kill_session(pid, patience).await?;
        }
        let runtime = self.config.layout.container(id);
        match std::fs::remove_dir_all(&runtime) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(disk::io_error("remove", &runtime)(error).into())
            }
            _ => Ok(()),
        }
    }
}

async fn destroyed(commands: &mut mpsc::Receiver<Command>) {
    loop {
        match commands.recv().await {
            Some(Command::Destroy) => return,
            // The new grant is in the handle already and used when the cgroups are made.
            Some(Command::Update { reply, .. }) => {
                let _ = reply.send(Ok(()));
            }
            // The agent ends: the fetch goes down with it.
            None => return,
        }
    }
}

async fn kill_session(pid: u32, patience: Duration) -> Result<(), ContainerizerError> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        let left = posix::kill_once(pid);
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(CgroupError::Undead {
                left,
                path: PathBuf::from(format!("/proc/{pid}")),
                after: patience,
            }
            .into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn read_status(path: PathBuf) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A command task that may use more memory than it requested goes first when the machine runs
/// out: its score is such that it reaches the greatest one as it exceeds its request.
fn prefer_for_oom(pid: u32, grant: &Grant) {
    let (Some(request), Some(limit)) = (grant.mem, grant.mem_limit) else {
        return;
    };
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
        return;
    };
    let total_kib = text
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"))
        .and_then(|n| n.trim().parse::<f64>().ok());
    let Some(total_kib) = total_kib else { return };
    if request >= limit || total_kib <= 0.0 {
        return;
    }
    let score = 1000.0 - 1000.0 * request * 1024.0 / total_kib;
    let path = format!("/proc/{pid}/oom_score_adj");
    if let Err(error) = std::fs::write(&path, format!("{}", score.clamp(0.0, 999.0) as i32)) {
        tracing::warn!(%path, %error, "the out-of-memory score is not set");
    }
}
