//! An executor that was started from a container image goes back to the agent's own file system.
//!
//! A container from an image has a root of its own, `/proc/sys` read-only and no cgroups, and none
//! of the machine's tools; a node needs all of them, and Mesos has no option that leaves them. So
//! the executor copies itself into its sandbox, which the agent sees too, enters the mount
//! namespace of the process that started its container, and executes itself there. From then on
//! nothing differs from an executor that was fetched.
//!
//! That needs what Mesos gives by default: root with all capabilities, and the process namespace
//! of the agent. Whatever lacks is said before anything was started.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

/// Where the sandbox is for the container.
const SANDBOX: &str = "MESOS_SANDBOX";
/// Where it is for the agent.
const DIRECTORY: &str = "MESOS_DIRECTORY";
/// File name of the copy.
const PROGRAM: &str = "k8sm-executor";
/// The search path of the machine's programs; an image's is another.
const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most processes between this one and its agent.
const DEEPEST: u32 = 32;

/// Why the executor cannot leave its image. It does not start then, and no retry helps on this
/// agent as it is set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is somebody else.
    #[error(
        "this executor was started from an image as user {0}: it must be root there; let the framework name no other user"
    )]
    NotRoot(u32),
    /// The agent's processes cannot be seen.
    #[error(
        "this executor was started from an image and does not see its agent's processes: the agent has the isolator namespaces/pid; leave that out, or give the executor as a file (artifacts) instead of an image"
    )]
    Alone,
    /// The kernel refused.
    #[error(
        "leave the image for the agent's file system: {attempt}: {source}; an executor from an image needs all capabilities (CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE): leave out the isolator linux/capabilities, or give the executor as a file (artifacts)"
    )]
    Io {
        /// What was attempted.
        attempt: String,
        /// Why not.
        source: io::Error,
    },
}

fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let attempt = attempt.into();
    move |source| Error::Io { attempt, source }
}

/// Where the sandbox is, inside and outside, if this process is in an image.
fn sandboxes(inside: Option<OsString>, outside: Option<OsString>) -> Option<(PathBuf, PathBuf)> {
    let (inside, outside) = (PathBuf::from(inside?), PathBuf::from(outside?));
    (inside != outside).then_some((inside, outside))
}

/// Leaves the image, if this process is in one; it is executed anew then. Must be called before
/// any thread is started.
pub fn leave() -> Result<(), Error> {
    let told = sandboxes(std::env::var_os(SANDBOX), std::env::var_os(DIRECTORY));
    let Some((inside, outside)) = told else {
        return Ok(());
    };
    let uid = nix::unistd::geteuid();
    if !uid.is_root() {
        return Err(Error::NotRoot(uid.as_raw()));
    }
    // What is found and opened before is still reached afterwards.
    copy(&inside)?;
    let namespace = agent_namespace(Path::new("/proc"))?;
    setns(namespace, CloneFlags::CLONE_NEWNS)
        .map_err(|e| io("enter the agent's mount namespace")(e.into()))?;
    std::env::set_current_dir(&outside).map_err(io(format!("enter {}", outside.display())))?;
    let program = outside.join(PROGRAM);
    let error = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(SANDBOX, &outside)
        .env("PATH", HOST_PATH)
        .exec();
    Err(io(format!("execute {}", program.display()))(error))
}

/// Puts this program into the sandbox. It appears by one rename, and is complete.
fn copy(sandbox: &Path) -> Result<(), Error> {
    let target = sandbox.join(PROGRAM);
    let half = sandbox.join(format!(".{PROGRAM}"));
    let attempt = || format!("copy this program to {}", target.display());
    let copied = fs::copy("/proc/self/exe", &half)
        .and_then(|_| fs::set_permissions(&half, Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&half, &target));
    copied.map_err(io(attempt()))
}

/// The mount namespace of the nearest ancestor that has another one than this process: the agent,
/// or what starts containers for it.
fn agent_namespace(proc: &Path) -> Result<File, Error> {
    let identity = |pid: &str| {
        let path = proc.join(pid).join("ns/mnt");
        fs::metadata(&path)
            .map(|m| (m.dev(), m.ino()))
            .map_err(io(format!("look at {}", path.display())))
    };
    let own = identity("self")?;
    let mut pid = "self".to_owned();
    for _ in 0..DEEPEST {
        let path = proc.join(&pid).join("stat");
        let stat = fs::read_to_string(&path).map_err(io(format!("read {}", path.display())))?;
        match parent_of(&stat) {
            None | Some(0) => return Err(Error::Alone),
            Some(parent) => pid = parent.to_string(),
        }
        if identity(&pid)? != own {
            let path = proc.join(&pid).join("ns/mnt");
            return File::open(&path).map_err(io(format!("open {}", path.display())));
        }
    }
    Err(Error::Alone)
}

/// The parent in `/proc/<pid>/stat`, after the name in parentheses that may hold anything.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_sees_its_sandbox_elsewhere_is_in_an_image() {
        let some = |text: &str| Some(OsString::from(text));
        assert_eq!(sandboxes(some("/w/s"), some("/w/s")), None);
        assert_eq!(sandboxes(None, some("/w/s")), None);
        assert_eq!(
            sandboxes(some("/mnt/mesos/sandbox"), some("/w/s")),
            Some(("/mnt/mesos/sandbox".into(), "/w/s".into()))
        );
    }

    #[test]
    fn the_agent_is_the_nearest_ancestor_with_other_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let process = |pid: &str, parent: u32, namespace: &str| {
            let home = dir.path().join(pid);
            fs::create_dir_all(home.join("ns")).unwrap();
            fs::write(home.join("stat"), format!("1 (a) b) S {parent} 1 1 0")).unwrap();
            let file = dir.path().join(namespace);
            fs::write(&file, namespace).unwrap();
            std::os::unix::fs::symlink(file, home.join("ns/mnt")).unwrap();
        };
        process("self", 30, "container");
        process("30", 20, "container");
        process("20", 1, "agent");
        process("1", 0, "machine");
        let found = agent_namespace(dir.path()).unwrap();
        let agent = fs::metadata(dir.path().join("agent")).unwrap();
        assert_eq!(found.metadata().unwrap().ino(), agent.ino());
        // With a process namespace of its own nobody is above.
        let alone = tempfile::tempdir().unwrap();
        let home = alone.path().join("self");
        fs::create_dir_all(home.join("ns")).unwrap();
        fs::write(home.join("stat"), "1 (a) S 0 1 1 0").unwrap();
        fs::write(home.join("ns/mnt"), "").unwrap();
        let error = agent_namespace(alone.path()).unwrap_err();
        assert!(error.to_string().contains("namespaces/pid"), "{error}");
    }
}
