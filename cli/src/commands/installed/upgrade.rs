//! `k8sm upgrade`: one part after the other, with a snapshot first and a way back.

use std::path::Path;

use packaging::install::plan::{self, Action, Step, What};
use packaging::install::preflight::version;
use packaging::options::Options;

use super::create::place;
use super::{block_on, confirm, home, layered, limits, show_plan, site};
use crate::args::Upgrade;
use crate::error::Error;
use crate::install::actions::End;
use crate::install::record::Before;
use crate::install::work::Work;
use crate::install::{self, Home, Phase, Record, Site, keys, render};
use crate::progress::Progress;

/// `k8sm upgrade`.
pub fn upgrade(state_dir: &Path, args: &Upgrade) -> Result<(), Error> {
    let (home, record) = home(state_dir, &args.which)?;
    block_on(run(&home, record, args))
}

async fn run(home: &Home, mut record: Record, args: &Upgrade) -> Result<(), install::Error> {
    let progress = Progress::new(args.manner.quiet || args.manner.dry_run);
    match record.phase {
        Phase::Installed | Phase::Upgrading => {}
        Phase::Stopped => {
            return Err(install::Error::State(
                "the cluster is stopped: `k8sm start` first".to_owned(),
            ));
        }
        _ => {
            return Err(install::Error::State(
                "the cluster is not completely installed: repeat `k8sm install` first".to_owned(),
            ));
        }
    }
    let _lock = if args.manner.dry_run {
        None
    } else {
        Some(home.lock()?)
    };
    let options = layered(Some(&record.options), &args.said)?;
    refuse_fixed(&record.parsed_options()?, &options)?;
    let site = site(&record).await?;
    refuse_foreign_deployments(&site, &record).await?;
    let placed = place(home, &args.artifacts, &options, Some(&record), &progress).await?;
    refuse_skew(
        &render::kubernetes_version(&record.artifacts),
        &render::kubernetes_version(&placed.manifest),
    )?;
    if record.before.is_none() {
        record.before = Some(Box::new(Before {
            options: record.options.clone(),
            artifacts_url: record.artifacts_url.clone(),
            artifacts: record.artifacts.clone(),
        }));
    }
    record.options = options.changed();
    record.artifacts = placed.manifest.clone();
    record.artifacts_url.clone_from(&placed.url);
    if !args.manner.dry_run {
        for change in keys::ensure(home, &options, &record.choice)? {
            progress.note(&format!("- {change}"));
        }
    }
    let (_, apps) = render::apps(home, &record, &site)?;
    let wanted = render::wanted(&apps)?;
    let world = site.world(&record.name).await?;
    let steps = plan::upgrade(&record.name, &wanted, &world);
    let changes = plan::changes(&record.name, &wanted, &world);
    if args.manner.dry_run {
        return show_plan(args.manner.output, &changes, &steps, &[])
            .map_err(|e| install::Error::State(e.to_string()));
    }
    if record.phase == Phase::Installed && changes.iter().all(|c| c.what == What::Keep) {
        progress.note("everything is as it should be");
        record.before = None;
        return home.write(&record);
    }
    let changed: Vec<&str> = changes
        .iter()
        .filter(|c| c.what != What::Keep)
        .map(|c| c.app.as_str())
        .collect();
    confirm(&args.manner, &format!("Change {}?", changed.join(", ")))?;
    record.phase = Phase::Upgrading;
    home.write(&record)?;
    let mut work = Work {
        site: &site,
        home,
        record: &mut record,
        options: &options,
        wanted: &wanted,
        progress: &progress,
        programs: args.artifacts.upstream_dir.as_deref(),
        end: End::Phase(Phase::Installed),
    };
    let limits = limits(args.manner.timeout);
    match work.run(steps, limits).await {
        Ok(()) => Ok(()),
        Err(error @ install::Error::Step(_)) if !args.no_rollback => {
            progress.note(&format!("✘ {error}; going back to what was before"));
            back(home, record, &site, args, &progress).await?;
            Err(install::Error::State(format!(
                "the upgrade failed and was taken back: {error}"
            )))
        }
        Err(error) => Err(error),
    }
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
    record.artifacts = before.artifacts;
    record.artifacts_url = before.artifacts_url;
    home.write(&record)?;
    let (options, apps) = render::apps(home, &record, site)?;
    let wanted = render::wanted(&apps)?;
    let world = site.world(&record.name).await?;
    // The snapshot is taken; those that are to go back may be what is in the way of quorum.
    let steps: Vec<Step> = plan::upgrade(&record.name, &wanted, &world)
        .into_iter()
        .filter(|s| *s != Step::Do(Action::Snapshot))
        .collect();
    let mut work = Work {
        site,
        home,
        record: &mut record,
        options: &options,
        wanted: &wanted,
        progress,
        programs: args.artifacts.upstream_dir.as_deref(),
        end: End::Phase(Phase::Installed),
    };
    work.run(steps, limits(args.manner.timeout)).await
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
            .any(|id| plan::Part::of(name, id).is_some())
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
