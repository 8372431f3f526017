//! Whether agents offer more than their machine has (`--resources`). kubelet cannot show less than
//! nothing as reserved, so a node of such an agent is refused by its executor, minutes later.

use std::fs;
use std::path::Path;

use devcluster::resources::Resources;

use super::{Finding, fatal};

/// What this machine has; `None` where that cannot be read, and then nothing is objected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that are online.
    pub cpus: Option<u64>,
    /// MiB that are not set aside as huge pages.
    pub memory: Option<u64>,
    /// MiB: size of the file system on which the nodes' data lie.
    pub disk: Option<u64>,
}

impl Machine {
    /// This machine, with `dir` for the disk.
    pub fn read(dir: &Path) -> Self {
        let online = fs::read_to_string("/sys/devices/system/cpu/online");
        let memory = fs::read_to_string("/proc/meminfo");
        let existing = dir.ancestors().find(|d| d.is_dir()).unwrap_or(dir);
        let disk = nix::sys::statvfs::statvfs(existing).ok();
        Self {
            cpus: online.ok().and_then(|text| cpus(&text)),
            memory: memory.ok().and_then(|text| memory_mib(&text)),
            disk: disk.map(|fs| fs.blocks().saturating_mul(fs.fragment_size()) >> 20),
        }
    }
}

/// `0-3,6` is five.
fn cpus(online: &str) -> Option<u64> {
    online.trim().split(',').try_fold(0, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let number = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let huge = number("HugePages_Total:").unwrap_or(0) * number("Hugepagesize:").unwrap_or(0);
    Some(number("MemTotal:")?.saturating_sub(huge) / 1024)
}

/// Objects to what one agent offers. Several agents may offer the same machine several times: that
/// is what a test on one machine is for.
pub fn judge(resources: &str, machine: &Machine) -> Vec<Finding> {
    let offered = match Resources::parse(resources) {
        Ok(offered) => offered,
        Err(error) => {
            return vec![fatal(
                format!("--resources cannot be read: {error}"),
                "write it as Mesos does: cpus:2;mem:4096;disk:10240;ports:[31000-32000]",
            )];
        }
    };
    let rows = [
        ("cpus", "CPUs", machine.cpus),
        ("mem", "MiB of memory", machine.memory),
        ("disk", "MiB of disk", machine.disk),
    ];
    let objection = |(name, unit, has): (&str, &str, Option<u64>)| {
        let (offered, has) = (offered.scalar(name)?.to_f64(), has?);
        // Amounts of real machines are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let too_much = offered > has as f64;
        too_much.then(|| {
            fatal(
                format!(
                    "--resources offers {offered} {unit} per agent, and this machine has {has}: no node would start there"
                ),
                format!("offer at most {name}:{has}"),
            )
        })
    };
    rows.into_iter().filter_map(objection).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine {
        cpus: Some(2),
        memory: Some(4096),
        disk: Some(10_240),
    };

    #[test]
    fn what_the_machine_has_may_be_offered() {
        assert_eq!(
            judge("cpus:2;mem:4096;disk:10240;ports:[1-2]", &MACHINE),
            []
        );
        assert_eq!(judge("ports:[31000-32000]", &MACHINE), []);
        assert_eq!(judge("cpus:64", &Machine::default()), []);
    }

    #[test]
    fn more_than_the_machine_has_is_objected_to_with_the_most_that_goes() {
        let words: Vec<String> = judge("cpus:2.5;mem:4097;disk:1", &MACHINE)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(words.len(), 2, "{words:?}");
        assert!(words[0].contains("offers 2.5 CPUs per agent, and this machine has 2"));
        assert!(words[0].contains("offer at most cpus:2"));
        assert!(words[1].contains("4097 MiB of memory") && words[1].contains("mem:4096"));
        let unreadable = judge("cpus=2", &MACHINE);
        assert!(unreadable[0].fatal && unreadable[0].problem.contains("cannot be read"));
    }

    #[test]
    fn processors_and_memory_are_counted_as_kubelet_counts_them() {
        assert_eq!(cpus("0-3,6\n"), Some(5));
        assert_eq!(cpus("0\n"), Some(1));
        assert_eq!(cpus("3-1"), None);
        let meminfo = "MemTotal: 4194304 kB\nHugePages_Total: 2\nHugepagesize: 2048 kB\n";
        assert_eq!(memory_mib(meminfo), Some(4092));
        assert_eq!(memory_mib(""), None);
        let machine = Machine::read(Path::new("/does/not/exist/yet"));
        assert!(machine.cpus > Some(0) && machine.memory > Some(0) && machine.disk > Some(0));
    }
}
