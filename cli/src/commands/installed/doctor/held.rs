//! What Mesos holds of the cluster that nobody needs: tasks without a pod, reservations without an
//! app, offers that are kept while nothing waits for them.

use std::collections::BTreeSet;
use std::time::Duration;

use packaging::install::leftovers::{TaskSeen, orphan_reservations, orphan_tasks};
use packaging::install::preflight::{Finding, Level, Situation};

use super::found;
use crate::cluster::api::Cluster;
use crate::install::{self, Home, Record, Site};

/// What is seen twice, this long apart, is not merely on its way.
const AGAIN: Duration = Duration::from_secs(3);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most things of a kind that are named.
const MOST: usize = 10;

pub(super) async fn look(
    home: &Home,
    record: &Record,
    site: &Site,
    situation: &Situation,
    findings: &mut Vec<Finding>,
) -> Result<(), install::Error> {
    let reserved = site.mesos.reserved().await?;
    for orphan in orphan_reservations(&record.name, &reserved, &situation.world) {
        findings.push(found(
            Level::Warning,
            format!("Mesos holds {orphan}, and no app of the cluster uses it"),
            "where nobody needs its content: destroy the volume and unreserve the resources through Mesos (/master/destroy-volumes, /master/unreserve)",
        ));
    }
    let frameworks: Vec<&str> = situation
        .frameworks
        .iter()
        .filter(|f| f.name == record.name)
        .map(|f| f.id.as_str())
        .collect();
    if frameworks.is_empty() {
        return Ok(());
    }
    let Some(mut first) = doubtful(home, site, &frameworks).await? else {
        return Ok(());
    };
    if first.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(AGAIN).await;
    let Some(second) = doubtful(home, site, &frameworks).await? else {
        return Ok(());
    };
    first.tasks.retain(|task| second.tasks.contains(task));
    first.offers.retain(|offer| second.offers.contains(offer));
    if !first.tasks.is_empty() {
        findings.push(found(
            Level::Warning,
            format!(
                "{} tasks of the framework have no pod or node in the API: {}",
                first.tasks.len(),
                named(first.tasks.iter().map(|t| format!("{} ({})", t.name, t.id)))
            ),
            "the framework ends such tasks by itself within a quarter of an hour; its log says why it does not",
        ));
    }
    if !first.offers.is_empty() {
        findings.push(found(
            Level::Warning,
            format!(
                "the framework keeps {} offers while no pod waits for a node",
                first.offers.len()
            ),
            "other frameworks miss them; its log says what it waits for",
        ));
    }
    Ok(())
}

fn named(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.take(MOST + 1).collect();
    if names.len() > MOST {
        names[MOST] = "...".to_owned();
    }
    names.join(", ")
}

/// What may be wrong, should it last.
struct Doubtful {
    tasks: BTreeSet<TaskSeen>,
    offers: BTreeSet<String>,
}

impl Doubtful {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.offers.is_empty()
    }
}

/// `None` where the API does not answer: then nothing can be said.
async fn doubtful(
    home: &Home,
    site: &Site,
    frameworks: &[&str],
) -> Result<Option<Doubtful>, install::Error> {
    // Mesos first: what is newer than this has its pod already.
    let tasks = site.mesos.tasks().await?;
    let mut offers = BTreeSet::new();
    for framework in frameworks {
        offers.extend(site.mesos.offers(framework).await?);
    }
    let ask = async {
        let cluster = Cluster::connect(&home.super_kubeconfig()).await?;
        let pods = cluster.pods(None, None).await?;
        Ok::<_, crate::cluster::Error>((pods, cluster.nodes().await?))
    };
    let Ok(Ok((pods, nodes))) = tokio::time::timeout(PATIENCE, ask).await else {
        return Ok(None);
    };
    let waits = pods.iter().any(|p| {
        let unbound = p.spec.as_ref().is_none_or(|s| s.node_name.is_none());
        unbound && p.metadata.deletion_timestamp.is_none()
    });
    if waits {
        offers.clear();
    }
    let uids = pods.into_iter().filter_map(|p| p.metadata.uid).collect();
    let names = nodes.into_iter().filter_map(|n| n.metadata.name).collect();
    let tasks = orphan_tasks(&tasks, frameworks, &uids, &names)
        .into_iter()
        .cloned()
        .collect();
    Ok(Some(Doubtful { tasks, offers }))
}
