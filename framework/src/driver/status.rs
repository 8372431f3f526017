//! The status page, written from several places.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::core::State;
use crate::core::summary::Summary;
use crate::http::status::{Role, Status};
use crate::metrics::{CoreCounts, CorePicture, Metrics};

/// The latest [`Status`].
#[derive(Debug)]
pub struct Board {
    tell: watch::Sender<Arc<Status>>,
}

impl Board {
    /// A page of a process that has just started.
    pub fn new() -> (Arc<Self>, watch::Receiver<Arc<Status>>) {
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            ..Status::default()
        };
        let (tell, listen) = watch::channel(Arc::new(status));
        (Arc::new(Self { tell }), listen)
    }

    fn change(&self, change: impl FnOnce(&mut Status)) {
        self.tell
            .send_modify(|status| change(Arc::make_mut(status)));
    }

    /// The loop has come round.
    pub fn beat(&self) {
        self.change(|status| status.beat = Some(Instant::now()));
    }

    /// Who leads.
    pub fn role(&self, role: Role, leader: Option<String>) {
        self.change(|status| {
            status.role = role;
            status.leader = leader;
        });
    }

    /// The framework's id.
    pub fn framework_id(&self, id: &str) {
        self.change(|status| status.framework_id = Some(id.to_owned()));
    }

    /// The Mesos master, while subscribed.
    pub fn master(&self, master: Option<String>) {
        self.change(|status| status.mesos_master = master);
    }

    /// What is wrong at the moment.
    pub fn problem(&self, problem: Option<String>) {
        self.change(|status| status.problem = problem);
    }

    /// What somebody should look at, although everything works.
    pub fn warning(&self, warning: Option<String>) {
        self.change(|status| status.warning = warning);
    }

    /// The framework stopped for good and waits for an operator: unhealthy from now on.
    pub fn ended(&self, why: String) {
        self.change(|status| {
            status.problem = Some(why.clone());
            status.ended = Some(why);
        });
    }

    /// The core as it is.
    pub fn show(&self, summary: &Summary) {
        self.change(|status| {
            status.connected = summary.connected;
            status.recovered = summary.recovered;
            status.agents = summary.agents;
            status.offers = summary.offers;
            status.tasks = summary.tasks;
            status.pods = pods(summary).into_iter().collect();
            status.nodes = summary.nodes.clone();
            status.rollout.clone_from(&summary.rolling);
        });
    }
}

fn pods(summary: &Summary) -> Vec<(&'static str, usize)> {
    vec![
        ("queued", summary.queued),
        ("backing-off", summary.backing_off),
        ("planned", summary.planned),
        ("gated", summary.gated),
        ("unaccounted", summary.unaccounted),
    ]
}

/// The core in the metrics.
pub fn show(metrics: &Metrics, state: &State) {
    let counters = &state.counters;
    let summary = state.summary();
    metrics.show(
        &CoreCounts {
            offers_received: counters.offers_received,
            offers_accepted: counters.offers_accepted,
            offers_declined: counters.offers_declined,
            offers_rescinded: counters.offers_rescinded,
            inverse_offers: counters.inverse_offers,
            pods_launched: counters.pods_launched,
            nodes_launched: counters.nodes_launched,
            unschedulable: counters.unschedulable,
            preemptions: counters.preemptions,
            reconciliations: counters.reconciliations,
            passes: counters.passes,
        },
        &CorePicture {
            leader: true,
            connected: summary.connected,
            recovered: summary.recovered,
            agents: summary.agents,
            offers: summary.offers,
            tasks: summary.tasks,
            pods: pods(&summary),
            nodes: summary.nodes.iter().map(|(k, v)| (*k, *v)).collect(),
            rollout: summary.rollout,
            rollout_paused: summary.rolling.is_some_and(|r| r.paused_since.is_some()),
        },
    );
}
