//! The first process of a container: this very program, started again by the agent.
//!
//! It leads a session of its own and does nothing until the agent has put it into its cgroups
//! and remembered its pid. Then it starts the command, waits for it, writes the wait status to
//! the runtime directory (an agent that was restarted in between reads it there), and ends the
//! same way the command ended. If the agent dies before it has said everything, it just ends.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::agent::disk;
use crate::agent::images::enter::{EnterSpec, Place};
use crate::agent::images::rootfs::Rootfs;

/// Longest accepted specification, in bytes. Linux itself takes about 2 MiB of arguments and
/// environment, written as JSON it may be a few times longer.
const MAX_SPEC: u64 = 16 << 20;

/// What the agent tells the init process on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct InitSpec {
    /// File to execute.
    pub program: String,
    /// Name it is called by (`argv[0]`).
    pub arg0: String,
    /// Its further arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// User and group ids; `None` to stay who the agent is.
    pub user: Option<(u32, u32)>,
    /// Where the wait status goes.
    pub status: PathBuf,
    /// The root file system that the program is started in, and the program with its arguments
    /// that enters it; none for the agent's own.
    pub image: Option<(Rootfs, Vec<String>)>,
}

impl InitSpec {
    /// How to run a command the way Mesos does: a shell for `shell: true`, else the file with
    /// `arguments` as the whole argument vector.
    pub fn program_of(
        command: &mesos::pb::CommandInfo,
    ) -> Result<(String, String, Vec<String>), String> {
        let value = command.value.clone().unwrap_or_default();
        if command.shell() {
            if command.value.is_none() {
                return Err("Shell specified but no command value provided".to_owned());
            }
            return Ok(("/bin/sh".into(), "sh".into(), vec!["-c".into(), value]));
        }
        if value.is_empty() {
            return Err("Executable specified by the command is empty".to_owned());
        }
        let mut arguments = command.arguments.iter().cloned();
        let arg0 = arguments.next().unwrap_or_else(|| value.clone());
        Ok((value, arg0, arguments.collect()))
    }
}

/// Runs as a container's init process. Returns only by ending the process.
pub fn main() -> ! {
    // A session of its own: without cgroups it is the session that is killed at the end.
    // It fails only for a process that leads a group already, as under some supervisors.
    let _ = nix::unistd::setsid();
    let spec = match read_spec() {
        Ok(Some(spec)) => spec,
        // The agent is gone; nothing was started.
        Ok(None) => std::process::exit(1),
        Err(error) => {
            eprintln!("Failed to read the container's specification: {error}");
            std::process::exit(1);
        }
    };
    let status = match run(&spec) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("Failed to execute '{}': {error}", spec.program);
            std::process::ExitStatus::from_raw(1 << 8)
        }
    };
    let raw = status.into_raw();
    if let Err(error) = disk::write_atomic(&spec.status, raw.to_string().as_bytes()) {
        eprintln!("Failed to remember the wait status: {error}");
    }
    end_like(status)
}

fn read_spec() -> Result<Option<InitSpec>, String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_SPEC)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    // The agent ends what it says with a newline, so a half-said specification is known.
    if bytes.last() != Some(&b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| error.to_string())
}

fn run(spec: &InitSpec) -> std::io::Result<std::process::ExitStatus> {
    if let Some((rootfs, helper)) = &spec.image {
        let enter = EnterSpec {
            place: Place::New(rootfs.clone()),
            program: spec.program.clone(),
            arg0: spec.arg0.clone(),
            arguments: spec.arguments.clone(),
            environment: spec.environment.clone(),
            directory: spec.directory.clone(),
            user: spec.user,
        };
        let mut child = EnterSpec::command(helper)?.spawn()?;
        enter.tell(child.stdin.take())?;
        return child.wait();
    }
    std::env::set_current_dir(&spec.directory)?;
    let mut command = Command::new(&spec.program);
    command
        .arg0(&spec.arg0)
        .args(&spec.arguments)
        .env_clear()
        .envs(&spec.environment)
        .stdin(Stdio::null());
    if let Some((uid, gid)) = spec.user {
        command.uid(uid).gid(gid);
    }
    command.spawn()?.wait()
}

/// Ends this process the way another has ended, so that whoever waits sees the same status.
fn end_like(status: std::process::ExitStatus) -> ! {
    if let Some(signal) = status.signal() {
        // No second core file for the same crash.
        let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
        if let Ok(signal) = nix::sys::signal::Signal::try_from(signal) {
            let _ = nix::sys::signal::raise(signal);
        }
        // The signal was ignored: say it the way shells do.
        std::process::exit(128 + signal);
    }
    std::process::exit(status.code().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::pb::CommandInfo;

    #[test]
    fn a_shell_command_goes_to_the_shell_and_a_plain_one_keeps_its_own_argument_zero() {
        let shell = CommandInfo {
            value: Some("echo a; echo b".into()),
            ..Default::default()
        };
        assert_eq!(
            InitSpec::program_of(&shell),
            Ok((
                "/bin/sh".into(),
                "sh".into(),
                vec!["-c".into(), "echo a; echo b".into()]
            ))
        );
        let plain = CommandInfo {
            shell: Some(false),
            value: Some("/bin/busybox".into()),
            arguments: vec!["ls".into(), "-l".into()],
            ..Default::default()
        };
        assert_eq!(
            InitSpec::program_of(&plain),
            Ok(("/bin/busybox".into(), "ls".into(), vec!["-l".into()]))
        );
        let none = CommandInfo {
            shell: Some(false),
            ..Default::default()
        };
        assert!(InitSpec::program_of(&none).is_err());
    }
}
