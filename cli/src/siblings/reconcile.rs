//! One attempt to bring the other apps to the options: look, choose, make keys, keep the state,
//! then the installer's steps. What is there already is left alone, so an attempt may be cut off
//! anywhere and a change of options is nothing else than another attempt.

use std::time::{SystemTime, UNIX_EPOCH};

use packaging::install::artifacts::{Entry, Manifest, VERSION};
use packaging::install::judge::World;
use packaging::install::machine::Limits;
use packaging::install::plan;
use packaging::install::preflight::{self, Level};
use packaging::marathon::{Facts, PkiDelivery, framework_run, lint, render};
use packaging::options::Options;
use packaging::run::FrameworkRun;

use super::way::{self, Way};
use super::{Attempt, Service, snapshot, state};
use crate::install::actions::End;
use crate::install::record::FIRST_START_SECONDS;
use crate::install::work::Work;
use crate::install::{self, Phase, Record, Site, keys};
use crate::progress::Progress;

/// What the framework's task needs.
pub(super) struct Done {
    pub install_id: String,
    pub run: FrameworkRun,
}

/// One attempt.
pub(super) async fn attempt(service: &Service) -> Result<Done, Attempt> {
    let (site, store) = service.access().await?;
    let home = service.home()?;
    let source = &service.options.pki.source;
    let wanted = way::wanted(source, way::has_secrets(&site), store.is_some())?;
    let before = state::load(&site, store.as_ref(), wanted, &home, service.name()).await?;
    if let Some(before) = &before {
        refuse(&before.record.parsed_options()?, &service.options)?;
    }
    let way = way::choose(service, wanted, store.as_ref(), before.as_ref()).await?;
    let described = way.describe(service.name());
    tracing::info!("keys are {described}");
    service.board.keys(described);
    let used = store.as_ref().filter(|_| way == Way::Store);
    let mut record = record(service, &site, before.map(|b| b.record), way).await?;
    home.create()?;
    home.write(&record)?;
    keys::ensure(&home, &service.options, &record.choice)?;
    // Before anything is made with them.
    state::save(&site, used, &home, &record).await?;
    let (delivery, secrets) = way::delivery(way, &home, &service.options, &record.choice)?;
    let facts = facts(service, &record, &site, delivery)?;
    let apps = render(&service.options, &facts).map_err(install::Error::from)?;
    let findings = lint(&apps);
    if !findings.is_empty() {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        return Err(install::Error::State(format!(
            "the apps are not as Marathon wants them; this is a mistake of k8sm, please report it:\n{}",
            lines.join("\n")
        ))
        .into());
    }
    let own = format!("/{}", service.name());
    let others: Vec<_> = apps.into_iter().filter(|a| a.id.as_str() != own).collect();
    let wanted = install::render::as_wanted(&others)?;
    let world = without(site.world(service.name()).await?, &own);
    let changes = plan::changes(service.name(), &wanted, &world);
    let program = facts.artifacts.get(snapshot::PROGRAM);
    if snapshot::ensure(service, &home, &mut record, program, &world, &changes).await? {
        // That the change is under way, and where the snapshot is.
        home.write(&record)?;
        state::save(&site, used, &home, &record).await?;
    }
    if let Some(store) = used {
        for (path, keys) in &secrets {
            store.put(path, keys).await?;
        }
    }
    let steps = plan::install(service.name(), &wanted, &world, 0);
    let progress = Progress::new(false);
    let mut work = Work {
        site: &site,
        home: &home,
        record: &mut record,
        options: &service.options,
        wanted: &wanted,
        progress: &progress,
        programs: None,
        end: End::Phase(Phase::Installed),
        follow: None,
    };
    work.run(steps, Limits::default()).await?;
    state::save(&site, used, &home, &record).await?;
    if let (Way::Env, Some(store)) = (way, &store) {
        // Nothing refers to what may have been there before.
        if let Err(error) = state::forget(store, service.name(), Some(&record.id)).await {
            tracing::debug!("what may be left in the secret store: {error}");
        }
    }
    Ok(Done {
        install_id: record.id,
        run: framework_run(&service.options, &facts).map_err(install::Error::from)?,
    })
}

/// Options that a cluster cannot follow.
fn refuse(old: &Options, new: &Options) -> Result<(), install::Error> {
    let problems = new.impossible_changes(old);
    match problems.is_empty() {
        true => Ok(()),
        false => Err(packaging::options::Problems(problems).into()),
    }
}

/// The apps but one.
pub(super) fn without(mut world: World, app: &str) -> World {
    world.apps.remove(app);
    world
}

/// The record: what was chosen before is kept.
async fn record(
    service: &Service,
    site: &Site,
    before: Option<Record>,
    way: Way,
) -> Result<Record, install::Error> {
    let options = &service.options;
    let own = format!("/{}", service.name());
    let mut situation = site.situation(service.name()).await?;
    // This very app, and the framework that it ran before.
    situation.world = without(situation.world, &own);
    if before.is_some() {
        situation.frameworks.retain(|f| f.name != service.name());
    }
    // Only who may use the store can bring keys there.
    situation.marathon_secrets = way == Way::Store;
    let own_id = before.as_ref().map(|r| r.id.as_str());
    let findings = preflight::check(options, &situation, own_id);
    let (fatal, others): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|f| f.level == Level::Fatal);
    for finding in others {
        tracing::warn!("{finding}");
    }
    if !fatal.is_empty() {
        return Err(install::Error::Unfit(fatal));
    }
    let kept = before.as_ref().map(|r| &r.choice);
    let choice = preflight::choose(options, &situation, kept)
        .map_err(|finding| install::Error::Unfit(vec![finding]))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let mut record = match before {
        Some(record) => record,
        None => Record {
            version: Record::current_version(),
            id: uuid::Uuid::new_v4().to_string(),
            name: service.name().to_owned(),
            phase: Phase::Installing,
            marathon: String::new(),
            marathon_ca: None,
            mesos: None,
            options: serde_json::Value::Null,
            choice: choice.clone(),
            first_start_until: now + FIRST_START_SECONDS,
            artifacts_url: String::new(),
            artifacts: manifest(service),
            kept: None,
            programs: None,
            etcd_states: Default::default(),
            replacing: None,
            framework_id: None,
            before: None,
            snapshots: Vec::new(),
        },
    };
    record.marathon.clone_from(&options.marathon.url);
    record.options = options.changed();
    record.choice = choice;
    record.artifacts = manifest(service);
    Ok(record)
}

/// The artifacts as a record has them.
fn manifest(service: &Service) -> Manifest {
    let files = service.command.artifacts.iter().map(|(name, artifact)| {
        let entry = Entry {
            sha256: artifact.sha256.clone(),
            size: artifact.size,
        };
        (name.clone(), entry)
    });
    Manifest {
        version: VERSION,
        base_url: None,
        files: files.collect(),
        components: [(
            "kubelet".to_owned(),
            service.command.kubernetes_version.clone(),
        )]
        .into(),
    }
}

/// What the renderer has to know. Programs come from where `resource.json` says, unless the
/// options name a directory of the operator's.
fn facts(
    service: &Service,
    record: &Record,
    site: &Site,
    delivery: PkiDelivery,
) -> Result<Facts, install::Error> {
    let mut facts = install::render::facts(record, site, delivery, None)?;
    if service.options.artifacts.base_url.is_empty() {
        facts.artifacts.clone_from(&service.command.artifacts);
    } else {
        let base = &service.options.artifacts.base_url;
        facts.artifacts = install::render::artifacts(&record.artifacts, base)?;
    }
    facts.one_app = true;
    Ok(facts)
}
