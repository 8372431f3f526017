//! Starts the processes of a component and stays with them until all are gone: the thin loop
//! around [`super::group`].
//!
//! Each child is started through `k8sm run exec`, which asks the kernel to end it should this
//! process be killed, and then becomes the program. So nothing survives the app by accident, also
//! where Mesos' launcher holds no cgroup.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Error;
use super::group::{Effect, Event, Group};

/// A program to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What it is called in messages.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its arguments, no secret among them.
    pub args: Vec<OsString>,
    /// Environment beside what is inherited.
    pub env: Vec<(String, String)>,
    /// How long it may take to end after SIGTERM.
    pub grace: Duration,
    /// Where it says whether it has been told to end already, if telling it twice does harm.
    pub ready: Option<Ready>,
}

/// A program that ends gracefully at its first SIGTERM and at once at its second: an API server.
///
/// Mesos' command executor sends SIGTERM to all processes of a task, Docker to the first one only. So
/// whoever has a SIGTERM of his own cannot know whether his child has it, too. The child shows it: it
/// is not ready any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Answers with a success until it has been told.
    pub url: String,
    /// Who signed the certificate there.
    pub authority: Option<PathBuf>,
}

impl Ready {
    /// How soon a program that was told shows it.
    const SHOWS: Duration = Duration::from_millis(500);
    /// How long an answer may take.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Whether it has not been told yet. One that does not answer is taken for told: should it not
    /// be, its grace ends it.
    async fn is_untold(&self) -> bool {
        tokio::time::sleep(Self::SHOWS).await;
        let Ok(client) = crate::http::client(self.authority.as_deref(), Self::PATIENCE) else {
            return true;
        };
        let answer = client.get(&self.url).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }
}

/// Variables that hold or name secrets: no child gets them.
pub const SECRET_VARIABLES: [&str; 3] = ["K8SM_PKI", "K8SM_PKI_FILE", "K8SM_RUN"];

/// Replaces this process by a program: for components of a single one, which Mesos then signals
/// directly.
pub fn become_program(program: &Program) -> Error {
    use std::os::unix::process::CommandExt as _;
    let mut command = std::process::Command::new(&program.path);
    command
        .args(&program.args)
        .envs(program.env.iter().cloned());
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    tracing::info!("becomes {}", program.name);
    Error::Start {
        program: program.path.clone(),
        source: command.exec(),
    }
}

/// `k8sm run exec PARENT PROGRAM ARGS...`: asks to be ended with its parent, then becomes the
/// program. `parent` is the pid of who asked: one that is gone already cannot end us any more.
pub fn exec_with_parent(parent: u32, program: OsString, args: Vec<OsString>) -> Error {
    let asked = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if let Err(source) = asked {
        return Error::Start {
            program: program.into(),
            source: source.into(),
        };
    }
    let alive = rustix::process::getppid()
        .is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    if !alive {
        return Error::Orphan;
    }
    let name = program.to_string_lossy().into_owned();
    become_program(&Program {
        name,
        path: program.into(),
        args,
        env: Vec::new(),
        grace: Duration::ZERO,
        ready: None,
    })
}

/// Runs the programs until all have ended; returns the exit code. Must be the main thread's
/// runtime: the kernel counts the thread that started a child as its parent.
pub async fn run(programs: Vec<Program>) -> Result<u8, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let begun = Instant::now();
    let (sender, mut ended) = mpsc::channel(programs.len().max(1));
    let (tell, mut untold) = mpsc::channel(programs.len().max(1));
    let mut pids = Vec::new();
    let mut failed = None;
    for (member, program) in programs.iter().enumerate() {
        match start(program) {
            Ok(mut child) => {
                pids.push(
                    child
                        .id()
                        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
                );
                let sender = sender.clone();
                tokio::spawn(async move {
                    let status = child.wait().await;
                    // The receiver lives as long as this function.
                    let _ = sender.send((member, status)).await;
                });
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let mut group = Group::new(programs.iter().take(pids.len()).map(|p| p.grace).collect());
    let mut effects = Vec::new();
    if failed.is_some() {
        effects = group.step(begun.elapsed(), &Event::Terminate);
    }
    loop {
        for effect in effects.drain(..) {
            match effect {
                Effect::Terminate(member) => match &programs[member].ready {
                    // The first process of a container is the only one that is told.
                    Some(ready) if std::process::id() != 1 => {
                        let (ready, tell) = (ready.clone(), tell.clone());
                        tokio::spawn(async move {
                            if ready.is_untold().await {
                                // The receiver lives as long as this function.
                                let _ = tell.send(member).await;
                            }
                        });
                    }
                    _ => send(&programs, &pids, member, Signal::TERM),
                },
                Effect::Kill(member) => send(&programs, &pids, member, Signal::KILL),
                Effect::Exit(code) => return failed.map_or(Ok(code), Err),
            }
        }
        let deadline = group.deadline().map(|at| begun + at);
        let event = tokio::select! {
            Some(member) = untold.recv() => {
                send(&programs, &pids, member, Signal::TERM);
                continue;
            }
            Some((member, status)) = ended.recv() => {
                pids[member] = None;
                end(&programs[member], member, status, group.ends())
            }
            _ = terminate.recv() => Event::Terminate,
            _ = interrupt.recv() => Event::Terminate,
            () = until(deadline) => Event::Deadline,
        };
        effects = group.step(begun.elapsed(), &event);
    }
}

fn start(program: &Program) -> Result<tokio::process::Child, Error> {
    let failed = |source| Error::Start {
        program: program.path.clone(),
        source,
    };
    let own = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(own);
    command
        .args(["run", "exec"])
        .arg(std::process::id().to_string())
        .arg(&program.path)
        .args(&program.args)
        .envs(program.env.iter().cloned())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    let child = command.spawn().map_err(failed)?;
    tracing::info!(pid = child.id(), "started {}", program.name);
    Ok(child)
}

fn send(programs: &[Program], pids: &[Option<Pid>], member: usize, signal: Signal) {
    if let Some(pid) = pids.get(member).copied().flatten() {
        tracing::info!("{signal:?} to {}", programs[member].name);
        // One that has just ended is reported as such.
        let _ = kill_process(pid, signal);
    }
}

fn end(
    program: &Program,
    member: usize,
    status: std::io::Result<ExitStatus>,
    expected: bool,
) -> Event {
    let (text, code) = match status {
        Ok(status) => {
            let code = status
                .code()
                .or_else(|| status.signal().map(|s| 128 + s))
                .and_then(|c| u8::try_from(c).ok());
            (status.to_string(), code)
        }
        Err(error) => (error.to_string(), None),
    };
    if expected {
        tracing::info!("{} has ended: {text}", program.name);
    } else {
        tracing::error!("{} has ended by itself: {text}", program.name);
    }
    Event::Ended {
        member,
        status: text,
        code,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;

    #[tokio::test]
    async fn a_program_is_told_to_end_while_it_says_that_it_is_ready_and_never_after() {
        let router = axum::Router::new()
            .route("/ready", get(|| async { "ok" }))
            .route("/ends", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        let server = crate::serving::Server::on(listener, router, "a program").unwrap();
        let untold = async |path: &str| {
            let url = format!("http://{address}{path}");
            let authority = None;
            Ready { url, authority }.is_untold().await
        };
        assert!(untold("/ready").await);
        assert!(!untold("/ends").await);
        drop(server);
    }

    #[tokio::test]
    async fn a_program_that_does_not_answer_is_taken_for_told() {
        let port = seam::testing::free_port();
        let ready = Ready {
            url: format!("http://127.0.0.1:{port}/ready"),
            authority: None,
        };
        assert!(!ready.is_untold().await);
    }
}
