//! The one task of a command executor: its processes, and the checks on them.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use mesos::pb;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pb::task_status::Reason;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::checks::{self, Observation};
use super::inside::{self, Inside};
use crate::agent::container::start::Line;
use crate::agent::environment::TOKEN;
use crate::agent::images::rootfs::ContainerImage;

/// Observations that may wait for the executor.
const OBSERVATIONS: usize = 16;

/// What happened to a task.
#[derive(Debug)]
pub enum Happened {
    /// Its command has ended.
    Ended(Ended),
    /// A check has a new result, to be reported as a running task's.
    Changed(Reason),
    /// It failed its health check too often.
    Unhealthy,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(ExitStatus);

impl Ended {
    /// Whether it ended as it should.
    pub fn success(self) -> bool {
        self.0.success()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "Command exited with status {code}"),
            (None, Some(signal)) => {
                write!(f, "Command terminated with signal {}", signal_name(signal))?;
                if self.0.core_dumped() {
                    f.write_str(" (core dumped)")?;
                }
                Ok(())
            }
            (None, None) => f.write_str("Command ended with an unknown status"),
        }
    }
}

/// What the C library calls a signal, which is how Mesos prints them.
fn signal_name(signal: i32) -> String {
    let name = match Signal::try_from(signal) {
        Ok(Signal::SIGHUP) => "Hangup",
        Ok(Signal::SIGINT) => "Interrupt",
        Ok(Signal::SIGQUIT) => "Quit",
        Ok(Signal::SIGILL) => "Illegal instruction",
        Ok(Signal::SIGTRAP) => "Trace/breakpoint trap",
        Ok(Signal::SIGABRT) => "Aborted",
        Ok(Signal::SIGBUS) => "Bus error",
        Ok(Signal::SIGFPE) => "Floating point exception",
        Ok(Signal::SIGKILL) => "Killed",
        Ok(Signal::SIGUSR1) => "User defined signal 1",
        Ok(Signal::SIGSEGV) => "Segmentation fault",
        Ok(Signal::SIGUSR2) => "User defined signal 2",
        Ok(Signal::SIGPIPE) => "Broken pipe",
        Ok(Signal::SIGALRM) => "Alarm clock",
        Ok(Signal::SIGTERM) => "Terminated",
        Ok(Signal::SIGXCPU) => "CPU time limit exceeded",
        Ok(Signal::SIGXFSZ) => "File size limit exceeded",
        Ok(other) => return other.as_str().to_owned(),
        Err(_) => return format!("Unknown signal {signal}"),
    };
    name.to_owned()
}

/// The task.
#[derive(Debug)]
pub struct Task {
    info: pb::TaskInfo,
    /// What it runs from; none on the agent's own file system.
    image: Option<ContainerImage>,
    child: Option<Child>,
    group: Option<Pid>,
    observations: Option<mpsc::Receiver<Observation>>,
    checkers: Vec<tokio::task::JoinHandle<()>>,
    check_status: Option<pb::CheckStatusInfo>,
    healthy: Option<bool>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.checkers
            .iter()
            .for_each(tokio::task::JoinHandle::abort);
    }
}

impl Task {
    /// A task that does not run yet.
    pub fn new(info: pb::TaskInfo, image: Option<ContainerImage>) -> Self {
        let check_status = info.check.as_ref().map(checks::empty_status);
        Self {
            info,
            image,
            child: None,
            group: None,
            observations: None,
            checkers: Vec::new(),
            check_status,
            healthy: None,
        }
    }

    /// Its id.
    pub const fn id(&self) -> &pb::TaskId {
        &self.info.task_id
    }

    /// The grace that its own kill policy gives it.
    pub fn kill_grace(&self) -> Option<Duration> {
        let grace = self.info.kill_policy.as_ref()?.grace_period?;
        u64::try_from(grace.nanoseconds)
            .ok()
            .map(Duration::from_nanos)
    }

    /// The latest result of its health check.
    pub const fn healthy(&self) -> Option<bool> {
        self.healthy
    }

    /// The latest result of its check, none of it in the first and last update.
    pub fn check_status(&self, state: pb::TaskState) -> Option<pb::CheckStatusInfo> {
        if state == pb::TaskState::TaskRunning {
            return self.check_status;
        }
        self.info.check.as_ref().map(checks::empty_status)
    }

    /// Starts its command, in a process group of its own, and its checks.
    pub fn start(&mut self) {
        let mut inside = None;
        match self.spawn() {
            Ok(child) => {
                let pid = child.id();
                inside = self.image.clone().zip(pid);
                let pid = pid.and_then(|pid| i32::try_from(pid).ok());
                self.group = pid.map(Pid::from_raw);
                self.child = Some(child);
            }
            Err(why) => eprintln!("Failed to start the command: {why}"),
        }
        let inside = inside.map(|(image, pid)| Inside { image, pid });
        let (sender, receiver) = mpsc::channel(OBSERVATIONS);
        let environment = self.environment();
        if let Some(check) = &self.info.check {
            let inside = inside.clone();
            let run = checks::check(check.clone(), environment.clone(), inside, sender.clone());
            self.checkers.push(tokio::spawn(run));
        }
        if let Some(check) = &self.info.health_check {
            let run = checks::health_check(check.clone(), environment, inside, sender);
            self.checkers.push(tokio::spawn(run));
        }
        self.observations = (!self.checkers.is_empty()).then_some(receiver);
    }

    fn spawn(&self) -> Result<Child, String> {
        let info = self.info.command.clone().unwrap_or_default();
        if let Some(image) = &self.image {
            return inside::start(image, &info, self.environment());
        }
        let mut command = Command::from(Line::of(&info)?.command());
        command
            .envs(self.environment())
            // The executor's own, as in Mesos.
            .env_remove(TOKEN)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().map_err(|error| error.to_string())
    }

    /// What the task has in its environment beyond its executor's.
    fn environment(&self) -> Vec<(String, String)> {
        let command = self.info.command.as_ref();
        let mut variables: Vec<_> = command
            .and_then(|c| c.environment.as_ref())
            .into_iter()
            .flat_map(|e| &e.variables)
            .filter_map(|v| Some((v.name.clone(), v.value.clone()?)))
            .collect();
        let role = self
            .info
            .resources
            .iter()
            .find_map(|r| r.allocation_info.as_ref()?.role.clone());
        variables.extend(role.map(|role| ("MESOS_ALLOCATION_ROLE".to_owned(), role)));
        variables
    }

    /// Signals the whole process group; one that is gone is fine.
    pub fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = killpg(group, signal);
        }
    }

    /// What happens next.
    pub async fn next(&mut self) -> Happened {
        loop {
            let observed = async {
                match &mut self.observations {
                    Some(observations) => observations.recv().await,
                    None => std::future::pending().await,
                }
            };
            let ended = async {
                match &mut self.child {
                    Some(child) => child.wait().await,
                    // It never started: what the launcher of a real executor ends with.
                    None => Ok(ExitStatus::from_raw(1 << 8)),
                }
            };
            tokio::select! {
                biased;
                ended = ended => {
                    let status = ended.unwrap_or_else(|_| ExitStatus::from_raw(1 << 8));
                    return Happened::Ended(Ended(status));
                }
                observation = observed => match observation {
                    Some(Observation::Check(status)) => {
                        self.check_status = Some(status);
                        return Happened::Changed(Reason::TaskCheckStatusUpdated);
                    }
                    Some(Observation::Healthy(healthy)) => {
                        self.healthy = Some(healthy);
                        return Happened::Changed(Reason::TaskHealthCheckStatusUpdated);
                    }
                    Some(Observation::Unhealthy) => {
                        self.healthy = Some(false);
                        return Happened::Unhealthy;
                    }
                    None => self.observations = None,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_the_words_of_a_real_command_executor() {
        for (raw, words) in [
            (0, "Command exited with status 0"),
            (3 << 8, "Command exited with status 3"),
            (9, "Command terminated with signal Killed"),
            (15, "Command terminated with signal Terminated"),
            (
                11 | 0x80,
                "Command terminated with signal Segmentation fault (core dumped)",
            ),
        ] {
            assert_eq!(Ended(ExitStatus::from_raw(raw)).to_string(), words);
        }
    }
}
