//! What an agent offers when it is not told: what the machine has, less a reserve for the
//! machine itself, as a real agent reckons it.

use std::path::Path;

use anyhow::Context as _;

use crate::resources::Resources;

/// Ports that Mesos offers by default.
const PORTS: &str = "[31000-32000]";

/// Adds what is missing of cpus, mem, disk and ports.
pub(super) fn complete(mut given: Resources, work_dir: &Path) -> anyhow::Result<Resources> {
    let has = |name: &str| given.iter().any(|r| r.name() == name);
    let mut missing = Vec::new();
    if !has("cpus") {
        let cpus = std::thread::available_parallelism().context("cannot count the CPUs")?;
        missing.push(format!("cpus:{cpus}"));
    }
    if !has("mem") {
        let info = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let total = memory_mib(&info).context("no MemTotal in /proc/meminfo")?;
        missing.push(format!("mem:{}", less_reserve(total, 1024)));
    }
    if !has("disk") {
        let stat = nix::sys::statvfs::statvfs(work_dir)
            .with_context(|| format!("cannot measure the disk of {}", work_dir.display()))?;
        let total = stat.blocks() * stat.fragment_size() / (1 << 20);
        missing.push(format!("disk:{}", less_reserve(total, 5 * 1024)));
    }
    if !has("ports") {
        missing.push(format!("ports:{PORTS}"));
    }
    given.add_all(&Resources::parse(&missing.join(";"))?);
    Ok(given)
}

/// All but `reserve`, or half where that would leave less than half.
const fn less_reserve(total: u64, reserve: u64) -> u64 {
    if total >= 2 * reserve {
        total - reserve
    } else {
        total / 2
    }
}

fn memory_mib(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_keeps_a_reserve_but_never_more_than_half() {
        assert_eq!(less_reserve(8192, 1024), 7168);
        assert_eq!(less_reserve(1000, 1024), 500);
        assert_eq!(
            memory_mib("MemTotal:       8388608 kB\nMemFree: 1 kB\n"),
            Some(8192)
        );
    }

    #[test]
    fn what_was_given_stays() {
        let given = Resources::parse("cpus:1.5;ports:[1-2]").unwrap();
        let all = complete(given, Path::new("/")).unwrap();
        assert_eq!(all.scalar("cpus").unwrap().to_f64(), 1.5);
        assert_eq!(all.ranges("ports").count(), 2);
        assert!(all.scalar("mem").unwrap().to_f64() > 0.0);
    }
}
