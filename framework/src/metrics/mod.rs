//! What the framework tells Prometheus. The names are a contract with operators
//! (`docs/metrics.md`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

macro_rules! label_set {
    ($name:ident, $($field:ident),+) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: &'static str),+ }
    };
}
label_set!(StateLabel, state);
label_set!(PhaseLabel, phase);
label_set!(OutcomeLabel, outcome);
label_set!(KindLabel, kind);
label_set!(DecisionLabel, decision);
label_set!(CallLabel, call, outcome);

type Gauges<L> = Family<L, Gauge>;
type Counters<L> = Family<L, Counter>;
type Timings<L> = Family<L, Histogram, fn() -> Histogram>;

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It succeeded.
    Ok,
    /// It failed and is tried again.
    Retry,
    /// It failed for good.
    Failed,
}

impl CallOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Failed => "failed",
        }
    }
}

/// Counts of the decision core since the process started. Absolute, not differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreCounts {
    /// Offers received.
    pub offers_received: u64,
    /// Offers used in an ACCEPT.
    pub offers_accepted: u64,
    /// Offers declined.
    pub offers_declined: u64,
    /// Offers rescinded.
    pub offers_rescinded: u64,
    /// Inverse offers.
    pub inverse_offers: u64,
    /// Pods' tasks launched.
    pub pods_launched: u64,
    /// Node tasks launched.
    pub nodes_launched: u64,
    /// Attempts to place a pod that found nothing.
    pub unschedulable: u64,
    /// Pods that others of lower priority had to make room for.
    pub preemptions: u64,
    /// Reconciliations completed.
    pub reconciliations: u64,
    /// Scheduling passes.
    pub passes: u64,
}

/// A picture of the decision core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorePicture {
    /// Whether this instance leads.
    pub leader: bool,
    /// Whether there is a subscription with Mesos.
    pub connected: bool,
    /// Whether it is known which tasks exist.
    pub recovered: bool,
    /// Active agents.
    pub agents: usize,
    /// Offers held.
    pub offers: usize,
    /// Tasks that are not known to have ended.
    pub tasks: usize,
    /// Pods that wait, by state.
    pub pods: Vec<(&'static str, usize)>,
    /// Nodes, by phase.
    pub nodes: Vec<(&'static str, usize)>,
    /// Ready nodes, by where they are on their way to the wanted revision.
    pub rollout: Vec<(&'static str, usize)>,
    /// Whether an operator has paused that.
    pub rollout_paused: bool,
}

/// All metrics. Cheap to share; every method may be called from anywhere.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    leader: Gauge,
    connected: Gauge,
    recovered: Gauge,
    agents: Gauge,
    offers_held: Gauge,
    tasks: Gauge,
    pods: Gauges<StateLabel>,
    nodes: Gauges<PhaseLabel>,
    rollout: Gauges<StateLabel>,
    rollout_paused: Gauge,
    offers: Counters<OutcomeLabel>,
    launched: Counters<KindLabel>,
    unschedulable: Counter,
    preemptions: Counter,
    passes: Counter,
    reconciliations: Counter,
    updates: Counters<StateLabel>,
    pass_seconds: Histogram,
    placement_seconds: Histogram,
    bind_seconds: Histogram,
    launch_seconds: Timings<KindLabel>,
    api_calls: Counters<CallLabel>,
    mesos_calls: Counters<CallLabel>,
    certificates: Counters<DecisionLabel>,
    events_dropped: Counter,
    problems: Counter,
    namesakes: Gauge,
    inverse_offers: Counter,
}

/// From 1 ms to half a minute.
fn call_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

/// From 10 ms to some twenty minutes.
fn long_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that all start at nothing.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("k8sm"),
            leader: Gauge::default(),
            connected: Gauge::default(),
            recovered: Gauge::default(),
            agents: Gauge::default(),
            offers_held: Gauge::default(),
            tasks: Gauge::default(),
            pods: Family::default(),
            nodes: Family::default(),
            rollout: Family::default(),
            rollout_paused: Gauge::default(),
            offers: Family::default(),
            launched: Family::default(),
            unschedulable: Counter::default(),
            preemptions: Counter::default(),
            passes: Counter::default(),
            reconciliations: Counter::default(),
            updates: Family::default(),
            // From 10 µs to 300 ms.
            pass_seconds: Histogram::new(exponential_buckets(0.000_01, 2.0, 16)),
            placement_seconds: long_buckets(),
            bind_seconds: call_buckets(),
            launch_seconds: Family::new_with_constructor(long_buckets),
            api_calls: Family::default(),
            mesos_calls: Family::default(),
            certificates: Family::default(),
            events_dropped: Counter::default(),
            problems: Counter::default(),
            namesakes: Gauge::default(),
            inverse_offers: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("leader", "Whether this instance leads", self.leader.clone());
        r.register(
            "mesos_connected",
            "Whether there is a subscription with Mesos",
            self.connected.clone(),
        );
        r.register(
            "recovered",
            "Whether it is known which tasks exist",
            self.recovered.clone(),
        );
        r.register("agents", "Active Mesos agents", self.agents.clone());
        r.register("offers_held", "Offers held", self.offers_held.clone());
        r.register(
            "tasks",
            "Tasks that are not known to have ended",
            self.tasks.clone(),
        );
        r.register(
            "pods",
            "Pods that wait, and bound pods without a task",
            self.pods.clone(),
        );
        r.register("nodes", "Nodes by phase", self.nodes.clone());
        r.register(
            "rollout_nodes",
            "Ready nodes by where they are on their way to the wanted revision",
            self.rollout.clone(),
        );
        r.register(
            "rollout_paused",
            "Whether an operator has paused the way of the nodes to the wanted revision",
            self.rollout_paused.clone(),
        );
        r.register("offers", "Offers by outcome", self.offers.clone());
        r.register("tasks_launched", "Tasks launched", self.launched.clone());
        r.register(
            "unschedulable",
            "Attempts to place a pod that found nothing",
            self.unschedulable.clone(),
        );
        r.register(
            "preemptions",
            "Pods that others of lower priority had to make room for",
            self.preemptions.clone(),
        );
        r.register(
            "scheduling_passes",
            "Scheduling passes",
            self.passes.clone(),
        );
        r.register(
            "reconciliations",
            "Reconciliations completed",
            self.reconciliations.clone(),
        );
        r.register(
            "status_updates",
            "Status updates from Mesos, repeated ones included",
            self.updates.clone(),
        );
        let seconds = || Unit::Seconds;
        r.register_with_unit(
            "scheduling_pass",
            "Duration of one pass of the decision core",
            seconds(),
            self.pass_seconds.clone(),
        );
        r.register_with_unit(
            "pod_placement",
            "From a pod's creation to its Binding",
            seconds(),
            self.placement_seconds.clone(),
        );
        r.register_with_unit(
            "bind",
            "Duration of the API call of a Binding",
            seconds(),
            self.bind_seconds.clone(),
        );
        r.register_with_unit(
            "launch",
            "From ACCEPT to TASK_STARTING",
            seconds(),
            self.launch_seconds.clone(),
        );
        r.register(
            "api_calls",
            "Calls of the Kubernetes API",
            self.api_calls.clone(),
        );
        r.register(
            "mesos_calls",
            "Calls of the Mesos master",
            self.mesos_calls.clone(),
        );
        r.register(
            "certificates",
            "Certificate requests decided",
            self.certificates.clone(),
        );
        r.register(
            "events_dropped",
            "Kubernetes events dropped because too many waited",
            self.events_dropped.clone(),
        );
        r.register(
            "problems",
            "Unusual things that have no object",
            self.problems.clone(),
        );
        r.register(
            "namesakes",
            "Other frameworks of this name on the same Mesos",
            self.namesakes.clone(),
        );
        r.register(
            "inverse_offers",
            "Inverse offers, each of which was answered",
            self.inverse_offers.clone(),
        );
    }

    /// Everything, as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail; what could is an encoder's bug, seen as a
        // truncated page.
        if text::encode(&mut text, &self.registry).is_err() {
            tracing::error!("metrics could not be encoded");
        }
        text
    }

    /// Shows the core as it is.
    pub fn show(&self, counts: &CoreCounts, picture: &CorePicture) {
        let outcomes = [
            ("received", counts.offers_received),
            ("accepted", counts.offers_accepted),
            ("declined", counts.offers_declined),
            ("rescinded", counts.offers_rescinded),
        ];
        for (outcome, count) in outcomes {
            set(&self.offers.get_or_create(&OutcomeLabel { outcome }), count);
        }
        for (kind, count) in [
            ("pod", counts.pods_launched),
            ("node", counts.nodes_launched),
        ] {
            set(&self.launched.get_or_create(&KindLabel { kind }), count);
        }
        set(&self.unschedulable, counts.unschedulable);
        set(&self.preemptions, counts.preemptions);
        set(&self.passes, counts.passes);
        set(&self.reconciliations, counts.reconciliations);
        set(&self.inverse_offers, counts.inverse_offers);

        self.leader.set(i64::from(picture.leader));
        self.connected.set(i64::from(picture.connected));
        self.recovered.set(i64::from(picture.recovered));
        self.agents.set(whole(picture.agents));
        self.offers_held.set(whole(picture.offers));
        self.tasks.set(whole(picture.tasks));
        for (state, count) in &picture.pods {
            self.pods
                .get_or_create(&StateLabel { state })
                .set(whole(*count));
        }
        // A phase without nodes is not in the picture, and shows nothing.
        self.nodes.clear();
        for (phase, count) in &picture.nodes {
            self.nodes
                .get_or_create(&PhaseLabel { phase })
                .set(whole(*count));
        }
        for (state, count) in &picture.rollout {
            self.rollout
                .get_or_create(&StateLabel { state })
                .set(whole(*count));
        }
        self.rollout_paused.set(i64::from(picture.rollout_paused));
    }

    /// A status update came; `state` as Mesos names it (`TASK_RUNNING`).
    pub fn status_update(&self, state: &'static str) {
        self.updates.get_or_create(&StateLabel { state }).inc();
    }

    /// A pass of the decision core took so long.
    pub fn pass(&self, took: Duration) {
        self.pass_seconds.observe(took.as_secs_f64());
    }

    /// A pod was bound so long after its creation.
    pub fn placed(&self, after: Duration) {
        self.placement_seconds.observe(after.as_secs_f64());
    }

    /// The API call of a Binding took so long.
    pub fn bind(&self, took: Duration) {
        self.bind_seconds.observe(took.as_secs_f64());
    }

    /// A task reached TASK_STARTING so long after its ACCEPT; `kind` is `pod` or `node`.
    pub fn started(&self, kind: &'static str, after: Duration) {
        self.launch_seconds
            .get_or_create(&KindLabel { kind })
            .observe(after.as_secs_f64());
    }

    /// A call of the API server ended.
    pub fn api_call(&self, call: &'static str, outcome: CallOutcome) {
        let outcome = outcome.as_str();
        self.api_calls
            .get_or_create(&CallLabel { call, outcome })
            .inc();
    }

    /// A call of the Mesos master ended.
    pub fn mesos_call(&self, call: &'static str, outcome: CallOutcome) {
        let outcome = outcome.as_str();
        self.mesos_calls
            .get_or_create(&CallLabel { call, outcome })
            .inc();
    }

    /// A certificate request was decided.
    pub fn certificate(&self, approved: bool) {
        let decision = if approved { "approved" } else { "denied" };
        self.certificates
            .get_or_create(&DecisionLabel { decision })
            .inc();
    }

    /// So many Kubernetes events were dropped since the process started.
    pub fn events_dropped(&self, in_all: u64) {
        set(&self.events_dropped, in_all);
    }

    /// So many other frameworks have our name.
    pub fn namesakes(&self, count: usize) {
        self.namesakes.set(whole(count));
    }

    /// Something unusual happened.
    pub fn problem(&self) {
        self.problems.inc();
    }
}

/// Counters of the core are absolute; one that went back would be a restarted core, and shows so.
fn set(counter: &Counter<u64, AtomicU64>, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_as_documented() {
        let metrics = Metrics::new();
        let counts = CoreCounts {
            offers_received: 7,
            offers_declined: 2,
            pods_launched: 3,
            ..CoreCounts::default()
        };
        let picture = CorePicture {
            leader: true,
            connected: true,
            offers: 4,
            pods: vec![("queued", 2), ("gated", 1)],
            nodes: vec![("ready", 3)],
            rollout: vec![("in-place", 2), ("working", 1)],
            rollout_paused: true,
            ..CorePicture::default()
        };
        metrics.show(&counts, &picture);
        metrics.show(&counts, &picture);
        metrics.status_update("TASK_RUNNING");
        metrics.started("node", Duration::from_secs(3));
        metrics.api_call("bind", CallOutcome::Ok);
        metrics.mesos_call("accept", CallOutcome::Retry);
        metrics.certificate(true);
        metrics.events_dropped(5);
        metrics.problem();
        let text = metrics.encode();
        let mut lines: Vec<&str> = text
            .lines()
            .filter(|line| {
                line.starts_with("# TYPE") || (!line.starts_with('#') && !line.contains("_bucket"))
            })
            .collect();
        // A family's members come in no order.
        lines.sort_unstable();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn every_metric_is_documented() {
        let page = include_str!("../../../docs/metrics.md");
        let text = Metrics::new().encode();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let total = if kind == "counter" { "_total" } else { "" };
            let (plain, labelled) = (format!("`{name}{total}`"), format!("`{name}{total}{{"));
            assert!(page.contains(&plain) || page.contains(&labelled), "{name}");
        }
    }

    #[test]
    fn a_phase_that_no_node_is_in_disappears() {
        let metrics = Metrics::new();
        let picture = |phase| CorePicture {
            nodes: vec![(phase, 1)],
            ..CorePicture::default()
        };
        metrics.show(&CoreCounts::default(), &picture("starting"));
        metrics.show(&CoreCounts::default(), &picture("ready"));
        let text = metrics.encode();
        assert!(text.contains("k8sm_nodes{phase=\"ready\"} 1"));
        assert!(!text.contains("starting"));
    }
}
