//! Removes leftovers. Synchronous and idempotent: whatever is gone already is fine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use super::manifest::Leftover;
use super::mounts;
use crate::cgroup::kill;

/// Killing may take so long: a process in uninterruptible sleep dies when its I/O ends.
const KILL_DEADLINE: Duration = Duration::from_secs(20);
/// Removing empty cgroups takes milliseconds.
const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// Removes all of them, processes first, links last. Returns what remains, in words.
pub fn all(leftovers: &[Leftover]) -> Vec<String> {
    let mut remaining = Vec::new();
    for leftover in leftovers {
        if let Leftover::Cgroup(dir) = leftover {
            let left = kill::kill(dir, KILL_DEADLINE);
            if left > 0 {
                remaining.push(format!("{left} processes in {}", dir.display()));
            }
        }
    }
    let rank = |leftover: &Leftover| match leftover {
        Leftover::Cgroup(_) => 0,
        Leftover::NetNs(_) => 1,
        Leftover::Dir(_) => 2,
        Leftover::IptablesRule { .. } | Leftover::NftRules { .. } => 3,
        Leftover::NftTable { .. } => 4,
        Leftover::Link(_) => 5,
        Leftover::CgroupParent(_) => 6,
    };
    let mut ordered: Vec<&Leftover> = leftovers.iter().collect();
    ordered.sort_by_key(|leftover| rank(leftover));
    for leftover in ordered {
        if let Err(why) = one(leftover) {
            remaining.push(why);
        }
    }
    remaining
}

fn one(leftover: &Leftover) -> Result<(), String> {
    match leftover {
        Leftover::Cgroup(dir) => {
            if kill::remove(dir, REMOVE_DEADLINE) {
                Ok(())
            } else {
                Err(format!("cgroup {}", dir.display()))
            }
        }
        Leftover::CgroupParent(dir) => {
            // In use by another node: then that one's.
            let _ = fs::remove_dir(dir);
            Ok(())
        }
        Leftover::NetNs(path) => {
            detach(path);
            removed(fs::remove_file(path), path)
        }
        Leftover::Dir(path) => directory(path),
        Leftover::IptablesRule {
            program,
            table,
            rule,
        } => {
            // -C asks whether it is there: deleting what is not is an error of the tool's.
            let there = |verb: &str| {
                let mut args = vec!["-w", "5", "-t", table, verb];
                args.extend(rule.iter().map(String::as_str));
                command(program, &args)
            };
            // The same rule may be there twice; a bound, should deleting not help.
            for _ in 0..16 {
                match there("-C") {
                    Ok(true) => {
                        there("-D").map_err(|e| format!("rule {}: {e}", rule.join(" ")))?;
                    }
                    _ => return Ok(()),
                }
            }
            Err(format!("rule {}", rule.join(" ")))
        }
        Leftover::NftRules {
            family,
            table,
            chain,
            comment,
        } => nft_rules([family, table, chain], comment),
        Leftover::NftTable { family, table } => {
            match command("nft", &["list", "table", family, table]) {
                Ok(true) => match command("nft", &["delete", "table", family, table]) {
                    Ok(true) => Ok(()),
                    _ => Err(format!("nftables table {family} {table}")),
                },
                Ok(false) => Ok(()),
                Err(error) => Err(format!("nftables table {family} {table}: {error}")),
            }
        }
        Leftover::Link(name) => {
            if !link_exists(name) {
                return Ok(());
            }
            match command("ip", &["link", "delete", "dev", name]) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    if link_exists(name) {
                        Err(format!("link {name}"))
                    } else {
                        Ok(())
                    }
                }
                Err(error) => Err(format!("link {name}: {error}")),
            }
        }
    }
}

/// Removes the rules with that comment from a chain; a chain that is gone has none.
fn nft_rules(chain: [&str; 3], comment: &str) -> Result<(), String> {
    let failed = |e: io::Error| format!("rules in {}: {e}", chain.join(" "));
    let listing = Command::new("nft")
        .args(["-a", "list", "chain"])
        .args(chain)
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&listing.stdout);
    for handle in handles(&text, comment) {
        let mut args = vec!["delete", "rule"];
        args.extend(chain);
        args.extend(["handle", handle]);
        if !command("nft", &args).map_err(failed)? {
            return Err(format!("rule {handle} in {}", chain.join(" ")));
        }
    }
    Ok(())
}

/// Handles of the rules with that comment, as `nft -a` lists them.
fn handles<'a>(listing: &'a str, comment: &str) -> Vec<&'a str> {
    let marked = format!("comment \"{comment}\"");
    listing
        .lines()
        .filter(|line| line.contains(&marked))
        .filter_map(|line| {
            line.rsplit_once("# handle ")
                .map(|(_, handle)| handle.trim())
        })
        .collect()
}

/// Asked of the kernel: `/sys/class/net` shows the network namespace that mounted it, which need
/// not be this one.
fn link_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

fn command(program: &str, args: &[&str]) -> io::Result<bool> {
    Ok(Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?
        .success())
}

fn removed(result: io::Result<()>, path: &Path) -> Result<(), String> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

fn detach(path: &Path) {
    // Several mounts may be on top of each other.
    for _ in 0..64 {
        if unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            return;
        }
    }
}

/// Unmounts what is below a directory, then removes it.
pub fn directory(path: &Path) -> Result<(), String> {
    if path.components().count() < 3 {
        // Never `/` or `/var`, whatever a damaged list says.
        return Err(format!(
            "{}: too near the root to be removed",
            path.display()
        ));
    }
    for mount in mounts_in_the_way(path) {
        detach(&mount);
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(meta) if meta.is_dir() => {
            if let Some(mount) = mounts_in_the_way(path).first() {
                // Removing would go on into whatever is mounted there.
                return Err(format!("{} is still mounted", mount.display()));
            }
            removed(fs::remove_dir_all(path), path)
        }
        Ok(_) => removed(fs::remove_file(path), path),
    }
}

fn mounts_in_the_way(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts::in_the_way(&text, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_with_our_comment_are_found_in_a_chain() {
        let listing = "table ip filter {\n\
            \tchain FORWARD { # handle 1\n\
            \t\tip saddr 10.244.0.0/16 counter packets 0 bytes 0 accept comment \"k8s0\" # handle 7\n\
            \t\tip saddr 10.0.0.0/8 accept comment \"other\" # handle 8\n\t}\n}\n";
        assert_eq!(handles(listing, "k8s0"), ["7"]);
    }
}
