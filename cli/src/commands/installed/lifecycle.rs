//! `stop`, `start` and `uninstall` of an installed cluster.

use std::path::Path;

use packaging::install::plan;

use super::{Session, block_on, confirm, home, show_plan, site};
use crate::args::{Manner, Uninstall, Which};
use crate::error::Error;
use crate::install::actions::End;
use crate::install::{self, Phase, render};
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
        let _lock = home.lock()?;
        let progress = Progress::new(manner.quiet);
        let end = End::Phase(Phase::Stopped);
        let mut session = Session::new(&home, &mut record, &site, &progress, manner);
        session.run(&[], steps, end).await?;
        session.result()
    })
}

/// `k8sm start`.
pub fn start(state_dir: &Path, which: &Which, manner: &Manner) -> Result<(), Error> {
    let (home, mut record) = home(state_dir, which)?;
    block_on(async {
        if !matches!(record.phase, Phase::Stopped | Phase::Installed) {
            return Err(install::Error::State(
                "the cluster is not completely installed: repeat `k8sm install`, or `k8sm uninstall`"
                    .to_owned(),
            ));
        }
        let site = site(&record).await?;
        let wanted = render::wanted(&home, &record, &site, None)?;
        let world = site.world(&record.name).await?;
        let nodes = record.parsed_options()?.nodes.min;
        let steps = plan::install(&record.name, &wanted, &world, nodes);
        if manner.dry_run {
            return shown(manner, &steps);
        }
        let _lock = home.lock()?;
        let progress = Progress::new(manner.quiet);
        let mut session = Session::new(&home, &mut record, &site, &progress, manner);
        let end = End::Phase(Phase::Installed);
        session.run(&wanted, steps, end).await?;
        session.result()
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
            false => install::wipes(&record)?,
        };
        let names: Vec<String> = wipes.iter().map(|w| w.id.clone()).collect();
        let steps = plan::uninstall(
            &record.name,
            &world,
            args.keep_data,
            &names,
            record.kept.is_some(),
        );
        if manner.dry_run {
            return shown(manner, &steps);
        }
        let question = match args.keep_data {
            true => format!("Remove {} and keep its data?", record.name),
            false => format!("Remove {} with all that is stored in it?", record.name),
        };
        confirm(manner, &question)?;
        let _lock = home.lock()?;
        record.phase = Phase::Removing;
        home.write(&record)?;
        let end = match args.keep_data {
            true => End::Phase(Phase::Kept),
            false => End::Forget,
        };
        let progress = Progress::new(manner.quiet);
        let mut session = Session::new(&home, &mut record, &site, &progress, manner);
        session.impatient = true;
        session.run(&wipes, steps, end).await?;
        session.result()
    })
}

fn shown(manner: &Manner, steps: &[plan::Step]) -> Result<(), install::Error> {
    show_plan(manner.output, &[], steps, &[]).map_err(|e| install::Error::State(e.to_string()))
}
