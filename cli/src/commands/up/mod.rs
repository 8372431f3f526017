//! `k8sm up` and `k8sm start`: from a machine to a cluster that serves a page.
//!
//! Every step is safe to repeat and to be killed in: files are written whole, the supervisor is a
//! process of its own, objects are applied server-side. So the way to go on after Ctrl-C, a crash
//! or a time-out is the same command again.

mod apps;
mod choose;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use packaging::addons::{Addons, coredns};
use packaging::control_plane::ControlPlane;
use tokio::signal::unix::{SignalKind, signal};

use super::{runtime, settings as existing_settings};
use crate::args::{Start, Up};
use crate::catalog::Catalog;
use crate::cluster::api::{Cluster, LEASE_AGE};
use crate::cluster::prepare::{self, Payload};
use crate::cluster::{front_door, hello, processes};
use crate::error::Error;
use crate::instance::{self, Lock, Mesos, Paths, Settings};
use crate::preflight::{self, Facts, facts};
use crate::progress::{Progress, Step};
use crate::supervise::record::Records;
use crate::supervise::{Report, Spec, Stage, Supervisor};
use crate::upstream::Versions;

/// `k8sm up`.
pub fn run(paths: &Paths, args: &Up) -> Result<(), Error> {
    preflight::check_root(nix::unistd::geteuid().as_raw(), "k8sm up")?;
    watch_for_interrupt()?;
    let progress = Progress::new(args.quiet);
    let previous = Settings::read(paths)?;
    refuse_foreign_directory(paths, previous.as_ref())?;
    let settings = choose::choose(paths, args, previous.as_ref(), &progress)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    bring_up(paths, &settings, !args.no_hello, deadline, &progress)
}

/// `k8sm start`.
pub fn start(paths: &Paths, args: &Start) -> Result<(), Error> {
    preflight::check_root(nix::unistd::geteuid().as_raw(), "k8sm start")?;
    watch_for_interrupt()?;
    let progress = Progress::new(false);
    let settings = existing_settings(paths)?;
    check_machine(paths, &settings, true, &progress)?;
    let deadline = Instant::now() + Duration::from_secs(args.manner.timeout);
    bring_up(paths, &settings, false, deadline, &progress)
}

/// Ends this program at Ctrl-C with a word about how to go on. What was started goes on.
///
/// The handler stands when this returns: a Ctrl-C that comes before the waiting thread was
/// scheduled must not end the program without a word.
fn watch_for_interrupt() -> Result<(), Error> {
    let doing = "wait for Ctrl-C";
    let runtime = crate::runtime::runtime().map_err(Error::io(doing))?;
    let mut interrupt = {
        let _context = runtime.enter();
        signal(SignalKind::interrupt()).map_err(Error::io(doing))?
    };
    std::thread::spawn(move || {
        if runtime.block_on(interrupt.recv()).is_some() {
            let error = Error::Interrupted;
            eprintln!("\nk8sm: {error}");
            std::process::exit(i32::from(error.exit_code()));
        }
    });
    Ok(())
}

/// A directory with something else in it is not ours to fill, nor to remove later.
fn refuse_foreign_directory(paths: &Paths, previous: Option<&Settings>) -> Result<(), Error> {
    // Names that an `up` makes before its settings: what a killed one leaves.
    const OWN: [&str; 2] = ["lock", "settings.json"];
    let occupied = std::fs::read_dir(paths.state()).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|e| !OWN.iter().any(|own| e.file_name() == *own))
    });
    if previous.is_none() && occupied {
        return Err(instance::Error::Foreign {
            path: paths.state().to_owned(),
        }
        .into());
    }
    Ok(())
}

fn check_machine(
    paths: &Paths,
    settings: &Settings,
    exists: bool,
    progress: &Progress,
) -> Result<(), Error> {
    // Its own processes have its ports, also when the supervisor that started them is gone.
    let running = Supervisor::new(paths).process().is_some()
        || !Records::new(paths.pids()).alive().is_empty();
    let mut ports = Vec::new();
    if !running {
        // Tasks outlive Mesos' processes, and what holds the port of a cluster that exists may be
        // its own.
        if settings.marathon.is_none() || !exists {
            ports.push((settings.ports.api, "the API server", "--api-port"));
        }
        if let Mesos::Own { master_port, .. } = settings.mesos {
            ports.push((master_port, "the Mesos master", "--mesos-port"));
        }
    }
    let address = Some(settings.address).filter(|a| !a.is_loopback());
    let facts = Facts::gather(&facts::Wanted {
        paths,
        ports,
        host_network: processes::shares_host_network(settings),
        address,
        resources: match &settings.mesos {
            Mesos::Own { resources, .. } => resources.clone(),
            Mesos::Existing { .. } => None,
        },
        exists,
    });
    let (fatal, warnings): (Vec<_>, Vec<_>) =
        preflight::judge(&facts).into_iter().partition(|f| f.fatal);
    for warning in warnings {
        progress.note(&warning.to_string());
    }
    if fatal.is_empty() {
        Ok(())
    } else {
        Err(preflight::Unfit(fatal).into())
    }
}

/// From when on what nodes say counts.
#[derive(Debug, Clone, Copy)]
struct Begun {
    moment: SystemTime,
    /// The cluster was stopped, or its supervisor had ended: what Node objects say may be old.
    was_down: bool,
}

/// From settings to a running cluster.
fn bring_up(
    paths: &Paths,
    settings: &Settings,
    with_hello: bool,
    deadline: Instant,
    progress: &Progress,
) -> Result<(), Error> {
    let begun = match Supervisor::new(paths).process() {
        Some(_) => Begun {
            moment: SystemTime::now() - LEASE_AGE,
            was_down: false,
        },
        None => Begun {
            moment: SystemTime::now(),
            was_down: true,
        },
    };
    let catalog = Catalog::new(Some(&settings.programs), &settings.upstream)?;
    paths.create()?;
    let _lock = Lock::command(paths)?;
    settings.write(paths)?;
    note_host_network(paths, settings)?;
    if let Some(ports) = settings.marathon {
        let page = apps::bring_up(
            paths, settings, ports, begun, with_hello, deadline, progress,
        )?;
        report(paths, settings, page, progress);
        return Ok(());
    }
    let control_plane = prepare::control_plane(paths, settings)?;

    let step = progress.step("certificates and configuration");
    let changes = prepare::credentials(paths, settings, &control_plane)?;
    prepare::process_files(&control_plane.processes())?;
    step.done(&match changes.len() {
        0 => "kept".to_owned(),
        n => format!("{n} made"),
    });

    let supervisor = Supervisor::new(paths);
    let before = Spec::read(&paths.spec()).ok().flatten().unwrap_or_default();
    let mut spec = Spec {
        generation: before.generation + 1,
        processes: processes::control_plane(&control_plane, &catalog),
    };
    spec.processes
        .extend(front_door::process(settings, &control_plane, &catalog));
    spec.processes
        .extend(processes::mesos(paths, settings, &own_program()?));
    // The framework needs the payload and its rights. One that runs already stays until both are
    // known to be there.
    let framework = |p: &&crate::supervise::ProcessSpec| p.name == processes::FRAMEWORK;
    spec.processes
        .extend(before.processes.iter().find(framework).cloned());
    supervisor.apply(&spec, &settings.id)?;

    // While the control plane starts.
    let (built, api_ready) = std::thread::scope(|scope| {
        let building = scope.spawn(|| prepare::payload(paths, settings, &catalog));
        let waited = wait_ready(
            &supervisor,
            spec.generation,
            "kube-apiserver",
            "control plane",
            deadline,
            progress,
        );
        (building.join(), waited)
    });
    api_ready?;
    let built: Payload = match built {
        Ok(built) => built?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    if !built.kept {
        progress.note("images and the nodes' payload were packed meanwhile");
    }

    let runtime = runtime()?;
    let mut cluster = runtime.block_on(Cluster::connect(&paths.super_kubeconfig()))?;
    let step = progress.step("access rights, cluster DNS, konnectivity");
    let manifests = addons(settings, &control_plane)?.manifests();
    runtime.block_on(cluster.apply(&manifests, deadline))?;
    step.done("");

    let framework = processes::framework(paths, settings, &control_plane, &catalog, &built.path);
    spec.processes.retain(|p| p.name != processes::FRAMEWORK);
    spec.processes.push(framework);
    spec.generation += 1;
    supervisor.apply(&spec, &settings.id)?;
    for process in &spec.processes {
        if process.name == processes::MASTER || process.name.starts_with("mesos-agent") {
            wait_ready(
                &supervisor,
                spec.generation,
                &process.name,
                &process.name,
                deadline,
                progress,
            )?;
        }
    }
    for name in ["kube-controller-manager", processes::FRAMEWORK] {
        wait_ready(&supervisor, spec.generation, name, name, deadline, progress)?;
    }

    note_front_door(&supervisor, spec.generation, settings, deadline, progress);

    if let Mesos::Own { agents, .. } = settings.mesos {
        runtime.block_on(wait_for_nodes(&cluster, agents, begun, deadline, progress))?;
    }

    let mut page = None;
    if with_hello {
        runtime.block_on(cluster.apply(&hello::objects()?, deadline))?;
        page = Some(runtime.block_on(wait_for_hello(&cluster, deadline, progress))?);
    }
    report(paths, settings, page, progress);
    Ok(())
}

fn own_program() -> Result<std::path::PathBuf, Error> {
    std::env::current_exe().map_err(Error::io("find this program"))
}

/// A word when the front door does not open: somebody else may have its port by now, and the
/// cluster is none the worse for it.
fn note_front_door(
    supervisor: &Supervisor<'_>,
    generation: u64,
    settings: &Settings,
    deadline: Instant,
    progress: &Progress,
) {
    const PATIENCE: Duration = Duration::from_secs(15);
    let Some(ports) = settings.front_door else {
        return;
    };
    let deadline = deadline.min(Instant::now() + PATIENCE);
    if !supervisor
        .wait_ready(generation, front_door::NAME, deadline, |_| ())
        .unwrap_or(false)
    {
        progress.note(&format!(
            "localhost:{} does not answer; `k8sm logs {}` says why",
            ports.legacy,
            front_door::NAME
        ));
    }
}

/// Lets other instances see that this machine's network is in use.
fn note_host_network(paths: &Paths, settings: &Settings) -> Result<(), Error> {
    let marker = paths.run().join(facts::HOST_NETWORK);
    if processes::shares_host_network(settings) {
        packaging::files::write_atomic(
            &marker,
            paths.state().as_os_str().as_encoded_bytes(),
            packaging::files::PUBLIC,
        )
        .map_err(instance::Error::from)?;
    }
    Ok(())
}

fn addons(settings: &Settings, control_plane: &ControlPlane) -> Result<Addons, Error> {
    let versions = Versions::of(&settings.upstream);
    Ok(Addons {
        framework_name: settings.name.clone(),
        dns_address: control_plane.dns_address(),
        dns_domain: control_plane.dns_domain.clone(),
        dns_upstream: dns_upstream(),
        coredns_image: prepare::coredns_image(&versions)?,
        konnectivity_image: prepare::konnectivity_image(&versions)?,
        konnectivity_host: settings.address,
        konnectivity_port: settings.ports.konnectivity_agent,
    })
}

/// Names outside the cluster are asked of the nodes' name servers, when there are any: CoreDNS
/// does not start without.
fn dns_upstream() -> coredns::Upstream {
    if prepare::has_name_server() {
        coredns::Upstream::NodeResolvConf
    } else {
        coredns::Upstream::None
    }
}

fn wait_ready(
    supervisor: &Supervisor<'_>,
    generation: u64,
    name: &str,
    shown: &str,
    deadline: Instant,
    progress: &Progress,
) -> Result<(), Error> {
    let begun = Instant::now();
    let mut step = progress.step(shown);
    let mut last = None;
    let ready = supervisor.wait_ready(generation, name, deadline, |report| {
        step.detail(&describe(report));
        last = report.cloned();
    });
    finish(step, ready, || {
        let log = last.map(|r| describe(Some(&r))).unwrap_or_default();
        Error::Timeout {
            what: name.to_owned(),
            waited: begun.elapsed(),
            detail: format!(": {log}; `k8sm logs {name}` shows its log"),
        }
    })
}

fn finish(
    step: Step,
    ready: Result<bool, crate::supervise::client::Error>,
    timeout: impl FnOnce() -> Error,
) -> Result<(), Error> {
    match ready {
        Ok(true) => {
            step.done("");
            Ok(())
        }
        Ok(false) => {
            step.failed();
            Err(timeout())
        }
        Err(error) => {
            step.failed();
            Err(error.into())
        }
    }
}

fn describe(report: Option<&Report>) -> String {
    let Some(report) = report else {
        return "waiting for the supervisor".to_owned();
    };
    let stage = match report.stage {
        Stage::Waiting => "waits for others",
        Stage::BackOff => "failed, starts again soon",
        Stage::Starting => "starting",
        Stage::Ready => "ready",
        Stage::Unhealthy => "does not answer",
        Stage::Stopping => "stopping",
        Stage::Stopped => "stopped",
    };
    match &report.last_error {
        Some(error) => format!("{stage} ({error})"),
        None => stage.to_owned(),
    }
}

/// Waits until every agent of ours is a node.
async fn wait_for_nodes(
    cluster: &Cluster,
    wanted: u32,
    begun: Begun,
    deadline: Instant,
    progress: &Progress,
) -> Result<(), Error> {
    /// One whose state is from before counts if it stays ready for so long: a kubelet that has just
    /// started would have said by then that it is not.
    const STEADY: Duration = Duration::from_secs(5);
    /// A node that takes longer than this may never come: the pods' events say why.
    const USUAL: Duration = Duration::from_secs(10);
    /// Between two looks at the events.
    const LOOK: Duration = Duration::from_secs(5);
    let start = Instant::now();
    let mut look_at = start + USUAL;
    let mut why = None;
    let mut step = progress.step("nodes");
    let mut seen: HashMap<String, Instant> = HashMap::new();
    loop {
        if Instant::now() >= look_at {
            why = cluster.last_failed_scheduling().await.unwrap_or(why);
            look_at = Instant::now() + LOOK;
        }
        let mut text = match cluster.nodes_alive_since(begun.moment).await {
            Ok(alive) => {
                seen.retain(|name, _| alive.iter().any(|node| node.name == *name));
                let sure = alive.iter().filter(|node| {
                    let since = seen.entry(node.name.clone()).or_insert_with(Instant::now);
                    !begun.was_down || node.has_said_so || since.elapsed() >= STEADY
                });
                let ready = sure.count();
                if ready >= usize::try_from(wanted).unwrap_or(usize::MAX) {
                    step.done(&format!("{ready} ready"));
                    return Ok(());
                }
                format!("{ready} of {wanted} are ready")
            }
            Err(error) => error.to_string(),
        };
        if let Some(why) = &why {
            text = format!("{text}; {why}");
        }
        step.detail(&text);
        if Instant::now() >= deadline {
            step.failed();
            return Err(Error::Timeout {
                what: "every node".to_owned(),
                waited: start.elapsed(),
                detail: format!(": {text}; `k8sm logs framework` tells more"),
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The page of the example, whose objects are there.
async fn wait_for_hello(
    cluster: &Cluster,
    deadline: Instant,
    progress: &Progress,
) -> Result<(String, String), Error> {
    let begun = Instant::now();
    let mut step = progress.step("hello, the example");
    match hello::wait(cluster, deadline, |why| step.detail(why)).await? {
        Ok((url, text)) => {
            step.done("");
            Ok((url, text))
        }
        Err(why) => {
            step.failed();
            Err(Error::Timeout {
                what: "the example".to_owned(),
                waited: begun.elapsed(),
                detail: format!(
                    ": {why}; `k8sm status`, `k8sm ps` and `k8sm logs framework` tell more"
                ),
            })
        }
    }
}

fn report(paths: &Paths, settings: &Settings, page: Option<(String, String)>, progress: &Progress) {
    let flag = if paths.state() == Path::new(instance::DEFAULT_STATE_DIR) {
        String::new()
    } else {
        format!(" --state-dir {}", paths.state().display())
    };
    let elapsed = crate::progress::seconds(progress.elapsed());
    progress.note("");
    progress.note(&format!("The cluster is up after {elapsed}."));
    let with_hello = page.is_some();
    if let Some((url, text)) = page {
        progress.note(&format!(
            "{url} says: {text} (again and again: another pod answers)"
        ));
    }
    progress.note("");
    progress.note("Try next:");
    let mut next = vec![
        format!("export KUBECONFIG={}", paths.kubeconfig().display()),
        format!("k8sm{flag} kubectl get pods -A -o wide"),
        format!("sudo k8sm{flag} ps"),
    ];
    if with_hello {
        next.push(format!(
            "k8sm{flag} kubectl scale deployment hello --replicas 10"
        ));
    }
    next.push(format!(
        "the Mesos master: {}",
        processes::shown_master_address(settings)
    ));
    if let Some(ports) = settings.marathon {
        next.push(format!(
            "Marathon: {}",
            processes::marathon_url(settings, ports)
        ));
        next.push(format!(
            "sudo k8sm{flag} doctor (and upgrade, backup, certs: it is installed like any other)"
        ));
    }
    next.push(format!("sudo k8sm{flag} down"));
    for line in next {
        progress.note(&format!("  {line}"));
    }
    if let Some(ports) = settings.front_door {
        progress.note(&format!(
            "  curl http://localhost:{}/api/v1beta1/pods (docs/front-door.md)",
            ports.legacy
        ));
    }
}
