//! Control groups of containers, as Mesos makes them: on version 1 one cgroup per hierarchy at
//! `<cgroups root>/<container id>`, on version 2 `<cgroups root>/<container id>/leaf`.
//!
//! What differs between the two in behaviour differs here as well, because what runs inside
//! has to live with it: on version 1 foreign cgroups below a container's are ignored and die
//! with it, on version 2 they fail the agent's recovery, and `memory.events` counts them.

mod v1;
mod v2;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesos::pb::ResourceStatistics;

use super::container::{ContainerId, Grant};

pub use v1::V1;
pub use v2::V2;

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

/// The machine's control groups.
#[derive(Debug, Clone)]
pub enum Cgroups {
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
        if hierarchy("memory").is_some() || hierarchy("freezer").is_some() {
            return V1::new(root, wanted, hierarchy).map(Self::V1);
        }
        match mounts.iter().find(|m| m.unified) {
            Some(mount) => V2::new(&mount.path, root, wanted).map(Self::V2),
            None => Err(CgroupError::Unavailable(
                "no cgroup file system is mounted; mount one at /sys/fs/cgroup or use the posix \
                 launcher and isolators"
                    .to_owned(),
            )),
        }
    }

    /// Makes a container's cgroups.
    pub fn create(&self, id: &ContainerId) -> Result<(), CgroupError> {
        match self {
            Self::V1(v1) => v1.create(id),
            Self::V2(v2) => v2.create(id),
        }
    }

    /// Puts a process into them.
    pub fn assign(&self, id: &ContainerId, pid: u32) -> Result<(), CgroupError> {
        match self {
            Self::V1(v1) => v1.assign(id, pid),
            Self::V2(v2) => v2.assign(id, pid),
        }
    }

    /// Sets what the container may use. A hard memory limit only ever rises.
    pub fn update(&self, id: &ContainerId, grant: &Grant, first: bool) -> Result<(), CgroupError> {
        match self {
            Self::V1(v1) => v1.update(id, grant, first),
            Self::V2(v2) => v2.update(id, grant, first),
        }
    }

    /// Waits until the container runs out of memory. Never returns where memory is not watched
    /// or the cgroup goes away first.
    pub async fn out_of_memory(&self, id: &ContainerId) -> Result<OutOfMemory, CgroupError> {
        match self {
            Self::V1(v1) => v1.out_of_memory(id).await,
            Self::V2(v2) => v2.out_of_memory(id).await,
        }
    }

    /// Whether the container has a cgroup that knows its processes.
    pub fn exists(&self, id: &ContainerId) -> bool {
        match self {
            Self::V1(v1) => v1.exists(id),
            Self::V2(v2) => v2.exists(id),
        }
    }

    /// Whether the launcher tracks processes by cgroup.
    pub fn tracks_processes(&self) -> bool {
        match self {
            Self::V1(v1) => v1.tracks_processes(),
            Self::V2(v2) => v2.tracks_processes(),
        }
    }

    /// Kills every process of a container, nested cgroups included, and removes its cgroups.
    pub async fn destroy(&self, id: &ContainerId, patience: Duration) -> Result<(), CgroupError> {
        match self {
            Self::V1(v1) => v1.destroy(id, patience).await,
            Self::V2(v2) => v2.destroy(id, patience).await,
        }
    }

    /// The containers that have cgroups, found at recovery.
    pub fn recover(&self, known: &[ContainerId]) -> Result<Vec<ContainerId>, CgroupError> {
        match self {
            Self::V1(v1) => Ok(v1.recover()),
            Self::V2(v2) => v2.recover(known),
        }
    }

    /// Adds what the kernel counts for a container.
    pub fn statistics(&self, id: &ContainerId, statistics: &mut ResourceStatistics) {
        match self {
            Self::V1(v1) => v1.statistics(id, statistics),
            Self::V2(v2) => v2.statistics(id, statistics),
        }
    }

    /// Whether CPU time and memory are counted by cgroup.
    pub fn isolates(&self) -> Wanted {
        match self {
            Self::V1(v1) => v1.wanted(),
            Self::V2(v2) => v2.wanted(),
        }
    }

    /// Removes the agent's part of each hierarchy if nothing is left in it.
    pub fn remove_root(&self) {
        match self {
            Self::V1(v1) => v1.remove_root(),
            Self::V2(v2) => v2.remove_root(),
        }
    }
}

/// Kills everything below a root, whatever it is, and removes the root from every hierarchy.
/// For the end of a cluster whose agents may have been killed.
pub async fn sweep(root: &str, patience: Duration) -> Result<(), CgroupError> {
    for mount in mounts()? {
        let path = mount.path.join(root);
        let deadline = tokio::time::Instant::now() + patience;
        while path.is_dir() {
            let cgroups = tree(&path);
            // What is frozen cannot die.
            for cgroup in cgroups.iter().rev() {
                for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                    let _ = fs::OpenOptions::new()
                        .write(true)
                        .open(cgroup.join(file))
                        .and_then(|mut f| io::Write::write_all(&mut f, thawed.as_bytes()));
                }
            }
            let left: Vec<u32> = cgroups.iter().flat_map(|c| processes(c)).collect();
            if left.is_empty() {
                break;
            }
            if tokio::time::Instant::now() >= deadline {
                let left = left.len();
                return Err(CgroupError::Undead {
                    left,
                    path,
                    after: patience,
                });
            }
            left.into_iter().for_each(super::container::kill);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    // Control files exist already; `fs::write` would try to truncate them, which is harmless.
    fs::write(path, value).map_err(io_error("write", path))
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(io_error("read", path))
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A `key value` table such as `memory.stat`.
fn read_table(path: &Path) -> std::collections::HashMap<String, u64> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// A cgroup and all below it, the deepest first.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(path) else {
        return found;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    found.push(path.to_owned());
    found
}

fn processes(cgroup: &Path) -> Vec<u32> {
    fs::read_to_string(cgroup.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

/// Removes a cgroup with all below it. Processes that have just ended may keep it busy for a
/// moment, so it is tried again until the deadline.
async fn remove_tree(path: &Path, patience: Duration) -> Result<(), CgroupError> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        let mut refused = None;
        for cgroup in tree(path) {
            match fs::remove_dir(&cgroup) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refused = Some(io_error("remove", &cgroup)(error)),
            }
        }
        match refused {
            None => return Ok(()),
            Some(error) if tokio::time::Instant::now() >= deadline => return Err(error),
            Some(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
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
