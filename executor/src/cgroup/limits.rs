//! Sets what the pods together may use.

use std::fs;
use std::path::Path;

use super::{CgroupError, CgroupSetup, CgroupVersion, Mirror};
use crate::core::PodLimits;

/// Below this the pods' cgroup cannot even hold its own bookkeeping.
const MEMORY_FLOOR: u64 = 64 << 20;

/// Sets the limits. An error that is retryable means that more is in use than the new limit:
/// the kernel could not reclaim it at once.
pub fn apply(setup: &CgroupSetup, limits: &PodLimits) -> Result<(), CgroupError> {
    let pods = limits.memory.max(MEMORY_FLOOR);
    let own_base = setup.guard == format!("{}/guard", setup.base);
    let whole = limits.node_memory.map(|node| pods.saturating_add(node));
    if let Some(dir) = setup.dir_of("cpu", &setup.pods) {
        cpu_weight(setup.version, &dir, limits.cpu_millis)?;
    }
    if let Some(dir) = setup.dir_of("cpu", &setup.node) {
        cpu_weight(setup.version, &dir, limits.node_cpu_millis)?;
    }
    // Where Mesos says what the whole may have, its word counts.
    let mirrored = Mirror::new(setup).is_some_and(|mirror| mirror.grants_cpu());
    if own_base
        && !mirrored
        && let Some(dir) = setup.dir_of("cpu", &setup.base)
    {
        let all = limits.cpu_millis.saturating_add(limits.node_cpu_millis);
        cpu_weight(setup.version, &dir, all)?;
    }
    let Some(pods_dir) = setup.dir_of("memory", &setup.pods) else {
        return Ok(());
    };
    let base_dir = setup.dir_of("memory", &setup.base).filter(|_| own_base);
    // The outer limit first when it rises, last when it falls, so it never binds before the inner.
    let raises = base_dir
        .as_deref()
        .is_some_and(|dir| above(read_memory(setup.version, dir), whole));
    if let Some(dir) = base_dir.as_deref().filter(|_| raises) {
        memory(setup.version, dir, whole)?;
    }
    memory(setup.version, &pods_dir, Some(pods))?;
    if let Some(dir) = base_dir.as_deref().filter(|_| !raises) {
        memory(setup.version, dir, whole)?;
    }
    Ok(())
}

/// Whether `new` is above `old`; `None` is no limit.
fn above(old: Option<u64>, new: Option<u64>) -> bool {
    match (old, new) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => new > old,
    }
}

fn read_memory(version: CgroupVersion, dir: &Path) -> Option<u64> {
    let name = match version {
        CgroupVersion::V1 => "memory.limit_in_bytes",
        CgroupVersion::V2 => "memory.max",
    };
    fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
}

fn write(file: &Path, value: impl AsRef<[u8]>) -> Result<(), CgroupError> {
    fs::write(file, value).map_err(CgroupError::io("setting", file))
}

fn memory(version: CgroupVersion, dir: &Path, limit: Option<u64>) -> Result<(), CgroupError> {
    match version {
        CgroupVersion::V1 => {
            let value = limit.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
            write(&dir.join("memory.limit_in_bytes"), value)
        }
        CgroupVersion::V2 => {
            let value = limit.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
            let usage: u64 = fs::read_to_string(dir.join("memory.current"))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            let high = dir.join("memory.high");
            if limit.is_some_and(|limit| usage > limit) {
                // memory.max would kill at once; memory.high reclaims first.
                write(&high, &value)?;
                return Err(CgroupError::io("lowering", &high)(
                    nix::errno::Errno::EBUSY.into(),
                ));
            }
            write(&dir.join("memory.max"), &value)?;
            write(&high, "max")
        }
    }
}

/// v1's shares: 1024 per CPU, at least 2. v2's weight: 1 to 10000, as container runtimes convert.
fn cpu_weight(version: CgroupVersion, dir: &Path, millis: u64) -> Result<(), CgroupError> {
    let shares = shares(millis);
    match version {
        CgroupVersion::V1 => write(&dir.join("cpu.shares"), shares.to_string()),
        CgroupVersion::V2 => write(&dir.join("cpu.weight"), weight(shares).to_string()),
    }
}

fn shares(millis: u64) -> u64 {
    (millis.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

fn weight(shares: u64) -> u64 {
    1 + (shares.saturating_sub(2) * 9999) / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_becomes_shares_and_weight_within_the_kernels_bounds() {
        assert_eq!(shares(0), 2);
        assert_eq!(shares(1000), 1024);
        assert_eq!(shares(u64::MAX), 262_144);
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
    }

    #[test]
    fn no_limit_is_above_every_limit() {
        assert!(above(Some(1), None));
        assert!(above(Some(1), Some(2)));
        assert!(!above(None, Some(2)));
        assert!(!above(Some(2), Some(1)));
    }
}
