//! Outages that Mesos announces, drained agents and nodes that are emptied: whole clusters in a
//! simulation.

use std::sync::Arc;
use std::time::Duration;

use framework::core::CoreConfig;
use framework::core::pod::PodTemplate;
use framework::core::pool::{Amounts, UNIT};
use framework::placement::PodRequirements;
use framework::resources::{Accounting, PodDemand};
use framework::sim::{Faults, Simulation};
use k8s_openapi::api::core::v1::PodSpec;

const SIZE: Amounts = Amounts {
    cpus: 4 * UNIT,
    mem: 8192 * UNIT,
    disk: 100_000 * UNIT,
    gpus: 0,
};

fn half_a_cpu() -> Arc<PodTemplate> {
    let spec: PodSpec = serde_json::from_value(serde_json::json!({"containers": [{"name": "main",
        "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}}}]}))
    .unwrap();
    let demand = PodDemand::of_spec(&spec, &Accounting::default()).unwrap();
    let requirements = PodRequirements::of(&spec, demand);
    Arc::new(PodTemplate::new(Ok(requirements), None, Vec::new()))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Three agents with nine pods on two of them or more; the first has some.
fn cluster(seed: u64) -> Simulation {
    let config = CoreConfig {
        maintenance_lead: seconds(300),
        idle_timeout: seconds(120),
        nodes_min: 3,
        ..CoreConfig::default()
    };
    let mut sim = Simulation::new(seed, 3, SIZE, config, Faults::default());
    sim.api.add_replicas(9, half_a_cpu());
    sim.run(seconds(60));
    assert_settled(&sim);
    assert!(sim.api.pods_on("agent-0") > 0, "it has pods");
    sim
}

fn assert_settled(sim: &Simulation) {
    assert_eq!(sim.world.violations, Vec::<String>::new());
    assert_eq!(sim.unsettled(), Vec::<String>::new());
    assert_eq!(sim.api.bound(), 9);
}

#[test]
fn a_node_is_empty_and_given_back_before_its_agents_maintenance_begins() {
    let mut sim = cluster(1);
    sim.announce_maintenance(0, seconds(240));
    sim.run(seconds(200));
    assert_settled(&sim);
    assert_eq!(sim.api.pods_on("agent-0"), 0);
    assert_eq!(sim.mesos.used_of("S0"), Amounts::default());
    assert_eq!(sim.mesos.answered.get(&false), None, "nothing held it back");
    assert!(sim.mesos.answered[&true] > 0, "Mesos is told so");

    sim.end_maintenance(0);
    sim.run(seconds(60));
    assert_settled(&sim);
    assert_ne!(
        sim.mesos.used_of("S0"),
        Amounts::default(),
        "nodes.min brings its node back"
    );
}

#[test]
fn maintenance_that_is_far_away_changes_nothing_until_it_is_near() {
    let mut sim = cluster(2);
    let pods = sim.api.pods_on("agent-0");
    sim.announce_maintenance(0, seconds(900));
    sim.run(seconds(500));
    assert_eq!(sim.api.pods_on("agent-0"), pods);
    sim.run(seconds(300));
    assert_eq!(sim.api.pods_on("agent-0"), 0);
    assert_settled(&sim);
}

#[test]
fn an_inverse_offer_is_declined_while_a_disruption_budget_holds_pods_back() {
    let mut sim = cluster(3);
    let pods = sim.api.pods_on("agent-0");
    sim.api.budget_refuses = true;
    sim.announce_maintenance(0, seconds(120));
    sim.run(seconds(300));
    assert_eq!(
        sim.api.pods_on("agent-0"),
        pods,
        "maintenance never overrules a budget"
    );
    assert!(sim.mesos.answered[&false] > 0);
    sim.api.budget_refuses = false;
    sim.run(seconds(60));
    assert_eq!(sim.api.pods_on("agent-0"), 0);
    assert_settled(&sim);
}

#[test]
fn maintenance_that_is_withdrawn_lets_pods_stay() {
    let mut sim = cluster(4);
    sim.api.budget_refuses = true;
    sim.announce_maintenance(0, seconds(120));
    sim.run(seconds(30));
    let pods = sim.api.pods_on("agent-0");
    assert!(pods > 0);
    sim.end_maintenance(0);
    // Longer than inverse offers are away.
    sim.run(seconds(180));
    sim.api.budget_refuses = false;
    sim.run(seconds(60));
    assert_eq!(sim.api.pods_on("agent-0"), pods);
    assert!(!sim.api.is_tainted("agent-0"));
    assert_settled(&sim);
}

#[test]
fn an_annotated_node_is_emptied_by_budget_and_after_its_time_without() {
    let mut sim = cluster(5);
    let pods = sim.api.pods_on("agent-0");
    sim.api.budget_refuses = true;
    sim.ask_to_drain(0, seconds(60));
    sim.run(seconds(50));
    assert_eq!(sim.api.pods_on("agent-0"), pods);
    sim.run(seconds(60));
    assert_settled(&sim);
    // The object is gone, and with it the annotation: the agent may have a node again.
    sim.run(seconds(60));
    assert_settled(&sim);
}

#[test]
fn a_drained_agent_gets_nothing_until_it_is_brought_back_and_its_nodes_end_is_no_failure() {
    let mut sim = cluster(6);
    sim.drain_agent(0);
    sim.run(seconds(60));
    assert_settled(&sim);
    assert_eq!(sim.mesos.used_of("S0"), Amounts::default());
    assert!(
        sim.api
            .node_events
            .iter()
            .all(|event| event != "NodeFailed"),
        "{:?}",
        sim.api.node_events
    );
    sim.run(seconds(120));
    assert_eq!(sim.mesos.used_of("S0"), Amounts::default());
    sim.end_maintenance(0);
    sim.run(seconds(120));
    assert_settled(&sim);
    assert_ne!(sim.mesos.used_of("S0"), Amounts::default());
}
