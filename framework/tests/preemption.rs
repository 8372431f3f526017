//! Preemption, as the decision core does it.

#![allow(clippy::unwrap_used, clippy::expect_used)]
// Not every test binary uses all of it.
#[allow(dead_code)]
mod support;

use std::sync::Arc;
use std::time::Duration;

use framework::core::event::Launch;
use framework::core::ids::TaskId;
use framework::core::pod::{PodTemplate, PodView};
use framework::core::pool::{Amounts, UNIT};
use framework::core::{CoreConfig, Effect};
use framework::sim::{Faults, Simulation};
use support::{Bench, pod_of, pod_with};

fn cpus(name: &str, cpus: u64, priority: i32) -> PodView {
    let mut pod = pod_with(
        name,
        serde_json::json!({"requests": {"cpu": cpus.to_string(), "memory": "64Mi"}}),
    );
    pod.priority = priority;
    pod
}

fn left(cpus: u64) -> Amounts {
    Amounts {
        cpus: cpus * UNIT,
        mem: 8_192 * UNIT,
        disk: 10_000 * UNIT,
        gpus: 0,
    }
}

/// Names of the pods that were told to make room.
fn preempted(bench: &mut Bench) -> Vec<String> {
    bench
        .take(|e| matches!(e, Effect::Preempt { .. }))
        .into_iter()
        .filter_map(|e| match e {
            Effect::Preempt { pod, .. } => Some(pod.name.to_string()),
            _ => None,
        })
        .collect()
}

/// Where pods were nominated to, in order; `-` where a nomination was taken back.
fn nominated(bench: &mut Bench) -> Vec<String> {
    bench
        .take(|e| matches!(e, Effect::Nominate { .. }))
        .into_iter()
        .filter_map(|e| match e {
            Effect::Nominate { node, .. } => {
                Some(node.map_or_else(|| "-".to_owned(), |n| n.to_string()))
            }
            _ => None,
        })
        .collect()
}

fn launched(bench: &mut Bench) -> Vec<String> {
    bench
        .accepts()
        .into_iter()
        .flat_map(|(_, launches)| launches)
        .filter_map(|l| match l {
            Launch::Pod(pod) => Some(pod.name.to_string()),
            Launch::Node(_) => None,
        })
        .collect()
}

/// A node of 8 CPUs with these pods; one CPU is left.
fn full(pods: &[(&str, u64, i32)]) -> (Bench, Vec<TaskId>) {
    let mut bench = Bench::with_node("a1");
    let tasks = pods
        .iter()
        .map(|(name, amount, priority)| bench.run(cpus(name, *amount, *priority), "a1"))
        .collect();
    bench.wait(Duration::from_secs(2));
    bench.take(|_| true);
    (bench, tasks)
}

/// A pod comes that does not fit into the one CPU that is left.
fn comes(bench: &mut Bench, pod: PodView) {
    bench.pod(pod);
    bench.offer_of("rest", "a1", left(1));
    bench.wait(Duration::from_secs(2));
}

#[test]
fn the_least_important_pods_that_suffice_make_room() {
    // As upstream: the most important ones are spared first, so two small ones end, not the third.
    let (mut bench, _) = full(&[("p1", 2, 1), ("p2", 2, 2), ("p3", 3, 3)]);
    comes(&mut bench, cpus("p4", 4, 4));
    let mut victims = preempted(&mut bench);
    victims.sort();
    assert_eq!(victims, ["p1", "p2"]);
    assert_eq!(nominated(&mut bench), ["a1"]);
    assert!(launched(&mut bench).is_empty());
}

#[test]
fn nobody_ends_for_a_pod_of_the_same_priority_or_one_that_does_not_preempt() {
    let (mut bench, _) = full(&[("p1", 7, 5)]);
    comes(&mut bench, cpus("same", 4, 5));
    let mut never = pod_of(
        "never",
        serde_json::json!({"preemptionPolicy": "Never", "containers":
            [{"name": "c", "resources": {"requests": {"cpu": "4"}}}]}),
    );
    never.priority = 9;
    comes(&mut bench, never);
    bench.wait(Duration::from_secs(60));
    assert!(preempted(&mut bench).is_empty());
    assert!(nominated(&mut bench).is_empty());
}

#[test]
fn nobody_ends_where_that_would_not_make_room() {
    let (mut bench, _) = full(&[("low", 3, 1), ("high", 4, 9)]);
    comes(&mut bench, cpus("big", 5, 5));
    bench.wait(Duration::from_secs(60));
    assert!(preempted(&mut bench).is_empty());
}

#[test]
fn what_victims_free_is_not_taken_by_their_replacements() {
    let (mut bench, tasks) = full(&[("low", 4, 1), ("mid", 3, 2)]);
    comes(&mut bench, cpus("high", 5, 9));
    assert_eq!(preempted(&mut bench), ["low"]);
    bench.delete("low");
    // Its controller replaces it at once, and smaller ones wait, too.
    bench.pod(cpus("low-again", 4, 1));
    bench.pod(cpus("small", 1, 1));
    bench.end("low", &tasks[0]);
    // What was free before comes first.
    bench.offer_of("rest2", "a1", left(1));
    bench.wait(Duration::from_millis(200));
    assert!(launched(&mut bench).is_empty());
    bench.offer_of("freed", "a1", left(4));
    assert_eq!(launched(&mut bench), ["high"]);
}

#[test]
fn others_of_the_same_priority_do_not_take_it_either() {
    let (mut bench, tasks) = full(&[("low", 7, 1)]);
    comes(&mut bench, cpus("second", 5, 9));
    assert_eq!(preempted(&mut bench), ["low"]);
    bench.delete("low");
    let mut first = cpus("first", 5, 9);
    // Older, so it comes before.
    first.created = framework::core::ids::Time(1);
    bench.pod(first);
    bench.end("low", &tasks[0]);
    bench.offer_of("freed", "a1", left(7));
    assert_eq!(launched(&mut bench), ["second"]);
}

#[test]
fn a_victim_that_is_not_being_deleted_is_told_again() {
    let (mut bench, _) = full(&[("low", 7, 1)]);
    comes(&mut bench, cpus("high", 4, 9));
    assert_eq!(preempted(&mut bench), ["low"]);
    bench.wait(Duration::from_secs(13));
    assert_eq!(preempted(&mut bench), ["low"]);
    bench.delete("low");
    bench.wait(Duration::from_secs(60));
    assert!(preempted(&mut bench).is_empty());
    assert_eq!(
        nominated(&mut bench),
        ["a1"],
        "it waits for as long as the victim takes"
    );
}

#[test]
fn pods_that_are_ending_already_are_waited_for_before_others_are_told() {
    let (mut bench, _) = full(&[("ending", 4, 7), ("low", 3, 1)]);
    bench.delete("ending");
    comes(&mut bench, cpus("high", 5, 9));
    assert!(preempted(&mut bench).is_empty());
    assert_eq!(nominated(&mut bench), ["a1"]);
}

#[test]
fn room_that_another_framework_took_is_looked_for_again() {
    let (mut bench, tasks) = full(&[("low", 4, 1), ("mid", 3, 2)]);
    comes(&mut bench, cpus("high", 5, 9));
    assert_eq!(preempted(&mut bench), ["low"]);
    bench.delete("low");
    bench.end("low", &tasks[0]);
    bench.wait(Duration::from_secs(20));
    assert_eq!(nominated(&mut bench), ["a1", "-"]);
    bench.offer_of("again", "a1", left(2));
    bench.wait(Duration::from_secs(5));
    assert_eq!(preempted(&mut bench), ["mid"]);
}

#[test]
fn a_node_that_goes_takes_no_nominated_pod() {
    let (mut bench, _) = full(&[("low", 7, 1)]);
    comes(&mut bench, cpus("high", 4, 9));
    bench.send(framework::core::Event::NodeGone("a1".into()));
    bench.wait(Duration::from_secs(3));
    assert_eq!(nominated(&mut bench), ["a1", "-"]);
}

/// Three agents with room for three such pods each, full of unimportant ones; then four
/// important ones come.
fn crowded(seed: u64, faults: Faults) -> (Simulation, usize, usize) {
    let agent = Amounts {
        cpus: 4 * UNIT,
        mem: 8_192 * UNIT,
        disk: 100_000 * UNIT,
        gpus: 0,
    };
    let one: Arc<PodTemplate> = cpus("any", 1, 0).template;
    let mut sim = Simulation::new(seed, 3, agent, CoreConfig::default(), faults);
    let low = sim.api.add_replicas(9, one.clone());
    sim.run(Duration::from_secs(60));
    let high = sim.api.add_important_replicas(7, 4, one);
    (sim, low, high)
}

#[test]
fn as_many_pods_end_as_important_ones_come() {
    for seed in 0..20 {
        let (mut sim, low, high) = crowded(seed, Faults::default());
        assert_eq!(sim.api.running_of(low), 9, "seed {seed}");
        sim.run(Duration::from_secs(120));
        let runs = (sim.api.running_of(high), sim.api.running_of(low));
        assert_eq!(runs, (4, 5), "seed {seed}");
        assert_eq!(sim.api.preempted, 4, "seed {seed}");
        assert_eq!(sim.world.violations, Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn important_pods_find_room_whatever_fails() {
    for seed in 500..520 {
        let (mut sim, low, high) = crowded(seed, Faults::hell());
        sim.run(Duration::from_secs(600));
        sim.calm();
        sim.run(Duration::from_secs(1_800));
        let runs = (sim.api.running_of(high), sim.api.running_of(low));
        assert_eq!(runs.0, 4, "seed {seed}");
        // Pods that named their node themselves may be in the way of some.
        assert!((1..=5).contains(&runs.1), "seed {seed}: {runs:?}");
        assert_eq!(sim.world.violations, Vec::<String>::new(), "seed {seed}");
        let told = sim.api.preempted;
        sim.run(Duration::from_secs(600));
        assert_eq!(
            sim.api.preempted, told,
            "seed {seed}: it never comes to rest"
        );
    }
}
