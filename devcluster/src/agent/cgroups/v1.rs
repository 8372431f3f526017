//! Version 1: a cgroup per container in each hierarchy that is used, and the freezer to kill.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesos::pb::ResourceStatistics;
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::time::Instant;

use super::files::{processes, read, read_number, read_table, tree, write};
use super::{
    CFS_PERIOD_US, CgroupError, MIB, MIN_SHARES, OutOfMemory, SHARES_PER_CPU, Wanted, cpu_quota,
    format_bytes, io_error, memory_limits,
};
use crate::agent::container::{ContainerId, Grant};
use crate::agent::watch::watch;

/// Clock ticks per second in `cpuacct.stat` (`USER_HZ`, 100 on every Linux of today).
const USER_HZ: f64 = 100.0;
/// How long a freeze may take before processes are killed unfrozen.
const FREEZE_PATIENCE: Duration = Duration::from_millis(500);

/// The hierarchies that the agent uses, each already narrowed to the agent's own cgroup.
#[derive(Debug, Clone)]
pub struct V1 {
    wanted: Wanted,
    freezer: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    memory: Option<PathBuf>,
}

impl V1 {
    pub(super) fn new(
        root: &str,
        wanted: Wanted,
        hierarchy: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Self, CgroupError> {
        let need = |controller: &str, wanted: bool| -> Result<Option<PathBuf>, CgroupError> {
            if !wanted {
                return Ok(None);
            }
            let mount = hierarchy(controller).ok_or_else(|| {
                CgroupError::Unavailable(format!(
                    "the cgroup controller `{controller}` is not mounted; mount it or choose \
                     posix isolators"
                ))
            })?;
            let path = mount.join(root);
            fs::create_dir_all(&path).map_err(io_error("make cgroup", &path))?;
            Ok(Some(path))
        };
        let v1 = Self {
            wanted,
            freezer: need("freezer", wanted.launcher)?,
            cpu: need("cpu", wanted.cpu)?,
            cpuacct: need("cpuacct", wanted.cpu)?,
            memory: need("memory", wanted.memory)?,
        };
        if let Some(memory) = &v1.memory {
            // Kernels before 5.11 count children only where told; later ones always do and may
            // refuse the write.
            let _ = fs::write(memory.join("memory.use_hierarchy"), "1");
        }
        Ok(v1)
    }

    /// The agent's cgroup in each hierarchy, the freezer's first.
    pub(super) fn roots(&self) -> Vec<&Path> {
        [&self.freezer, &self.cpu, &self.cpuacct, &self.memory]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect()
    }

    pub(super) fn update(
        &self,
        id: &ContainerId,
        grant: &Grant,
        first: bool,
    ) -> Result<(), CgroupError> {
        if let Some(cpu) = &self.cpu {
            let path = cpu.join(id.as_str());
            let shares = ((grant.cpus.unwrap_or(0.0) * SHARES_PER_CPU) as u64).max(MIN_SHARES);
            write(&path.join("cpu.shares"), &shares.to_string())?;
            if let Some(quota) = cpu_quota(grant, self.wanted.cfs) {
                let period = format!("{CFS_PERIOD_US}");
                write(&path.join("cpu.cfs_period_us"), &period)?;
                let quota = quota.map_or_else(|| "-1".to_owned(), |us| us.to_string());
                write(&path.join("cpu.cfs_quota_us"), &quota)?;
            }
        }
        if let Some(memory) = &self.memory {
            let path = memory.join(id.as_str());
            let (soft, hard) = memory_limits(grant)?;
            write(&path.join("memory.soft_limit_in_bytes"), &soft.to_string())?;
            let file = path.join("memory.limit_in_bytes");
            let current = read_number(&file).unwrap_or(0);
            match hard {
                None => write(&file, "-1")?,
                // Lowering it below what is in use would be an out-of-memory of our own making.
                Some(hard) if first || hard > current => write(&file, &hard.to_string())?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn out_of_memory(&self, id: &ContainerId) -> Result<OutOfMemory, CgroupError> {
        let Some(memory) = &self.memory else {
            return std::future::pending().await;
        };
        let path = memory.join(id.as_str());
        let control = path.join("memory.oom_control");
        let file = fs::File::open(&control).map_err(io_error("open", &control))?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| io_error("make an eventfd for", &control)(e.into()))?;
        write(
            &path.join("cgroup.event_control"),
            &format!("{} {}", event.as_raw_fd(), file.as_raw_fd()),
        )?;
        let event = watch(event, Interest::READABLE).map_err(io_error("watch", &control))?;
        let _ready = event
            .readable()
            .await
            .map_err(io_error("watch", &control))?;
        if !control.exists() {
            // Removing the cgroup raises the event as well.
            return std::future::pending().await;
        }
        let limit = read_number(&path.join("memory.limit_in_bytes")).unwrap_or(0);
        let used = read_number(&path.join("memory.max_usage_in_bytes")).unwrap_or(0);
        let stat = read(&path.join("memory.stat")).unwrap_or_default();
        Ok(OutOfMemory {
            message: format!(
                "Memory limit exceeded: Requested: {} Maximum Used: {}\n\nMEMORY STATISTICS: \n{stat}\n",
                format_bytes(limit),
                format_bytes(used),
            ),
            limit_mib: limit as f64 / MIB as f64,
        })
    }

    /// Kills what the launcher put into the container: frozen, so that nothing can fork away,
    /// then thawed, so that it can die. Nothing where the launcher uses no cgroups.
    pub(super) async fn kill_frozen(
        &self,
        id: &ContainerId,
        deadline: Instant,
        patience: Duration,
    ) -> Result<(), CgroupError> {
        match &self.freezer {
            Some(freezer) => kill_frozen(&freezer.join(id.as_str()), deadline, patience).await,
            None => Ok(()),
        }
    }

    pub(super) fn statistics(&self, id: &ContainerId, s: &mut ResourceStatistics) {
        if let Some(cpuacct) = &self.cpuacct {
            let stat = read_table(&cpuacct.join(id.as_str()).join("cpuacct.stat"));
            let seconds = |key: &str| stat.get(key).map(|ticks| *ticks as f64 / USER_HZ);
            s.cpus_user_time_secs = seconds("user");
            s.cpus_system_time_secs = seconds("system");
        }
        if let (Some(cpu), true) = (&self.cpu, self.wanted.cfs) {
            let stat = read_table(&cpu.join(id.as_str()).join("cpu.stat"));
            s.cpus_nr_periods = stat.get("nr_periods").map(|n| *n as u32);
            s.cpus_nr_throttled = stat.get("nr_throttled").map(|n| *n as u32);
            s.cpus_throttled_time_secs = stat.get("throttled_time").map(|ns| *ns as f64 / 1e9);
        }
        if let Some(memory) = &self.memory {
            let path = memory.join(id.as_str());
            let stat = read_table(&path.join("memory.stat"));
            let total = |key: &str| stat.get(key).copied();
            s.mem_total_bytes = read_number(&path.join("memory.usage_in_bytes"));
            s.mem_limit_bytes = read_number(&path.join("memory.limit_in_bytes"));
            s.mem_soft_limit_bytes = read_number(&path.join("memory.soft_limit_in_bytes"));
            s.mem_kmem_usage_bytes = read_number(&path.join("memory.kmem.usage_in_bytes"));
            s.mem_kmem_tcp_usage_bytes = read_number(&path.join("memory.kmem.tcp.usage_in_bytes"));
            s.mem_anon_bytes = total("total_rss");
            s.mem_rss_bytes = total("total_rss");
            s.mem_file_bytes = total("total_cache");
            s.mem_cache_bytes = total("total_cache");
            s.mem_mapped_file_bytes = total("total_mapped_file");
            s.mem_swap_bytes = total("total_swap");
            s.mem_unevictable_bytes = total("total_unevictable");
        }
    }
}

/// The containers that have a cgroup in any hierarchy. Only the first level: whatever is nested
/// below a container's is not ours to judge.
pub(super) fn recover(roots: &[&Path]) -> Vec<ContainerId> {
    let mut found: Vec<ContainerId> = roots
        .iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|entry| Some(ContainerId::from(entry.file_name().to_str()?)))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// See [`V1::kill_frozen`].
async fn kill_frozen(
    path: &Path,
    deadline: Instant,
    patience: Duration,
) -> Result<(), CgroupError> {
    let mut pause = Duration::from_millis(2);
    loop {
        let cgroups = tree(path);
        let alive: usize = cgroups.iter().map(|c| processes(c).len()).sum();
        if alive == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(CgroupError::Undead {
                left: alive,
                path: path.to_owned(),
                after: patience,
            });
        }
        let state = path.join("freezer.state");
        write(&state, "FROZEN")?;
        let frozen_by = Instant::now() + FREEZE_PATIENCE;
        while read(&state)?.trim() != "FROZEN" && Instant::now() < frozen_by {
            // Writing again makes the kernel look at processes that forked meanwhile.
            write(&state, "FROZEN")?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for cgroup in tree(path) {
            processes(&cgroup)
                .into_iter()
                .for_each(super::super::container::kill);
        }
        // Nested cgroups that froze themselves (paused containers) have to be thawed as well.
        for cgroup in tree(path).iter().rev() {
            let state = cgroup.join("freezer.state");
            match fs::write(&state, "THAWED") {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("write", &state)(error)),
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
