//! The machine against a small Marathon with a clock of its own, cut at every effect.

use serde_json::json;

use super::*;
use crate::install::plan;

const ID: &str = "install-1";
const S: Duration = Duration::from_secs(1);

/// A Marathon that takes `delay` looks until an app is healthy.
#[derive(Debug, Default)]
struct Marathon {
    world: World,
    /// Looks until each app is healthy.
    pending: BTreeMap<String, u32>,
    delay: u32,
    puts: Vec<String>,
    deletes: Vec<String>,
    actions: Vec<String>,
}

impl Marathon {
    fn look(&mut self) -> World {
        for (id, seen) in &mut self.world.apps {
            let left = self.pending.entry(id.clone()).or_default();
            if *left > 0 {
                *left -= 1;
                seen.staged = seen.instances;
                seen.deployments = vec!["d".to_owned()];
            } else {
                seen.staged = 0;
                seen.running = seen.instances;
                seen.healthy = seen.instances;
                seen.deployments.clear();
            }
        }
        self.world.clone()
    }

    /// Does what an effect asks for.
    fn answer(&mut self, wanted: &[Wanted], effect: &Effect) -> Option<Event> {
        Some(match effect {
            Effect::Look => Event::World(self.look()),
            Effect::Put { app, .. } => {
                let definition = &wanted.iter().find(|w| w.id == *app).unwrap().definition;
                let instances = u32::try_from(definition["instances"].as_u64().unwrap()).unwrap();
                self.puts.push(app.clone());
                self.pending.insert(app.clone(), self.delay);
                let seen = Seen {
                    definition: definition.clone(),
                    instances,
                    ..Seen::default()
                };
                self.world.apps.insert(app.clone(), seen);
                Event::Sent
            }
            Effect::Scale { app, instances, .. } => {
                let seen = self.world.apps.get_mut(app).unwrap();
                seen.instances = *instances;
                seen.definition["instances"] = json!(instances);
                self.pending.insert(app.clone(), self.delay);
                Event::Sent
            }
            Effect::Delete(app) => {
                self.deletes.push(app.clone());
                self.world.apps.remove(app);
                Event::Sent
            }
            Effect::Do(action) => {
                self.actions.push(action.to_string());
                Event::Acted(String::new())
            }
            Effect::Pause(_) => Event::Tick,
            Effect::Finish | Effect::Fail(_) => return None,
        })
    }
}

fn wanted() -> Vec<Wanted> {
    [
        "/k-cp/etcd-0",
        "/k-cp/apiserver",
        "/k-cp/controller-manager",
        "/k",
    ]
    .into_iter()
    .map(|id| Wanted {
        id: id.to_owned(),
        definition: json!({
            "id": id, "instances": 1, "labels": {crate::install::INSTALL_LABEL: ID},
        }),
    })
    .collect()
}

/// Runs until the end or until `most` effects were answered; returns the last effect.
fn run(marathon: &mut Marathon, wanted: &[Wanted], steps: Vec<Step>, most: usize) -> Effect {
    let mut machine = Machine::new(ID, wanted, steps, Limits::default());
    let mut now = Duration::ZERO;
    let mut turn = machine.begin(now);
    for _ in 0..most {
        let Some(event) = marathon.answer(wanted, &turn.effect) else {
            return turn.effect;
        };
        if let Effect::Pause(pause) = turn.effect {
            now += pause;
        }
        turn = machine.step(now, event);
    }
    turn.effect
}

#[test]
fn an_install_puts_every_app_once_and_in_order() {
    let mut marathon = Marathon {
        delay: 3,
        ..Marathon::default()
    };
    let steps = plan::install("k", &wanted(), &World::default(), 1);
    assert_eq!(run(&mut marathon, &wanted(), steps, 1000), Effect::Finish);
    let order: Vec<String> = wanted().into_iter().map(|w| w.id).collect();
    assert_eq!(marathon.puts, order);
    assert_eq!(marathon.actions.len(), 4, "{:?}", marathon.actions);
}

#[test]
fn an_install_that_is_cut_anywhere_ends_the_same_when_repeated() {
    let mut most = 0;
    loop {
        let mut marathon = Marathon {
            delay: 2,
            ..Marathon::default()
        };
        let steps = plan::install("k", &wanted(), &World::default(), 1);
        let last = run(&mut marathon, &wanted(), steps, most);
        let world = marathon.world.clone();
        let again = plan::install("k", &wanted(), &world, 1);
        assert_eq!(
            run(&mut marathon, &wanted(), again, 1000),
            Effect::Finish,
            "cut at {most}"
        );
        let mut once = marathon.puts.clone();
        once.dedup();
        assert_eq!(once, marathon.puts, "cut at {most}: an app was put twice");
        assert_eq!(marathon.world.apps.len(), 4);
        if last == Effect::Finish {
            break;
        }
        most += 1;
    }
    assert!(most > 20, "every effect was cut: {most}");
}

#[test]
fn an_uninstall_that_is_cut_anywhere_leaves_nothing_when_repeated() {
    for most in 0..60 {
        let mut marathon = Marathon {
            delay: 1,
            ..Marathon::default()
        };
        let steps = plan::install("k", &wanted(), &World::default(), 0);
        run(&mut marathon, &wanted(), steps, 1000);
        let steps = plan::uninstall("k", &marathon.world.clone(), false, &[], false);
        run(&mut marathon, &wanted(), steps, most);
        let steps = plan::uninstall("k", &marathon.world.clone(), false, &[], false);
        assert_eq!(run(&mut marathon, &wanted(), steps, 1000), Effect::Finish);
        assert!(marathon.world.apps.is_empty(), "cut at {most}");
        assert!(marathon.actions.last().unwrap().contains("done"));
    }
}

#[test]
fn a_cluster_of_the_same_name_that_is_somebody_elses_is_not_touched() {
    let mut marathon = Marathon::default();
    let foreign = Seen {
        definition: json!({"id": "/k", "labels": {"K8SM_INSTALL_ID": "other"}}),
        instances: 1,
        ..Seen::default()
    };
    marathon
        .world
        .apps
        .insert("/k-cp/etcd-0".to_owned(), foreign);
    let steps = plan::install("k", &wanted(), &World::default(), 0);
    let end = run(&mut marathon, &wanted(), steps, 100);
    let Effect::Fail(failure @ Failure::Foreign { .. }) = end else {
        panic!("{end:?}");
    };
    assert!(failure.to_string().contains("(other)"), "{failure}");
    assert!(marathon.puts.is_empty());
}

#[test]
fn an_app_that_does_not_get_healthy_is_told_with_its_reason() {
    let mut marathon = Marathon {
        delay: u32::MAX,
        ..Marathon::default()
    };
    let steps = plan::install("k", &wanted(), &World::default(), 0);
    let end = run(&mut marathon, &wanted(), steps, 10_000);
    let Effect::Fail(failure @ Failure::Timeout { .. }) = end else {
        panic!("{end:?}");
    };
    assert!(failure.to_string().contains("0 of 1 healthy"), "{failure}");
    assert_eq!(marathon.puts, ["/k-cp/etcd-0"]);
}

#[test]
fn every_node_has_the_whole_time_of_a_step() {
    let steps = vec![Step::Do(Action::Rollout)];
    let limits = Limits::default();
    let mut machine = Machine::new(ID, &[], steps, limits);
    machine.begin(Duration::ZERO);
    assert!(machine.may_be_left());
    let not_yet = |text: &str| Event::Problem {
        text: text.to_owned(),
        retry: true,
    };
    let mut now = Duration::ZERO;
    for node in ["1 of 3", "2 of 3"] {
        now += limits.step - S;
        let turn = machine.step(now, Event::Moved(node.to_owned()));
        assert_eq!(turn.notes, [Note::Moved(node.to_owned())]);
        assert_eq!(turn.effect, Effect::Pause(limits.first_pause));
        now += limits.step - S;
        let turn = machine.step(now, not_yet(node));
        assert!(matches!(turn.effect, Effect::Pause(_)), "{turn:?}");
    }
    let turn = machine.step(now + S, not_yet("2 of 3; at work on agent-3"));
    let Effect::Fail(failure @ Failure::Timeout { .. }) = turn.effect else {
        panic!("{turn:?}");
    };
    assert!(failure.to_string().contains("agent-3"), "{failure}");
}

#[test]
fn a_deployment_in_the_way_is_waited_for_and_then_replaced() {
    let wanted = wanted();
    let locked = Seen {
        definition: json!({"labels": {"K8SM_INSTALL_ID": ID}}),
        instances: 1,
        deployments: vec!["old".to_owned()],
        ..Seen::default()
    };
    let world = World {
        apps: [("/k".to_owned(), locked)].into(),
    };
    let steps = vec![Step::Put {
        app: "/k".to_owned(),
        wait: false,
    }];
    let mut machine = Machine::new(ID, &wanted, steps, Limits::default());
    machine.begin(Duration::ZERO);
    let turn = machine.step(S, Event::World(world.clone()));
    assert!(matches!(turn.effect, Effect::Pause(_)), "{turn:?}");
    let turn = machine.step(S * 31, Event::World(world));
    assert_eq!(
        turn.effect,
        Effect::Put {
            app: "/k".to_owned(),
            force: true
        }
    );
}

#[test]
fn a_problem_is_tried_again_until_the_limit() {
    let steps = vec![Step::Do(Action::Teardown)];
    let mut machine = Machine::new(ID, &[], steps, Limits::default());
    assert_eq!(machine.begin(S).effect, Effect::Do(Action::Teardown));
    let problem = |retry| Event::Problem {
        text: "no leader".to_owned(),
        retry,
    };
    let turn = machine.step(S, problem(true));
    assert!(matches!(turn.effect, Effect::Pause(_)));
    assert_eq!(
        machine.step(S, Event::Tick).effect,
        Effect::Do(Action::Teardown)
    );
    let turn = machine.step(S * 400, problem(true));
    assert!(matches!(turn.effect, Effect::Fail(Failure::Timeout { .. })));
}
