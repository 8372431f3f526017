//! Everything around the node half: its directories, clean-up list, cgroups, guard and payload
//! before it starts, and its orderly end.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use seam::node::NodeConfig;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Internal, Loop};
use crate::cgroup::{self, CgroupSetup, Mirror};
use crate::cri;
use crate::guard::manifest::{Leftover, Manifest, Owner, beside};
use crate::guard::{self, GuardError};
use crate::layout::{NodePaths, Paths};
use crate::node::bring_up::{READY_DEADLINE, REVISED_DEADLINE};
use crate::node::life::life_start;
use crate::payload::{self, Payload};
use crate::pidfd::PidFd;
use crate::report::{NodeCommand, NodeContext, NodeEvent};
use crate::supervise::{LOG_BYTES, Settings, Supervisor};

/// The executor's grace less this is for the containers; the rest is for everything after them.
const AFTER_CONTAINERS: Duration = Duration::from_secs(4);
/// Containers get at most so long, whatever the executor's grace.
const CONTAINERS_MAX: Duration = Duration::from_secs(300);

/// What runs.
pub struct Runtime {
    pub cgroups: CgroupSetup,
    pub mirror: Option<Mirror>,
    pub commands: Option<mpsc::Sender<NodeCommand>>,
    paths: NodePaths,
    manifest: Arc<Manifest>,
    supervisor: Supervisor,
    stop: CancellationToken,
    node_half: Option<JoinHandle<()>>,
    guard_cgroups: Vec<PathBuf>,
    /// Held so that nobody removes it.
    payload: Payload,
}

/// What the preparation yields.
pub struct Prepared {
    config: NodeConfig,
    paths: NodePaths,
    manifest: Arc<Manifest>,
    cgroups: CgroupSetup,
    guard: OwnedFd,
    payload: Payload,
}

/// A preparation that failed: which part, and why.
struct Unprepared {
    component: &'static str,
    message: String,
}

fn failed<E: std::fmt::Display>(component: &'static str) -> impl FnOnce(E) -> Unprepared {
    move |error| Unprepared {
        component,
        message: error.to_string(),
    }
}

async fn prepare(
    paths: Paths,
    config: NodeConfig,
    container_id: String,
) -> Result<Prepared, Unprepared> {
    let node = paths.node(&config.node_name);
    let owner = Owner::current().map_err(failed("executor"))?;
    let manifest = Manifest::create(node.manifest.clone(), &owner).map_err(failed("executor"))?;
    let cgroups = cgroup::discover()
        .and_then(|found| found.plan(&container_id))
        .map_err(failed("cgroups"))?;
    for leftover in cgroups.leftovers() {
        manifest.add(&leftover).map_err(failed("executor"))?;
    }
    manifest
        .add(&Leftover::Dir(node.run.clone()))
        .map_err(failed("executor"))?;
    for dir in [&node.root, &node.run, &node.logs()] {
        make_private(dir).map_err(|error| Unprepared {
            component: "executor",
            message: format!("making {}: {error}", dir.display()),
        })?;
    }
    cgroups.make().map_err(failed("cgroups"))?;
    let guard = start_guard(&manifest, &cgroups.dirs(&cgroups.guard))
        .await
        .map_err(failed("guard"))?;
    let payload = payload::provide(&paths, &config.payload)
        .await
        .map_err(failed("payload"))?;
    payload::remove_unused(&paths, &config.payload.sha256);
    Ok(Prepared {
        config,
        paths: node,
        manifest: Arc::new(manifest),
        cgroups,
        guard,
        payload,
    })
}

/// Keys, tokens and pods' volumes are below these directories.
fn make_private(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)
}

async fn start_guard(manifest: &Manifest, cgroups: &[PathBuf]) -> Result<OwnedFd, GuardError> {
    if let Some(guard) = guard::find(manifest.path()) {
        return Ok(guard);
    }
    let program = PathBuf::from("/proc/self/exe");
    let log = beside(manifest.path(), "log");
    guard::start(&program, manifest.path(), cgroups, &log).await
}

impl Loop {
    pub(super) fn start_node(&mut self, config: NodeConfig) {
        let Some(container_id) = self.container_id.clone() else {
            // SUBSCRIBED comes before LAUNCH; an agent that names no container is none of 1.9+.
            self.fail(
                "executor",
                "the agent named no container at SUBSCRIBED".to_owned(),
            );
            return;
        };
        let (paths, internal, events) = (
            self.paths.clone(),
            self.internal.clone(),
            self.node_events.clone(),
        );
        tokio::spawn(async move {
            match prepare(paths, config, container_id).await {
                Ok(prepared) => {
                    let _ = internal.send(Internal::Prepared(Box::new(prepared))).await;
                }
                Err(Unprepared { component, message }) => {
                    let failed = NodeEvent::Failed {
                        component: component.to_owned(),
                        message,
                    };
                    let _ = events.send(failed).await;
                }
            }
        });
    }

    fn fail(&self, component: &str, message: String) {
        let failed = NodeEvent::Failed {
            component: component.to_owned(),
            message,
        };
        if self.node_events.try_send(failed).is_err() {
            tracing::error!("the loop's own queue is full");
        }
    }

    pub(super) fn prepared(&mut self, prepared: Prepared) {
        use crate::core::NodeState;
        if !matches!(self.core.node_state(), NodeState::Starting | NodeState::Up) {
            // Stopped meanwhile; what was made is on the list.
            tracing::info!("the node is stopped before it started");
            self.stop_unstarted(&prepared);
            return;
        }
        let Prepared {
            config,
            paths,
            manifest,
            cgroups,
            guard,
            payload,
        } = prepared;
        // A node half that ended by itself left its supervisor running: pods run on.
        let supervisor = self.runtime.as_ref().map_or_else(
            || {
                let settings = Settings {
                    launcher: PathBuf::from("/proc/self/exe"),
                    cgroups: cgroups.dirs(&cgroups.node),
                    logs: paths.logs(),
                    records: paths.children(),
                    log_bytes: LOG_BYTES,
                };
                Supervisor::new(settings, self.reports.clone())
            },
            |runtime| {
                runtime.stop.cancel();
                runtime.supervisor.clone()
            },
        );
        let stop = CancellationToken::new();
        let revising = self.core.is_revising();
        let (commands, commands_rx) = mpsc::channel(256);
        let context = NodeContext {
            config,
            paths: paths.clone(),
            cgroups: cgroups.clone(),
            payload: payload.dir.clone(),
            supervisor: supervisor.clone(),
            cleanup: Arc::clone(&manifest),
            events: self.node_events.clone(),
            stop: stop.clone(),
            since: if revising {
                SystemTime::now()
            } else {
                life_start()
            },
            ready_within: if revising {
                REVISED_DEADLINE
            } else {
                READY_DEADLINE
            },
        };
        let events = self.node_events.clone();
        let node_half = tokio::spawn(async move {
            let node = tokio::spawn(crate::node::run(context, commands_rx));
            if let Err(error) = node.await {
                let failed = NodeEvent::Failed {
                    component: "node".to_owned(),
                    message: format!("a defect: {error}"),
                };
                let _ = events.send(failed).await;
            }
        });
        let former = self.runtime.replace(Runtime {
            guard_cgroups: cgroups.dirs(&cgroups.guard),
            mirror: Mirror::new(&cgroups),
            cgroups,
            commands: Some(commands),
            paths,
            manifest,
            supervisor,
            stop,
            node_half: Some(node_half),
            payload,
        });
        // While a revision is under way it may become this one again.
        if let Some(former) = former.filter(|_| self.core.is_revising()) {
            self.payloads.push(former.payload);
        }
        self.limits_due = true;
        self.apply_limits();
        self.watch_guard(guard);
    }

    pub(super) fn watch_guard(&self, guard: OwnedFd) {
        let internal = self.internal.clone();
        tokio::spawn(async move {
            let gone = async { PidFd::new(guard)?.ended().await.map(drop) };
            let result: std::io::Result<()> = gone.await;
            if let Err(error) = result {
                tracing::warn!("the guard cannot be watched: {error}");
                return;
            }
            let _ = internal.send(Internal::GuardGone).await;
        });
    }

    /// Somebody killed it; without one nothing would be cleaned up after us.
    pub(super) fn guard_gone(&self) {
        let Some(runtime) = &self.runtime else { return };
        if runtime.stop.is_cancelled() {
            return;
        }
        tracing::warn!("the guard is gone; starting another");
        let (manifest, cgroups) = (Arc::clone(&runtime.manifest), runtime.guard_cgroups.clone());
        let internal = self.internal.clone();
        tokio::spawn(async move {
            loop {
                match start_guard(&manifest, &cgroups).await {
                    Ok(guard) => {
                        let _ = internal.send(Internal::Guard(guard)).await;
                        return;
                    }
                    Err(error) => tracing::warn!("starting the guard: {error}"),
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
    }

    /// Ends the node: kubelet first, so that it starts nothing again; the containers with their
    /// grace; then everything else; then what is on the list.
    pub(super) fn stop_node(&mut self, give_up: bool) {
        let internal = self.internal.clone();
        let Some(runtime) = self.runtime.take() else {
            tokio::spawn(async move {
                let _ = internal.send(Internal::NodeStopped).await;
            });
            return;
        };
        let grace = self
            .grace
            .saturating_sub(AFTER_CONTAINERS)
            .clamp(Duration::from_secs(1), CONTAINERS_MAX);
        tokio::spawn(async move {
            runtime.stop(grace, give_up).await;
            let _ = internal.send(Internal::NodeStopped).await;
        });
    }

    fn stop_unstarted(&self, prepared: &Prepared) {
        let path = prepared.manifest.path().to_owned();
        let internal = self.internal.clone();
        tokio::spawn(async move {
            clean(path).await;
            let _ = internal.send(Internal::NodeStopped).await;
        });
    }
}

impl Runtime {
    /// Tells the node half to end; its components run on. Returns what to wait for.
    pub(super) fn end_node_half(&mut self) -> Option<JoinHandle<()>> {
        self.stop.cancel();
        self.commands = None;
        self.node_half.take()
    }

    async fn stop(self, grace: Duration, give_up: bool) {
        self.supervisor.stop("kubelet").await;
        cri::end_all(&self.paths.containerd_socket(), grace).await;
        self.stop.cancel();
        self.supervisor.stop_all().await;
        if give_up && let Err(error) = self.manifest.add(&Leftover::Dir(self.paths.root.clone())) {
            tracing::warn!("{error}");
        }
        clean(self.manifest.path().to_owned()).await;
    }
}

async fn clean(manifest: PathBuf) {
    let cleaned = tokio::task::spawn_blocking(move || {
        let owner = Owner::current().ok();
        Manifest::clean(&manifest, owner.as_ref())
    })
    .await;
    match cleaned {
        Ok(Ok(remaining)) => {
            for what in remaining {
                tracing::warn!("could not be removed, the guard tries again: {what}");
            }
        }
        Ok(Err(error)) => tracing::warn!("{error}"),
        Err(error) => tracing::error!("cleaning up: {error}"),
    }
}
