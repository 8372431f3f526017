//! `k8sm stop` and `k8sm down`.

use std::time::Duration;

use crate::args::Down;
use crate::clean;
use crate::error::Error;
use crate::instance::{self, Lock, Paths, Settings};
use crate::preflight;
use crate::progress::Progress;
use crate::supervise::Supervisor;

/// How long everything may take to end in order: the API server's 20 s, after the framework's and
/// the controller manager's, and etcd's after it.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// `k8sm stop`: nothing runs afterwards, everything that must survive is on disk.
pub fn stop(paths: &Paths) -> Result<(), Error> {
    preflight::check_root(nix::unistd::geteuid().as_raw(), "k8sm stop")?;
    let settings = super::settings(paths)?;
    let _lock = Lock::command(paths)?;
    let progress = Progress::new(false);
    end(paths, Some(&settings), false, &progress)
}

/// `k8sm down`: nothing is left.
pub fn run(paths: &Paths, args: &Down) -> Result<(), Error> {
    preflight::check_root(nix::unistd::geteuid().as_raw(), "k8sm down")?;
    let progress = Progress::new(args.quiet);
    // Damaged settings must not keep anybody from removing the instance.
    let settings = match Settings::read(paths) {
        Ok(settings) => settings,
        Err(error) => {
            progress.note(&format!("{error}; going on without it"));
            None
        }
    };
    refuse_foreign_directory(paths)?;
    let lock = if paths.state().is_dir() {
        Some(Lock::command(paths)?)
    } else {
        None
    };
    end(paths, settings.as_ref(), args.force, &progress)?;
    let step = progress.step("files");
    clean::files(paths)?;
    drop(lock);
    step.done("");
    Ok(())
}

/// Only what `up` has made is removed: a directory without its marks is somebody else's.
fn refuse_foreign_directory(paths: &Paths) -> Result<(), Error> {
    let occupied = std::fs::read_dir(paths.state()).is_ok_and(|mut d| d.next().is_some());
    let ours = paths.settings().exists() || paths.state().join("lock").exists();
    if occupied && !ours {
        return Err(instance::Error::Foreign {
            path: paths.state().to_owned(),
        }
        .into());
    }
    Ok(())
}

/// Ends everything that runs and removes what it has made on the machine.
fn end(
    paths: &Paths,
    settings: Option<&Settings>,
    force: bool,
    progress: &Progress,
) -> Result<(), Error> {
    let supervisor = Supervisor::new(paths);
    if !force {
        let step = progress.step("processes");
        match supervisor.stop(STOP_PATIENCE) {
            Ok(true) => step.done("stopped"),
            Ok(false) => step.done("the supervisor did not run"),
            Err(error) => {
                step.failed();
                progress.note(&format!("{error}; killing what is left"));
            }
        }
    }
    // Whatever state it is in: it must not start again what is about to be killed.
    if let Some(process) = supervisor.process() {
        let _ = process.signal(rustix::process::Signal::KILL);
    }
    let step = progress.step("what is left of processes, mounts, links, rules and cgroups");
    match clean::machine(paths, settings) {
        Ok(()) => {
            step.done("none");
            Ok(())
        }
        Err(error) => {
            step.failed();
            Err(error.into())
        }
    }
}
