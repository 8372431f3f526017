//! The executor of command tasks: this very program, started by the agent as the command of a
//! task's container. It runs the task's command in a process group of its own and reports what
//! becomes of it, the way Mesos' own command executor does.

mod checks;
mod inside;
mod task;

use std::path::Path;
use std::time::Duration;

use mesos::executor::{ExecutorConfig, ExecutorEvent, ExecutorHandle, Ledger, new_update, spawn};
use mesos::http::ClientConfig;
use mesos::pb;
use pb::executor::call::{Type, Update};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::agent::disk::{self, DiskError};
use crate::agent::images::rootfs::ContainerImage;

use task::{Ended, Happened, Task};

/// Grace between SIGTERM and SIGKILL for a task that names none (Mesos).
const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(3);
/// How long the last update may wait for its acknowledgement while the agent is there. When the
/// agent is away, the client's recovery timeout counts.
const LAST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(60);
/// Pause between attempts to send what the agent has not acknowledged.
const RESEND: Duration = Duration::from_millis(500);

/// Why the executor cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CommandExecutorError {
    /// It was not started by an agent.
    #[error(transparent)]
    Config(#[from] mesos::http::ConfigError),
    /// The note of the container's image cannot be read.
    #[error(transparent)]
    Image(#[from] DiskError),
    /// It is gone.
    #[error("the note of the container's image is gone")]
    NoImage,
    /// The agent sent no task within the time that it allows itself.
    #[error("the agent is gone and did not come back")]
    Abandoned,
}

/// Runs as an executor until its one task has ended and the agent knows it.
///
/// `image` is the note of the container's image, if it has one.
pub async fn main(image: Option<&Path>) -> Result<(), CommandExecutorError> {
    let image = match image {
        None => None,
        Some(path) => Some(disk::read_json(path)?.ok_or(CommandExecutorError::NoImage)?),
    };
    let client = ClientConfig::default();
    let config = ExecutorConfig::from_env(client)?;
    let grace = config.shutdown_grace_period;
    let executor_id = config.executor_id.clone();
    let (handle, events) = spawn(config)?;
    Executor {
        handle,
        executor_id,
        grace,
        ledger: Ledger::default(),
        killing_state: false,
        image,
        task: None,
        kill_at: None,
        completion_at: None,
        killed: None,
        done: None,
    }
    .run(events)
    .await
}

/// Why the task is being killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Asked,
    TooLong,
    Unhealthy,
}

struct Executor {
    handle: ExecutorHandle,
    executor_id: pb::ExecutorId,
    grace: Duration,
    ledger: Ledger,
    /// Whether the framework understands TASK_KILLING.
    killing_state: bool,
    /// What its task runs from.
    image: Option<ContainerImage>,
    task: Option<Task>,
    kill_at: Option<Instant>,
    completion_at: Option<Instant>,
    killed: Option<Killed>,
    /// The UUID of the last update and until when it may wait.
    done: Option<(Vec<u8>, Instant)>,
}

impl Executor {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<ExecutorEvent>,
    ) -> Result<(), CommandExecutorError> {
        let mut resend = tokio::time::interval(RESEND);
        loop {
            if self
                .done
                .as_ref()
                .is_some_and(|(_, until)| *until <= Instant::now())
            {
                return Ok(());
            }
            tokio::select! {
                event = events.recv() => match event {
                    None => return Ok(()),
                    Some(ExecutorEvent::Event(event)) => {
                        if self.on_event(*event).await {
                            return Ok(());
                        }
                    }
                    Some(ExecutorEvent::Disconnected { error }) => {
                        eprintln!("Disconnected from the agent: {error}");
                    }
                    Some(ExecutorEvent::RecoveryTimeout) => {
                        if let Some(task) = &self.task {
                            task.signal(nix::sys::signal::Signal::SIGKILL);
                        }
                        return Err(CommandExecutorError::Abandoned);
                    }
                },
                happened = next(&mut self.task) => match happened {
                    Happened::Ended(ended) => self.on_end(ended).await,
                    Happened::Changed(reason) => self.report(reason).await,
                    Happened::Unhealthy => self.kill(Killed::Unhealthy, None).await,
                },
                () = at(self.kill_at) => {
                    self.kill_at = None;
                    if let Some(task) = &self.task {
                        task.signal(nix::sys::signal::Signal::SIGKILL);
                    }
                }
                () = at(self.completion_at) => {
                    self.completion_at = None;
                    self.kill(Killed::TooLong, None).await;
                }
                _ = resend.tick() => self.resend().await,
            }
        }
    }

    /// Whether the executor is to end.
    async fn on_event(&mut self, event: pb::executor::Event) -> bool {
        use pb::executor::event::Type as E;
        match event.r#type() {
            E::Subscribed => {
                let wanted = pb::framework_info::capability::Type::TaskKillingState;
                self.killing_state = event.subscribed.is_some_and(|s| {
                    s.framework_info
                        .capabilities
                        .iter()
                        .any(|c| c.r#type() == wanted)
                });
                self.resend().await;
            }
            E::Launch => {
                if let Some(launch) = event.launch {
                    self.launch(launch.task).await;
                }
            }
            E::Kill => {
                let grace = event
                    .kill
                    .and_then(|k| k.kill_policy)
                    .and_then(|p| p.grace_period)
                    .and_then(|d| u64::try_from(d.nanoseconds).ok())
                    .map(Duration::from_nanos);
                self.kill(Killed::Asked, grace).await;
            }
            E::Acknowledged => {
                if let Some(ack) = event.acknowledged {
                    self.ledger.acknowledged(&ack.task_id, &ack.uuid);
                    self.tell_ledger();
                    return self
                        .done
                        .as_ref()
                        .is_some_and(|(uuid, _)| *uuid == ack.uuid);
                }
            }
            E::Shutdown => {
                if self.task.is_none() {
                    return true;
                }
                // The agent kills at the end of the grace period; the task goes a bit earlier.
                let grace = self.grace.mul_f64(0.8);
                self.kill(Killed::Asked, Some(grace)).await;
            }
            E::Error => eprintln!("Error from the agent: {:?}", event.error),
            E::LaunchGroup | E::Message | E::Heartbeat | E::Unknown => {}
        }
        false
    }

    async fn launch(&mut self, info: pb::TaskInfo) {
        if self.task.is_some() || self.done.is_some() {
            eprintln!("A second task is refused: {}", info.task_id.value);
            return;
        }
        self.ledger.launched(info.clone());
        let limit = info
            .max_completion_time
            .and_then(|d| u64::try_from(d.nanoseconds).ok())
            .map(Duration::from_nanos);
        self.completion_at = limit.map(|limit| Instant::now() + limit);
        let mut task = Task::new(info, self.image.clone());
        let starting = self.status(&task, pb::TaskState::TaskStarting);
        self.update(starting).await;
        task.start();
        let running = self.status(&task, pb::TaskState::TaskRunning);
        self.task = Some(task);
        self.update(running).await;
    }

    async fn kill(&mut self, why: Killed, grace: Option<Duration>) {
        let Some(task) = &self.task else { return };
        let grace = grace.or(task.kill_grace()).unwrap_or(DEFAULT_KILL_GRACE);
        let at = Instant::now() + grace;
        if self.killed.is_some() {
            // Only ever sooner.
            self.kill_at = self.kill_at.map(|before| before.min(at));
            return;
        }
        self.killed = Some(why);
        self.kill_at = Some(at);
        let killing = (self.killing_state && why != Killed::TooLong)
            .then(|| self.status(task, pb::TaskState::TaskKilling));
        task.signal(nix::sys::signal::Signal::SIGTERM);
        if let Some(update) = killing {
            self.update(update).await;
        }
    }

    async fn on_end(&mut self, ended: Ended) {
        let Some(task) = self.task.take() else { return };
        // Whatever it left in its group goes with it.
        task.signal(nix::sys::signal::Signal::SIGKILL);
        (self.kill_at, self.completion_at) = (None, None);
        let state = match self.killed {
            Some(Killed::Asked) => pb::TaskState::TaskKilled,
            Some(Killed::TooLong | Killed::Unhealthy) => pb::TaskState::TaskFailed,
            None if ended.success() => pb::TaskState::TaskFinished,
            None => pb::TaskState::TaskFailed,
        };
        let mut update = self.status(&task, state);
        update.status.message = Some(ended.to_string());
        if self.killed == Some(Killed::TooLong) {
            let reason = pb::task_status::Reason::MaxCompletionTimeReached;
            update.status.reason = Some(reason as i32);
        }
        if self.killed == Some(Killed::Unhealthy) {
            update.status.healthy = Some(false);
        }
        let uuid = update.status.uuid.clone().unwrap_or_default();
        self.done = Some((uuid, Instant::now() + LAST_ACKNOWLEDGEMENT));
        self.update(update).await;
    }

    /// A check of the running task has a new result.
    async fn report(&mut self, reason: pb::task_status::Reason) {
        let Some(task) = &self.task else { return };
        let mut update = self.status(task, pb::TaskState::TaskRunning);
        update.status.reason = Some(reason as i32);
        self.update(update).await;
    }

    fn status(&self, task: &Task, state: pb::TaskState) -> Update {
        let mut update = new_update(task.id().clone(), state);
        update.status.executor_id = Some(self.executor_id.clone());
        update.status.check_status = task.check_status(state);
        if state == pb::TaskState::TaskRunning {
            update.status.healthy = task.healthy();
        }
        update
    }

    async fn update(&mut self, update: Update) {
        self.ledger.sent(update.clone());
        self.tell_ledger();
        self.send(update).await;
    }

    async fn send(&self, update: Update) {
        let call = pb::executor::Call {
            r#type: Some(Type::Update as i32),
            update: Some(update),
            ..Default::default()
        };
        if let Err(error) = self.handle.call(call).await {
            eprintln!("An update will be sent again: {error}");
        }
    }

    /// Updates of which the agent was not told for sure. It knows them by their UUIDs.
    async fn resend(&mut self) {
        let (_, updates) = self.ledger.unacknowledged();
        for update in updates {
            let age = update
                .status
                .timestamp
                .map_or(0.0, |at| crate::clock::Time::now().as_secs_f64() - at);
            // The usual acknowledgement is a few milliseconds away.
            if age > RESEND.as_secs_f64() {
                self.send(update).await;
            }
        }
    }

    fn tell_ledger(&self) {
        let (tasks, updates) = self.ledger.unacknowledged();
        self.handle.set_unacknowledged(tasks, updates);
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn next(task: &mut Option<Task>) -> Happened {
    match task {
        Some(task) => task.next().await,
        None => std::future::pending().await,
    }
}
