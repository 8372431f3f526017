//! A task that runs from an image: its command, and the commands of its checks, are started by a
//! helper that enters the image's root file system.

use std::process::Stdio;

use mesos::pb::CommandInfo;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::agent::container::start::{Line, Process};
use crate::agent::environment::TOKEN;
use crate::agent::images::enter::{EnterSpec, Place};
use crate::agent::images::rootfs::ContainerImage;
use crate::agent::images::runtime;

/// The running task, for its checks.
#[derive(Debug, Clone)]
pub struct Inside {
    /// What it runs from.
    pub image: ContainerImage,
    /// Its process.
    pub pid: u32,
}

/// Starts the task's own command in a root file system of its own.
pub fn start(
    image: &ContainerImage,
    command: &CommandInfo,
    variables: Vec<(String, String)>,
) -> Result<Child, String> {
    let line = runtime::line(command, &image.run, image.manner)?;
    let place = Place::New(image.rootfs.clone());
    spawn(image, line, place, variables)
}

impl Inside {
    /// Starts the command of a check where the task is.
    pub fn start(
        &self,
        command: &CommandInfo,
        variables: Vec<(String, String)>,
    ) -> Result<Child, String> {
        let line = Line::of(command)?;
        spawn(&self.image, line, Place::Of(self.pid), variables)
    }
}

fn spawn(
    image: &ContainerImage,
    line: Line,
    place: Place,
    variables: Vec<(String, String)>,
) -> Result<Child, String> {
    // The agent's variables are this process' own.
    let agent = std::env::vars_os()
        .filter(|(name, _)| name != TOKEN)
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let spec = EnterSpec {
        place,
        process: Process {
            line,
            environment: runtime::environment(agent, &image.run, variables),
            directory: runtime::directory(&image.run, image.manner).into(),
            user: image.user,
        },
    };
    let message = spec.message().map_err(|e| e.to_string())?;
    let command = EnterSpec::command(&image.helper).map_err(|e| e.to_string())?;
    let mut child = Command::from(command)
        .stdin(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        tokio::spawn(async move {
            // A process that has ended does not read; its end is seen anyway.
            let _ = stdin.write_all(&message).await;
        });
    }
    Ok(child)
}
