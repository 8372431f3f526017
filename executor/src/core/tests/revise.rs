//! Bringing the node to another revision.

use seam::message::RevisionState;
use seam::node::Revision;

use super::*;

const DIGEST: &str = "0badcafe0badcafe";

fn newer() -> Box<Revision> {
    let mut revision = config().revision();
    revision.payload.sha256 = "1".repeat(64);
    Box::new(revision)
}

fn revise(revision: Box<Revision>) -> Event {
    Event::Revise {
        digest: DIGEST.to_owned(),
        revision,
    }
}

fn fetched(program_differs: bool) -> Event {
    Event::Fetched(Ok(Fetched { program_differs }))
}

fn failed(message: &str) -> Event {
    Event::Node(NodeEvent::Failed {
        component: "kubelet".to_owned(),
        message: message.to_owned(),
    })
}

impl Bench {
    /// What the framework was told about revisions since this was last asked.
    fn answers(&mut self) -> Vec<RevisionState> {
        let (told, rest) = std::mem::take(&mut self.effects)
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Tell(ToFramework::Revision { .. })));
        self.effects = rest;
        let told: Vec<Effect> = told;
        told.into_iter()
            .filter_map(|effect| match effect {
                Effect::Tell(ToFramework::Revision { state, .. }) => Some(state),
                _ => None,
            })
            .collect()
    }

    fn restarts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.effects)
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::RestartNode(config) => Some(config.payload.sha256),
                _ => None,
            })
            .collect()
    }

    fn payload(&self) -> &str {
        &self.core.node_config().unwrap().payload.sha256
    }
}

fn reason(answers: &[RevisionState]) -> &str {
    match answers {
        [RevisionState::Failed { message }] => message,
        other => panic!("one failure: {other:?}"),
    }
}

#[test]
fn a_node_that_is_there_already_says_so_and_nothing_restarts() {
    let mut bench = Bench::up();
    let mut revision = config().revision();
    revision.payload.urls = vec!["http://elsewhere/p".to_owned()];
    bench.event(revise(Box::new(revision.clone())));
    assert_eq!(bench.effects, [Effect::Fetch(Box::new(revision))]);
    bench.event(fetched(false));
    assert_eq!(bench.answers(), [RevisionState::InPlace]);
    assert!(bench.restarts().is_empty());
}

#[test]
fn another_payload_restarts_the_node_half_under_its_pods() {
    let mut bench = Bench::up();
    bench.event(pod_task("u", 1));
    bench.event(pod("u", PodPhase::Running));
    bench.told.clear();
    bench.event(revise(newer()));
    bench.event(revise(newer()));
    assert_eq!(
        bench.answers(),
        [RevisionState::Working],
        "asked twice, fetched once"
    );
    bench.event(fetched(false));
    assert_eq!(bench.answers(), [RevisionState::Working]);
    assert_eq!(bench.restarts(), ["1".repeat(64)]);
    bench.event(pod_task("late", 1));
    assert!(bench.told.is_empty(), "pods wait until kubelet has spoken");
    bench.event(Event::Node(NodeEvent::Ready));
    assert_eq!(bench.answers(), [RevisionState::InPlace]);
    assert!(bench.effects.contains(&Effect::ForgetFormer));
    assert_eq!(bench.states(), [("late.00000001", TaskStarting)]);
    assert_eq!(bench.payload(), "1".repeat(64));
}

#[test]
fn what_cannot_be_fetched_changes_nothing() {
    let mut bench = Bench::up();
    bench.event(revise(newer()));
    bench.event(Event::Fetched(Err("no place has it".to_owned())));
    assert_eq!(reason(&bench.answers()), "no place has it");
    assert!(bench.restarts().is_empty());
    assert_eq!(bench.payload(), "0".repeat(64));
    bench.event(revise(newer()));
    assert_eq!(
        bench.effects,
        [Effect::Fetch(newer())],
        "it may be tried again"
    );
}

#[test]
fn a_node_that_does_not_come_up_becomes_what_it_was() {
    let mut bench = Bench::up();
    bench.event(revise(newer()));
    bench.event(fetched(false));
    bench.restarts();
    bench.event(failed("it ended with exit status 1"));
    assert_eq!(bench.restarts(), ["0".repeat(64)]);
    bench.event(Event::Node(NodeEvent::Ready));
    let answers = bench.answers();
    assert!(reason(&answers).contains("kubelet: it ended with exit status 1"));
    assert_eq!(bench.core.node_state(), NodeState::Up);
    assert_eq!(bench.payload(), "0".repeat(64));
}

#[test]
fn a_node_that_comes_up_neither_way_is_started_again_the_ordinary_way() {
    let mut bench = Bench::up();
    bench.event(revise(newer()));
    bench.event(fetched(false));
    bench.event(failed("first"));
    bench.effects.clear();
    bench.event(failed("second"));
    let answers = bench.answers();
    assert!(reason(&answers).contains("first") && reason(&answers).contains("second"));
    assert!(matches!(
        bench.effects.as_slice(),
        [Effect::ForgetFormer, Effect::Tell(_), Effect::StartNode(_)]
    ));
}

#[test]
fn another_executor_comes_first_and_its_successor_begins_anew() {
    let mut bench = Bench::up();
    bench.event(revise(newer()));
    bench.event(fetched(true));
    assert_eq!(bench.answers(), [RevisionState::Working]);
    assert!(bench.effects.contains(&Effect::ReplaceExecutor));
    assert_eq!(bench.payload(), "0".repeat(64), "not by this executor");

    let bytes = bench.core.hand_over().unwrap();
    bench.core = Core::resume([8; 32], &bytes).unwrap();
    bench.effects.clear();
    bench.event(Event::Subscribed);
    bench.event(Event::Node(NodeEvent::Ready));
    assert!(bench.restarts().is_empty(), "it is what it was");
    bench.event(revise(newer()));
    bench.event(fetched(false));
    assert_eq!(bench.restarts(), ["1".repeat(64)]);
    bench.event(Event::Node(NodeEvent::Ready));
    assert_eq!(bench.answers(), [RevisionState::InPlace]);
}

#[test]
fn an_executor_that_cannot_replace_itself_goes_on_as_before() {
    let mut bench = Bench::up();
    bench.event(revise(newer()));
    bench.event(fetched(true));
    bench.answers();
    bench.event(Event::NotReplaced("text file busy".to_owned()));
    assert_eq!(reason(&bench.answers()), "text file busy");
    bench.event(revise(newer()));
    assert!(bench.effects.contains(&Effect::Fetch(newer())));
}

#[test]
fn nothing_is_revised_while_the_node_comes_up_or_goes() {
    let mut bench = Bench::new();
    bench.event(node_task());
    bench.effects.clear();
    bench.event(revise(newer()));
    assert!(bench.effects.is_empty());
    bench.event(Event::Node(NodeEvent::Ready));
    bench.event(revise(newer()));
    bench.event(Event::Shutdown);
    bench.effects.clear();
    bench.event(fetched(false));
    bench.event(revise(newer()));
    assert!(bench.effects.is_empty());
}

#[test]
fn no_handover_in_the_middle_of_a_revision() {
    let mut bench = Bench::up();
    bench.event(revise(newer()));
    bench.event(fetched(false));
    assert!(bench.core.hand_over().is_err());
    bench.event(Event::Node(NodeEvent::Ready));
    assert!(bench.core.hand_over().is_ok());
}
