//! IPv4 forwarding, the one setting of the kernel that outlives a cluster's links: agents and
//! nodes turn it on, and who found it off gets it back so.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::instance::Paths;

const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Whether this network namespace forwards now; `None` when that cannot be read.
pub fn is_on() -> Option<bool> {
    let text = std::fs::read_to_string(SETTING).ok()?;
    Some(text.trim() != "0")
}

/// Turns forwarding off if it was off before the instance came and nobody else may need it by now.
/// Returns what went wrong.
pub fn restore(paths: &Paths, before: Option<bool>) -> Option<String> {
    if !goes_off(before, is_on(), others_forward(paths)) {
        return None;
    }
    let written = std::fs::write(SETTING, "0");
    written.err().map(|error| format!("{SETTING}: {error}"))
}

fn goes_off(before: Option<bool>, now: Option<bool>, others: bool) -> bool {
    before == Some(false) && now == Some(true) && !others
}

/// Another instance, or a bridge that is left when all of ours are gone: containers or virtual
/// machines of somebody who came later and found forwarding on.
fn others_forward(paths: &Paths) -> bool {
    let instances = std::fs::read_dir(paths.run_root())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("k8sm-"))
        .filter(|entry| entry.path() != paths.run())
        .any(|entry| has_supervisor(&entry.path()));
    instances || bridges()
}

fn has_supervisor(run: &Path) -> bool {
    std::fs::read(run.join("supervisor.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<crate::procfs::ProcessId>(&bytes).ok())
        .is_some_and(|process| process.is_alive())
}

/// Whether there is a bridge. Not from `/sys`, which shows the namespace that mounted it.
fn bridges() -> bool {
    Command::new("ip")
        .args(["-o", "link", "show", "type", "bridge"])
        .stdin(Stdio::null())
        .output()
        .map_or(true, |output| !output.stdout.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_goes_off_only_where_it_was_off_and_nobody_else_needs_it() {
        assert!(goes_off(Some(false), Some(true), false));
        assert!(!goes_off(Some(false), Some(true), true), "others");
        assert!(!goes_off(Some(true), Some(true), false), "it was on");
        assert!(!goes_off(None, Some(true), false), "nobody knows");
        assert!(!goes_off(Some(false), Some(false), false), "it is off");
    }
}
