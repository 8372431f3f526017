//! Starts the node's processes and keeps them running.
//!
//! Each component has a task that starts it, waits until it is ready, waits for its end (and ends
//! it when it hangs) and starts it again, with back-off. What runs is noted on disk, so an executor that replaced
//! itself by `exec` takes its children over instead of starting them again. Output goes to
//! bounded files, never to pipes, which would break with the executor.

mod backoff;
mod child;
mod liveness;
mod log;
mod process;
mod readiness;
mod record;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use seam::message::ToFramework;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::component::Component;

pub use backoff::Backoff;
pub use process::{LAUNCH, LaunchError, launch};

/// What the supervisor needs to know of its surroundings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The executor's own program: children are started through it, so that they are in their
    /// cgroups before their first instruction.
    pub launcher: PathBuf,
    /// Directories of the cgroup that children join, one per hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// Where `<component>.log` goes.
    pub logs: PathBuf,
    /// Where is noted what runs.
    pub records: PathBuf,
    /// A log is rotated beyond so many bytes; one old one is kept.
    pub log_bytes: u64,
}

/// Default of [`Settings::log_bytes`].
pub const LOG_BYTES: u64 = 16 << 20;

/// Handle of the supervisor; clones are the same one.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    reports: mpsc::Sender<ToFramework>,
    children: Mutex<BTreeMap<String, Handle>>,
}

struct Handle {
    definition: Component,
    stop: CancellationToken,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

/// What a component's task says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Started, not ready yet; with the reason of the last failure.
    Starting(Option<String>),
    /// It answers.
    Ready,
}

/// Why a component is not up.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// It did not become ready in time.
    #[error("{component} was not ready after {seconds} s{why}; its log is {}", log.display())]
    NotReady {
        /// Which.
        component: String,
        /// How long.
        seconds: u64,
        /// `: it ended with exit status 1`, or nothing.
        why: String,
        /// Its log.
        log: PathBuf,
    },
    /// It was stopped meanwhile.
    #[error("{0} was stopped while it started")]
    Stopped(String),
}

impl Supervisor {
    /// A supervisor without children. Reports about components go to `reports`; when nobody
    /// takes them they are dropped.
    pub fn new(settings: Settings, reports: mpsc::Sender<ToFramework>) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                reports,
                children: Mutex::new(BTreeMap::new()),
            }),
        }
    }

    /// Starts a component (or adopts the one that runs already with the same definition) and
    /// waits until it is ready. From then on it is started again whenever it ends, also when
    /// this returns an error, until [`Supervisor::stop`].
    pub async fn start(&self, component: Component) -> Result<(), SuperviseError> {
        let name = component.name.clone();
        let deadline = component.start_deadline;
        let log = self.log_of(&name);
        let mut state = if let Some(state) = self.state_of(&component) {
            state
        } else {
            self.stop(&name).await;
            self.spawn(component)
        };
        let up = tokio::time::timeout(deadline, state.wait_for(|state| *state == State::Ready))
            .await
            .map(|result| result.map(drop));
        match up {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SuperviseError::Stopped(name)),
            Err(_) => {
                let why = match &*state.borrow() {
                    State::Starting(Some(why)) => format!(": {why}"),
                    _ => String::new(),
                };
                Err(SuperviseError::NotReady {
                    component: name,
                    seconds: deadline.as_secs(),
                    why,
                    log,
                })
            }
        }
    }

    /// Whether the component is up already, by that very definition.
    pub fn runs(&self, component: &Component) -> bool {
        self.state_of(component)
            .is_some_and(|state| *state.borrow() == State::Ready)
    }

    fn state_of(&self, component: &Component) -> Option<watch::Receiver<State>> {
        self.with(|children| {
            children
                .get(&component.name)
                .filter(|child| child.definition == *component && !child.task.is_finished())
                .map(|child| child.state.clone())
        })
    }

    /// Stops a component for good: SIGTERM, its grace, SIGKILL.
    pub async fn stop(&self, name: &str) {
        let Some(child) = self.with(|children| children.remove(name)) else {
            return;
        };
        child.stop.cancel();
        // The task has its own deadlines. Its panic would be a defect, and is logged by it.
        let _ = child.task.await;
    }

    /// Stops every component, all at once.
    pub async fn stop_all(&self) {
        let children = self.with(std::mem::take);
        for child in children.values() {
            child.stop.cancel();
        }
        for child in children.into_values() {
            let _ = child.task.await;
        }
    }

    /// Replaces a component's definition and starts it anew.
    pub async fn replace(&self, component: Component) -> Result<(), SuperviseError> {
        self.stop(&component.name).await;
        self.start(component).await
    }

    /// Where a component logs.
    pub fn log_of(&self, component: &str) -> PathBuf {
        self.inner.settings.logs.join(format!("{component}.log"))
    }

    fn spawn(&self, component: Component) -> watch::Receiver<State> {
        let (tx, rx) = watch::channel(State::Starting(None));
        let stop = CancellationToken::new();
        let task = tokio::spawn(child::run(
            component.clone(),
            self.inner.settings.clone(),
            self.inner.reports.clone(),
            tx,
            stop.clone(),
        ));
        self.with(|children| {
            children.insert(
                component.name.clone(),
                Handle {
                    definition: component,
                    stop,
                    state: rx.clone(),
                    task,
                },
            );
        });
        rx
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Handle>) -> T) -> T {
        f(&mut self
            .inner
            .children
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}
