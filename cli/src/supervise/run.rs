//! The supervisor's loop: carries out what [`super::machine`] decides.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::client::Status;
use super::machine::{Effect, Event, Machine, Report};
use super::record::{Record, Records, unrecorded};
use super::spec::{self, ProcessSpec, Spec};
use super::{logs, probe};
use crate::instance::{self, Paths};
use crate::procfs::{INSTANCE_VARIABLE, PROCESS_VARIABLE, ProcessId};
use crate::renewal;

/// How often logs are looked at.
const LOG_CHECK: Duration = Duration::from_secs(10);
/// How often certificates are looked at, beside every reload: they are due months before it is too
/// late.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(12 * 3600);

/// Why the supervisor ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its specification.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// Its instance.
    #[error(transparent)]
    Instance(#[from] instance::Error),
    /// A file of its own.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
    /// The operating system.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Supervises the instance until SIGTERM. SIGHUP reads the specification again.
pub fn run(paths: &Paths, instance_id: &str) -> Result<(), Error> {
    // Out of the terminal's session: Ctrl-C there is not meant for the cluster. Fails only for a
    // process that leads a group already, which is then out of it as well.
    let _ = rustix::process::setsid();
    let _lock = instance::Lock::supervisor(paths)?;
    let system = |action| move |source| Error::System { action, source };
    let runtime = crate::runtime::runtime()
        .map(Background::new)
        .map_err(system("start the runtime"))?;
    let local = tokio::task::LocalSet::new();
    let done = local.block_on(&runtime, async {
        let (events, queue) = mpsc::unbounded_channel();
        let mut supervisor = Loop {
            paths: paths.clone(),
            instance_id: instance_id.to_owned(),
            records: Records::new(paths.pids()),
            machine: Machine::new(rand::random()),
            started: Instant::now(),
            events,
            shown: None,
            renewal: None,
            finished: false,
        };
        supervisor.run(queue).await
    });
    paths.forget_supervisor();
    done
}

/// A runtime whose end waits for nobody, however it comes: watchers wait for as long as the
/// processes that they watch live.
struct Background(Option<tokio::runtime::Runtime>);

impl Background {
    fn new(runtime: tokio::runtime::Runtime) -> Self {
        Self(Some(runtime))
    }
}

impl std::ops::Deref for Background {
    type Target = tokio::runtime::Runtime;
    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("taken only when it is dropped")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Loop {
    paths: Paths,
    instance_id: String,
    records: Records,
    machine: Machine,
    started: Instant,
    // Unbounded, and bounded by construction: a process has at most one probe and one watcher
    // under way.
    events: mpsc::UnboundedSender<Event>,
    shown: Option<(u64, Vec<Report>)>,
    /// The renewal of certificates that was begun last.
    renewal: Option<tokio::task::JoinHandle<()>>,
    finished: bool,
}

impl Loop {
    async fn run(&mut self, mut queue: mpsc::UnboundedReceiver<Event>) -> Result<(), Error> {
        let system = |source| Error::System {
            action: "listen for signals",
            source,
        };
        let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(system)?;
        let mut log_check = tokio::time::interval(LOG_CHECK);
        let mut certificate_check = tokio::time::interval(CERTIFICATE_CHECK);
        self.adopt();
        self.reload()?;
        self.paths.note_supervisor()?;
        tracing::info!(instance = self.instance_id, "supervising");
        while !self.finished {
            let wakeup = self
                .machine
                .next_wakeup()
                .map_or(Duration::from_secs(60), |at| {
                    at.saturating_sub(self.started.elapsed())
                });
            tokio::select! {
                Some(event) = queue.recv() => self.handle(event),
                _ = terminate.recv() => self.handle(Event::Stop),
                _ = interrupt.recv() => self.handle(Event::Stop),
                _ = hang_up.recv() => {
                    if let Err(error) = self.reload() {
                        tracing::error!("{error}");
                    }
                    self.renew_certificates();
                }
                _ = certificate_check.tick() => self.renew_certificates(),
                _ = log_check.tick() => self.bound_logs(),
                () = tokio::time::sleep(wakeup.max(Duration::from_millis(5))) => {
                    self.handle(Event::Tick);
                }
            }
        }
        tracing::info!("everything has stopped");
        Ok(())
    }

    /// Takes over what an earlier supervisor started.
    fn adopt(&mut self) {
        let mut running = self.records.alive();
        running.extend(unrecorded(&self.instance_id, &running));
        for record in running {
            tracing::info!(name = record.name, pid = record.id.pid, "adopted");
            self.machine.handle(
                self.started.elapsed(),
                Event::Adopted {
                    name: record.name.clone(),
                    pid: record.id.pid,
                    fingerprint: record.fingerprint.clone(),
                },
            );
            self.watch(&record, None);
        }
    }

    fn reload(&mut self) -> Result<(), Error> {
        let spec = Spec::read(&self.paths.spec())?.unwrap_or_default();
        tracing::info!(
            generation = spec.generation,
            processes = spec.processes.len(),
            "configured"
        );
        self.handle(Event::Configure(spec));
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        let mut pending = VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            if let Event::Exited { name, pid, how } = &event {
                tracing::warn!(name, pid, how, "ended");
            }
            for effect in self.machine.handle(self.started.elapsed(), event) {
                pending.extend(self.perform(effect));
            }
        }
        let report = (self.machine.generation(), self.machine.report());
        if self.shown.as_ref() != Some(&report) {
            let status = Status {
                generation: report.0,
                processes: report.1.clone(),
            };
            if let Err(error) = status.write(&self.paths.status()) {
                tracing::error!("{error}");
            }
            self.shown = Some(report);
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Start(spec) => Some(self.start(&spec)),
            Effect::Terminate { name, pid } => self.signal(&name, pid, Signal::TERM),
            Effect::Kill { name, pid } => self.signal(&name, pid, Signal::KILL),
            Effect::Probe { spec, pid } => {
                let events = self.events.clone();
                tokio::task::spawn_local(async move {
                    let result = probe::probe(&spec.readiness).await;
                    // The loop may be over.
                    let _ = events.send(Event::Probed {
                        name: spec.name,
                        pid,
                        result,
                    });
                });
                None
            }
            Effect::Finished => {
                self.finished = true;
                None
            }
        }
    }

    fn start(&mut self, spec: &ProcessSpec) -> Event {
        let failed = |reason: String| {
            tracing::error!(name = spec.name, reason, "could not be started");
            Event::StartFailed {
                name: spec.name.clone(),
                reason,
            }
        };
        let child = match self.spawn(spec) {
            Ok(child) => child,
            Err(error) => {
                return failed(format!("start {}: {error}", spec.program.display()));
            }
        };
        let pid = child.id();
        let Some(id) = ProcessId::of(pid) else {
            return failed("it ended at once".to_owned());
        };
        tracing::info!(name = spec.name, pid, "started");
        let record = Record {
            name: spec.name.clone(),
            id,
            fingerprint: spec.fingerprint.clone(),
        };
        if let Err(error) = self.records.write(&record) {
            // The mark in its environment finds it, too.
            tracing::error!("{error}");
        }
        self.watch(&record, Some(child));
        Event::Started {
            name: spec.name.clone(),
            pid,
        }
    }

    fn spawn(&self, spec: &ProcessSpec) -> io::Result<Child> {
        let log = logs::open(&self.paths.log(&spec.name))?;
        let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
        Command::new(&spec.program)
            .args(&spec.args)
            .env_clear()
            .env("PATH", variable("PATH"))
            .env("HOME", variable("HOME"))
            .env(INSTANCE_VARIABLE, &self.instance_id)
            .env(PROCESS_VARIABLE, &spec.name)
            .envs(spec.env.iter().map(|(k, v)| (k, v)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
    }

    /// Reports the end of a process, whoever started it.
    fn watch(&self, record: &Record, child: Option<Child>) {
        let events = self.events.clone();
        let records = self.records.clone();
        let record = record.clone();
        tokio::task::spawn_local(async move {
            let how = match wait(&record.id, child).await {
                Ok(how) => how,
                Err(error) => format!("it could not be watched: {error}"),
            };
            if records
                .read(&record.name)
                .is_some_and(|r| r.id == record.id)
            {
                records.remove(&record.name);
            }
            let _ = events.send(Event::Exited {
                name: record.name,
                pid: record.id.pid,
                how,
            });
        });
    }

    fn signal(&self, name: &str, pid: u32, signal: Signal) -> Option<Event> {
        let id = self
            .records
            .read(name)
            .map(|r| r.id)
            .filter(|id| id.pid == pid)
            .or_else(|| ProcessId::of(pid));
        tracing::info!(name, pid, ?signal, "signal");
        match id.map(|id| id.signal(signal)) {
            Some(Ok(true)) => None,
            Some(Err(error)) => {
                tracing::error!(name, pid, %error, "signal");
                None
            }
            // It has ended, and its watcher says so.
            Some(Ok(false)) | None => None,
        }
    }

    /// Has certificates renewed that are due, in a process of its own. One that is there already
    /// and the one who holds the instance's lock both see to it that there are never two.
    fn renew_certificates(&mut self) {
        if self.renewal.as_ref().is_some_and(|r| !r.is_finished()) {
            return;
        }
        let due = match renewal::due_now(&self.paths) {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "look at the certificates");
                return;
            }
        };
        let Some(first) = due.first() else { return };
        tracing::info!(
            count = due.len(),
            first = first.name,
            reason = first.reason,
            "certificates are renewed"
        );
        let paths = self.paths.clone();
        self.renewal = Some(tokio::task::spawn_blocking(move || {
            match renewal::renew(&paths) {
                Ok(status) if status.success() => tracing::info!("certificates were renewed"),
                Ok(status) => tracing::error!(%status, log = renewal::LOG, "renewal"),
                Err(error) => tracing::error!(%error, "renewal"),
            }
        }));
    }

    fn bound_logs(&self) {
        let mut paths: Vec<PathBuf> = self
            .machine
            .report()
            .iter()
            .map(|r| self.paths.log(&r.name))
            .collect();
        paths.push(self.paths.log("supervisor"));
        paths.push(self.paths.log(renewal::LOG));
        for path in paths {
            if let Err(error) = logs::bound(&path, logs::LIMIT) {
                tracing::error!(path = %path.display(), %error, "cut log");
            }
        }
    }
}

/// Waits for a process' end on a thread of its own: there are a few dozen processes at most.
async fn wait(id: &ProcessId, child: Option<Child>) -> io::Result<String> {
    let id = id.clone();
    let waiting = tokio::task::spawn_blocking(move || match child {
        Some(mut child) => Ok(child.wait()?.to_string()),
        None => {
            if let Some(fd) = id.open()? {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                while poll(&mut fds, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
            }
            // Only a parent learns how.
            Ok("it ended".to_owned())
        }
    });
    waiting.await.map_err(io::Error::other)?
}
