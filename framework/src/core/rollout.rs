//! Brings all nodes to the revision that this framework wants, a few at a time.
//!
//! Every node is asked once it is Ready, since a framework that has just started does not know what
//! its nodes run; those that are there already say so at once. Messages are delivered at most once,
//! so a node is asked again until it answers. One that fails stops the roll-out for a while: a bad
//! payload must not take one node after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use seam::message::RevisionState;

use super::State;
use super::event::Effect;
use super::ids::{NodeName, Time};
use super::node::NodePhase;
use super::timers::Timer;

/// A node without an outcome is asked again after this.
const AGAIN: Duration = Duration::from_secs(15);
/// A node that has answered nothing at all to so many questions has an executor that does not know
/// them. It takes no place, and is asked again after [`PAUSE`].
const DEAF_AFTER: u32 = 4;
/// How long a node may be at it: longer than an executor waits for a node to become Ready, twice,
/// since it goes back to what it was when that fails.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// After a failure no node is asked for so long.
const PAUSE: Duration = Duration::from_secs(10 * 60);
/// One in so many nodes may be at it at the same time, at least one.
const SHARE: usize = 20;

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has to be asked, not before that moment.
    Due(Time),
    /// It was asked and has no outcome yet.
    Asked {
        /// First.
        since: Time,
        /// Last.
        last: Time,
        /// How often without any answer.
        unanswered: u32,
        /// It has said that it is at it.
        works: bool,
    },
    /// It is there.
    InPlace,
}

/// What an answer means to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The node has changed and is there now.
    Revised,
    /// It could not be brought there.
    Failed {
        /// Why not.
        message: String,
    },
}

/// The roll-out.
#[derive(Debug, Default)]
pub struct Rollout {
    /// Digest of the revision that is wanted; none where nothing is rolled out.
    wanted: Option<String>,
    nodes: BTreeMap<NodeName, Standing>,
    /// No node is asked before.
    paused_until: Time,
}

impl Rollout {
    /// Towards that revision ([`seam::node::Revision::digest`]).
    pub fn new(wanted: Option<String>) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// A node is Ready, for the first time or again.
    pub fn ready(&mut self, node: &NodeName, now: Time) {
        if self.wanted.is_some() {
            self.nodes.insert(node.clone(), Standing::Due(now));
        }
    }

    /// Forgets nodes that are not Ready any more.
    pub fn retain(&mut self, is_ready: impl Fn(&NodeName) -> bool) {
        self.nodes.retain(|node, _| is_ready(node));
    }

    /// A node has answered. Returns what is worth telling people.
    pub fn answered(
        &mut self,
        node: &NodeName,
        digest: &str,
        state: RevisionState,
        now: Time,
    ) -> Option<Outcome> {
        if self.wanted.as_deref() != Some(digest) {
            // To the question of an earlier framework.
            return None;
        }
        let standing = self.nodes.get_mut(node)?;
        let Standing::Asked {
            unanswered, works, ..
        } = standing
        else {
            return None;
        };
        match state {
            RevisionState::Working => {
                *unanswered = 0;
                *works = true;
                None
            }
            RevisionState::InPlace => {
                // One that was there already has never been at it.
                let changed = *works;
                *standing = Standing::InPlace;
                changed.then_some(Outcome::Revised)
            }
            RevisionState::Failed { message } => {
                *standing = Standing::Due(now + PAUSE);
                self.paused_until = now + PAUSE;
                Some(Outcome::Failed { message })
            }
        }
    }

    /// The nodes to ask now, and those that took too long.
    pub fn due(&mut self, now: Time) -> (Vec<NodeName>, Vec<NodeName>) {
        let (mut ask, mut late) = (Vec::new(), Vec::new());
        let mut places = self.places();
        for (node, standing) in &mut self.nodes {
            let Standing::Asked {
                since,
                last,
                unanswered,
                ..
            } = standing
            else {
                continue;
            };
            if now.since(*since) >= PATIENCE {
                self.paused_until = now + PAUSE;
                *standing = Standing::Due(now + PAUSE);
                late.push(node.clone());
                continue;
            }
            if now.since(*last) >= AGAIN {
                if *unanswered >= DEAF_AFTER {
                    *standing = Standing::Due(now + PAUSE);
                    continue;
                }
                *last = now;
                *unanswered += 1;
                ask.push(node.clone());
            }
            places = places.saturating_sub(1);
        }
        if now >= self.paused_until {
            for (node, standing) in &mut self.nodes {
                if places == 0 {
                    break;
                }
                if matches!(standing, Standing::Due(at) if *at <= now) {
                    *standing = Standing::Asked {
                        since: now,
                        last: now,
                        unanswered: 1,
                        works: false,
                    };
                    ask.push(node.clone());
                    places -= 1;
                }
            }
        }
        (ask, late)
    }

    /// How many nodes may be at it at the same time.
    fn places(&self) -> usize {
        self.nodes.len().div_ceil(SHARE).max(1)
    }

    /// When [`Self::due`] may have something to say again; `None` while all are there.
    pub fn next(&self) -> Option<Time> {
        let at_it = |standing: &&Standing| matches!(standing, Standing::Asked { .. });
        let full = self.nodes.values().filter(at_it).count() >= self.places();
        self.nodes
            .values()
            .filter_map(|standing| match standing {
                // An answer makes room.
                Standing::Due(_) if full => None,
                Standing::Due(at) => Some((*at).max(self.paused_until)),
                Standing::Asked { last, .. } => Some(*last + AGAIN),
                Standing::InPlace => None,
            })
            .min()
    }

    /// How many of the Ready nodes are there, and how many are there in all.
    pub fn progress(&self) -> (usize, usize) {
        let there = |standing: &&Standing| **standing == Standing::InPlace;
        (self.nodes.values().filter(there).count(), self.nodes.len())
    }
}

impl State {
    /// Asks the nodes that are due.
    pub(super) fn roll_out(&mut self) {
        let nodes = &self.nodes;
        let is_ready = |name: &NodeName| {
            let node = nodes.get(name);
            node.is_some_and(|node| node.phase == NodePhase::Ready)
        };
        self.rollout.retain(is_ready);
        let (ask, late) = self.rollout.due(self.now);
        for node in late {
            let message = format!("no outcome within {} min", PATIENCE.as_secs() / 60);
            self.revision_failed(node, &message);
        }
        for name in ask {
            let Some(node) = self.nodes.get(&name) else {
                continue;
            };
            if let Some(life) = &node.life {
                let effect = Effect::Revise {
                    executor: life.note.executor.clone(),
                    agent: node.agent.clone(),
                };
                self.emit(effect);
            }
        }
        if let Some(at) = self.rollout.next() {
            self.timers.set(at, Timer::Rollout);
        }
    }

    pub(super) fn revision_answered(
        &mut self,
        node: &NodeName,
        digest: &str,
        state: RevisionState,
    ) {
        match self.rollout.answered(node, digest, state, self.now) {
            Some(Outcome::Revised) => {
                let (there, all) = self.rollout.progress();
                self.emit(Effect::NodeEvent {
                    node: node.clone(),
                    reason: "Revised".to_owned(),
                    message: format!(
                        "The node was brought to revision {digest} under its pods; {there} of {all} nodes are there"
                    ),
                    warning: false,
                });
            }
            Some(Outcome::Failed { message }) => self.revision_failed(node.clone(), &message),
            None => {}
        }
        self.after(Duration::ZERO, Timer::Rollout);
    }

    fn revision_failed(&mut self, node: NodeName, why: &str) {
        let pause = PAUSE.as_secs() / 60;
        self.problem(format!(
            "node {node} could not be brought to the wanted revision: {why}; no node is changed for {pause} min"
        ));
        self.emit(Effect::NodeEvent {
            node,
            reason: "RevisionFailed".to_owned(),
            message: format!("The node could not be brought to the wanted revision: {why}"),
            warning: true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = "0badcafe0badcafe";
    const START: Time = Time(1_000_000);

    fn rollout(nodes: usize) -> (Rollout, Vec<NodeName>) {
        let mut rollout = Rollout::new(Some(WANTED.to_owned()));
        let names: Vec<NodeName> = (0..nodes)
            .map(|n| NodeName::from(format!("n{n:03}").as_str()))
            .collect();
        for name in &names {
            rollout.ready(name, START);
        }
        (rollout, names)
    }

    fn asked(rollout: &mut Rollout, now: Time) -> Vec<NodeName> {
        rollout.due(now).0
    }

    fn failed() -> RevisionState {
        RevisionState::Failed {
            message: "kubelet".to_owned(),
        }
    }

    #[test]
    fn one_node_in_twenty_is_asked_at_a_time() {
        let (mut few, names) = rollout(3);
        assert_eq!(asked(&mut few, START), names[..1]);
        assert!(asked(&mut few, START).is_empty());
        few.answered(&names[0], WANTED, RevisionState::InPlace, START);
        assert_eq!(asked(&mut few, START), names[1..2]);

        let (mut many, names) = rollout(60);
        assert_eq!(asked(&mut many, START), names[..3]);
        assert_eq!(many.progress(), (0, 60));
    }

    #[test]
    fn a_node_that_is_there_already_is_not_worth_a_word_and_one_that_changes_is() {
        let (mut rollout, names) = rollout(2);
        asked(&mut rollout, START);
        let answer = |rollout: &mut Rollout, n: usize, state| {
            rollout.answered(&names[n], WANTED, state, START)
        };
        assert_eq!(answer(&mut rollout, 0, RevisionState::InPlace), None);
        asked(&mut rollout, START);
        assert_eq!(answer(&mut rollout, 1, RevisionState::Working), None);
        assert_eq!(
            answer(&mut rollout, 1, RevisionState::InPlace),
            Some(Outcome::Revised)
        );
        assert_eq!((rollout.progress(), rollout.next()), ((2, 2), None));
    }

    #[test]
    fn a_question_that_is_lost_is_asked_again() {
        let (mut rollout, names) = rollout(1);
        asked(&mut rollout, START);
        assert_eq!(rollout.next(), Some(START + AGAIN));
        assert_eq!(asked(&mut rollout, START + AGAIN), names);
    }

    #[test]
    fn a_failure_stops_all_for_a_while() {
        let (mut rollout, names) = rollout(2);
        asked(&mut rollout, START);
        let told = rollout.answered(&names[0], WANTED, failed(), START);
        assert!(matches!(told, Some(Outcome::Failed { .. })));
        assert!(asked(&mut rollout, START + AGAIN).is_empty());
        assert_eq!(rollout.next(), Some(START + PAUSE));
        assert_eq!(asked(&mut rollout, START + PAUSE), names[..1]);
    }

    #[test]
    fn an_executor_that_does_not_know_the_question_keeps_no_other_waiting_for_long() {
        let (mut rollout, names) = rollout(2);
        let mut now = START;
        let mut others = Vec::new();
        while now < START + PAUSE {
            others.extend(asked(&mut rollout, now));
            now = now + AGAIN;
        }
        assert_eq!(others.iter().filter(|n| **n == names[0]).count(), 4);
        assert!(others.contains(&names[1]));
    }

    #[test]
    fn a_node_that_is_at_it_for_too_long_counts_as_failed() {
        let (mut rollout, names) = rollout(2);
        asked(&mut rollout, START);
        let mut now = START;
        let mut late = Vec::new();
        while late.is_empty() {
            rollout.answered(&names[0], WANTED, RevisionState::Working, now);
            now = now + AGAIN;
            late = rollout.due(now).1;
            assert!(now < START + PATIENCE + AGAIN + AGAIN);
        }
        assert_eq!(late, names[..1]);
        assert!(asked(&mut rollout, now).is_empty());
    }

    #[test]
    fn answers_to_other_questions_and_of_other_nodes_change_nothing() {
        let (mut rollout, names) = rollout(1);
        let stranger = NodeName::from("stranger");
        asked(&mut rollout, START);
        assert_eq!(rollout.answered(&names[0], "other", failed(), START), None);
        assert_eq!(rollout.answered(&stranger, WANTED, failed(), START), None);
        rollout.retain(|name| *name != names[0]);
        assert_eq!(rollout.answered(&names[0], WANTED, failed(), START), None);
        assert_eq!(rollout.next(), None);
    }

    #[test]
    fn without_a_revision_nobody_is_asked() {
        let mut rollout = Rollout::new(None);
        rollout.ready(&NodeName::from("n"), START);
        assert!(asked(&mut rollout, START).is_empty());
    }
}
