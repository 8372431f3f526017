//! How a program is started: its command line, environment, directory and user, as the agent tells
//! them to the process that starts it on its standard input.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use mesos::pb::CommandInfo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest accepted message, in bytes. Linux itself takes about 2 MiB of arguments and
/// environment, written as JSON it may be a few times longer.
const MAX_TOLD: u64 = 16 << 20;

/// A program with its arguments, the first of which is its own name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// File to execute, searched for in PATH when it has no slash.
    pub program: String,
    /// Name it is called by (`argv[0]`).
    pub arg0: String,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl Line {
    /// How to run a command the way Mesos does: a shell for `shell: true`, else the file with
    /// `arguments` as the whole argument vector.
    pub fn of(command: &CommandInfo) -> Result<Self, String> {
        let value = command.value.clone().unwrap_or_default();
        if command.shell() {
            if command.value.is_none() {
                return Err("Shell specified but no command value provided".to_owned());
            }
            return Ok(Self {
                program: "/bin/sh".to_owned(),
                arg0: "sh".to_owned(),
                arguments: vec!["-c".to_owned(), value],
            });
        }
        if value.is_empty() {
            return Err("Executable specified by the command is empty".to_owned());
        }
        let mut arguments = command.arguments.iter().cloned();
        Ok(Self {
            arg0: arguments.next().unwrap_or_else(|| value.clone()),
            program: value,
            arguments: arguments.collect(),
        })
    }

    /// As it is started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(&self.arg0).args(&self.arguments);
        command
    }
}

/// Everything about a program that is to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// What to execute.
    #[serde(flatten)]
    pub line: Line,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// User and group ids; `None` to stay who the agent is.
    pub user: Option<(u32, u32)>,
}

impl Process {
    /// The line in its environment, and nothing else of this process' own.
    pub fn command(&self) -> Command {
        let mut command = self.line.command();
        command.env_clear().envs(&self.environment);
        command
    }
}

/// Reads what this process is told. `None`: whoever told it has ended before it had said
/// everything, which shows by the newline that it ends with.
pub fn told<T: DeserializeOwned>() -> Result<Option<T>, String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_TOLD)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.last() != Some(&b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(program: &str, arg0: &str, arguments: &[&str]) -> Line {
        Line {
            program: program.to_owned(),
            arg0: arg0.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_shell_command_goes_to_the_shell_and_a_plain_one_keeps_its_own_argument_zero() {
        let shell = CommandInfo {
            value: Some("echo a; echo b".into()),
            ..Default::default()
        };
        assert_eq!(
            Line::of(&shell),
            Ok(line("/bin/sh", "sh", &["-c", "echo a; echo b"]))
        );
        let plain = CommandInfo {
            shell: Some(false),
            value: Some("/bin/busybox".into()),
            arguments: vec!["ls".into(), "-l".into()],
            ..Default::default()
        };
        assert_eq!(Line::of(&plain), Ok(line("/bin/busybox", "ls", &["-l"])));
        let none = CommandInfo {
            shell: Some(false),
            ..Default::default()
        };
        assert!(Line::of(&none).is_err());
    }
}
