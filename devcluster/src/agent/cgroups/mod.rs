//! Control groups of containers, as Mesos makes them: on version 1 one cgroup per hierarchy at
//! `<cgroups root>/<container id>`, on version 2 `<cgroups root>/<container id>/leaf`.
//!
//! What differs between the two in behaviour differs here as well, because what runs inside
//! has to live with it: on version 1 foreign cgroups below a container's are ignored and die
//! with it, on version 2 they fail the agent's recovery, and `memory.events` counts them.

mod files;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesos::pb::ResourceStatistics;
use tokio::time::Instant;

use super::container::{ContainerId, Grant};
use files::{end_all, make, remove_tree, tree, write};

use v1::V1;
use v2::V2;

/// CPU shares (version 1) per CPU.
const SHARES_PER_CPU: f64 = 1024.0;
/// Least CPU shares that Linux accepts.
const MIN_SHARES: u64 = 2;
/// CPU weight (version 2) per CPU.
const WEIGHT_PER_CPU: f64 = 100.0;
/// Period of the CPU quota in microseconds, Linux' default and Mesos'.
const CFS_PERIOD_US: f64 = 100_000.0;
/// Least CPU quota in microseconds (Mesos).
const MIN_QUOTA_US: f64 = 1_000.0;
/// Least memory limit in bytes (Mesos): below it a container could not even start.
const MIN_MEMORY: u64 = 32 << 20;
/// How long empty cgroups may take to go: the kernel lets go of them a moment after the last
/// process.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes in a MiB, the unit of Mesos' `mem`.
pub const MIB: u64 = 1 << 20;

/// Why the kernel's control groups could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A control file or directory refused. Retrying rarely helps; the words of the kernel do.
    #[error("{attempt} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// This machine has no such hierarchy or controller.
    #[error("{0}")]
    Unavailable(String),
    /// Mesos refuses to set a container up without it.
    #[error("Failed to update subsystem 'memory': No memory resource given")]
    NoMemory,
    /// Processes did not end. Worth a retry later.
    #[error("{left} processes of {path} did not end within {after:?}", path = path.display())]
    Undead {
        /// How many.
        left: usize,
        /// In which cgroup.
        path: PathBuf,
        /// How long they had.
        after: Duration,
    },
    /// Version 2 only: Mesos' launcher takes every cgroup in its root for a container's.
    #[error(
        "Failed to recover containers from the cgroup filesystem: cgroup '{0}' does not belong \
         to any container; remove it (foreign cgroups must live outside the agent's cgroups root)"
    )]
    Foreign(String),
}

fn io_error(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Io {
        attempt,
        path,
        source,
    }
}

/// Which of the machine's control groups an agent uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The launcher keeps track of processes with cgroups (Mesos' `--launcher=linux`).
    pub launcher: bool,
    /// `cgroups/cpu` is among the isolators.
    pub cpu: bool,
    /// `cgroups/mem` is among the isolators.
    pub memory: bool,
    /// `--cgroups_enable_cfs`: a quota of the CPUs requested even without a limit.
    pub cfs: bool,
}

/// The machine's control groups, as far as the agent uses them.
#[derive(Debug, Clone)]
pub struct Cgroups {
    wanted: Wanted,
    version: Version,
}

/// What differs between the kernel's two versions.
#[derive(Debug, Clone)]
enum Version {
    /// One hierarchy per controller.
    V1(V1),
    /// The unified hierarchy.
    V2(V2),
}

/// A mounted cgroup file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    path: PathBuf,
    unified: bool,
    options: Vec<String>,
}

fn mounts() -> Result<Vec<Mount>, CgroupError> {
    let path = Path::new("/proc/self/mounts");
    let text = fs::read_to_string(path).map_err(io_error("read", path))?;
    Ok(parse_mounts(&text))
}

fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let path = fields.next()?;
            let unified = match fields.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            let options = fields.next()?.split(',').map(str::to_owned).collect();
            Some(Mount {
                path: path.into(),
                unified,
                options,
            })
        })
        .collect()
}

impl Cgroups {
    /// Finds what the machine has: version 1 where the memory controller is mounted there, else
    /// version 2. `root` is the agent's part of each hierarchy, for instance `mesos`.
    pub fn detect(root: &str, wanted: Wanted) -> Result<Self, CgroupError> {
        let mounts = mounts()?;
        let hierarchy = |controller: &str| {
            mounts
                .iter()
                .find(|m| !m.unified && m.options.iter().any(|o| o == controller))
                .map(|m| m.path.clone())
        };
        let version = if hierarchy("memory").is_some() || hierarchy("freezer").is_some() {
            V1::new(root, wanted, hierarchy).map(Version::V1)?
        } else if let Some(mount) = mounts.iter().find(|m| m.unified) {
            V2::new(&mount.path, root, wanted).map(Version::V2)?
        } else {
            return Err(CgroupError::Unavailable(
                "no cgroup file system is mounted; mount one at /sys/fs/cgroup or use the posix \
                 launcher and isolators"
                    .to_owned(),
            ));
        };
        Ok(Self { wanted, version })
    }

    /// The agent's own cgroup in each hierarchy that it uses, each once.
    fn roots(&self) -> Vec<&Path> {
        let mut roots = match &self.version {
            Version::V1(v1) => v1.roots(),
            Version::V2(v2) => vec![v2.root()],
        };
        // Two controllers may share a hierarchy.
        let mut seen = std::collections::HashSet::new();
        roots.retain(|root| seen.insert(*root));
        roots
    }

    /// A container's cgroup in each of them.
    fn directories(&self, id: &ContainerId) -> Vec<PathBuf> {
        let roots = self.roots().into_iter();
        roots.map(|root| root.join(id.as_str())).collect()
    }

    /// Makes a container's cgroups.
    pub fn create(&self, id: &ContainerId) -> Result<(), CgroupError> {
        for path in self.directories(id) {
            make(&path)?;
        }
        match &self.version {
            Version::V1(_) => Ok(()),
            Version::V2(v2) => v2.make_leaf(id),
        }
    }

    /// Puts a process into them.
    pub fn assign(&self, id: &ContainerId, pid: u32) -> Result<(), CgroupError> {
        for path in self.directories(id) {
            let path = match self.version {
                Version::V1(_) => path,
                Version::V2(_) => path.join(v2::LEAF),
            };
            write(&path.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Sets what the container may use. A hard memory limit only ever rises.
    pub fn update(&self, id: &ContainerId, grant: &Grant, first: bool) -> Result<(), CgroupError> {
        match &self.version {
            Version::V1(v1) => v1.update(id, grant, first),
            Version::V2(v2) => v2.update(id, grant, first),
        }
    }

    /// Waits until the container runs out of memory. Never returns where memory is not watched
    /// or the cgroup goes away first.
    pub async fn out_of_memory(&self, id: &ContainerId) -> Result<OutOfMemory, CgroupError> {
        if !self.wanted.memory {
            return std::future::pending().await;
        }
        match &self.version {
            Version::V1(v1) => v1.out_of_memory(id).await,
            Version::V2(v2) => v2.out_of_memory(id).await,
        }
    }

    /// Whether the container has a cgroup that knows its processes.
    pub fn exists(&self, id: &ContainerId) -> bool {
        self.directories(id).iter().any(|path| path.is_dir())
    }

    /// Whether the launcher tracks processes by cgroup.
    pub fn tracks_processes(&self) -> bool {
        self.wanted.launcher
    }

    /// Kills every process of a container, nested cgroups included, and removes its cgroups.
    pub async fn destroy(&self, id: &ContainerId, patience: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + patience;
        if let Version::V1(v1) = &self.version {
            v1.kill_frozen(id, deadline, patience).await?;
        }
        for path in self.directories(id) {
            // Whoever left the freezer's cgroup but stayed in this one dies too.
            end_all(&path, deadline, patience).await?;
            remove_tree(&path, REMOVAL_PATIENCE).await?;
        }
        Ok(())
    }

    /// The containers that have cgroups, found at recovery.
    pub fn recover(&self, known: &[ContainerId]) -> Result<Vec<ContainerId>, CgroupError> {
        match &self.version {
            Version::V1(_) => Ok(v1::recover(&self.roots())),
            Version::V2(v2) => v2.recover(known),
        }
    }

    /// Adds what the kernel counts for a container.
    pub fn statistics(&self, id: &ContainerId, statistics: &mut ResourceStatistics) {
        match &self.version {
            Version::V1(v1) => v1.statistics(id, statistics),
            Version::V2(v2) => v2.statistics(id, statistics),
        }
    }

    /// Whether CPU time and memory are counted by cgroup.
    pub fn isolates(&self) -> Wanted {
        self.wanted
    }

    /// Removes the agent's part of each hierarchy if nothing is left in it.
    pub fn remove_root(&self) {
        for root in self.roots() {
            let _ = fs::remove_dir(root);
        }
    }
}

/// Kills everything below a root, whatever it is, and removes the root from every hierarchy.
/// For the end of a cluster whose agents may have been killed.
pub async fn sweep(root: &str, patience: Duration) -> Result<(), CgroupError> {
    for mount in mounts()? {
        let path = mount.path.join(root);
        // What is frozen cannot die.
        for cgroup in tree(&path).iter().rev() {
            for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                let _ = fs::OpenOptions::new()
                    .write(true)
                    .open(cgroup.join(file))
                    .and_then(|mut f| io::Write::write_all(&mut f, thawed.as_bytes()));
            }
        }
        end_all(&path, Instant::now() + patience, patience).await?;
        remove_tree(&path, patience).await?;
    }
    Ok(())
}

/// A container has used more memory than it was granted.
#[derive(Debug, Clone, PartialEq)]
pub struct OutOfMemory {
    /// Mesos' words, with the cgroup's statistics.
    pub message: String,
    /// The limit, in MiB.
    pub limit_mib: f64,
}

/// Memory limits in bytes: the soft one, and the hard one (`None`: unlimited).
fn memory_limits(grant: &Grant) -> Result<(u64, Option<u64>), CgroupError> {
    let mem = grant.mem.ok_or(CgroupError::NoMemory)?;
    let bytes = |mib: f64| ((mib * MIB as f64) as u64).max(MIN_MEMORY);
    let soft = bytes(mem);
    let hard = match grant.mem_limit {
        Some(limit) if limit.is_infinite() => None,
        Some(limit) => Some(bytes(limit)),
        None => Some(soft),
    };
    Ok((soft, hard))
}

/// CPU quota in microseconds per period: `None` for no change, `Some(None)` for unlimited.
fn cpu_quota(grant: &Grant, cfs: bool) -> Option<Option<u64>> {
    let quota = |cpus: f64| (cpus * CFS_PERIOD_US).max(MIN_QUOTA_US) as u64;
    match grant.cpus_limit {
        Some(limit) if limit.is_infinite() => Some(None),
        Some(limit) => Some(Some(quota(limit))),
        None if cfs => Some(Some(quota(grant.cpus.unwrap_or(0.0)))),
        None => None,
    }
}

/// A number of bytes in the largest unit that shows it without a fraction: `96MB`.
pub fn format_bytes(bytes: u64) -> String {
    for (unit, size) in [
        ("TB", 1u64 << 40),
        ("GB", 1 << 30),
        ("MB", MIB),
        ("KB", 1 << 10),
    ] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_by_their_controllers() {
        let mounts = parse_mounts(
            "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n\
             tmpfs /sys/fs/cgroup tmpfs ro 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
        );
        assert_eq!(mounts.len(), 2);
        assert!(!mounts[0].unified);
        assert!(mounts[0].options.contains(&"cpuacct".to_owned()));
        assert!(mounts[1].unified);
    }

    #[test]
    fn limits_follow_the_request_unless_given_and_never_fall_below_what_mesos_allows() {
        let grant = |mem, mem_limit| Grant {
            mem,
            mem_limit,
            ..Grant::default()
        };
        assert_eq!(
            memory_limits(&grant(Some(96.0), None)).unwrap(),
            (96 * MIB, Some(96 * MIB))
        );
        assert_eq!(
            memory_limits(&grant(Some(1.0), Some(f64::INFINITY))).unwrap(),
            (MIN_MEMORY, None)
        );
        assert_eq!(
            memory_limits(&grant(Some(64.0), Some(128.0))).unwrap(),
            (64 * MIB, Some(128 * MIB))
        );
        assert!(matches!(
            memory_limits(&grant(None, None)),
            Err(CgroupError::NoMemory)
        ));
    }

    #[test]
    fn a_quota_is_set_for_a_limit_or_by_flag_only() {
        let grant = |cpus, cpus_limit| Grant {
            cpus: Some(cpus),
            cpus_limit,
            ..Grant::default()
        };
        assert_eq!(cpu_quota(&grant(0.5, None), false), None);
        assert_eq!(cpu_quota(&grant(0.5, None), true), Some(Some(50_000)));
        assert_eq!(
            cpu_quota(&grant(0.5, Some(2.0)), false),
            Some(Some(200_000))
        );
        assert_eq!(
            cpu_quota(&grant(0.5, Some(0.001)), false),
            Some(Some(1_000))
        );
        assert_eq!(
            cpu_quota(&grant(0.5, Some(f64::INFINITY)), true),
            Some(None)
        );
    }

    #[test]
    fn bytes_are_shown_as_mesos_shows_them() {
        assert_eq!(format_bytes(96 * MIB), "96MB");
        assert_eq!(format_bytes(96 * MIB + 4096), "98308KB");
        assert_eq!(format_bytes(3), "3B");
    }
}
