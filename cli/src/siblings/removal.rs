//! One attempt to remove everything: the installer's steps of `uninstall`, this app aside, which
//! DC/OS deletes once `/v1/plans/deploy` says that the work is done.

use packaging::install::leftovers::reserved_for;
use packaging::install::machine::Limits;
use packaging::install::plan::{self, Action, Step};

use super::reconcile::without;
use super::store::Store;
use super::way::Way;
use super::{Attempt, Service, state, store};
use crate::install::actions::End;
use crate::install::work::Work;
use crate::install::{self, Phase, keys};
use crate::progress::Progress;

/// One attempt.
pub(super) async fn attempt(service: &Service) -> Result<(), Attempt> {
    let name = service.name();
    let (site, store) = service.access().await?;
    let home = service.home()?;
    let frameworks = site.mesos.frameworks().await?;
    let ours = frameworks.iter().find(|f| f.name == name);
    service.board.framework(ours.map(|f| f.id.clone()));
    let Some(found) = state::load_to_remove(&site, store.as_ref(), &home, name).await? else {
        // Nothing was ever made, or the last step was reached.
        if let Some(store) = &store {
            forget(store, name, None).await?;
        }
        return gone(service, &site).await;
    };
    let mut record = found.record;
    record.phase = Phase::Removing;
    home.write(&record)?;
    let options = record.parsed_options()?;
    // They are there, unless somebody has deleted them. What asks the API with new ones is refused,
    // and goes on without.
    keys::ensure(&home, &options, &record.choice)?;
    let own = format!("/{name}");
    let world = without(site.world(name).await?, &own);
    let agents = site.mesos.agents(None).await?;
    record.snapshots.retain(|snapshot| {
        let there = agents.iter().any(|a| a.hostname == snapshot.host);
        if !there {
            let path = snapshot.path.display();
            tracing::warn!(
                "{path} stays on {}, which is no agent any more",
                snapshot.host
            );
        }
        there
    });
    let wipes = install::wipes(&record)?;
    let ids: Vec<String> = wipes.iter().map(|w| w.id.clone()).collect();
    let steps: Vec<Step> = plan::uninstall(name, &world, false, &ids, false)
        .into_iter()
        // The one would wait for this very app's task; the other removes the state, which is needed
        // until the secrets are gone.
        .filter(|step| !matches!(step, Step::Do(Action::VerifyGone | Action::RemoveGroup)))
        .collect();
    let progress = Progress::new(false);
    let mut work = Work {
        site: &site,
        home: &home,
        record: &mut record,
        options: &options,
        wanted: &wipes,
        progress: &progress,
        programs: None,
        end: End::Forget,
        follow: None,
    };
    work.run(steps, Limits::default()).await?;
    match (&store, found.way) {
        (None, _) => {}
        (Some(store), Way::Store) => store.clear().await?,
        // What a way back to the environment that was cut off has left.
        (Some(store), Way::Env) => forget(store, name, Some(&record.id)).await?,
    }
    let below = plan::group(name);
    let removed = site.marathon.delete_group(&below).await;
    removed.map_err(install::Error::from)?;
    gone(service, &site).await
}

/// Removes what may be in the store although nothing says so. What the store does not show to this
/// account, the account cannot have put there.
async fn forget(store: &Store, name: &str, id: Option<&str>) -> Result<(), Attempt> {
    match state::forget(store, name, id).await {
        Err(state::Error::Store(error @ store::Error::Forbidden { .. })) => {
            tracing::warn!("{error}");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Checks that Mesos holds nothing of the cluster any more.
async fn gone(service: &Service, site: &crate::install::Site) -> Result<(), Attempt> {
    let name = service.name();
    let not_yet = |what: String| Err(install::Error::State(what).into());
    let frameworks = site.mesos.frameworks().await?;
    if let Some(found) = frameworks.iter().find(|f| f.name == name) {
        if !found.connected {
            site.mesos.teardown(&found.id).await?;
        }
        return not_yet(format!("Mesos still has the framework {}", found.id));
    }
    service.board.framework(None);
    let reserved = site.mesos.reserved().await?;
    let reserved: Vec<String> = reserved_for(name, &reserved)
        .map(ToString::to_string)
        .collect();
    match reserved.is_empty() {
        true => Ok(()),
        false => not_yet(format!("Mesos still holds {}", reserved.join(", "))),
    }
}
