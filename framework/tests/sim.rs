//! Simulations of whole clusters around the decision core, each from its seed.

use std::sync::Arc;
use std::time::Duration;

use framework::core::CoreConfig;
use framework::core::pod::PodTemplate;
use framework::core::pool::{Amounts, UNIT};
use framework::placement::PodRequirements;
use framework::resources::{Accounting, PodDemand};
use framework::sim::{Faults, Simulation};
use k8s_openapi::api::core::v1::PodSpec;

fn size(cpus: u64, mem: u64) -> Amounts {
    Amounts {
        cpus: cpus * UNIT,
        mem: mem * UNIT,
        disk: 100_000 * UNIT,
        gpus: 0,
    }
}

fn template(spec: serde_json::Value) -> Arc<PodTemplate> {
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    let demand = PodDemand::of_spec(&spec, &Accounting::default()).unwrap();
    let requirements = PodRequirements::of(&spec, demand);
    Arc::new(PodTemplate::new(Ok(requirements), None, Vec::new()))
}

fn pod(cpu: &str, mem: &str) -> Arc<PodTemplate> {
    template(serde_json::json!({"containers": [{"name": "main",
        "resources": {"requests": {"cpu": cpu, "memory": mem}}}]}))
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

fn assert_settled(sim: &Simulation, seed: u64) {
    assert_eq!(sim.world.violations, Vec::<String>::new(), "seed {seed}");
    assert_eq!(sim.unsettled(), Vec::<String>::new(), "seed {seed}");
}

#[test]
fn pods_get_nodes_and_run_and_everything_is_given_back() {
    let config = CoreConfig {
        idle_timeout: minutes(2),
        ..CoreConfig::default()
    };
    let mut sim = Simulation::new(1, 3, size(4, 8192), config, Faults::default());
    let set = sim.api.add_replicas(10, pod("500m", "256Mi"));
    sim.run(Duration::from_secs(30));
    assert_settled(&sim, 1);
    assert_eq!(sim.api.bound(), 10);
    assert!(
        sim.api.nodes() >= 2,
        "ten half CPUs and overhead need two agents"
    );
    sim.api.scale(set, 0);
    sim.run(minutes(6));
    assert_settled(&sim, 1);
    assert_eq!(sim.api.nodes(), 0, "idle nodes are given back");
    assert_eq!(sim.mesos.used(), Amounts::default());
    assert_eq!(sim.mesos.offered(), 0, "nothing waits, nothing is held");
}

#[test]
fn a_pod_that_fits_nowhere_waits_with_a_reason_and_runs_once_an_agent_joins() {
    let mut sim = Simulation::new(
        2,
        2,
        size(2, 4096),
        CoreConfig::default(),
        Faults::default(),
    );
    sim.api.add_replicas(1, pod("6", "256Mi"));
    sim.run(Duration::from_secs(20));
    assert_eq!(sim.api.bound(), 0);
    assert!(
        sim.api
            .last_message
            .starts_with("0/2 nodes are available: 2 Insufficient cpu."),
        "{}",
        sim.api.last_message
    );
    sim.mesos.add_agent(size(8, 4096));
    sim.run(Duration::from_secs(20));
    assert_settled(&sim, 2);
    assert_eq!(sim.api.bound(), 1);
}

#[test]
fn nothing_is_lost_or_doubled_whatever_fails() {
    for seed in seeds(100, 20) {
        let config = CoreConfig {
            idle_timeout: minutes(2),
            ..CoreConfig::default()
        };
        let mut sim = Simulation::new(seed, 5, size(4, 8192), config, Faults::hell());
        sim.trace = std::env::var("K8SM_SIM_TRACE").is_ok();
        sim.api.add_replicas(12, pod("500m", "256Mi"));
        sim.api.add_replicas(6, pod("100m", "64Mi"));
        sim.run(minutes(10));
        sim.calm();
        sim.run(minutes(30));
        assert_settled(&sim, seed);
        assert!(sim.api.bound() >= 18, "seed {seed}");
    }
}

/// `K8SM_SIM_SEEDS` and `K8SM_SIM_FROM`, or these.
fn seeds(from: u64, count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse().ok());
    let from = number("K8SM_SIM_FROM").unwrap_or(from);
    from..from + number("K8SM_SIM_SEEDS").unwrap_or(count)
}

#[test]
fn nodes_come_to_the_wanted_revision_whatever_fails_and_none_is_taken_during_a_pause() {
    for seed in seeds(200, 8) {
        let config = CoreConfig {
            idle_timeout: minutes(2),
            revision: Some("r0".to_owned()),
            ..CoreConfig::default()
        };
        let faults = Faults::hell_of_revisions();
        let mut sim = Simulation::new(seed, 5, size(4, 8192), config, faults);
        sim.trace = std::env::var("K8SM_SIM_TRACE").is_ok();
        sim.api.add_replicas(12, pod("500m", "256Mi"));
        sim.run(minutes(10));
        sim.calm();
        sim.run(minutes(60));
        assert_settled(&sim, seed);
    }
}

#[test]
fn nodes_are_taken_one_after_the_other_and_none_while_it_is_paused() {
    let config = CoreConfig {
        revision: Some("r0".to_owned()),
        ..CoreConfig::default()
    };
    let mut sim = Simulation::new(1, 4, size(4, 8192), config, Faults::default());
    sim.api.add_replicas(12, pod("900m", "256Mi"));
    sim.run(minutes(1));
    assert_settled(&sim, 1);
    let (there, all) = sim.rolled_out();
    assert!(there == all && all >= 3, "{there} of {all}");

    sim.upgrade();
    while sim.rolled_out().0 == 0 {
        sim.run(Duration::from_secs(1));
    }
    sim.order(true);
    // The one that was under way completes.
    sim.run(minutes(2));
    let paused = sim.rolled_out().0;
    assert!((1..=2).contains(&paused), "{paused}");
    sim.run(minutes(30));
    assert_eq!(sim.rolled_out().0, paused);
    sim.order(false);
    sim.run(minutes(5));
    assert_settled(&sim, 1);
}

#[test]
fn a_seed_decides_everything() {
    let run = |seed| {
        let mut sim = Simulation::new(
            seed,
            4,
            size(4, 8192),
            CoreConfig::default(),
            Faults::hell(),
        );
        sim.digest = true;
        sim.api.add_replicas(12, pod("500m", "256Mi"));
        sim.run(minutes(5));
        (sim.heard, sim.sent, sim.mesos.launched, sim.api.bindings)
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

/// The figures of the README: `cargo test --release -p framework --test sim -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, of use in a release build only"]
fn a_thousand_agents_and_ten_thousand_pods() {
    let before = resident_kib();
    let mut sim = Simulation::new(
        7,
        1000,
        size(16, 65_536),
        CoreConfig::default(),
        Faults::default(),
    );
    for n in 0..10 {
        sim.api
            .add_replicas(1000, pod(&format!("{}m", 100 + n), "256Mi"));
    }
    sim.run(minutes(3));
    println!(
        "{} pods bound on {} nodes, {} launches, {:?} of CPU in the core: {:?} per pod; resident memory of \
         core and simulation {} MiB",
        sim.api.bound(),
        sim.api.nodes(),
        sim.mesos.launched,
        sim.core_time,
        sim.core_time / 10_000,
        (resident_kib() - before) / 1024,
    );
    assert_settled(&sim, 7);
    assert_eq!(sim.api.bound(), 10_000);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
