//! Removing whatever has a prefix, also what a killed process left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{NAMES, NetnsError, io_error, ip, link_exists, run};
use crate::agent::container;

/// How long processes in a namespace may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills the processes in the namespaces of a prefix and removes namespaces, links and rules.
/// Goes on after an error and returns the first one.
pub fn sweep(prefix: &str) -> Result<(), NetnsError> {
    let mut first = None;
    let mut note = |result: Result<(), NetnsError>| {
        if let Err(error) = result {
            tracing::warn!(%error, "sweeping");
            first.get_or_insert(error);
        }
    };
    for name in named(Path::new(NAMES), prefix, 'n') {
        note(kill_inside(&Path::new(NAMES).join(&name)));
        note(ip(&["netns", "delete", &name]));
    }
    let ours = |name: &String| is_numbered(name, prefix, 'h');
    for name in super::links().into_iter().filter(ours) {
        // Its other end may just be going with its namespace.
        if let Err(error) = ip(&["link", "delete", &name])
            && link_exists(&name)
        {
            note(Err(error));
        }
    }
    let bridge = format!("{prefix}br");
    if link_exists(&bridge) {
        note(ip(&["link", "delete", &bridge]));
    }
    let tables = run("nft", "nftables", &["list", "tables"]);
    match tables {
        Ok(tables) if tables.lines().any(|l| l == format!("table ip {prefix}")) => {
            note(run("nft", "nftables", &["delete", "table", "ip", prefix]).map(drop));
        }
        Ok(_) => {}
        Err(error) => note(Err(error)),
    }
    for side in ["-i", "-o"] {
        let rule = ["-D", "FORWARD", side, &bridge, "-j", "ACCEPT"];
        // Usually there is none, or no iptables at all.
        while run("iptables", "iptables", &rule).is_ok() {}
    }
    match first {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// Names in a directory that are the prefix, a letter and a number.
fn named(dir: &Path, prefix: &str, letter: char) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_numbered(name, prefix, letter))
        .collect()
}

fn is_numbered(name: &str, prefix: &str, letter: char) -> bool {
    name.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix(letter))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Kills every process whose network namespace is the one at `path`.
fn kill_inside(path: &Path) -> Result<(), NetnsError> {
    let namespace = fs::metadata(path).map_err(io_error("read", path))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let inside = processes_in((namespace.dev(), namespace.ino()));
        if inside.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let error = std::io::Error::other(format!("processes {inside:?} do not end"));
            return Err(io_error("empty", path)(error));
        }
        inside.into_iter().for_each(container::kill);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn processes_in(namespace: (u64, u64)) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|m| (m.dev(), m.ino()) == namespace)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_names_of_the_prefix_are_swept() {
        assert!(is_numbered("km1n0", "km1", 'n'));
        assert!(is_numbered("km1n12", "km1", 'n'));
        for other in ["km1n", "km1nx", "km1h0", "km12n0", "xkm1n0"] {
            assert!(!is_numbered(other, "km1", 'n'), "{other}");
        }
    }
}
