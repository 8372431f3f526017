//! `k8sm upgrade`: one part after the other, with a snapshot first and a way back.

mod pause;

use std::path::Path;

use packaging::install::judge::World;
use packaging::install::plan::{self, Action, AppPlan, Part, Step, Wanted, What};
use packaging::install::preflight::{self, Level, version};
use packaging::marathon::EtcdStorage;
use packaging::options::Options;
use packaging::run::MemberState;

use super::create::{Placed, absolute, bring, place};
use super::{Session, block_on, confirm, home, layered, print, show_plan, site};
use crate::args::Upgrade;
use crate::error::Error;
use crate::install::actions::End;
use crate::install::keep::Plan;
use crate::install::record::Before;
use crate::install::rolling::Rolling;
use crate::install::{self, Home, Phase, Record, Site, keys, render};
use crate::progress::Progress;

/// How long each node has at least on the way back.
const NODE_SECONDS: u64 = 300;

/// `k8sm upgrade`.
pub fn upgrade(state_dir: &Path, args: &Upgrade) -> Result<(), Error> {
    let (home, record) = home(state_dir, &args.which)?;
    block_on(async {
        match args.pause {
            true => pause::pause(&home, &record, &args.manner).await,
            false => run(&home, args).await,
        }
    })
}

/// What a command may begin with.
fn refuse_phase(record: &Record) -> Result<(), install::Error> {
    let text = match record.phase {
        Phase::Upgrading | Phase::Installed => return Ok(()),
        Phase::Stopped => "the cluster is stopped: `k8sm start` first",
        _ => "the cluster is not completely installed: repeat `k8sm install` first",
    };
    Err(install::Error::State(text.to_owned()))
}

async fn run(home: &Home, args: &Upgrade) -> Result<(), install::Error> {
    let progress = Progress::new(args.manner.quiet || args.manner.dry_run);
    let dry = args.manner.dry_run;
    let _lock = if dry { None } else { Some(home.lock()?) };
    // Not what was read before the lock was held.
    let mut record = home.existing()?;
    refuse_phase(&record)?;
    let behind = nodes_are_behind(home, &record).await;
    if args.resume && record.phase == Phase::Installed && !behind {
        return Err(install::Error::State(
            "no upgrade is under way that could be resumed".to_owned(),
        ));
    }
    let site = site(&record).await?;
    refuse_foreign_deployments(&site, &record).await?;
    let former = record.clone();
    let (placed, keeping) = retarget(home, &mut record, &site, args, &progress).await?;
    let options = record.parsed_options()?;
    if !dry {
        for change in keys::ensure(home, &options, &record.choice)? {
            progress.note(&format!("- {change}"));
        }
        super::create::tell_about_keys(home, &options, &record, &progress)?;
    }
    let mut way = Way::new(home, &record, &site, &options).await?;
    if dry {
        let mut changes = way.changes;
        changes.extend(nodes_row(&record, &changes, behind));
        let why: Vec<String> = keeping.iter().map(Plan::told).collect();
        return show_plan(args.manner.output, &changes, &way.steps, &why)
            .map_err(|e| install::Error::State(e.to_string()));
    }
    if record.phase == Phase::Installed && way.is_nothing() && !behind && keeping.is_none() {
        progress.note("everything is as it should be");
        record.before = None;
        home.write(&record)?;
        return print::result(args.manner.output, home, &record, None, &[]);
    }
    let agreed = way.changed();
    if !agreed.is_empty() {
        confirm(&args.manner, &format!("Change {}?", agreed.join(", ")))?;
    }
    home.ask_pause(false)?;
    record.phase = Phase::Upgrading;
    if let Some(plan) = &keeping {
        // Nothing is under way yet; but what lies on agents is to go with the cluster.
        let mut known = former.clone();
        known.touched_by(plan);
        home.write(&known)?;
        let planned = record.kept.clone();
        bring(&site, &options, &mut record, plan, &progress).await?;
        if record.kept != planned {
            // Apps keep away from those that did not get them.
            way = Way::new(home, &record, &site, &options).await?;
            let changed = way.changed();
            if changed.iter().any(|app| !agreed.contains(app)) {
                confirm(&args.manner, &format!("Change {}?", changed.join(", ")))?;
            }
        }
    }
    home.write(&record)?;
    let replaces = record.replacing.is_some();
    let end = End::Phase(Phase::Installed);
    let mut session = Session::new(home, &mut record, &site, &progress, &args.manner);
    session.programs = args.artifacts.upstream_dir.as_deref();
    let done = session.run(&way.wanted, way.steps, end).await;
    // Agents fetch until then.
    drop(placed);
    match done {
        Ok(()) => session.result(),
        // A member that has been removed does not come back.
        Err(error @ install::Error::Step(_)) if !args.no_rollback && !replaces => {
            progress.note(&format!("✘ {error}; going back to what was before"));
            back(home, record, &site, args, &progress).await?;
            Err(install::Error::State(format!(
                "the upgrade failed and was taken back: {error}"
            )))
        }
        Err(error) => Err(error),
    }
}

/// From what is there to what the record says.
struct Way {
    wanted: Vec<Wanted>,
    steps: Vec<Step>,
    changes: Vec<AppPlan>,
}

impl Way {
    async fn new(
        home: &Home,
        record: &Record,
        site: &Site,
        options: &Options,
    ) -> Result<Self, install::Error> {
        let mut wanted = render::wanted(home, record, site, None)?;
        let world = site.world(&record.name).await?;
        let (steps, wipe) = steps(record, options, &wanted, &world);
        let changes = plan::changes(&record.name, &wanted, &world);
        wanted.extend(wipe);
        let mut way = Self {
            wanted,
            steps,
            changes,
        };
        if record.phase == Phase::Installed && way.is_nothing() {
            // Nothing that a snapshot would be of use for.
            way.steps
                .retain(|s| matches!(s, Step::Do(Action::Rollout | Action::Complete)));
        }
        Ok(way)
    }

    /// The apps that do not stay as they are.
    fn changed(&self) -> Vec<String> {
        let changed = self.changes.iter().filter(|c| c.what != What::Keep);
        changed.map(|c| c.app.clone()).collect()
    }

    /// Whether all apps stay as they are.
    fn is_nothing(&self) -> bool {
        self.changes.iter().all(|c| c.what == What::Keep)
    }
}

/// Whether there is something left to be done with the nodes: some have another revision than the
/// framework wants, or it was told to leave them alone. `false` where that is not to be known.
async fn nodes_are_behind(home: &Home, record: &Record) -> bool {
    let asked = async {
        let rolling = Rolling::connect(home, &record.name).await?;
        rolling.read().await
    };
    match asked.await {
        Ok((order, progress)) => {
            order.paused_since.is_some() || progress.is_some_and(|p| !p.is_complete())
        }
        Err(_) => false,
    }
}

/// What an upgrade does with the nodes, as a row of the plan.
fn nodes_row(record: &Record, changes: &[AppPlan], behind: bool) -> Option<AppPlan> {
    let framework = format!("/{}", record.name);
    let framework = changes.iter().find(|c| c.app == framework)?;
    let (what, why) = match (framework.what, behind) {
        (What::Keep, false) => (What::Keep, None),
        (What::Keep, true) => (
            What::Update,
            Some("those that have not the wanted revision yet, one after the other"),
        ),
        _ => (
            What::Update,
            Some(
                "by the framework, one after the other, under their running pods, where its options or their payload change",
            ),
        ),
    };
    Some(AppPlan {
        app: "nodes".to_owned(),
        what,
        changes: why.map(str::to_owned).into_iter().collect(),
    })
}

/// Notes in the record what the cluster is to become: options, artifacts, and the choices that
/// follow from them. What it was is kept beside, for the way back.
async fn retarget(
    home: &Home,
    record: &mut Record,
    site: &Site,
    args: &Upgrade,
    progress: &Progress,
) -> Result<(Placed, Option<Plan>), install::Error> {
    let options = layered(Some(&record.options), &args.said)?;
    refuse_fixed(&record.parsed_options()?, &options)?;
    let situation = site.situation(&record.name).await?;
    let findings = preflight::check(&options, &situation, Some(&record.id));
    let fatal: Vec<_> = findings
        .into_iter()
        .filter(|f| f.level == Level::Fatal)
        .collect();
    if !fatal.is_empty() {
        return Err(install::Error::Unfit(fatal));
    }
    let unfit = |finding| install::Error::Unfit(vec![finding]);
    let mut choice =
        preflight::choose(&options, &situation, Some(&record.choice)).map_err(unfit)?;
    if let Some(number) = args.replace_member
        && record.replacing.is_none()
    {
        choice = preflight::replace_member(&options, &situation, &choice, number).map_err(unfit)?;
        for why in &choice.why {
            progress.note(&format!("- {why}"));
        }
        record.replacing = Some(number);
        record.etcd_states.insert(number, MemberState::Existing);
    }
    let placed = place(home, &args.artifacts, &options, Some(record), progress).await?;
    refuse_skew(
        &render::kubernetes_version(&record.artifacts),
        &render::kubernetes_version(&placed.manifest),
    )?;
    if record.before.is_none() {
        record.before = Some(Box::new(Before {
            options: record.options.clone(),
            choice: record.choice.clone(),
            artifacts_url: record.artifacts_url.clone(),
            artifacts: record.artifacts.clone(),
            kept: record.kept.iter().flat_map(|k| k.agents.clone()).collect(),
        }));
    }
    let (keeping, without) = placed
        .keeping(&options, &situation, Some(record), None, progress)
        .await?;
    record.options = options.changed();
    record.choice = choice;
    record.artifacts = placed.manifest.clone();
    record.artifacts_url.clone_from(&placed.url);
    if let Some(dir) = &args.artifacts.upstream_dir {
        record.programs = Some(absolute(dir)?);
    }
    record.kept_without(&without);
    if let Some(plan) = &keeping {
        record.keep_by(plan);
    }
    let unfit = install::keep::unfit(&options, record);
    match unfit.is_empty() {
        true => Ok((placed, keeping)),
        false => Err(install::Error::Unfit(unfit)),
    }
}

/// The steps, and the app that removes what is left of a member of etcd.
fn steps(
    record: &Record,
    options: &Options,
    wanted: &[Wanted],
    world: &World,
) -> (Vec<Step>, Option<Wanted>) {
    let Some(number) = record.replacing else {
        return (plan::upgrade(&record.name, wanted, world), None);
    };
    // Another agent may have had a member long ago, too.
    let host = record.choice.etcd_hosts.get(usize::from(number));
    let wipe = host
        .filter(|_| record.choice.etcd_storage == EtcdStorage::HostPath)
        .map(|host| {
            let path = options.etcd.host_path.trim_end_matches('/');
            let directory = format!("{path}/{}/etcd-{number}", record.name);
            plan::wipe(&record.name, &record.id, number, &directory, &host.hostname)
        });
    let replacement = plan::Replacement {
        number,
        wipe: wipe.as_ref().map(|w| w.id.clone()),
    };
    let steps = plan::replace(&record.name, wanted, world, &replacement);
    (steps, wipe)
}

/// Brings everything back to what an upgrade began with.
async fn back(
    home: &Home,
    mut record: Record,
    site: &Site,
    args: &Upgrade,
    progress: &Progress,
) -> Result<(), install::Error> {
    let Some(before) = record.before.clone() else {
        return Ok(());
    };
    record.options = before.options;
    record.choice = before.choice;
    record.artifacts = before.artifacts;
    record.artifacts_url = before.artifacts_url;
    if let Some(kept) = &mut record.kept {
        kept.agents = before.kept;
    }
    home.write(&record)?;
    let wanted = render::wanted(home, &record, site, None)?;
    let name = record.name.clone();
    // The snapshot is taken; those that are to go back may be what is in the way of quorum.
    let steps = |world: &World| {
        let steps = plan::upgrade(&name, &wanted, world).into_iter();
        steps
            .filter(|s| *s != Step::Do(Action::Snapshot))
            .collect::<Vec<_>>()
    };
    let mut session = Session::new(home, &mut record, site, progress, &args.manner);
    // What is in the way is the upgrade that does not become healthy.
    session.impatient = true;
    // A node that is at it goes through with it, and back again, before it hears of anything else.
    session.seconds = session.seconds.max(NODE_SECONDS);
    session.programs = args.artifacts.upstream_dir.as_deref();
    let end = End::Phase(Phase::Installed);
    session.go(&wanted, steps, end).await
}

/// Some options cannot change once a cluster exists.
fn refuse_fixed(before: &Options, after: &Options) -> Result<(), install::Error> {
    let problems = after.impossible_changes(before);
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = problems.iter().map(|p| format!("  {p}")).collect();
    Err(install::Error::State(format!(
        "these options are fixed for the life of a cluster:\n{}\n`k8sm backup` and `k8sm restore` bring the objects to a new one",
        lines.join("\n")
    )))
}

/// Kubernetes' minor versions go up one by one, and never down.
fn refuse_skew(before: &str, after: &str) -> Result<(), install::Error> {
    let (from, to) = (version(before), version(after));
    if from == (0, 0) || to == (0, 0) || from == to {
        return Ok(());
    }
    if to < from {
        return Err(install::Error::State(format!(
            "Kubernetes {before} cannot go back to {after}: its stored objects may be of newer forms. `k8sm restore` makes a cluster of an older backup"
        )));
    }
    if to.0 != from.0 || to.1 > from.1 + 1 {
        return Err(install::Error::State(format!(
            "Kubernetes {before} cannot become {after} at once: upgrade one minor version after the other"
        )));
    }
    Ok(())
}

/// Somebody else's deployment would be in the way, and may be a rollback of what we are to do.
async fn refuse_foreign_deployments(site: &Site, record: &Record) -> Result<(), install::Error> {
    if record.phase == Phase::Upgrading {
        return Ok(());
    }
    let found = site.marathon.deployments().await?;
    let name = &record.name;
    let ours = found.iter().find(|d| {
        d.affected_apps
            .iter()
            .filter_map(|id| Part::of(name, id))
            .any(|part| !matches!(part, Part::Probe | Part::Keep | Part::Sweep))
    });
    match ours {
        None => Ok(()),
        Some(deployment) => Err(install::Error::State(format!(
            "deployment {} of {} is under way: wait for it, or end it in Marathon",
            deployment.id,
            deployment.affected_apps.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_go_up_one_by_one_and_never_down() {
        assert!(refuse_skew("v1.37.1", "v1.37.4").is_ok());
        assert!(refuse_skew("v1.36.9", "v1.37.1").is_ok());
        let text = |a, b| refuse_skew(a, b).unwrap_err().to_string();
        assert!(text("v1.35.0", "v1.37.1").contains("one minor version"));
        assert!(text("v1.37.1", "v1.36.0").contains("k8sm restore"));
        assert!(refuse_skew("unknown", "v1.37.1").is_ok());
    }

    #[test]
    fn options_that_are_fixed_are_named_with_both_values() {
        let before = Options::default();
        let mut after = before.clone();
        after.kubernetes.service_cidr = "10.97.0.0/16".to_owned();
        after.apiserver.instances = 1;
        let text = refuse_fixed(&before, &after).unwrap_err().to_string();
        assert!(text.contains("kubernetes.service_cidr"), "{text}");
        assert!(
            text.contains("10.97.0.0/16") && !text.contains("instances"),
            "{text}"
        );
    }
}
