//! The master under simulation: thousands of agents, faults in random order, and books that
//! must agree at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use devcluster::master::{Answer, Settings};
use devcluster::sim::{Plan, SchedulerId, Sim, SimConfig, Step};
use mesos::pb;
use mesos::pb::scheduler::Call;
use mesos::pb::scheduler::call::Type as CallType;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn framework(name: &str, roles: &[&str]) -> pb::FrameworkInfo {
    use pb::framework_info::capability::Type;
    pb::FrameworkInfo {
        user: "root".to_owned(),
        name: name.to_owned(),
        roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        checkpoint: Some(true),
        failover_timeout: Some(3600.0),
        capabilities: [
            Type::MultiRole,
            Type::ReservationRefinement,
            Type::PartitionAware,
        ]
        .iter()
        .map(|kind| pb::framework_info::Capability {
            r#type: Some(*kind as i32),
        })
        .collect(),
        ..Default::default()
    }
}

fn scalar(name: &str, value: f64) -> pb::Resource {
    pb::Resource {
        name: name.to_owned(),
        r#type: pb::value::Type::Scalar as i32,
        scalar: Some(pb::value::Scalar { value }),
        ..Default::default()
    }
}

fn task(id: &str, agent: &pb::AgentId, cpus: f64, executor: Option<&str>) -> pb::TaskInfo {
    let command = pb::CommandInfo {
        value: Some("true".to_owned()),
        ..Default::default()
    };
    let executor = executor.map(|id| pb::ExecutorInfo {
        executor_id: pb::ExecutorId {
            value: id.to_owned(),
        },
        command: Some(command.clone()),
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
        ..Default::default()
    });
    pb::TaskInfo {
        name: id.to_owned(),
        task_id: pb::TaskId {
            value: id.to_owned(),
        },
        agent_id: agent.clone(),
        resources: vec![scalar("cpus", cpus), scalar("mem", 64.0)],
        command: executor.is_none().then_some(command),
        executor,
        ..Default::default()
    }
}

fn call(kind: CallType) -> Call {
    Call {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

fn filters(seconds: f64) -> Option<pb::Filters> {
    Some(pb::Filters {
        refuse_seconds: Some(seconds),
    })
}

fn launch(offers: Vec<pb::OfferId>, tasks: Vec<pb::TaskInfo>) -> Call {
    Call {
        accept: Some(pb::scheduler::call::Accept {
            offer_ids: offers,
            operations: vec![pb::offer::Operation {
                r#type: Some(pb::offer::operation::Type::Launch as i32),
                launch: Some(pb::offer::operation::Launch { task_infos: tasks }),
                ..Default::default()
            }],
            filters: filters(0.0),
        }),
        ..call(CallType::Accept)
    }
}

fn decline(offers: Vec<pb::OfferId>, seconds: f64) -> Call {
    Call {
        decline: Some(pb::scheduler::call::Decline {
            offer_ids: offers,
            filters: filters(seconds),
        }),
        ..call(CallType::Decline)
    }
}

fn acknowledge(status: &pb::TaskStatus) -> Option<Call> {
    Some(Call {
        acknowledge: Some(pb::scheduler::call::Acknowledge {
            agent_id: status.agent_id.clone()?,
            task_id: status.task_id.clone(),
            uuid: status.uuid.clone()?,
        }),
        ..call(CallType::Acknowledge)
    })
}

#[test]
fn five_thousand_agents_run_ten_thousand_tasks_in_one_thread() {
    const AGENTS: usize = 5_000;
    let began = Instant::now();
    let mut sim = Sim::new(SimConfig {
        agents: AGENTS,
        ..SimConfig::default()
    });
    let scheduler = sim.subscribe(framework("big", &["big"]));
    let mut offered = BTreeSet::new();
    let mut running = BTreeSet::new();
    for _ in 0..20 {
        sim.run_for(Duration::from_millis(500));
        for event in sim.events(scheduler) {
            for offer in event.offers.map(|o| o.offers).unwrap_or_default() {
                if !offered.insert(offer.agent_id.value.clone()) {
                    sim.call(scheduler, decline(vec![offer.id], 3600.0));
                    continue;
                }
                let tasks = (0..2)
                    .map(|i| {
                        task(
                            &format!("{}.{i}", offer.agent_id.value),
                            &offer.agent_id,
                            1.0,
                            Some("e"),
                        )
                    })
                    .collect();
                assert_eq!(
                    sim.call(scheduler, launch(vec![offer.id], tasks)),
                    Answer::Accepted
                );
            }
            if let Some(update) = event.update {
                if let Some(call) = acknowledge(&update.status) {
                    sim.call(scheduler, call);
                }
                if update.status.state() == pb::TaskState::TaskRunning {
                    running.insert(update.status.task_id.value);
                }
            }
        }
        if running.len() == 2 * AGENTS {
            break;
        }
    }
    assert_eq!(offered.len(), AGENTS);
    assert_eq!(running.len(), 2 * AGENTS);
    sim.master().audit().unwrap();
    // Generous: an optimised build takes a second or two.
    assert!(
        began.elapsed() < Duration::from_secs(120),
        "{:?}",
        began.elapsed()
    );
    eprintln!("5,000 agents, 10,000 tasks: {:?}", began.elapsed());
}

/// What is said of a whole run, to compare runs.
fn log_of_a_run(seed: u64) -> Vec<String> {
    let mut sim = Sim::new(SimConfig {
        agents: 20,
        seed,
        ..SimConfig::default()
    });
    let scheduler = sim.subscribe(framework("f", &["a", "b"]));
    let mut log = Vec::new();
    for _ in 0..10 {
        sim.run_for(Duration::from_secs(1));
        for event in sim.events(scheduler) {
            for offer in event.offers.iter().flat_map(|o| &o.offers) {
                let name = format!("t{}", log.len());
                let tasks = vec![task(&name, &offer.agent_id, 1.0, None)];
                sim.call(scheduler, launch(vec![offer.id.clone()], tasks));
            }
            log.push(format!("{} {event:?}", sim.now()));
        }
    }
    log
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(log_of_a_run(7), log_of_a_run(7));
    assert_ne!(log_of_a_run(7), log_of_a_run(8));
}

#[test]
fn roles_share_the_cluster_by_their_weights() {
    let mut settings = Settings::default();
    settings.allocator.weights.insert("heavy".to_owned(), 3.0);
    let mut sim = Sim::new(SimConfig {
        agents: 40,
        settings,
        ..SimConfig::default()
    });
    let heavy = sim.subscribe(framework("heavy", &["heavy"]));
    let light = sim.subscribe(framework("light", &["light"]));
    // Let all agents register first, then give everything back and let the allocator choose.
    sim.run_for(Duration::from_millis(500));
    for scheduler in [heavy, light] {
        let offers: Vec<_> = sim
            .events(scheduler)
            .into_iter()
            .flat_map(|e| e.offers.map(|o| o.offers).unwrap_or_default())
            .map(|o| o.id)
            .collect();
        sim.call(scheduler, decline(offers, 0.0));
    }
    sim.run_for(Duration::from_secs(2));
    let mut count = |scheduler| -> usize {
        let events = sim.events(scheduler);
        events
            .iter()
            .flat_map(|e| &e.offers)
            .map(|o| o.offers.len())
            .sum()
    };
    let (heavy, light) = (count(heavy), count(light));
    assert_eq!(heavy + light, 40);
    assert!((29..=31).contains(&heavy), "{heavy} to {light}");
}

#[test]
fn agents_come_back_after_a_restart_of_the_master_and_nothing_is_lost() {
    let mut sim = Sim::new(SimConfig {
        agents: 10,
        ..SimConfig::default()
    });
    let mut driver = Driver::new(&mut sim, 1, 3);
    for _ in 0..10 {
        driver.work(&mut sim);
        sim.run_for(Duration::from_secs(1));
    }
    let before: usize = (0..10).map(|i| sim.agent(i).live_tasks().count()).sum();
    assert!(before > 0);
    sim.restart_master();
    sim.run_for(Duration::from_secs(1));
    for scheduler in driver.schedulers.clone() {
        sim.resubscribe(scheduler);
    }
    driver.settle(&mut sim);
    driver.check(&sim);
    let after: usize = (0..10).map(|i| sim.agent(i).live_tasks().count()).sum();
    assert!(after >= before, "{after} of {before} tasks live");
}

/// Schedulers that do random things.
struct Driver {
    schedulers: Vec<SchedulerId>,
    rng: StdRng,
    tasks: u64,
    held: BTreeMap<String, (SchedulerId, pb::Offer)>,
    known: BTreeSet<(SchedulerId, String)>,
}

impl Driver {
    fn new(sim: &mut Sim, seed: u64, schedulers: usize) -> Self {
        let names = ["f0", "f1", "f2", "f3"];
        let roles: [&[&str]; 4] = [&["a"], &["a", "b/x"], &["b"], &["*"]];
        let schedulers = (0..schedulers)
            .map(|i| {
                let mut info = framework(names[i], roles[i]);
                // One that does not checkpoint, one that older masters would know.
                info.checkpoint = Some(i != 2);
                if i == 3 {
                    info.capabilities.retain(|c| {
                        c.r#type() != pb::framework_info::capability::Type::PartitionAware
                    });
                }
                sim.subscribe(info)
            })
            .collect();
        Self {
            schedulers,
            rng: StdRng::seed_from_u64(seed),
            tasks: 0,
            held: BTreeMap::new(),
            known: BTreeSet::new(),
        }
    }

    /// Takes events, uses or returns offers, acknowledges most updates.
    fn work(&mut self, sim: &mut Sim) {
        for scheduler in self.schedulers.clone() {
            for event in sim.events(scheduler) {
                if event.subscribed.is_some() {
                    self.held.retain(|_, (s, _)| *s != scheduler);
                }
                for offer in event.offers.map(|o| o.offers).unwrap_or_default() {
                    self.held.insert(offer.id.value.clone(), (scheduler, offer));
                }
                if let Some(rescind) = event.rescind {
                    self.held.remove(&rescind.offer_id.value);
                }
                if let Some(update) = event.update
                    && self.rng.random_bool(0.8)
                    && let Some(call) = acknowledge(&update.status)
                {
                    sim.call(scheduler, call);
                }
            }
        }
        let ids: Vec<_> = self.held.keys().cloned().collect();
        for id in ids {
            if !self.rng.random_bool(0.5) {
                continue;
            }
            let (scheduler, offer) = self.held.remove(&id).unwrap();
            if self.rng.random_bool(0.5) {
                let seconds = f64::from(self.rng.random_range(0..4));
                sim.call(scheduler, decline(vec![offer.id], seconds));
                continue;
            }
            let tasks = (0..self.rng.random_range(1..4))
                .map(|_| {
                    self.tasks += 1;
                    let name = format!("t{}", self.tasks);
                    self.known.insert((scheduler, name.clone()));
                    let executor = self.rng.random_bool(0.7).then_some("e");
                    let cpus = f64::from(self.rng.random_range(1..30)) / 10.0;
                    task(&name, &offer.agent_id, cpus, executor)
                })
                .collect();
            sim.call(scheduler, launch(vec![offer.id], tasks));
        }
    }

    fn some_task(&mut self) -> Option<(SchedulerId, String)> {
        let n = self.known.len();
        (n > 0).then(|| {
            self.known
                .iter()
                .nth(self.rng.random_range(0..n))
                .unwrap()
                .clone()
        })
    }

    /// One fault or order at random.
    fn disturb(&mut self, sim: &mut Sim) {
        let agents = sim.agents();
        let agent = self.rng.random_range(0..agents);
        let n = self.schedulers.len();
        let scheduler = self.schedulers[self.rng.random_range(0..n)];
        match self.rng.random_range(0..12) {
            0 => sim.kill_agent(agent),
            1 => sim.start_agent(agent),
            2 => sim.partition(agent, true),
            3 => sim.partition(agent, false),
            4 => sim.destroy_agent(agent),
            5 => sim.disconnect(scheduler),
            6 => {
                sim.resubscribe(scheduler);
            }
            7 | 8 => {
                if let Some((scheduler, id)) = self.some_task() {
                    let kill = pb::scheduler::call::Kill {
                        task_id: pb::TaskId { value: id },
                        ..Default::default()
                    };
                    let kill = Call {
                        kill: Some(kill),
                        ..call(CallType::Kill)
                    };
                    sim.call(scheduler, kill);
                }
            }
            9 => {
                sim.call(scheduler, call(CallType::Suppress));
            }
            10 => {
                sim.call(scheduler, call(CallType::Revive));
            }
            _ => {
                sim.call(
                    scheduler,
                    Call {
                        reconcile: Some(pb::scheduler::call::Reconcile::default()),
                        ..call(CallType::Reconcile)
                    },
                );
            }
        }
    }

    /// Ends all faults and lets the cluster come to rest, with every update acknowledged.
    fn settle(&mut self, sim: &mut Sim) {
        for i in 0..sim.agents() {
            sim.partition(i, false);
            sim.start_agent(i);
        }
        for scheduler in self.schedulers.clone() {
            if !sim.connected(scheduler) {
                sim.resubscribe(scheduler);
            }
        }
        for _ in 0..200 {
            sim.run_for(Duration::from_secs(10));
            let mut quiet = true;
            for scheduler in self.schedulers.clone() {
                for event in sim.events(scheduler) {
                    if let Some(call) = event.update.and_then(|u| acknowledge(&u.status)) {
                        quiet = false;
                        sim.call(scheduler, call);
                    }
                }
            }
            if quiet {
                return;
            }
        }
        panic!("updates never end");
    }

    /// The master knows exactly what lives on the agents.
    fn check(&self, sim: &Sim) {
        sim.master().audit().unwrap();
        let live: BTreeSet<_> = (0..sim.agents())
            .flat_map(|i| sim.agent(i).live_tasks())
            .map(|t| (t.framework_id.value.clone(), t.task_id.value.clone()))
            .collect();
        let known: BTreeSet<_> = sim.master().live_tasks().into_iter().collect();
        assert_eq!(known, live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_is_lost_or_doubled_whatever_happens(seed in any::<u64>()) {
        let settings = Settings {
            agent_ping_timeout: Duration::from_secs(2),
            max_agent_ping_timeouts: 2,
            offer_timeout: Some(Duration::from_secs(20)),
            ..Settings::default()
        };
        let plan = Plan::by(
            |_, rng| {
                use pb::TaskState::{TaskFailed, TaskFinished, TaskRunning, TaskStarting};
                let pause = |rng: &mut StdRng| Duration::from_millis(rng.random_range(1..3000));
                let mut steps = vec![Step::new(pause(rng), TaskStarting)];
                if rng.random_bool(0.9) {
                    steps.push(Step::new(pause(rng), TaskRunning));
                }
                if rng.random_bool(0.4) {
                    let end = if rng.random_bool(0.5) { TaskFinished } else { TaskFailed };
                    steps.push(Step::new(pause(rng), end));
                }
                steps
            },
            Duration::from_millis(300),
        );
        let mut sim = Sim::new(SimConfig { agents: 5, seed, settings, plan, ..SimConfig::default() });
        let mut driver = Driver::new(&mut sim, seed, 4);
        for _ in 0..60 {
            driver.work(&mut sim);
            sim.master().audit().map_err(TestCaseError::fail)?;
            driver.disturb(&mut sim);
            sim.master().audit().map_err(TestCaseError::fail)?;
            sim.run_for(Duration::from_millis(driver.rng.random_range(10..2500)));
            sim.master().audit().map_err(TestCaseError::fail)?;
        }
        driver.settle(&mut sim);
        driver.check(&sim);
    }
}
