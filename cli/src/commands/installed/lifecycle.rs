//! `stop`, `start` and `uninstall` of an installed cluster.

use std::path::Path;

use packaging::install::plan::{self, Wanted};

use super::{block_on, confirm, home, limits, show_plan, site};
use crate::args::{Manner, Uninstall, Which};
use crate::error::Error;
use crate::install::actions::End;
use crate::install::work::Work;
use crate::install::{self, Home, Phase, Record, Site, render};
use crate::progress::Progress;

/// `k8sm stop`.
pub fn stop(state_dir: &Path, which: &Which, manner: &Manner) -> Result<(), Error> {
    let (home, mut record) = home(state_dir, which)?;
    block_on(async {
        let site = site(&record).await?;
        let world = site.world(&record.name).await?;
        let steps = plan::stop(&record.name, &world);
        if manner.dry_run {
            return shown(manner, &steps);
        }
        confirm(
            manner,
            &format!("End every pod of {} and give its nodes back?", record.name),
        )?;
        let end = End::Phase(Phase::Stopped);
        go(&home, &mut record, &site, &[], steps, end, manner).await
    })
}

/// `k8sm start`.
pub fn start(state_dir: &Path, which: &Which, seconds: u64) -> Result<(), Error> {
    let (home, mut record) = home(state_dir, which)?;
    let manner = Manner {
        timeout: seconds,
        yes: true,
        ..Manner::default()
    };
    block_on(async {
        if !matches!(record.phase, Phase::Stopped | Phase::Installed) {
            return Err(install::Error::State(
                "the cluster is not completely installed: repeat `k8sm install`, or `k8sm uninstall`"
                    .to_owned(),
            ));
        }
        let site = site(&record).await?;
        let (options, apps) = render::apps(&home, &record, &site)?;
        let wanted = render::wanted(&apps)?;
        let world = site.world(&record.name).await?;
        let steps = plan::install(&record.name, &wanted, &world, options.nodes.min);
        let end = End::Phase(Phase::Installed);
        go(&home, &mut record, &site, &wanted, steps, end, &manner).await
    })
}

/// `k8sm uninstall`.
pub fn uninstall(state_dir: &Path, args: &Uninstall) -> Result<(), Error> {
    let (home, mut record) = home(state_dir, &args.which)?;
    let manner = &args.manner;
    block_on(async {
        let site = site(&record).await?;
        let world = site.world(&record.name).await?;
        let wipes = match args.keep_data {
            true => Vec::new(),
            false => wipes(&record)?,
        };
        let names: Vec<String> = wipes.iter().map(|w| w.id.clone()).collect();
        let steps = plan::uninstall(&record.name, &world, args.keep_data, &names);
        if manner.dry_run {
            return shown(manner, &steps);
        }
        let question = match args.keep_data {
            true => format!("Remove {} and keep its data?", record.name),
            false => format!("Remove {} with all that is stored in it?", record.name),
        };
        confirm(manner, &question)?;
        record.phase = Phase::Removing;
        home.write(&record)?;
        let end = match args.keep_data {
            true => End::Phase(Phase::Kept),
            false => End::Forget,
        };
        go(&home, &mut record, &site, &wipes, steps, end, manner).await
    })
}

/// Apps that remove what members of etcd leave in directories of their agents. They run there
/// until they have done it, and are deleted then.
fn wipes(record: &Record) -> Result<Vec<Wanted>, install::Error> {
    use packaging::marathon::EtcdStorage;
    if record.choice.etcd_storage != EtcdStorage::HostPath {
        return Ok(Vec::new());
    }
    let options = record.parsed_options()?;
    let hosts = record.choice.etcd_hosts.iter().map(|h| h.hostname.as_str());
    Ok(plan::wipes(
        &record.name,
        &record.id,
        &options.etcd.host_path,
        &hosts.collect::<Vec<_>>(),
    ))
}

fn shown(manner: &Manner, steps: &[plan::Step]) -> Result<(), install::Error> {
    show_plan(manner.output, &[], steps, &[]).map_err(|e| install::Error::State(e.to_string()))
}

async fn go(
    home: &Home,
    record: &mut Record,
    site: &Site,
    wanted: &[Wanted],
    steps: Vec<plan::Step>,
    end: End,
    manner: &Manner,
) -> Result<(), install::Error> {
    let _lock = home.lock()?;
    let progress = Progress::new(manner.quiet);
    let options = record.parsed_options()?;
    let mut work = Work {
        site,
        home,
        record,
        options: &options,
        wanted,
        progress: &progress,
        programs: None,
        end,
    };
    work.run(steps, limits(manner.timeout)).await
}
