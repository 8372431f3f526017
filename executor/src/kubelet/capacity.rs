//! What the machine has, and what kubelet must keep from pods so that the node's allocatable is
//! what Mesos granted. kubelet writes the machine's capacity itself; only `systemReserved` and the
//! hard eviction threshold stand between capacity and allocatable.

use std::io;
use std::path::Path;

use seam::node::Allocatable;

/// Disk space below which kubelet evicts pods as a last resort, at most. Ordinary limits come
/// earlier: pods have `disk` of their own, images and logs a budget. The threshold looks at the
/// whole disk, which other frameworks fill too, hence it is small.
const MAX_DISK_THRESHOLD: u64 = 1 << 30;

/// The machine as kubelet sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a CPU: online processors.
    pub cpu_millis: u64,
    /// Bytes: `MemTotal` less huge pages, which kubelet takes from what ordinary memory is left.
    pub memory_bytes: u64,
    /// Bytes: size of the file system of kubelet's root.
    pub disk_bytes: u64,
}

/// What is kept from pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes, without the eviction threshold.
    pub disk_bytes: u64,
    /// Bytes: hard eviction threshold of `nodefs.available`, 0 for none.
    pub disk_threshold: u64,
}

/// Why an agent cannot carry the node it offers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Mesos agent offers more {resource} than the machine has: pods and node together {offered}, \
     the machine {has}; set the agent's --resources to what the machine has"
)]
pub struct Oversold {
    /// `cpus`, `mem`, `disk`.
    pub resource: &'static str,
    /// With its unit.
    pub offered: String,
    /// With its unit.
    pub has: String,
}

/// Why the machine's capacity could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the machine's {what}: {source}")]
pub struct CapacityError {
    what: &'static str,
    source: io::Error,
}

impl Capacity {
    /// Reads it the way kubelet's cAdvisor does. `kubelet_root` must exist.
    pub fn read(kubelet_root: &Path) -> Result<Self, CapacityError> {
        let meminfo = std::fs::read_to_string("/proc/meminfo").map_err(|source| CapacityError {
            what: "memory (/proc/meminfo)",
            source,
        })?;
        let memory_bytes = ordinary_memory(&meminfo).ok_or_else(|| CapacityError {
            what: "memory (/proc/meminfo)",
            source: io::Error::new(io::ErrorKind::InvalidData, "no MemTotal"),
        })?;
        let online =
            std::fs::read_to_string("/sys/devices/system/cpu/online").map_err(|source| {
                CapacityError {
                    what: "processors (/sys/devices/system/cpu/online)",
                    source,
                }
            })?;
        let cpus = cpu_list_len(&online).ok_or_else(|| CapacityError {
            what: "processors (/sys/devices/system/cpu/online)",
            source: io::Error::new(io::ErrorKind::InvalidData, online.trim().to_owned()),
        })?;
        let fs = nix::sys::statvfs::statvfs(kubelet_root).map_err(|errno| CapacityError {
            what: "disk",
            source: errno.into(),
        })?;
        Ok(Self {
            cpu_millis: cpus * 1000,
            memory_bytes,
            disk_bytes: fs.blocks() * fs.fragment_size(),
        })
    }

    /// What must be reserved so that pods get exactly `pods`.
    pub fn reserve(&self, pods: &Allocatable) -> Result<Reserved, Oversold> {
        let rest = |resource, offered: u64, has: u64, unit: fn(u64) -> String| {
            has.checked_sub(offered).ok_or_else(|| Oversold {
                resource,
                offered: unit(offered),
                has: unit(has),
            })
        };
        let disk_rest = rest("disk", pods.disk_bytes, self.disk_bytes, mebibytes)?;
        let disk_threshold = disk_rest.min(self.disk_bytes / 100).min(MAX_DISK_THRESHOLD);
        Ok(Reserved {
            cpu_millis: rest("cpus", pods.cpu_millis, self.cpu_millis, cpus)?,
            memory_bytes: rest("mem", pods.memory_bytes, self.memory_bytes, mebibytes)?,
            disk_bytes: disk_rest - disk_threshold,
            disk_threshold,
        })
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn cpus(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

fn ordinary_memory(meminfo: &str) -> Option<u64> {
    let bytes = |key: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(key))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    // Linux before 4.19 does not add its huge pages up; they are rare there.
    bytes("MemTotal:")?.checked_sub(bytes("Hugetlb:").unwrap_or(0))
}

/// Length of a list of processors such as `0-3,8`.
fn cpu_list_len(list: &str) -> Option<u64> {
    let mut count = 0u64;
    for range in list.trim().split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
        count = count.checked_add(to.checked_sub(from)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn machine() -> Capacity {
        Capacity {
            cpu_millis: 4000,
            memory_bytes: 16 * GIB,
            disk_bytes: 200 * GIB,
        }
    }

    fn offer() -> Allocatable {
        Allocatable {
            cpu_millis: 3500,
            memory_bytes: 12 * GIB,
            disk_bytes: 100 * GIB,
            pods: 110,
            gpus: 0,
        }
    }

    #[test]
    fn what_is_not_granted_is_reserved() {
        let reserved = machine().reserve(&offer()).unwrap();
        assert_eq!(
            reserved,
            Reserved {
                cpu_millis: 500,
                memory_bytes: 4 * GIB,
                disk_bytes: 99 * GIB,
                disk_threshold: GIB,
            }
        );
    }

    #[test]
    fn an_agent_that_offers_the_whole_disk_leaves_no_room_for_a_threshold() {
        let mut all = offer();
        all.disk_bytes = 200 * GIB;
        let reserved = machine().reserve(&all).unwrap();
        assert_eq!((reserved.disk_bytes, reserved.disk_threshold), (0, 0));
    }

    #[test]
    fn an_agent_that_offers_more_than_its_machine_has_is_refused_by_resource() {
        let mut more = offer();
        more.memory_bytes = 17 * GIB;
        let error = machine().reserve(&more).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @"the Mesos agent offers more mem than the machine has: pods and node together 17408 MiB, the machine 16384 MiB; set the agent's --resources to what the machine has");
        let mut more = offer();
        more.cpu_millis = 4001;
        assert_eq!(machine().reserve(&more).unwrap_err().resource, "cpus");
    }

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(cpu_list_len("0\n"), Some(1));
        assert_eq!(cpu_list_len("0-3,8,10-11\n"), Some(7));
        for bad in ["", "x", "3-1", "0-", "0-18446744073709551615"] {
            assert_eq!(cpu_list_len(bad), None, "{bad}");
        }
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       24681792 kB\nMemFree: 1 kB\n";
        assert_eq!(ordinary_memory(text), Some(24_681_792 * 1024));
        let huge = "MemTotal: 4096 kB\nHugetlb: 2048 kB\n";
        assert_eq!(ordinary_memory(huge), Some(2048 * 1024));
        assert_eq!(ordinary_memory("MemFree: 1 kB\n"), None);
    }
}
