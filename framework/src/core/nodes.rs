//! Node objects: ours and others', as the watch shows them.

use std::collections::HashSet;
use std::time::Duration;

use seam::message::ToFramework;

use super::State;
use super::event::Effect;
use super::ids::{ExecutorId, NodeName, TaskId, Time};
use super::node::{Life, Node, NodePhase, NodeView};
use super::task::{End, TaskPhase};
use super::timers::Timer;
use super::upkeep::ASK_AGAIN;

impl State {
    pub(super) fn node_seen(&mut self, view: NodeView) {
        let name = view.name.clone();
        let Some(node) = self.nodes.get_mut(&name) else {
            self.foreign_or_recovered_node(view);
            return;
        };
        let first = node.object.is_none();
        let changed = node.object.as_ref().is_none_or(|old| {
            old.labels != view.labels
                || old.taints != view.taints
                || old.unschedulable != view.unschedulable
                || old.other != view.other
                || old.drain != view.drain
        });
        let deleting = view.deleting;
        node.object = Some(view);
        let (agent, phase) = (node.agent.clone(), node.phase);
        if phase == NodePhase::AwaitingPodCidr {
            self.pod_range_may_be_known(&name);
        }
        if changed {
            self.stale(&agent);
            self.wake_pods();
            self.wants_revive = true;
        }
        if deleting && phase.takes_pods() {
            self.drain(&name, "its Node object is being deleted");
        }
        if first || changed {
            self.after(Duration::ZERO, Timer::Node(name));
        }
    }

    /// A Node object that this process did not make: after a restart one of ours.
    fn foreign_or_recovered_node(&mut self, view: NodeView) {
        let Some(note) = view.ours.clone() else {
            self.foreign_nodes.insert(view.name);
            return;
        };
        let name = view.name.clone();
        let agent = note.agent.clone();
        let task = note.task.clone();
        let mut node = Node::new(name.clone(), agent.clone(), NodePhase::Launching, self.now);
        node.taint = view
            .taints
            .iter()
            .any(|t| t.key == seam::names::AGENT_UNREACHABLE_TAINT);
        node.object = Some(view);
        node.life = Some(Life {
            note,
            token: None,
            role: None,
        });
        if let Some(other) = self.node_of.get(&agent) {
            self.problem(format!(
                "nodes {other} and {name} both claim agent {agent}: {name} is given up"
            ));
            node.give_up = true;
        } else {
            self.node_of.insert(agent.clone(), name.clone());
        }
        let give_up = node.give_up;
        self.nodes.insert(name.clone(), node);
        self.stale(&agent);
        // Whether it lives is asked of Mesos, with all other tasks or, later, at once.
        self.insert_task(&task, &agent, &name, None, TaskPhase::Launching);
        if let Some(task) = self.ledger.get_mut(&task) {
            task.heard = Time(0);
        }
        if give_up {
            self.kill(&task, "another node has its agent");
        }
        if self.recovered {
            self.ask_for(vec![task]);
        }
        self.node_appeared_or_gone(&name);
        self.after(ASK_AGAIN, Timer::Node(name));
    }

    pub(super) fn node_gone(&mut self, name: &NodeName) {
        self.foreign_nodes.remove(name);
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        node.object = None;
        let agent = node.agent.clone();
        match node.phase {
            NodePhase::ObjectWanted => {}
            NodePhase::AwaitingPodCidr | NodePhase::AwaitingOffer | NodePhase::Offline => {
                self.forget_node(name);
            }
            NodePhase::Launching | NodePhase::Starting | NodePhase::Ready => {
                self.drain(name, "its Node object was deleted");
            }
            NodePhase::Draining => {}
            NodePhase::Clearing => self.after(Duration::ZERO, Timer::Node(name.clone())),
            NodePhase::Unreachable => {
                // The operator gave it up. Tasks that come back are killed as strays.
                let tasks: Vec<(TaskId, bool)> = self
                    .ledger
                    .of_node(name)
                    .map(|t| (t.id.clone(), t.pod.is_some()))
                    .collect();
                for (task, of_pod) in tasks {
                    if of_pod {
                        // A pod that is not bound there, for all that is known, goes elsewhere.
                        self.task_ended(&task, End::NeverStarted, "its Node object was deleted");
                    } else {
                        self.ledger.end(&task);
                    }
                }
                self.forget_node(name);
            }
        }
        self.stale(&agent);
    }

    pub(super) fn nodes_listed(&mut self, present: &HashSet<NodeName>) {
        let gone: Vec<NodeName> = self
            .nodes
            .values()
            .filter(|n| n.object.is_some() && !present.contains(&n.name))
            .map(|n| n.name.clone())
            .collect();
        for name in gone {
            self.node_gone(&name);
        }
        self.foreign_nodes.retain(|name| present.contains(name));
        self.nodes_listed = true;
        self.dirty = true;
    }

    pub(super) fn forget_node(&mut self, name: &NodeName) {
        self.drop_plan(name);
        if let Some(node) = self.nodes.remove(name)
            && self.node_of.get(&node.agent) == Some(name)
        {
            self.node_of.remove(&node.agent);
            self.stale(&node.agent);
        }
        self.node_appeared_or_gone(name);
    }

    /// Something about a node's pods or tasks changed.
    pub(super) fn node_touched(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get(name) else {
            return;
        };
        let agent = node.agent.clone();
        if matches!(
            node.phase,
            NodePhase::Ready | NodePhase::Draining | NodePhase::Clearing
        ) {
            self.after(Duration::ZERO, Timer::Node(name.clone()));
        }
        self.stale(&agent);
    }

    pub(super) fn enter(&mut self, name: &NodeName, phase: NodePhase) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(name) {
            node.enter(phase, now);
            let agent = node.agent.clone();
            self.stale(&agent);
            self.after(self.config.idle_timeout, Timer::Node(name.clone()));
        }
    }

    pub(super) fn message(&mut self, executor: &ExecutorId, message: ToFramework) {
        let node = self
            .nodes
            .values()
            .find(|n| {
                n.life
                    .as_ref()
                    .is_some_and(|l| l.note.executor == *executor)
            })
            .map(|n| n.name.clone());
        let Some(node) = node else {
            return;
        };
        match message {
            ToFramework::Component {
                component,
                reason,
                message,
                warning,
            } => self.emit(Effect::NodeEvent {
                node,
                reason,
                message: format!("{component}: {message}"),
                warning,
            }),
            ToFramework::Revision { digest, state } => {
                self.revision_answered(&node, &digest, state);
            }
        }
    }
}
