//! What this machine has to offer, as a Mesos agent would find it out.

use std::path::Path;

use packaging::control_plane::NODE_PORTS;

/// Mesos' default port resources.
const PORTS: (u16, u16) = (31000, 32000);
const MIB: u64 = 1 << 20;

/// Resources in Mesos' notation, with Mesos' own rules: memory and disk less a reserve for the
/// system, or half of them where there is little.
pub fn resources(work_dir: &Path) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    render(cpus, memory_bytes(), disk_bytes(work_dir))
}

fn render(cpus: usize, memory: u64, disk: u64) -> String {
    /// Reserves: 1 GiB of memory, 5 GiB of disk (Mesos' `Containerizer::resources`).
    const MEMORY_RESERVE: u64 = 1 << 30;
    const DISK_RESERVE: u64 = 5 << 30;
    let less = |total: u64, reserve: u64| {
        if total > 2 * reserve {
            total - reserve
        } else {
            total / 2
        }
    };
    format!(
        "cpus:{cpus};mem:{};disk:{};ports:[{}-{}]",
        less(memory, MEMORY_RESERVE) / MIB,
        less(disk, DISK_RESERVE) / MIB,
        PORTS.0,
        PORTS.1
    )
}

fn memory_bytes() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib.saturating_mul(1024))
}

fn disk_bytes(dir: &Path) -> u64 {
    let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(dir);
    nix::sys::statvfs::statvfs(existing)
        .map(|s| s.blocks().saturating_mul(s.fragment_size()))
        .unwrap_or(0)
}

// Services' ports and Mesos' must not meet: kube-proxy would take other frameworks' ports.
const _: () = assert!(NODE_PORTS.1 < PORTS.0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept_for_the_system() {
        let gib = 1 << 30;
        assert_eq!(
            render(2, 24 * gib, 252 * gib),
            "cpus:2;mem:23552;disk:252928;ports:[31000-32000]"
        );
        assert_eq!(
            render(1, gib, 8 * gib),
            "cpus:1;mem:512;disk:4096;ports:[31000-32000]"
        );
    }
}
