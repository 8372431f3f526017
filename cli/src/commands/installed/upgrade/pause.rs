//! `k8sm upgrade --pause`: the upgrade that runs stops after the step that it is at, and the framework
//! takes no further node.

use std::time::{Duration, Instant};

use crate::args::Manner;
use crate::install::rolling::Rolling;
use crate::install::{self, Home, Phase, Record};
use crate::progress::Progress;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

pub(super) async fn pause(
    home: &Home,
    record: &Record,
    manner: &Manner,
) -> Result<(), install::Error> {
    let progress = Progress::new(manner.quiet);
    let patience = Duration::from_secs(manner.timeout);
    match record.phase {
        Phase::Upgrading => upgrade(home, record, &progress, patience).await,
        Phase::Installed => nodes_alone(home, record, &progress, patience).await,
        _ => Err(nothing_runs()),
    }
}

fn nothing_runs() -> install::Error {
    install::Error::State("no upgrade is under way that could be paused".to_owned())
}

async fn upgrade(
    home: &Home,
    record: &Record,
    progress: &Progress,
    patience: Duration,
) -> Result<(), install::Error> {
    home.ask_pause(true)?;
    // At once, so that no node is taken while the step is waited for. Said again below, since whoever
    // upgrades may have said the opposite meanwhile.
    if let Ok(rolling) = Rolling::connect(home, &record.name).await {
        let _ = rolling.order(true).await;
    }
    let step = progress.step("wait for the step that is under way");
    let begun = Instant::now();
    // Whoever upgrades holds it.
    let _lock = loop {
        match home.lock() {
            Ok(lock) => break lock,
            Err(error) if begun.elapsed() > patience => {
                step.failed();
                return Err(error);
            }
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    };
    if home.existing()?.phase != Phase::Upgrading {
        home.ask_pause(false)?;
        let rolling = Rolling::connect(home, &record.name).await?;
        rolling.order(false).await?;
        step.done("it was the last one: the upgrade is complete");
        return Ok(());
    }
    step.done("");
    nodes(home, record, progress, patience)
        .await
        .map_err(|error| {
            install::Error::State(format!(
                "the upgrade is paused, but its nodes may not be: {error}; repeat this, or go on with `k8sm upgrade --resume`"
            ))
        })
}

/// Nobody upgrades, but the framework may still be at work on its nodes.
async fn nodes_alone(
    home: &Home,
    record: &Record,
    progress: &Progress,
    patience: Duration,
) -> Result<(), install::Error> {
    let rolling = Rolling::connect(home, &record.name).await?;
    match rolling.read().await? {
        (_, Some(found)) if !found.is_complete() => {}
        _ => return Err(nothing_runs()),
    }
    nodes(home, record, progress, patience).await
}

async fn nodes(
    home: &Home,
    record: &Record,
    progress: &Progress,
    patience: Duration,
) -> Result<(), install::Error> {
    let mut step = progress.step("wait for the node that is under way");
    let rolling = Rolling::connect(home, &record.name).await?;
    match rolling.pause(patience, |text| step.detail(text)).await {
        Ok(now) => {
            step.done(&format!(
                "paused; nodes: {}; `k8sm upgrade --resume` goes on",
                now.counted()
            ));
            Ok(())
        }
        Err(error) => {
            step.failed();
            Err(error)
        }
    }
}
