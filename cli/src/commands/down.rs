//! `k8sm stop` and `k8sm down`.

use std::time::{Duration, Instant};

use crate::args::Down;
use crate::clean;
use crate::cluster::api::Cluster;
use crate::cluster::{processes, teardown};
use crate::error::Error;
use crate::instance::{self, Lock, Mesos, Paths, Settings};
use crate::preflight;
use crate::progress::{Progress, Step};
use crate::supervise::{self, Spec, Supervisor};

/// How long the framework, or Marathon, may take to end.
const FRAMEWORK_PATIENCE: Duration = Duration::from_secs(10);
/// How long nodes may take to stop their pods. CoreDNS takes 5 s (its `lameduck`); Kubernetes'
/// default grace, 30 s, is more than somebody who removes everything wants to wait.
const PODS_PATIENCE: Duration = Duration::from_secs(10);
/// How long everything may take to end in order: each process has a bound of its own, and they end
/// in three rounds.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// `k8sm stop`: nothing runs afterwards, everything that must survive is on disk.
pub fn stop(paths: &Paths) -> Result<(), Error> {
    preflight::check_root(nix::unistd::geteuid().as_raw(), "k8sm stop")?;
    let settings = super::settings(paths)?;
    let _lock = Lock::command(paths)?;
    let progress = Progress::new(false);
    end(paths, Some(&settings), false, false, &progress)
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
    end(paths, settings.as_ref(), args.force, true, &progress)?;
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

/// Ends the pods, in order and while the API server still takes their last words. First the
/// framework, which would start their nodes again. On a Mesos that is not ours they end only when
/// the cluster is removed: that is what its framework's failover timeout is for.
fn end_pods(
    paths: &Paths,
    settings: Option<&Settings>,
    remove: bool,
    supervisor: &Supervisor<'_>,
    progress: &Progress,
) -> Result<(), Error> {
    let Some(settings) = settings else {
        return Ok(());
    };
    if settings.marathon.is_some() {
        return end_apps_pods(paths, settings, supervisor, progress);
    }
    let existing = match &settings.mesos {
        Mesos::Own { .. } => None,
        Mesos::Existing { url } => Some(url),
    };
    if (existing.is_some() && !remove)
        || supervisor.process().is_none()
        || !runs(supervisor, "kube-apiserver")
    {
        return Ok(());
    }
    let step = progress.step("pods");
    end_process(processes::FRAMEWORK, paths, settings, supervisor)?;
    if let Some(url) = existing {
        match teardown(paths, settings, url) {
            Ok(()) => step.done("Mesos ends them, within the executors' grace"),
            Err(error) => {
                step.failed();
                progress.note(&format!(
                    "{error}; the nodes go on until the framework's failover timeout, unless you tear it down: POST /master/teardown with its id"
                ));
            }
        }
        return Ok(());
    }
    end_nodes(paths, step);
    Ok(())
}

fn runs(supervisor: &Supervisor<'_>, name: &str) -> bool {
    let status = supervisor.status();
    status.is_some_and(|s| s.of(name).is_some_and(|report| report.pid.is_some()))
}

/// Has the supervisor end a process for good, and waits for its end.
fn end_process(
    name: &str,
    paths: &Paths,
    settings: &Settings,
    supervisor: &Supervisor<'_>,
) -> Result<(), Error> {
    let mut spec = Spec::read(&paths.spec())
        .map_err(supervise::client::Error::from)?
        .unwrap_or_default();
    spec.processes.retain(|p| p.name != name);
    spec.generation += 1;
    supervisor.apply(&spec, &settings.id)?;
    let begun = Instant::now();
    while runs(supervisor, name) && begun.elapsed() < FRAMEWORK_PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ends the executors of agents of ours, and the pods with them.
fn end_nodes(paths: &Paths, mut step: Step) {
    let ended = clean::executors::end(paths, PODS_PATIENCE, |left| {
        step.detail(&format!("{left} node(s) still stop their pods"));
    });
    step.done(if ended { "ended" } else { "some are killed" });
}

/// Ends the pods where the framework is one of Marathon's apps: Marathon, which would start it again,
/// ends first.
fn end_apps_pods(
    paths: &Paths,
    settings: &Settings,
    supervisor: &Supervisor<'_>,
    progress: &Progress,
) -> Result<(), Error> {
    if supervisor.process().is_none() {
        return Ok(());
    }
    let step = progress.step("pods");
    end_process(processes::MARATHON, paths, settings, supervisor)?;
    clean::executors::end_framework(paths, FRAMEWORK_PATIENCE);
    end_nodes(paths, step);
    Ok(())
}

fn teardown(paths: &Paths, settings: &Settings, url: &str) -> Result<(), Error> {
    let work = async {
        let cluster = Cluster::connect(&paths.super_kubeconfig()).await?;
        match teardown::framework_id(&cluster, &settings.name).await? {
            Some(id) => teardown::teardown(url, &id).await,
            // It never subscribed.
            None => Ok(()),
        }
    };
    Ok(super::runtime()?.block_on(work)?)
}

/// Ends everything that runs and removes what it has made on the machine.
fn end(
    paths: &Paths,
    settings: Option<&Settings>,
    force: bool,
    remove: bool,
    progress: &Progress,
) -> Result<(), Error> {
    let supervisor = Supervisor::new(paths);
    if !force {
        end_pods(paths, settings, remove, &supervisor, progress)?;
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
