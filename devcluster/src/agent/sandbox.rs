//! Sandboxes: the directories that executors run in, and their bounded logs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::disk;

/// A log is cut when it is longer than this many bytes; what it held is kept once, as
/// `stdout.1` or `stderr.1`. 10 MB is the default of Mesos' own rotating logger.
pub const MAX_LOG_BYTES: u64 = 10 << 20;

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The user of the command does not exist on this agent. Never worth a retry here.
    #[error(
        "Failed to create executor directory '{path}': Failed to chown directory to '{user}': \
         No such user '{user}'",
        path = path.display()
    )]
    NoSuchUser {
        /// The sandbox.
        path: PathBuf,
        /// The user.
        user: String,
    },
    /// The file system refused.
    #[error("Failed to create executor directory '{path}': {source}", path = path.display())]
    Io {
        /// The sandbox.
        path: PathBuf,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Id of its first group.
    pub gid: u32,
}

/// Where this machine lists its users.
const PASSWD: &str = "/etc/passwd";

/// Finds a user by name, among those that `/etc/passwd` lists. The C library would also ask
/// directories on the network, but its plug-ins cannot be loaded into a static program.
pub fn find_user(name: &str) -> io::Result<Option<User>> {
    Ok(user_in(&fs::read_to_string(PASSWD)?, name))
}

fn user_in(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        Some(User {
            name: name.to_owned(),
            uid: fields.nth(1)?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    })
}

/// Makes a sandbox that belongs to `user`, and points `latest` beside it at it.
pub fn create(path: &Path, user: Option<&str>) -> Result<Option<User>, SandboxError> {
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| SandboxError::Io {
        path: path.to_owned(),
        source,
    };
    disk::make_dir(path).map_err(|e| refused(e.into()))?;
    if let (Some(runs), Some(name)) = (path.parent(), path.file_name()) {
        disk::link_atomic(Path::new(name), &runs.join("latest")).map_err(|e| refused(e.into()))?;
    }
    let Some(name) = user else {
        return Ok(None);
    };
    let user = find_user(name)
        .map_err(|e| refused(e.into()))?
        .ok_or_else(|| SandboxError::NoSuchUser {
            path: path.to_owned(),
            user: name.to_owned(),
        })?;
    std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
        .map_err(|e| refused(e.into()))?;
    Ok(Some(user))
}

/// Opens a log of a sandbox for a process to write to. Writers append, so that cutting the file
/// under them leaves no hole.
pub fn open_log(sandbox: &Path, name: &str, user: Option<&User>) -> io::Result<File> {
    let path = sandbox.join(name);
    let file = OpenOptions::new().create(true).append(true).open(&path)?;
    if let Some(user) = user {
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(file)
}

/// Cuts the logs of a sandbox that have grown too long. What is written between the copy and
/// the cut is lost, which is the price for writers that need no helper and survive the agent.
pub fn bound_logs(sandbox: &Path, max_bytes: u64) {
    for name in ["stdout", "stderr"] {
        let path = sandbox.join(name);
        // The sandbox is its user's: a link in place of the log may point anywhere.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if !metadata.is_file() || metadata.len() <= max_bytes {
            continue;
        }
        let kept = sandbox.join(format!("{name}.1"));
        let cut = remove_if_there(&kept)
            .and_then(|()| fs::copy(&path, &kept))
            .and_then(|_| OpenOptions::new().write(true).open(&path)?.set_len(0));
        if let Err(error) = cut {
            tracing::warn!(log = %path.display(), %error, "a sandbox log could not be cut");
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_is_cut_while_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open_log(dir.path(), "stdout", None).unwrap();
        log.write_all(b"0123456789").unwrap();
        bound_logs(dir.path(), 10);
        assert_eq!(fs::read(dir.path().join("stdout")).unwrap(), b"0123456789");
        log.write_all(b"!").unwrap();
        bound_logs(dir.path(), 10);
        assert_eq!(
            fs::read(dir.path().join("stdout.1")).unwrap(),
            b"0123456789!"
        );
        log.write_all(b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("stdout")).unwrap(), b"new");
    }

    #[test]
    fn a_user_that_does_not_exist_is_named_with_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs/x");
        let error = create(&path, Some("no-such-user")).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "Failed to create executor directory '{p}': Failed to chown directory to \
                 'no-such-user': No such user 'no-such-user'",
                p = path.display()
            )
        );
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n";
        let web = user_in(passwd, "web").unwrap();
        assert_eq!((web.uid, web.gid), (33, 34));
        assert_eq!(user_in(passwd, "we"), None);
    }

    #[test]
    fn the_latest_run_is_linked() {
        let dir = tempfile::tempdir().unwrap();
        create(&dir.path().join("runs/a"), None).unwrap();
        create(&dir.path().join("runs/b"), None).unwrap();
        assert_eq!(
            fs::read_link(dir.path().join("runs/latest")).unwrap(),
            Path::new("b")
        );
    }
}
