//! `k8sm install`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use packaging::install::artifacts::{FILE, Manifest};
use packaging::install::judge::World;
use packaging::install::plan;
use packaging::install::preflight::{self, Agent, Choice, Level, Situation};
use packaging::install::probe::{self, Probe};
use packaging::marathon::pki_secret;
use packaging::options::Options;

use super::backup::Restoring;
use super::{Session, block_on, given_dir, layered, show_plan};
use crate::args::{ArtifactsSource, Install};
use crate::artifacts::{self, build::Sources};
use crate::commands::table;
use crate::error::Error;
use crate::install::actions::End;
use crate::install::record::FIRST_START_SECONDS;
use crate::install::{self, Home, Phase, Record, Site, keys, render};
use crate::preflight::facts::own_address;
use crate::progress::Progress;
use crate::serving::Server;

/// `k8sm install`.
pub fn install(state_dir: &Path, args: &Install) -> Result<(), Error> {
    let name = name(args)?;
    let home = Home::new(given_dir(state_dir), &name)?;
    let progress = Progress::new(args.manner.quiet || args.manner.dry_run);
    let work = run(&home, args, None, Changes::Refused, &progress);
    if let Some(record) = block_on(work)? {
        report(&home, &record, &progress);
    }
    Ok(())
}

/// What becomes of options that differ from those of a complete cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    /// `upgrade` makes them, which saves the cluster first.
    Refused,
    /// They are made, for a cluster of one machine.
    Made,
}

/// Installs, goes on with an installation, or brings a complete one to what is said; somebody else
/// tells about it.
pub async fn put(home: &Home, args: &Install, progress: &Progress) -> Result<(), install::Error> {
    run(home, args, None, Changes::Made, progress)
        .await
        .map(|_| ())
}

/// The cluster's name: the command line's, else the options'.
fn name(args: &Install) -> Result<String, Error> {
    let options = layered(None, &args.said)?;
    match &args.which.name {
        Some(name) if options.service.name != *name && is_said(args) => Err(Error::Usage(format!(
            "--name {name} and the option service.name={} contradict each other",
            options.service.name
        ))),
        Some(name) => Ok(name.clone()),
        None => Ok(options.service.name),
    }
}

fn is_said(args: &Install) -> bool {
    layered(None, &args.said).is_ok_and(|o| o.service.name != Options::default().service.name)
}

/// A snapshot to begin with.
pub(super) struct Beginning {
    /// etcd's content.
    pub snapshot: PathBuf,
    /// Options of the cluster that was saved.
    pub options: serde_json::Value,
}

/// Installs, or goes on with an installation; its record, unless only the plan was asked for.
pub(super) async fn run(
    home: &Home,
    args: &Install,
    beginning: Option<&Beginning>,
    changes: Changes,
    progress: &Progress,
) -> Result<Option<Record>, install::Error> {
    let dry = args.manner.dry_run;
    let before = home.read()?;
    refuse_change(home, args, before.as_ref(), beginning.is_some(), changes)?;
    let _lock = if dry { None } else { Some(home.lock()?) };
    let base = before.as_ref().map(|r| &r.options);
    let mut options = layered(base.or(beginning.map(|b| &b.options)), &args.said)?;
    if let Some(name) = &args.which.name {
        options.service.name.clone_from(name);
    }
    let (marathon, mesos) = addresses(args, before.as_ref())?;
    let step = progress.step("pre-flight");
    let site = Site::connect(&marathon, args.marathon_ca.clone(), mesos.as_deref()).await?;
    let situation = site.situation(&options.service.name).await?;
    let own = before.as_ref().map(|r| r.id.as_str());
    let findings = preflight::check(&options, &situation, own);
    let (fatal, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|f| f.level == Level::Fatal);
    if !fatal.is_empty() {
        step.failed();
        return Err(install::Error::Unfit(fatal));
    }
    let kept = before.as_ref().map(|r| &r.choice);
    let choice = preflight::choose(&options, &situation, kept)
        .map_err(|finding| install::Error::Unfit(vec![finding]))?;
    step.done(&format!(
        "Marathon {}, Mesos {}, {} agents",
        situation.marathon_version,
        situation.mesos_version,
        situation.agents.len()
    ));
    for warning in &warnings {
        progress.note(&format!("! {warning}"));
    }
    for why in &choice.why {
        progress.note(&format!("- {why}"));
    }

    let id = match &before {
        Some(record) => record.id.clone(),
        None => uuid::Uuid::new_v4().to_string(),
    };
    let placed = place(home, &args.artifacts, &options, before.as_ref(), progress).await?;
    // One that has begun has been through this.
    let mut answering = None;
    if before.is_none() && !dry && !args.no_probe {
        let answer = look(
            &site,
            &options,
            &choice,
            &placed,
            &id,
            &situation.agents,
            progress,
        );
        answering = Some(answer.await?);
    }
    // Where everything is as it was said, nothing changes; that is `upgrade`'s.
    let settled = changes == Changes::Refused
        && before
            .as_ref()
            .is_some_and(|r| matches!(r.phase, Phase::Installed | Phase::Stopped));
    let (keeping, without) = match settled && !placed.is_served() {
        true => (None, Vec::new()),
        false => {
            let (before, answering) = (before.as_ref(), answering.as_deref());
            let keeping = placed.keeping(&options, &situation, before, answering, progress);
            keeping.await?
        }
    };
    let former = before.clone();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let programs = args.artifacts.upstream_dir.as_deref().map(absolute);
    let programs = programs.transpose()?;
    let mut record = match before {
        Some(mut record) => {
            record.options = options.changed();
            record.choice = choice;
            record.marathon = marathon;
            record.artifacts = placed.manifest.clone();
            record.artifacts_url.clone_from(&placed.url);
            record.programs = programs.or(record.programs);
            // Only where it is about to end: a change restarts the members.
            if record.phase == Phase::Installing && record.first_start_until < now + 3600 {
                record.first_start_until = now + FIRST_START_SECONDS;
            }
            record
        }
        None => Record {
            version: Record::current_version(),
            id: id.clone(),
            name: options.service.name.clone(),
            phase: Phase::Installing,
            marathon,
            marathon_ca: args.marathon_ca.clone(),
            mesos,
            options: options.changed(),
            choice,
            first_start_until: now + FIRST_START_SECONDS,
            artifacts_url: placed.url.clone(),
            artifacts: placed.manifest.clone(),
            kept: None,
            programs,
            etcd_states: Default::default(),
            replacing: None,
            framework_id: None,
            before: None,
            snapshots: Vec::new(),
        },
    };
    record.kept_without(&without);
    if let Some(plan) = &keeping {
        record.keep_by(plan);
    }
    let unfit = install::keep::unfit(&options, &record);
    if !unfit.is_empty() {
        return Err(install::Error::Unfit(unfit));
    }
    if dry {
        let more = keeping.as_ref().map(install::keep::Plan::told);
        return plan_only(home, args, &record, &site, more)
            .await
            .map(|()| None);
    }
    if beginning.is_some() {
        record.phase = Phase::Restoring;
    } else if record.phase != Phase::Installed {
        record.phase = Phase::Installing;
    }
    home.create()?;
    if let Some(plan) = &keeping {
        // Should this end here, it is known where something may lie, and nothing else has changed.
        let mut known = former.unwrap_or_else(|| {
            let mut new = record.clone();
            new.kept = None;
            new.keep_by(&plan.without_agents());
            new
        });
        known.touched_by(plan);
        home.write(&known)?;
        bring(&site, &options, &mut record, plan, progress).await?;
    }
    home.write(&record)?;
    let step = progress.step("certificates");
    let changes = keys::ensure(home, &options, &record.choice)?;
    step.done(&match changes.len() {
        0 => "kept".to_owned(),
        n => format!("{n} made"),
    });
    tell_about_keys(home, &options, &record, progress)?;

    let nodes = args.wait_nodes.unwrap_or(options.nodes.min);
    let name = record.name.clone();
    let mut session = Session::new(home, &mut record, &site, progress, &args.manner);
    session.programs = args.artifacts.upstream_dir.as_deref();
    if let Some(beginning) = beginning {
        let restoring = Restoring::start(&beginning.snapshot, &args.artifacts).await?;
        let snapshot = Some(restoring.artifact());
        let wanted = render::wanted(home, session.record, &site, snapshot)?;
        let steps = |_: &World| plan::restore(&name, &wanted);
        // With their data in place, members no longer begin with the snapshot.
        let end = End::Phase(Phase::Installing);
        session.go(&wanted, steps, end).await?;
    }
    let wanted = render::wanted(home, session.record, &site, None)?;
    let steps = |world: &World| plan::install(&name, &wanted, world, nodes);
    let end = End::Phase(Phase::Installed);
    session.go(&wanted, steps, end).await?;
    session.result()?;
    Ok(Some(record))
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, install::Error> {
    std::path::absolute(path).map_err(install::Error::io("find", path))
}

/// Brings the artifacts to the agents that are to keep them, beside those that had them, and says
/// which have not got them.
pub(super) async fn bring(
    site: &Site,
    options: &Options,
    record: &mut Record,
    plan: &install::keep::Plan,
    progress: &Progress,
) -> Result<(), install::Error> {
    let mut step = progress.step("artifacts for the agents");
    let brought = install::keep::bring(site, options, record, plan, &mut step).await;
    let unfit = install::keep::unfit(options, record);
    if brought.is_err() || !unfit.is_empty() {
        step.failed();
    } else {
        let agents = record.kept.as_ref().map_or(0, |kept| kept.agents.len());
        step.done(&format!("{agents} agents keep them in {}", plan.dir));
    }
    for line in brought? {
        progress.note(&format!("! {line}"));
    }
    match unfit.is_empty() {
        true => Ok(()),
        false => Err(install::Error::Unfit(unfit)),
    }
}

/// Looks at the agents from within, and says what is there; which agents have answered.
async fn look(
    site: &Site,
    options: &Options,
    choice: &Choice,
    placed: &Placed,
    id: &str,
    agents: &[Agent],
    progress: &Progress,
) -> Result<Vec<String>, install::Error> {
    let mut step = progress.step("look at the agents");
    let port = options.apiserver.port;
    let apis = choice.api_hosts.iter();
    let apis: Vec<String> = apis.map(|h| format!("{}:{port}", h.address)).collect();
    let probe = Probe::new(options, &placed.url, &apis);
    let artifacts = render::artifacts(&placed.manifest, &placed.url)?;
    let program = artifacts.get("k8sm");
    let probed = install::probe::run(site, options, id, &probe, program, agents, &mut step).await?;
    let instances = usize::try_from(options.apiserver.instances).unwrap_or(usize::MAX);
    let chosen: Vec<&str> = choice
        .etcd_hosts
        .iter()
        .chain(choice.api_hosts.iter().take(instances))
        .map(|h| h.hostname.as_str())
        .collect();
    let (fatal, warnings): (Vec<_>, Vec<_>) = probe::judge(&probed, &chosen)
        .into_iter()
        .partition(|f| f.level == Level::Fatal);
    if fatal.is_empty() {
        step.done(&format!("{} probed", probed.len()));
    } else {
        step.failed();
    }
    for line in table(&probe::HEAD, &probe::rows(&probed)).lines() {
        progress.note(line);
    }
    for warning in &warnings {
        progress.note(&format!("! {warning}"));
    }
    match fatal.is_empty() {
        true => {
            let answered = probed.into_iter().filter(|p| p.report.is_some());
            Ok(answered.map(|p| p.agent).collect())
        }
        false => Err(install::Error::Unfit(fatal)),
    }
}

/// What is complete is changed by `upgrade`, which saves it first.
fn refuse_change(
    home: &Home,
    args: &Install,
    before: Option<&Record>,
    restoring: bool,
    changes: Changes,
) -> Result<(), install::Error> {
    let Some(record) = before else {
        return Ok(());
    };
    match record.phase {
        Phase::Restoring if restoring => Ok(()),
        // Without the snapshot it would become an empty cluster.
        Phase::Restoring => Err(install::Error::State(format!(
            "the restoration of {} was interrupted: `k8sm restore` with the same archive goes on with it",
            record.name
        ))),
        Phase::Installing | Phase::Kept => Ok(()),
        Phase::Installed | Phase::Stopped if changes == Changes::Made => Ok(()),
        Phase::Installed | Phase::Stopped => {
            let options = layered(Some(&record.options), &args.said)?;
            if options.changed() == record.options {
                return Ok(());
            }
            Err(install::Error::State(format!(
                "the cluster {} is installed already; `k8sm upgrade` changes its options",
                record.name
            )))
        }
        Phase::Upgrading => Err(install::Error::State(format!(
            "an upgrade of {} was interrupted: `k8sm upgrade` goes on with it",
            record.name
        ))),
        Phase::Removing => Err(install::Error::State(format!(
            "the removal of {} was interrupted: `k8sm uninstall` goes on with it; the record is in {}",
            record.name,
            home.dir().display()
        ))),
    }
}

fn addresses(
    args: &Install,
    before: Option<&Record>,
) -> Result<(String, Option<String>), install::Error> {
    let marathon = args.marathon.clone().or(before.map(|r| r.marathon.clone()));
    let marathon = marathon.ok_or_else(|| {
        install::Error::Usage(
            "where is Marathon? Say --marathon http://host:8080, or set MARATHON_URL".to_owned(),
        )
    })?;
    let mesos = args.mesos.clone().or(before.and_then(|r| r.mesos.clone()));
    Ok((marathon, mesos))
}

/// The artifacts of a command: their list, where agents get them, and who serves them meanwhile.
pub(super) struct Placed {
    pub manifest: Manifest,
    pub url: String,
    /// Serves them while it is held.
    server: Option<Server>,
}

impl Placed {
    /// Whether this command serves them.
    pub fn is_served(&self) -> bool {
        self.server.is_some()
    }

    /// What agents are to keep of them, and which of those that are said to keep them do not. Whoever
    /// says where they are has them served; where nobody does, those that were kept already go to
    /// agents that have joined since.
    pub async fn keeping(
        &self,
        options: &Options,
        found: &Situation,
        before: Option<&Record>,
        answering: Option<&[String]>,
        progress: &Progress,
    ) -> Result<(Option<install::keep::Plan>, Vec<String>), install::Error> {
        if self.is_served() {
            let mut plan = install::keep::from_here(options, found, &self.url, answering);
            if let (Some(plan), Some(before)) = (&mut plan, before) {
                plan.had = before.having(&plan.dir, &self.manifest);
            }
            return Ok((plan, Vec::new()));
        }
        let before = before.filter(|record| record.artifacts_url == self.url);
        let Some((before, kept)) = before.and_then(|r| Some((r, r.kept_in_use()?))) else {
            return Ok((None, Vec::new()));
        };
        let joined = install::keep::joined(kept, found);
        if joined.is_empty() {
            return Ok((None, Vec::new()));
        }
        let hosts: Vec<String> = joined.iter().map(|a| a.hostname.clone()).collect();
        match install::keep::from_framework(before, kept, found, joined).await {
            Ok(plan) => Ok((Some(plan), Vec::new())),
            Err(_) if kept.agents.is_empty() => Err(install::Error::State(
                "no agent has got the artifacts yet: repeat this with --serve".to_owned(),
            )),
            Err(why) => {
                progress.note(&format!(
                    "! {} keep no artifacts, and {why}; no app will run there until --serve brings them",
                    hosts.join(", ")
                ));
                Ok((None, hosts))
            }
        }
    }
}

/// Finds, builds or serves the artifacts.
pub(super) async fn place(
    home: &Home,
    source: &ArtifactsSource,
    options: &Options,
    before: Option<&Record>,
    progress: &Progress,
) -> Result<Placed, install::Error> {
    if source.serve {
        return serve(home, source, progress).await;
    }
    let listed = source
        .artifacts
        .as_deref()
        .map(artifacts::manifest)
        .transpose()?;
    // What agents keep counts as long as nobody says otherwise anew.
    let is_old = |url: &str| {
        before.is_some_and(|record| {
            let old = record.parsed_options().ok();
            record.kept_in_use().is_some() && old.is_some_and(|o| o.artifacts.base_url == url)
        })
    };
    let said = source.artifacts_url.clone().or_else(|| {
        let option = &options.artifacts.base_url;
        (!option.is_empty() && !is_old(option)).then(|| option.clone())
    });
    let own = listed.as_ref().and_then(|m| m.base_url.clone());
    match (listed, said.or(own)) {
        (Some(manifest), Some(url)) => Ok(Placed {
            manifest,
            url,
            server: None,
        }),
        (None, Some(url)) => Ok(Placed {
            manifest: fetch_list(&url).await?,
            url,
            server: None,
        }),
        // Those that it was installed with.
        (None, None) => match before {
            Some(record) if !record.artifacts_url.is_empty() => Ok(Placed {
                manifest: record.artifacts.clone(),
                url: record.artifacts_url.clone(),
                server: None,
            }),
            _ => Err(packaging::install::artifacts::Error::NoBase.into()),
        },
        (Some(_), None) => Err(packaging::install::artifacts::Error::NoBase.into()),
    }
}

async fn serve(
    home: &Home,
    source: &ArtifactsSource,
    progress: &Progress,
) -> Result<Placed, install::Error> {
    let dir = match &source.artifacts {
        Some(dir) => dir.clone(),
        None => home.dir().join("artifacts"),
    };
    if source.artifacts.is_none() {
        let upstream = crate::commands::artifacts::upstream_dir(source.upstream_dir.as_deref())
            .map_err(|e| install::Error::State(e.to_string()))?;
        let sources = Sources {
            programs: source.programs_dir.clone(),
            upstream,
            images: Vec::new(),
        };
        let mut step = progress.step("artifacts");
        let built = artifacts::build(&dir, None, &sources, |file| step.detail(file))?;
        step.done(&format!("{} files", built.files.len()));
    }
    let server = artifacts::serve(&dir, source.serve_listen).await?;
    let url = format!("http://{}", reachable(source, server.address())?);
    progress.note(&format!("- artifacts are served at {url} while this runs"));
    Ok(Placed {
        manifest: artifacts::manifest(&dir)?,
        url,
        server: Some(server),
    })
}

/// Where agents reach what is served here.
pub(super) fn reachable(
    source: &ArtifactsSource,
    listening: SocketAddr,
) -> Result<String, install::Error> {
    let port = listening.port();
    if let Some(said) = &source.serve_address {
        return Ok(match said.contains(':') {
            true => said.clone(),
            false => format!("{said}:{port}"),
        });
    }
    let ip = match listening.ip() {
        ip if ip.is_unspecified() => own_address().ok_or_else(|| {
            install::Error::Usage(
                "this machine's address is not known: say --serve-address".to_owned(),
            )
        })?,
        ip => ip,
    };
    Ok(match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    })
}

async fn fetch_list(base: &str) -> Result<Manifest, install::Error> {
    let url = format!("{}/{FILE}", base.trim_end_matches('/'));
    let failed = |reason: String| install::Error::State(format!("read {url}: {reason}"));
    let https = url.starts_with("https:");
    let client = crate::http::public_client(None, https, Duration::from_secs(20))
        .map_err(|e| failed(e.to_string()))?;
    let answer = client
        .get(&url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|e| failed(crate::error::chain(&e.without_url())))?;
    let bytes = answer
        .bytes()
        .await
        .map_err(|e| failed(crate::error::chain(&e)))?;
    Ok(Manifest::parse(&bytes)?)
}

/// Where an operator has to bring keys by hand, that is said before anything waits for them.
pub(super) fn tell_about_keys(
    home: &Home,
    options: &Options,
    record: &Record,
    progress: &Progress,
) -> Result<(), install::Error> {
    let how = match record.choice.pki.as_str() {
        "secrets" => {
            let path = &options.pki.secret_path;
            let all = keys::components(options, &record.choice).into_iter();
            let secret = |c| format!("{} ({c}.json)", pki_secret(path, &record.name, c));
            format!(
                "secrets: {}",
                all.map(secret).collect::<Vec<_>>().join(", ")
            )
        }
        "file" => format!(
            "files <component>.json in {} on the agents, mode 0600",
            options.pki.file
        ),
        "uri" => format!("files <component>.json at {}", options.pki.uri),
        _ => return Ok(()),
    };
    let dir = home.dir().join("bundles");
    keys::export(home, options, &record.choice, &dir)?;
    progress.note(&format!(
        "- the apps' keys are in {}; they are wanted as {how}",
        dir.display()
    ));
    Ok(())
}

async fn plan_only(
    home: &Home,
    args: &Install,
    record: &Record,
    site: &Site,
    more: Option<String>,
) -> Result<(), install::Error> {
    let options = record.parsed_options()?;
    // Rendering wants keys: those of a new cluster are made for the moment.
    let scratch = tempdir()?;
    let trial = match home.exists() {
        true => home.clone(),
        false => {
            let trial = Home::new(Some(&scratch.0), &record.name)?;
            trial.create()?;
            keys::ensure(&trial, &options, &record.choice)?;
            trial
        }
    };
    let wanted = render::wanted(&trial, record, site, None)?;
    let world = site.world(&record.name).await?;
    let nodes = args.wait_nodes.unwrap_or(options.nodes.min);
    let steps = plan::install(&record.name, &wanted, &world, nodes);
    let changes = plan::changes(&record.name, &wanted, &world);
    let why: Vec<String> = record.choice.why.iter().cloned().chain(more).collect();
    show_plan(args.manner.output, &changes, &steps, &why)
        .map_err(|e| install::Error::State(e.to_string()))
}

/// A directory that goes with its value.
pub(super) struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn tempdir() -> Result<Scratch, install::Error> {
    let dir = std::env::temp_dir().join(format!("k8sm-{}", uuid::Uuid::new_v4()));
    packaging::files::make_dir(&dir, 0o700)?;
    Ok(Scratch(dir))
}

pub(super) fn report(home: &Home, record: &Record, progress: &Progress) {
    let elapsed = crate::progress::seconds(progress.elapsed());
    progress.note("");
    progress.note(&format!(
        "The cluster {} is installed after {elapsed}.",
        record.name
    ));
    progress.note("Try next:");
    progress.note(&format!(
        "  export KUBECONFIG={}",
        home.kubeconfig().display()
    ));
    progress.note("  kubectl get nodes    (nodes come with the first pods, or with nodes.min)");
    let usual = Home::new(None, &record.name).is_ok_and(|usual| usual == *home);
    progress.note(&match usual {
        true => format!("  k8sm status --name {}", record.name),
        false => format!("  k8sm status --state-dir {}", home.dir().display()),
    });
}
