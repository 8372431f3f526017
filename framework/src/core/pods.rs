//! Pods: the scheduling queue with its back-off, and pods that are bound already.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use super::State;
use super::event::{Effect, PodRef};
use super::ids::{NodeName, PodUid, TaskId};
use super::pod::{Pod, PodPhase, PodView, Stage};
use super::task::TaskPhase;
use super::timers::Timer;

/// A bound pod whose task ended, or that never had one, gets this long until its end shows in
/// the API, before it is given a task of its own.
const ADOPT_AFTER: Duration = Duration::from_secs(10);
/// For so long room is looked for, before such a pod is evicted.
pub(super) const EVICT_AFTER: Duration = Duration::from_secs(60);
/// After a pod is gone, or terminal, its task gets this long to end by itself before it is killed.
const TASK_OUTLIVES_POD: Duration = Duration::from_secs(10);

impl Pod {
    pub(super) fn reference(&self) -> PodRef {
        PodRef {
            uid: self.view.uid.clone(),
            namespace: self.view.namespace.clone(),
            name: self.view.name.clone(),
        }
    }
}

impl State {
    pub(super) fn pod_seen(&mut self, view: PodView) {
        // Pods of nodes that are not ours, or are gone, count too: a node of that name must not
        // be started while they exist.
        let waits_for_us = view.ours && !view.deleting;
        let relevant = !view.mirror
            && view.phase != PodPhase::Terminal
            && (view.node.is_some() || waits_for_us);
        if !relevant {
            self.forget_pod(&view.uid);
            return;
        }
        let uid = view.uid.clone();
        let changed = match self.pods.get_mut(&uid) {
            Some(pod) => {
                let changed = pod.view.gated != view.gated
                    || pod.view.node != view.node
                    || pod.view.priority != view.priority
                    || !std::sync::Arc::ptr_eq(&pod.view.template, &view.template);
                if pod.view.priority != view.priority {
                    let key = (Reverse(pod.view.priority), pod.view.created, uid.clone());
                    if self.queue.remove(&key) {
                        self.queue
                            .insert((Reverse(view.priority), view.created, uid.clone()));
                    }
                }
                pod.view = view;
                changed
            }
            None => {
                self.pods.insert(
                    uid.clone(),
                    Pod {
                        view,
                        stage: Stage::Gated,
                        failures: 0,
                        queued_at: self.now,
                        bind_after: self.now,
                        nomination: None,
                    },
                );
                true
            }
        };
        if changed {
            self.pod_changed(&uid);
        }
    }

    /// Puts a new or changed pod where it belongs.
    fn pod_changed(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.get(uid) else {
            return;
        };
        if let Some(node) = pod.view.node.clone() {
            self.pod_is_bound(uid, &node);
            return;
        }
        match &pod.stage {
            Stage::Tasked(_) | Stage::Planned(_) | Stage::Unaccounted(_) => {}
            Stage::Gated | Stage::Queued | Stage::BackingOff(_) => {
                if pod.view.gated {
                    self.set_stage(uid, Stage::Gated);
                } else if let Err(error) = &pod.view.template.requirements {
                    let (message, reference) = (error.clone(), pod.reference());
                    self.set_stage(uid, Stage::Gated);
                    self.emit(Effect::Unschedulable {
                        pod: reference,
                        message,
                    });
                } else {
                    self.enqueue(uid);
                    self.new_demand();
                }
            }
        }
    }

    fn pod_is_bound(&mut self, uid: &PodUid, node: &NodeName) {
        self.bound
            .entry(node.clone())
            .or_default()
            .insert(uid.clone());
        if !self.nodes.contains_key(node) {
            self.unplan(uid);
            self.set_stage(uid, Stage::Gated);
            return;
        }
        let Some(pod) = self.pods.get(uid) else {
            return;
        };
        match pod.stage.clone() {
            Stage::Tasked(task) => {
                let there = self.ledger.get(&task).is_some_and(|t| t.node == *node);
                if there {
                    if let Some(task) = self.ledger.get_mut(&task)
                        && task.phase != TaskPhase::Unreachable
                    {
                        task.phase = TaskPhase::Bound;
                    }
                } else {
                    // The Binding is the commit point: a task elsewhere lost.
                    self.kill(&task, "its pod is bound to another node");
                    self.pod_without_task(uid);
                }
            }
            Stage::Unaccounted(_) => {}
            Stage::Planned(_) | Stage::Gated | Stage::Queued | Stage::BackingOff(_) => {
                self.pod_without_task(uid);
            }
        }
        self.node_touched(node);
    }

    /// A node has appeared or gone: what becomes of the pods that are bound to it.
    pub(super) fn node_appeared_or_gone(&mut self, node: &NodeName) {
        let bound: Vec<PodUid> = self
            .bound
            .get(node)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for uid in bound {
            self.pod_is_bound(&uid, node);
        }
    }

    /// A bound pod has no task that is known: after a restart perhaps one that its annotation
    /// names, else it gets a new one.
    fn pod_without_task(&mut self, uid: &PodUid) {
        self.unplan(uid);
        let Some(pod) = self.pods.get(uid) else {
            return;
        };
        if let (Some(task), Some(node)) = (pod.view.task.clone(), pod.view.node.clone())
            && !self.ledger.has_ended(&task)
            && self.ledger.get(&task).is_none()
            && self.recover_task(&task, uid, &node)
        {
            self.set_stage(uid, Stage::Tasked(task));
            return;
        }
        self.set_stage(uid, Stage::Unaccounted(self.now));
        let wait = if self.recovered && self.pods.get(uid).is_some_and(|p| p.view.task.is_none()) {
            // It named its node itself: nothing is known to be on its way.
            Duration::ZERO
        } else {
            ADOPT_AFTER
        };
        self.after(wait, Timer::Pod(uid.clone()));
    }

    /// A pod that was placed, or waits, goes into the queue.
    pub(super) fn enqueue(&mut self, uid: &PodUid) {
        let now = self.now;
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.queued_at = now;
        }
        if self.queue.is_empty() {
            self.waiting_begins();
        }
        self.set_stage(uid, Stage::Queued);
        self.dirty = true;
    }

    /// Puts a pod that could not be placed or started aside for a while: 1 s, doubling to 60 s.
    pub(super) fn back_off(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.get_mut(uid) else {
            return;
        };
        let seconds = (1u64 << pod.failures.min(6)).min(60);
        pod.failures = pod.failures.saturating_add(1);
        let wait = self.jitter(Duration::from_secs(seconds));
        self.set_stage(uid, Stage::BackingOff(self.now + wait));
        self.after(wait, Timer::Pod(uid.clone()));
    }

    /// Something that pods may have waited for came: those that back off are tried at once.
    pub(super) fn wake_pods(&mut self) {
        let waiting: Vec<PodUid> = self.backing_off.iter().cloned().collect();
        for uid in waiting {
            self.enqueue(&uid);
        }
    }

    /// Changes a pod's stage and the indexes that follow it.
    pub(super) fn set_stage(&mut self, uid: &PodUid, stage: Stage) {
        let Some(pod) = self.pods.get_mut(uid) else {
            return;
        };
        let key = (Reverse(pod.view.priority), pod.view.created, uid.clone());
        match &pod.stage {
            Stage::Queued => {
                self.queue.remove(&key);
            }
            Stage::BackingOff(_) => {
                self.backing_off.remove(uid);
            }
            Stage::Unaccounted(_) => {
                self.unaccounted.remove(uid);
            }
            Stage::Gated | Stage::Planned(_) | Stage::Tasked(_) => {}
        }
        match &stage {
            Stage::Queued => {
                self.queue.insert(key);
            }
            Stage::BackingOff(_) => {
                self.backing_off.insert(uid.clone());
            }
            Stage::Unaccounted(_) => {
                self.unaccounted.insert(uid.clone());
            }
            Stage::Gated | Stage::Planned(_) | Stage::Tasked(_) => {}
        }
        pod.stage = stage;
    }

    pub(super) fn check_pod(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.get(uid) else {
            return;
        };
        match pod.stage.clone() {
            Stage::BackingOff(until) if until <= self.now => self.enqueue(uid),
            Stage::BackingOff(until) => self.timers.set(until, Timer::Pod(uid.clone())),
            Stage::Unaccounted(_) => {
                self.dirty = true;
                self.wants_revive = true;
            }
            Stage::Tasked(task) => self.try_bind(uid, &task),
            Stage::Gated | Stage::Queued | Stage::Planned(_) => {}
        }
    }

    /// Whether a bound pod without a task has waited long enough for its end to show.
    pub(super) fn may_adopt(&self, pod: &Pod) -> bool {
        match pod.stage {
            Stage::Unaccounted(since) => {
                !pod.view.deleting
                    && (pod.view.task.is_none() || self.now.since(since) >= ADOPT_AFTER)
            }
            _ => false,
        }
    }

    pub(super) fn pod_gone(&mut self, uid: &PodUid) {
        self.forget_pod(uid);
    }

    /// A pod is gone, terminal, or none of ours.
    fn forget_pod(&mut self, uid: &PodUid) {
        self.unplan(uid);
        let tasked = match self.pods.get(uid).map(|pod| &pod.stage) {
            Some(Stage::Tasked(task)) => Some(task.clone()),
            _ => None,
        };
        // Leaves the indexes.
        self.set_stage(uid, Stage::Gated);
        let Some(pod) = self.pods.remove(uid) else {
            return;
        };
        let mut tasks: Vec<TaskId> = Vec::new();
        if let Some(node) = &pod.view.node {
            self.unbind(node, uid);
            tasks.extend(
                self.ledger
                    .of_node(node)
                    .filter(|t| t.pod.as_ref() == Some(uid))
                    .map(|t| t.id.clone()),
            );
        }
        if let Some(task) = tasked
            && !tasks.contains(&task)
        {
            tasks.push(task);
        }
        for task in tasks {
            // A bound pod's task ends by itself when kubelet is done; an unbound one does not.
            let bound = self
                .ledger
                .get(&task)
                .is_some_and(|t| t.phase == TaskPhase::Bound);
            if bound {
                self.after(TASK_OUTLIVES_POD, Timer::Task(task));
            } else {
                self.kill(&task, "its pod is gone");
            }
        }
    }

    fn unbind(&mut self, node: &NodeName, uid: &PodUid) {
        if let Some(of_node) = self.bound.get_mut(node) {
            of_node.remove(uid);
            if of_node.is_empty() {
                self.bound.remove(node);
            }
        }
        self.node_touched(node);
    }

    pub(super) fn pods_listed(&mut self, present: &HashSet<PodUid>) {
        let gone: Vec<PodUid> = self
            .pods
            .keys()
            .filter(|uid| !present.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.forget_pod(&uid);
        }
        self.pods_listed = true;
        self.dirty = true;
        // Tasks whose pods vanished while nobody watched.
        let stray: Vec<TaskId> = self
            .ledger
            .iter()
            .filter(|t| {
                t.pod
                    .as_ref()
                    .is_some_and(|uid| !self.pods.contains_key(uid))
            })
            .map(|t| t.id.clone())
            .collect();
        for task in stray {
            self.after(TASK_OUTLIVES_POD, Timer::Task(task));
        }
    }

    /// Evicts a bound pod that found no room on its node's agent for too long.
    pub(super) fn evict_unaccounted(&mut self, uid: &PodUid) {
        let Some(pod) = self.pods.get(uid) else {
            return;
        };
        let Some(node) = &pod.view.node else {
            return;
        };
        let message = format!(
            "The pod is bound to node {node} without a Mesos task, and the agent has offered no \
             room for one; evicting it, because no pod may run unaccounted for"
        );
        let reference = pod.reference();
        self.emit(Effect::EvictPod {
            pod: reference,
            message,
        });
        // Asked for again, should it still be there then.
        self.set_stage(uid, Stage::Unaccounted(self.now));
        self.after(EVICT_AFTER, Timer::Pod(uid.clone()));
    }
}
