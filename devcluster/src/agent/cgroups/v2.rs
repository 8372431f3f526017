//! Version 2: one cgroup per container, its processes in `leaf`, `cgroup.kill` to end them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesos::pb::ResourceStatistics;
use tokio::io::Interest;

use super::files::{make, read, read_number, read_table, tree, write};
use super::{
    CFS_PERIOD_US, CgroupError, MIB, OutOfMemory, WEIGHT_PER_CPU, Wanted, cpu_quota, io_error,
    memory_limits,
};
use crate::agent::container::{ContainerId, Grant};
use crate::agent::watch::watch;

/// `memory.events` is read this often even when the kernel says nothing: its notifications are
/// merged, and one that comes before the watch is set up is lost.
const EVENTS_INTERVAL: Duration = Duration::from_secs(1);
/// Mesos' own cgroup below its root, which is no container's.
const AGENT: &str = "agent";
pub(super) const LEAF: &str = "leaf";

/// The agent's part of the unified hierarchy.
#[derive(Debug, Clone)]
pub struct V2 {
    wanted: Wanted,
    root: PathBuf,
}

impl V2 {
    pub(super) fn new(mount: &Path, root: &str, wanted: Wanted) -> Result<Self, CgroupError> {
        let available = read(&mount.join("cgroup.controllers"))?;
        let mut controllers = Vec::new();
        for (name, wanted) in [("cpu", wanted.cpu), ("memory", wanted.memory)] {
            if !wanted {
                continue;
            }
            if !available.split_whitespace().any(|c| c == name) {
                return Err(CgroupError::Unavailable(format!(
                    "{} has no controller `{name}`; boot with it or choose posix isolators",
                    mount.display()
                )));
            }
            controllers.push(name);
        }
        let v2 = Self {
            wanted,
            root: mount.join(root),
        };
        let mut path = mount.to_owned();
        for part in Path::new(root).components() {
            enable(&path, &controllers)?;
            path.push(part);
            make(&path)?;
        }
        enable(&path, &controllers)?;
        Ok(v2)
    }

    fn path(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn controllers(&self) -> Vec<&'static str> {
        [("cpu", self.wanted.cpu), ("memory", self.wanted.memory)]
            .into_iter()
            .filter_map(|(name, wanted)| wanted.then_some(name))
            .collect()
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the container's processes go: a cgroup that hands controllers down has none itself.
    pub(super) fn make_leaf(&self, id: &ContainerId) -> Result<(), CgroupError> {
        let path = self.path(id);
        enable(&path, &self.controllers())?;
        make(&path.join(LEAF))
    }

    pub(super) fn update(
        &self,
        id: &ContainerId,
        grant: &Grant,
        first: bool,
    ) -> Result<(), CgroupError> {
        let path = self.path(id);
        if self.wanted.cpu {
            let weight = ((grant.cpus.unwrap_or(0.0) * WEIGHT_PER_CPU) as u64).clamp(1, 10_000);
            write(&path.join("cpu.weight"), &weight.to_string())?;
            let quota = cpu_quota(grant, self.wanted.cfs)
                .flatten()
                .map_or_else(|| "max".to_owned(), |us| us.to_string());
            write(&path.join("cpu.max"), &format!("{quota} {CFS_PERIOD_US}"))?;
        }
        if self.wanted.memory {
            let (soft, hard) = memory_limits(grant)?;
            write(&path.join("memory.low"), &soft.to_string())?;
            let file = path.join("memory.max");
            // `max` is no number: nothing is above it.
            let current = read_number(&file).unwrap_or(u64::MAX);
            match hard {
                None => write(&file, "max")?,
                Some(hard) if first || hard > current => write(&file, &hard.to_string())?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn out_of_memory(&self, id: &ContainerId) -> Result<OutOfMemory, CgroupError> {
        let path = self.path(id);
        let events = path.join("memory.events");
        let file = fs::File::open(&events).map_err(io_error("open", &events))?;
        let changes = watch(file.into(), Interest::PRIORITY).map_err(io_error("watch", &events))?;
        loop {
            // The file counts the cgroup's descendants as well: a nested cgroup over a limit of
            // its own is enough, as it is for Mesos.
            if read_table(&events).get("oom").is_some_and(|n| *n > 0) {
                break;
            }
            if !events.exists() {
                return std::future::pending().await;
            }
            if let Ok(Ok(mut guard)) =
                tokio::time::timeout(EVENTS_INTERVAL, changes.ready(Interest::PRIORITY)).await
            {
                guard.clear_ready();
            }
        }
        let stat = read_table(&path.join("memory.stat"));
        let size = |key: &str| super::format_bytes(stat.get(key).copied().unwrap_or(0));
        let limit = read_number(&path.join("memory.max"));
        Ok(OutOfMemory {
            message: format!(
                "Memory limit exceeded: \nMEMORY STATISTICS post-OOM: \nanon: {}\nfile: {}\nkernel: {}\n",
                size("anon"),
                size("file"),
                size("kernel"),
            ),
            limit_mib: limit.unwrap_or(0) as f64 / MIB as f64,
        })
    }

    pub(super) fn recover(&self, known: &[ContainerId]) -> Result<Vec<ContainerId>, CgroupError> {
        let mut found = Vec::new();
        for cgroup in tree(&self.root) {
            let Ok(below) = cgroup.strip_prefix(&self.root) else {
                continue;
            };
            let mut parts = below.iter().filter_map(|p| p.to_str());
            match (parts.next(), parts.next(), parts.next()) {
                (None, ..) | (Some(AGENT), ..) => {}
                (Some(name), None, _) => {
                    let id = ContainerId::from(name);
                    // A container of an earlier life is a UUID; anything else is not Mesos'.
                    if !known.contains(&id) && uuid::Uuid::parse_str(name).is_err() {
                        return Err(CgroupError::Foreign(cgroup.display().to_string()));
                    }
                    found.push(id);
                }
                (Some(_), Some(LEAF), None) => {}
                _ => return Err(CgroupError::Foreign(cgroup.display().to_string())),
            }
        }
        Ok(found)
    }

    pub(super) fn statistics(&self, id: &ContainerId, s: &mut ResourceStatistics) {
        let path = self.path(id);
        if self.wanted.cpu {
            let stat = read_table(&path.join("cpu.stat"));
            let seconds = |key: &str| stat.get(key).map(|us| *us as f64 / 1e6);
            s.cpus_user_time_secs = seconds("user_usec");
            s.cpus_system_time_secs = seconds("system_usec");
            s.cpus_nr_periods = stat.get("nr_periods").map(|n| *n as u32);
            s.cpus_nr_throttled = stat.get("nr_throttled").map(|n| *n as u32);
            s.cpus_throttled_time_secs = seconds("throttled_usec");
        }
        if self.wanted.memory {
            let stat = read_table(&path.join("memory.stat"));
            let value = |key: &str| stat.get(key).copied();
            s.mem_total_bytes = read_number(&path.join("memory.current"));
            s.mem_limit_bytes = read_number(&path.join("memory.max"));
            s.mem_soft_limit_bytes = read_number(&path.join("memory.low"));
            s.mem_kmem_usage_bytes = value("kernel");
            s.mem_kmem_tcp_usage_bytes = value("sock");
            s.mem_file_bytes = value("file");
            s.mem_cache_bytes = value("file");
            s.mem_anon_bytes = value("anon");
            s.mem_rss_bytes = value("anon");
            s.mem_mapped_file_bytes = value("file_mapped");
            s.mem_unevictable_bytes = value("unevictable");
        }
    }
}

/// Lets the children of a cgroup have controllers.
fn enable(path: &Path, controllers: &[&str]) -> Result<(), CgroupError> {
    let file = path.join("cgroup.subtree_control");
    let enabled = read(&file)?;
    for name in controllers {
        if !enabled.split_whitespace().any(|c| c == *name) {
            write(&file, &format!("+{name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_root() -> (tempfile::TempDir, V2) {
        let dir = tempfile::tempdir().unwrap();
        let v2 = V2 {
            wanted: Wanted {
                launcher: true,
                cpu: true,
                memory: true,
                cfs: false,
            },
            root: dir.path().join("mesos"),
        };
        (dir, v2)
    }

    #[test]
    fn recovery_finds_containers_and_fails_on_foreign_cgroups_by_name() {
        let (_dir, v2) = fake_root();
        let id = "0b6a8d3c-7b43-4bfb-8a6a-3b9a1f0f8f11";
        fs::create_dir_all(v2.root.join(id).join(LEAF)).unwrap();
        fs::create_dir_all(v2.root.join("agent/leaf")).unwrap();
        assert_eq!(v2.recover(&[]).unwrap(), [ContainerId::from(id)]);

        let nested = v2.root.join(id).join("k8s");
        fs::create_dir(&nested).unwrap();
        let error = v2
            .recover(&[ContainerId::from(id)])
            .unwrap_err()
            .to_string();
        assert!(error.contains(&nested.display().to_string()), "{error}");
        fs::remove_dir(&nested).unwrap();

        fs::create_dir(v2.root.join("k8sm")).unwrap();
        assert!(v2.recover(&[]).is_err());
    }
}
