//! The agent's side of all containers.

use std::sync::{Arc, Mutex};

use mesos::pb;
use tokio::sync::{mpsc, oneshot};

use super::lifecycle::{Command, Shared};
use super::{
    ContainerEvent, ContainerId, ContainerSpec, ContainerizerConfig, ContainerizerError, Grant,
    ProcessRef, RecoveredContainer, posix, statistics,
};
use crate::agent::disk;
use crate::agent::fetcher::Fetcher;

/// Starts, watches and ends containers. Dropping it leaves them running.
#[derive(Debug)]
pub struct Containerizer {
    shared: Arc<Shared>,
}

impl Containerizer {
    /// A containerizer that reports to `events`.
    pub fn new(
        config: ContainerizerConfig,
        fetcher: Fetcher,
        events: mpsc::Sender<ContainerEvent>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                fetcher,
                containers: Mutex::default(),
                events,
            }),
        }
    }

    /// Starts a container. What becomes of it comes as events.
    pub fn launch(&self, spec: ContainerSpec) {
        let commands = self.shared.register(&spec.id, spec.grant, None);
        tokio::spawn(Arc::clone(&self.shared).run_new(spec, commands));
    }

    /// Takes over the containers of an earlier agent process, and ends those that nobody
    /// remembers.
    pub fn recover(&self, known: Vec<RecoveredContainer>) -> Result<(), ContainerizerError> {
        let ids: Vec<_> = known.iter().map(|c| c.id.clone()).collect();
        let mut orphans = match &self.shared.config.cgroups {
            Some(cgroups) => cgroups.recover(&ids)?,
            None => Vec::new(),
        };
        for name in disk::list_dir(&self.shared.config.layout.runtime_dir.join("containers"))? {
            orphans.push(ContainerId::from(name));
        }
        orphans.sort();
        orphans.dedup();
        orphans.retain(|id| !ids.contains(id));
        for container in known {
            let pid = container.process.map(|p| p.pid);
            let commands = self.shared.register(&container.id, container.grant, pid);
            tokio::spawn(Arc::clone(&self.shared).run_recovered(container, commands));
        }
        for id in orphans {
            tracing::info!(container = %id, "ending an orphaned container");
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                let path = shared.config.layout.container_pid(&id);
                let process = disk::read_json::<ProcessRef>(&path).ok().flatten();
                let pid = process.filter(|p| p.is_alive()).map(|p| p.pid);
                if let Err(error) = shared.clean(&id, pid).await {
                    tracing::error!(container = %id, %error, "an orphaned container does not end");
                }
            });
        }
        Ok(())
    }

    /// Changes what a container may use.
    pub fn update(
        &self,
        id: &ContainerId,
        grant: Grant,
    ) -> impl Future<Output = Result<(), ContainerizerError>> + use<> {
        let sender = {
            let mut containers = self.shared.containers();
            containers.get_mut(id).map(|handle| {
                handle.grant = grant;
                handle.commands.clone()
            })
        };
        let id = id.clone();
        async move {
            let unknown = || ContainerizerError::Unknown(id.clone());
            let sender = sender.ok_or_else(unknown)?;
            let (reply, answer) = oneshot::channel();
            sender
                .send(Command::Update { grant, reply })
                .await
                .map_err(|_| unknown())?;
            answer.await.map_err(|_| unknown())?
        }
    }

    /// Ends a container with all its processes; `Terminated` follows. Nothing happens if there
    /// is none.
    pub fn destroy(&self, id: &ContainerId) {
        let Some(sender) = self.shared.containers().get(id).map(|h| h.commands.clone()) else {
            return;
        };
        tokio::spawn(async move {
            // Failing means that it has ended by itself.
            let _ = sender.send(Command::Destroy).await;
        });
    }

    /// Signals the init process of a container. Whether there is such a container.
    pub fn signal(&self, id: &ContainerId, signal: i32) -> bool {
        let Some(pid) = self.shared.containers().get(id).map(|handle| handle.pid) else {
            return false;
        };
        if signal == nix::libc::SIGKILL {
            self.destroy(id);
            return true;
        }
        // Its command is its only child.
        if let (Some(init), Ok(signal)) = (pid, nix::sys::signal::Signal::try_from(signal)) {
            for child in posix::members(init).into_iter().filter(|pid| *pid != init) {
                let Ok(child) = i32::try_from(child) else {
                    continue;
                };
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), signal);
            }
        }
        true
    }

    /// What a container uses.
    pub fn statistics(&self, id: &ContainerId) -> Option<pb::ResourceStatistics> {
        let (grant, pid) = {
            let containers = self.shared.containers();
            let handle = containers.get(id)?;
            (handle.grant, handle.pid)
        };
        let cgroups = self.shared.config.cgroups.as_ref();
        Some(statistics::of(id, &grant, pid, cgroups))
    }

    /// How many containers there are, those that are being started or ended included.
    pub fn count(&self) -> usize {
        self.shared.containers().len()
    }

    /// Removes the agent's cgroups if no container is left.
    pub fn remove_root(&self) {
        if let Some(cgroups) = &self.shared.config.cgroups {
            cgroups.remove_root();
        }
    }
}
