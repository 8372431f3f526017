//! The mount namespace of an agent: a node's directories are the agent's own.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{NetnsError, io_error};

/// Directories that two nodes of one machine must not share, and their names below the agent's
/// working directory.
const OWN: [(&str, &str); 4] = [
    ("/var/lib/k8sm", "var-lib-k8sm"),
    ("/run/k8sm", "run-k8sm"),
    ("/run/netns", "run-netns"),
    ("/var/log/pods", "var-log-pods"),
];
/// Name servers that the machine's own resolver asks.
const REAL_RESOLVERS: &str = "/run/systemd/resolve/resolv.conf";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Makes the mount namespace of this process.
pub(super) fn enter(work_dir: &Path) -> Result<(), NetnsError> {
    let root = Path::new("/");
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| io_error("unshare mounts of", root)(e.into()))?;
    // Nothing that is mounted here shows outside.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, root, None::<&str>, private, None::<&str>)
        .map_err(|e| io_error("make private", root)(e.into()))?;
    for (target, name) in OWN {
        let own = work_dir.join("namespace").join(name);
        let target = Path::new(target);
        fs::create_dir_all(&own).map_err(io_error("make directory", &own))?;
        fs::create_dir_all(target).map_err(io_error("make directory", target))?;
        bind(&own, target)?;
    }
    // A resolver on the machine's loopback is out of reach from here.
    let loopback = fs::read_to_string(RESOLV_CONF).is_ok_and(|text| asks_loopback(&text));
    if loopback && Path::new(REAL_RESOLVERS).exists() {
        bind(Path::new(REAL_RESOLVERS), Path::new(RESOLV_CONF))?;
    }
    Ok(())
}

fn bind(source: &Path, target: &Path) -> Result<(), NetnsError> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|e| io_error("bind over", target)(e.into()))
}

fn asks_loopback(resolv_conf: &str) -> bool {
    resolv_conf
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .any(|server| server.trim().starts_with("127."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_loopback_is_known() {
        assert!(asks_loopback("# x\nnameserver 127.0.0.53\n"));
        assert!(!asks_loopback("nameserver 10.0.0.1\nsearch 127.example\n"));
    }
}
