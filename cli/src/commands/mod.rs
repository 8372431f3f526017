//! The commands.

mod down;
mod kubectl;
mod logs;
mod ps;
mod status;
mod up;

use std::process::ExitCode;

use crate::args::{Args, Command, DevCommand};
use crate::error::Error;
use crate::instance::{Paths, Settings};
use crate::supervise;

/// Runs a command. The exit code is not 0 only where a called program's is handed on, or where a
/// command answers a question with it.
pub fn run(args: Args) -> Result<ExitCode, Error> {
    let paths = Paths::with_run_root(&args.state_dir, &args.run_root)?;
    let done = ExitCode::SUCCESS;
    match args.command {
        Command::Up(up) => up::run(&paths, &up).map(|()| done),
        Command::Start(start) => up::start(&paths, &start).map(|()| done),
        Command::Stop => down::stop(&paths).map(|()| done),
        Command::Down(down) => down::run(&paths, &down).map(|()| done),
        Command::Status(output) => status::run(&paths, output.output),
        Command::Ps(ps) => ps::run(&paths, &ps).map(|()| done),
        Command::Kubectl(args) => kubectl::run(&paths, &args.args),
        Command::Logs(logs) => logs::run(&paths, &logs).map(|()| done),
        Command::Upstream(args) => Ok(crate::upstream::cmd::run(&args).map(|()| done)?),
        Command::Dev(dev) => match dev.command {
            DevCommand::Mesos(args) => devcluster::cli::run(*args, &["dev", "mesos"])
                .map(|()| done)
                .map_err(|error| Error::Mesos(format!("{error:#}"))),
            DevCommand::Supervise => {
                let settings = settings(&paths)?;
                supervise::run(&paths, &settings.id)?;
                Ok(done)
            }
        },
    }
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
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))
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
