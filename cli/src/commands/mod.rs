//! The commands.

mod artifacts;
mod down;
mod images;
mod installed;
mod kubectl;
mod logs;
mod ps;
mod status;
mod up;

use std::process::ExitCode;

use crate::args::{Args, Command, DevCommand, Manner, RunComponent};
use crate::error::Error;
use crate::instance::{Paths, Settings};
use crate::supervise;

/// Runs a command. The exit code is not 0 only where a called program's is handed on, or where a
/// command answers a question with it.
pub fn run(args: Args) -> Result<ExitCode, Error> {
    let paths = Paths::with_run_root(&args.state_dir, &args.run_root)?;
    let done = ExitCode::SUCCESS;
    let dir = &args.state_dir;
    match &args.command {
        Command::Up(up) => up::run(&paths, up).map(|()| done),
        Command::Start(start) => match installed::selected(&args, &start.which)? {
            Some(_) => installed::start(dir, &start.which, &start.manner).map(|()| done),
            None => not_dry(&start.manner)
                .and_then(|()| up::start(&paths, start))
                .map(|()| done),
        },
        Command::Stop(stop) => match installed::selected(&args, &stop.which)? {
            Some(_) => installed::stop(dir, &stop.which, &stop.manner).map(|()| done),
            None => not_dry(&stop.manner)
                .and_then(|()| down::stop(&paths))
                .map(|()| done),
        },
        Command::Down(down) => down::run(&paths, down).map(|()| done),
        Command::Status(status) => match installed::selected(&args, &status.which)? {
            Some(home) => installed::status(&home, status.output.shape()),
            None => status::run(&paths, status.output),
        },
        Command::Ps(ps) => ps::run(&paths, ps).map(|()| done),
        Command::Kubectl(args) => kubectl::run(&paths, &args.args),
        Command::Logs(logs) => logs::run(&paths, logs).map(|()| done),
        Command::Install(install) => installed::install(dir, install).map(|()| done),
        Command::Upgrade(upgrade) => installed::upgrade(dir, upgrade).map(|()| done),
        Command::Uninstall(uninstall) => installed::uninstall(dir, uninstall).map(|()| done),
        Command::Doctor(doctor) => installed::doctor(dir, doctor),
        Command::Render(render) => installed::render(dir, render).map(|()| done),
        Command::Options(options) => installed::options(options).map(|()| done),
        Command::Certs(certs) => installed::certs(dir, certs).map(|()| done),
        Command::Kubeconfig(args) => installed::kubeconfig(dir, args).map(|()| done),
        Command::Backup(backup) => installed::backup(dir, backup).map(|()| done),
        Command::Restore(restore) => installed::restore(dir, restore).map(|()| done),
        Command::Completion(completion) => installed::completion(completion).map(|()| done),
        Command::Man(man) => installed::man(man).map(|()| done),
        Command::Artifacts(args) => artifacts::run(&args.command).map(|()| done),
        Command::Images(args) => images::run(&args.command).map(|()| done),
        Command::Package(args) => Ok(crate::package::run(args).map(|()| done)?),
        Command::Kubernetes(args) => print(&crate::dcos_plugin::run(args)?).map(|()| done),
        Command::Run(args) => run_component(args.component.clone()),
        Command::Upstream(args) => Ok(crate::upstream::cmd::run(args).map(|()| done)?),
        Command::Dev(_) => match args.command {
            Command::Dev(dev) => develop(&paths, dev).map(|()| done),
            // Just matched.
            _ => Ok(done),
        },
    }
}

/// `k8sm dev`.
fn develop(paths: &Paths, dev: crate::args::Dev) -> Result<(), Error> {
    match dev.command {
        DevCommand::Mesos(args) => devcluster::cli::run(*args, &["dev", "mesos"])
            .map_err(|error| Error::Mesos(format!("{error:#}"))),
        DevCommand::Marathon(args) => devcluster::marathon::cli::run(*args, |account, token| {
            Box::pin(async {
                crate::service_account::keep_of_file(account, token).await?;
                Ok(())
            })
        })
        .map_err(|error| Error::Mesos(format!("{error:#}"))),
        DevCommand::Dcos(args) => {
            devcluster::dcos::cli::run(*args).map_err(|error| Error::Mesos(format!("{error:#}")))
        }
        DevCommand::Supervise => {
            let settings = settings(paths)?;
            Ok(supervise::run(paths, &settings.id)?)
        }
    }
}

/// `k8sm run`.
/// The cluster of this machine is stopped and started without a plan that could be shown.
fn not_dry(manner: &Manner) -> Result<(), Error> {
    match manner.dry_run {
        false => Ok(()),
        true => Err(Error::Usage(
            "--dry-run is for an installed cluster: name it with --name or --state-dir".to_owned(),
        )),
    }
}

fn run_component(component: RunComponent) -> Result<ExitCode, Error> {
    let name = match component {
        RunComponent::Etcd => "etcd",
        RunComponent::Apiserver => "apiserver",
        RunComponent::ControllerManager => "controller-manager",
        RunComponent::Proxy => "proxy",
        RunComponent::Framework { args } if args.is_empty() => "framework",
        RunComponent::Framework { args } => return Ok(crate::run::run_package(&args)?),
        RunComponent::Probe => return Ok(crate::run::run_probe()?),
        RunComponent::Keep => return Ok(crate::run::run_keep()?),
        RunComponent::Exec {
            parent,
            program,
            args,
        } => return Err(crate::run::children::exec_with_parent(parent, program, args).into()),
    };
    Ok(crate::run::run(name)?)
}

/// The settings of the instance, which must exist.
fn settings(paths: &Paths) -> Result<Settings, Error> {
    Settings::read(paths)?.ok_or_else(|| {
        Error::NotUp(format!(
            "there is no cluster in {}; `k8sm up` makes one",
            paths.state().display()
        ))
    })
}

/// A runtime for a command that talks to the Kubernetes API.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    crate::runtime::runtime().map_err(Error::io("start the runtime"))
}

/// Writes a result to standard output; a closed pipe is the reader's choice and no error.
fn print(text: &str) -> Result<(), Error> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to standard output")(e))
        }
        _ => Ok(()),
    }
}

/// Columns of text, as wide as their widest cell, two blanks apart.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let header = header.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["etcd".to_owned(), "ready".to_owned()],
            vec!["kube-apiserver".to_owned(), String::new()],
        ];
        insta::assert_snapshot!(table(&["NAME", "STATE"], &rows));
    }

    #[test]
    fn the_help_teaches() {
        use clap::CommandFactory;
        let mut command = Args::command().term_width(100);
        insta::assert_snapshot!(command.render_long_help());
        command.debug_assert();
    }
}
