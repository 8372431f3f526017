//! Brings all nodes to the revision that this framework wants, a few at a time.
//!
//! Every node is asked once it is Ready, since a framework that has just started does not know what
//! its nodes run; those that are there already say so at once. Messages are delivered at most once,
//! so a node is asked again until it answers.
//!
//! One that fails, or is lost while it is being changed, stops the roll-out: a bad payload must not take
//! one node after the other. After a while the same node is tried again, and only when it is there, or is
//! no node any more, the next one is taken. An operator may stop the roll-out between two nodes, too
//! ([`packaging::install::rolling`]): those that were asked are waited for, no other one is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use packaging::install::rolling::{FailedNode, NAMED, Order, Progress};
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
    /// The same, of one that has not answered the last time.
    Silent(Time),
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

/// Why a node is not there, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    at: Time,
    why: String,
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
    /// While there are any, no node is asked but they.
    failures: BTreeMap<NodeName, Failure>,
    /// What an operator wants.
    order: Order,
}

impl Rollout {
    /// Towards that revision ([`seam::node::Revision::digest`]).
    pub fn new(wanted: Option<String>) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// What an operator wants, as it is stored. A new order to go on makes failed and silent nodes
    /// worth another question now.
    pub fn ordered(&mut self, order: Order, now: Time) {
        let new = order.id != self.order.id;
        if new && order.paused_since.is_none() {
            for (node, standing) in &mut self.nodes {
                let failed = self.failures.contains_key(node);
                match standing {
                    Standing::Due(at) if failed => *at = now,
                    Standing::Silent(_) => *standing = Standing::Due(now),
                    _ => {}
                }
            }
            self.failures.clear();
        }
        self.order = order;
    }

    /// A node is Ready, for the first time or again.
    pub fn ready(&mut self, node: &NodeName, now: Time) {
        if self.wanted.is_some() {
            // One that failed keeps its time.
            let failed = self.failures.get(node).map(|failure| failure.at + PAUSE);
            let at = failed.map_or(now, |at| at.max(now));
            self.nodes.insert(node.clone(), Standing::Due(at));
        }
    }

    /// Forgets nodes that are not Ready any more. Returns those that were being changed and did not
    /// leave on purpose: that may be what ended them.
    pub fn retain(
        &mut self,
        is_ready: impl Fn(&NodeName) -> bool,
        is_lost: impl Fn(&NodeName) -> bool,
        now: Time,
    ) -> Vec<NodeName> {
        let mut lost = Vec::new();
        self.nodes.retain(|node, standing| {
            let stays = is_ready(node);
            let at_it = matches!(standing, Standing::Asked { works: true, .. });
            if !stays && at_it && is_lost(node) {
                lost.push(node.clone());
            }
            stays
        });
        for node in &lost {
            self.failed(node, "it was lost while it was being changed", now);
        }
        lost
    }

    fn failed(&mut self, node: &NodeName, why: &str, now: Time) {
        if let Some(standing) = self.nodes.get_mut(node) {
            *standing = Standing::Due(now + PAUSE);
        }
        let failure = Failure {
            at: now,
            why: why.to_owned(),
        };
        self.failures.insert(node.clone(), failure);
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
                self.failures.remove(node);
                changed.then_some(Outcome::Revised)
            }
            RevisionState::Failed { message } => {
                self.failed(node, &message, now);
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
                works,
            } = standing
            else {
                continue;
            };
            if now.since(*since) >= PATIENCE {
                late.push(node.clone());
                continue;
            }
            if now.since(*last) >= AGAIN {
                // One that has begun is not left alone with it.
                if *unanswered >= DEAF_AFTER && !*works {
                    *standing = Standing::Silent(now + PAUSE);
                    continue;
                }
                *last = now;
                *unanswered += 1;
                ask.push(node.clone());
            }
            places = places.saturating_sub(1);
        }
        for node in &late {
            let why = format!("no outcome within {} min", PATIENCE.as_secs() / 60);
            self.failed(node, &why, now);
        }
        // Those that are nodes no more have had their time.
        let nodes = &self.nodes;
        self.failures
            .retain(|node, failure| nodes.contains_key(node) || now.since(failure.at) < PAUSE);
        if self.order.paused_since.is_none() {
            for (node, standing) in &mut self.nodes {
                if places == 0 {
                    break;
                }
                let (Standing::Due(at) | Standing::Silent(at)) = standing else {
                    continue;
                };
                let barred = !self.failures.is_empty() && !self.failures.contains_key(node);
                if *at <= now && !barred {
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

    /// When [`Self::due`] may have something to say again; `None` while nothing but an answer or an
    /// order changes anything.
    pub fn next(&self) -> Option<Time> {
        let at_it = |standing: &&Standing| matches!(standing, Standing::Asked { .. });
        let full = self.nodes.values().filter(at_it).count() >= self.places();
        let paused = self.order.paused_since.is_some();
        let of_nodes = self.nodes.iter().filter_map(|(node, standing)| {
            let barred = !self.failures.is_empty() && !self.failures.contains_key(node);
            match standing {
                // An answer makes room.
                Standing::Due(_) | Standing::Silent(_) if full || paused || barred => None,
                Standing::Due(at) | Standing::Silent(at) => Some(*at),
                Standing::Asked { last, .. } => Some(*last + AGAIN),
                Standing::InPlace => None,
            }
        });
        let gone = self.failures.iter();
        let gone = gone.filter(|(node, _)| !self.nodes.contains_key(*node));
        of_nodes
            .chain(gone.map(|(_, failure)| failure.at + PAUSE))
            .min()
    }

    /// How far it is, for people and for commands that wait; the nodes whose agents are lost aside.
    pub fn progress(&self) -> Progress {
        let named = |wanted: fn(&Standing) -> bool| {
            let nodes = self.nodes.iter().filter(|(_, standing)| wanted(standing));
            nodes
                .map(|(node, _)| node.to_string())
                .take(NAMED)
                .collect()
        };
        let failed = self.failures.iter().take(NAMED);
        Progress {
            order: self.order.id.clone(),
            paused_since: self.order.paused_since.clone(),
            revision: self.wanted.clone().unwrap_or_default(),
            nodes: self.nodes.len(),
            in_place: self.count(|standing| *standing == Standing::InPlace),
            working: named(|standing| matches!(standing, Standing::Asked { .. })),
            failed: failed
                .map(|(node, failure)| FailedNode {
                    node: node.to_string(),
                    why: failure.why.clone(),
                })
                .collect(),
            silent: named(|standing| matches!(standing, Standing::Silent(_))),
            away: Vec::new(),
        }
    }

    fn count(&self, wanted: impl Fn(&Standing) -> bool) -> usize {
        self.nodes.values().filter(|s| wanted(s)).count()
    }

    /// How many Ready nodes stand where, for the metrics.
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("in-place", self.count(|s| *s == Standing::InPlace)),
            (
                "waiting",
                self.count(|s| matches!(s, Standing::Due(_) | Standing::Silent(_))),
            ),
            (
                "working",
                self.count(|s| matches!(s, Standing::Asked { .. })),
            ),
            ("failed", self.failures.len()),
        ]
    }
}

impl State {
    /// An operator's order was read.
    pub(super) fn rollout_ordered(&mut self, order: Order) {
        self.rollout.ordered(order, self.now);
        self.after(Duration::ZERO, Timer::Rollout);
    }

    /// How far the nodes are on their way to the wanted revision; `None` while it is not known which
    /// run.
    pub fn rollout_progress(&self) -> Option<Progress> {
        if !self.may_schedule() {
            return None;
        }
        let lost = |node: &&super::node::Node| node.phase == NodePhase::Unreachable;
        let away = self.nodes.values().filter(lost);
        Some(Progress {
            away: away.map(|n| n.name.to_string()).take(NAMED).collect(),
            ..self.rollout.progress()
        })
    }

    /// Asks the nodes that are due.
    pub(super) fn roll_out(&mut self) {
        let (nodes, agents) = (&self.nodes, &self.agents);
        let is_ready = |name: &NodeName| {
            let node = nodes.get(name);
            node.is_some_and(|node| node.phase == NodePhase::Ready)
        };
        // One that is given back goes by way of draining.
        let is_lost = |name: &NodeName| {
            let node = nodes.get(name);
            node.is_some_and(|node| {
                let drained = agents.get(&node.agent).is_some_and(|agent| agent.draining);
                let ended = matches!(
                    node.phase,
                    NodePhase::Unreachable | NodePhase::Clearing | NodePhase::Offline
                );
                ended && !drained
            })
        };
        for node in self.rollout.retain(is_ready, is_lost, self.now) {
            self.revision_failed(node, "it was lost while it was being changed");
        }
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
                let progress = self.rollout.progress();
                self.emit(Effect::NodeEvent {
                    node: node.clone(),
                    reason: "Revised".to_owned(),
                    message: format!(
                        "The node was brought to revision {digest} under its pods; {} of {} nodes are there",
                        progress.in_place, progress.nodes
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
            "node {node} could not be brought to the wanted revision: {why}; it is tried again after {pause} min, no other node is changed before"
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
mod tests;
