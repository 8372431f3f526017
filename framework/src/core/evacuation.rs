//! A node is emptied before it is given back: its pods are evicted as their disruption budgets
//! allow, and only when the last of them is gone the node task is ended.
//!
//! | why | until when budgets hold |
//! |---|---|
//! | an outage of its agent is near (`maintenance`) | always: Mesos asks, it does not order |
//! | the annotation `k8s.mesosphere.io/drain: 10m` on the Node | for that time; then pods are deleted with their grace |
//!
//! Pods of DaemonSets stay until the end, as with `kubectl drain`; a pod that is not bound yet goes elsewhere at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::State;
use super::event::Effect;
use super::ids::{AgentId, NodeName, PodUid, TaskId, Time};
use super::task::TaskPhase;
use super::timers::Timer;

/// An eviction is asked for again after this, if its pod does not show it; a budget that refused is
/// asked again, too.
const AGAIN: Duration = Duration::from_secs(10);

/// Why a node is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its agent's maintenance is near.
    Maintenance,
    /// The Node's annotation says so; budgets hold for so long.
    Asked(Duration),
}

impl Why {
    fn words(self) -> &'static str {
        match self {
            Self::Maintenance => "maintenance of its Mesos agent is near",
            Self::Asked(_) => "annotation k8s.mesosphere.io/drain asks for it",
        }
    }
}

/// A node that is being emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evacuation {
    /// Why.
    pub why: Why,
    /// Since when.
    pub since: Time,
    /// When each pod's eviction was last asked for.
    asked: BTreeMap<PodUid, Time>,
    /// Pods that a disruption budget holds back, as far as known.
    held: BTreeSet<PodUid>,
}

impl State {
    /// Begins, continues or ends emptying a node that is Ready. Says whether it is being emptied.
    pub(super) fn check_evacuation(&mut self, name: &NodeName) -> bool {
        let wanted = self.evacuation_wanted(name);
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return false;
        };
        let agent = node.agent.clone();
        let Some(why) = wanted else {
            if node.evacuation.take().is_some() {
                self.say(name, "EvacuationEnded", "its pods may stay after all");
                self.stale(&agent);
                self.wake_pods();
                self.wants_revive = true;
            }
            return false;
        };
        if node.evacuation.as_ref().is_none_or(|it| it.why != why) {
            node.evacuation = Some(Evacuation {
                why,
                since: now,
                asked: BTreeMap::new(),
                held: BTreeSet::new(),
            });
            self.stale(&agent);
            self.say(name, "Evacuating", why.words());
            if matches!(why, Why::Asked(_)) {
                self.emit(Effect::Cordon { node: name.clone() });
            }
        }
        self.empty(name, why);
        true
    }

    fn evacuation_wanted(&self, name: &NodeName) -> Option<Why> {
        let node = self.nodes.get(name)?;
        let asked = node.object.as_ref().and_then(|object| object.drain);
        asked
            .map(Why::Asked)
            .or_else(|| self.outage_is_near(&node.agent).then_some(Why::Maintenance))
    }

    fn say(&mut self, name: &NodeName, reason: &str, message: &str) {
        self.emit(Effect::NodeEvent {
            node: name.clone(),
            reason: reason.to_owned(),
            message: format!("The node is to be given back to Mesos: {message}"),
            warning: false,
        });
    }

    /// Evicts what is to be evicted; gives the node back once nothing is left.
    fn empty(&mut self, name: &NodeName, why: Why) {
        let now = self.now;
        let stays = |uid: &PodUid| self.pods.get(uid).is_some_and(|pod| pod.view.daemon);
        let bound = self.bound.get(name).into_iter().flatten();
        let pods: Vec<PodUid> = bound.filter(|uid| !stays(uid)).cloned().collect();
        let mut coming: Vec<TaskId> = Vec::new();
        let mut tasks = 0;
        for task in self.ledger.of_node(name) {
            let Some(uid) = task.pod.as_ref().filter(|uid| !stays(uid)) else {
                continue;
            };
            tasks += 1;
            let unbound = self.pods.get(uid).is_none_or(|p| p.view.node.is_none());
            if unbound && task.phase != TaskPhase::Binding {
                coming.push(task.id.clone());
            }
        }
        for task in coming {
            self.kill(&task, "its node is being emptied");
        }
        if pods.is_empty() && tasks == 0 {
            // After maintenance the same node comes back, so its object stays for a while.
            self.give_back(name, why.words(), matches!(why, Why::Asked(_)));
            return;
        }
        let Some(evacuation) = self
            .nodes
            .get_mut(name)
            .and_then(|node| node.evacuation.as_mut())
        else {
            return;
        };
        evacuation.asked.retain(|uid, _| pods.contains(uid));
        evacuation.held.retain(|uid| pods.contains(uid));
        let deadline = match why {
            Why::Maintenance => None,
            Why::Asked(time) => Some(evacuation.since + time),
        };
        let force = deadline.is_some_and(|deadline| now >= deadline);
        let mut due = Vec::new();
        for uid in pods {
            let deleting = self.pods.get(&uid).is_none_or(|pod| pod.view.deleting);
            if deleting {
                evacuation.held.remove(&uid);
                continue;
            }
            let asked = evacuation.asked.get(&uid);
            if asked.is_none_or(|at| now.since(*at) >= AGAIN) {
                evacuation.asked.insert(uid.clone(), now);
                due.push(uid);
            }
        }
        for uid in due {
            let Some(pod) = self.pods.get(&uid).map(|pod| pod.reference()) else {
                continue;
            };
            let message = format!("Node {name} is to be given back to Mesos: {}", why.words());
            self.emit(if force {
                Effect::EvictPod { pod, message }
            } else {
                Effect::EvictByBudget { pod, message }
            });
        }
        let wait = match deadline {
            Some(deadline) if !force => deadline.since(now).min(AGAIN),
            _ => AGAIN,
        };
        self.after(wait, Timer::Node(name.clone()));
    }

    /// A disruption budget did not let a pod go.
    pub(super) fn eviction_held(&mut self, uid: &PodUid) {
        let node = self.pods.get(uid).and_then(|pod| pod.view.node.clone());
        let node = node.and_then(|name| self.nodes.get_mut(&name));
        if let Some(evacuation) = node.and_then(|node| node.evacuation.as_mut())
            && evacuation.asked.contains_key(uid)
        {
            evacuation.held.insert(uid.clone());
        }
    }

    /// Whether disruption budgets hold pods of the agent's node back.
    pub(super) fn is_held_back(&self, agent: &AgentId) -> bool {
        self.node_of
            .get(agent)
            .and_then(|name| self.nodes.get(name)?.evacuation.as_ref())
            .is_some_and(|evacuation| !evacuation.held.is_empty())
    }
}
