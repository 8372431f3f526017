//! Status updates, the Binding, and KILL.

use std::time::Duration;

use seam::id::TaskKind;

use super::State;
use super::event::{BindOutcome, Effect, Update};
use super::ids::{AgentId, ExecutorId, NodeName, PodUid, TaskId, Time};
use super::node::NodePhase;
use super::pod::Stage;
use super::task::{End, Kill, MesosState, Outcome, Task, TaskPhase, kind_of};
use super::timers::Timer;

/// A launched task of which nothing is heard for so long is asked for.
const SILENCE: Duration = Duration::from_secs(60);
/// A Binding that failed is tried again after this.
const BIND_AGAIN: Duration = Duration::from_secs(2);

impl State {
    pub(super) fn update(&mut self, update: Update) {
        self.counters.updates += 1;
        if let (Some(uuid), Some(agent)) = (update.uuid, &update.agent) {
            // What follows from it can be found again after a crash: acknowledge at once, and
            // every copy.
            self.emit(Effect::Acknowledge {
                task: update.task.clone(),
                agent: agent.clone(),
                uuid,
            });
        }
        if self.reconciliation.answered(&update.task) {
            self.finish_implicit();
            return;
        }
        if update.draining
            && let Some(agent) = &update.agent
        {
            self.agent_drains(agent, true);
            // The operator API says how far it is, and whether it still is.
            self.emit(Effect::PollAgents);
        }
        if self.ledger.get(&update.task).is_none() && !self.adopt_stray(&update) {
            return;
        }
        let now = self.now;
        let Some(task) = self.ledger.get_mut(&update.task) else {
            return;
        };
        task.heard = now;
        if update.uuid.is_some() && task.last_update == update.uuid {
            return;
        }
        if update.uuid.is_some() {
            task.last_update = update.uuid;
        }
        match update.state {
            MesosState::Staging | MesosState::Killing => {
                if task.phase == TaskPhase::Unreachable {
                    self.task_is_back(&update.task);
                }
            }
            MesosState::Starting => self.task_started(&update.task, false),
            MesosState::Running => self.task_started(&update.task, true),
            MesosState::Unreachable => self.task_unreachable(&update.task),
            MesosState::Ended(end) => self.task_ended(&update.task, end, &update.text),
        }
    }

    /// An update of a task that is not in the ledger. True if it is now.
    fn adopt_stray(&mut self, update: &Update) -> bool {
        let alive = matches!(
            update.state,
            MesosState::Staging | MesosState::Starting | MesosState::Running | MesosState::Killing
        );
        let Some(agent) = update.agent.clone().filter(|_| alive) else {
            return false;
        };
        if !(self.pods_listed && self.nodes_listed) {
            // Will be told again by the reconciliation.
            return false;
        }
        let node = self.node_of.get(&agent).cloned();
        match (kind_of(&update.task), node) {
            (Some(TaskKind::Pod { uid, .. }), Some(node)) => {
                let uid = PodUid::from(uid);
                let lives = self
                    .nodes
                    .get(&node)
                    .is_some_and(|n| n.phase.takes_pods() || n.phase == NodePhase::Unreachable);
                let adopt = lives
                    && self.pods.get(&uid).is_some_and(|pod| match &pod.stage {
                        // Unbound: launched before a restart of ours. Bound there: the same,
                        // and bound since.
                        Stage::Queued | Stage::BackingOff(_) | Stage::Unaccounted(_) => {
                            pod.view.node.as_ref().is_none_or(|bound| *bound == node)
                        }
                        Stage::Gated | Stage::Planned(_) | Stage::Tasked(_) => false,
                    });
                if adopt {
                    let phase = match self.pods.get(&uid).and_then(|p| p.view.node.as_ref()) {
                        Some(_) => TaskPhase::Bound,
                        None => TaskPhase::Launching,
                    };
                    self.insert_task(&update.task, &agent, &node, Some(&uid), phase);
                    self.set_stage(&uid, Stage::Tasked(update.task.clone()));
                    self.node_touched(&node);
                    return true;
                }
                let extra = lives && self.is_extra(&uid, &node);
                self.insert_task(
                    &update.task,
                    &agent,
                    &node,
                    Some(&uid),
                    TaskPhase::Launching,
                );
                if !extra {
                    self.kill(&update.task, "no pod needs it");
                } else if let Some(task) = self.ledger.get_mut(&update.task) {
                    task.phase = TaskPhase::Bound;
                    task.extra = true;
                    self.ask_for_held_ports();
                }
                true
            }
            (Some(TaskKind::Node { node, .. }), _) => {
                let node = NodeName::from(node);
                self.insert_task(&update.task, &agent, &node, None, TaskPhase::Launching);
                self.kill(&update.task, "its node does not live by it");
                true
            }
            (_, None) | (None, _) => {
                self.emit(Effect::Kill {
                    task: update.task.clone(),
                    agent,
                    reason: "it belongs to no node of this cluster",
                });
                false
            }
        }
    }

    pub(super) fn insert_task(
        &mut self,
        id: &TaskId,
        agent: &AgentId,
        node: &NodeName,
        pod: Option<&PodUid>,
        phase: TaskPhase,
    ) {
        self.ledger.insert(Task {
            id: id.clone(),
            agent: agent.clone(),
            node: node.clone(),
            pod: pod.cloned(),
            phase,
            since: self.now,
            ports: None,
            kill: None,
            heard: self.now,
            last_update: None,
            role: None,
            extra: false,
        });
        self.after(SILENCE, Timer::Task(id.clone()));
    }

    /// After a restart: a pod's annotation names its task. Mesos is asked whether it lives.
    pub(super) fn recover_task(&mut self, id: &TaskId, pod: &PodUid, node: &NodeName) -> bool {
        let names_pod =
            matches!(kind_of(id), Some(TaskKind::Pod { uid, .. }) if uid == pod.as_str());
        let Some(agent) = self.nodes.get(node).map(|n| n.agent.clone()) else {
            return false;
        };
        if !names_pod {
            return false;
        }
        self.insert_task(id, &agent, node, Some(pod), TaskPhase::Bound);
        if let Some(task) = self.ledger.get_mut(id) {
            task.heard = Time(0);
        }
        if self.recovered {
            self.ask_for(vec![id.clone()]);
        }
        true
    }

    fn task_started(&mut self, id: &TaskId, running: bool) {
        let now = self.now;
        let Some(task) = self.ledger.get_mut(id) else {
            return;
        };
        let was = task.phase;
        if task.extra {
            task.phase = TaskPhase::Bound;
            return;
        }
        let (node, pod) = (task.node.clone(), task.pod.clone());
        // Those of an earlier process have no role here, and an unknown beginning.
        let took =
            (was == TaskPhase::Launching && task.role.is_some()).then(|| now.since(task.since));
        if let Some(took) = took {
            self.launched_in(pod.is_none(), took);
        }
        let Some(task) = self.ledger.get_mut(id) else {
            return;
        };
        match (&pod, was) {
            (None, _) => {
                task.phase = if running {
                    TaskPhase::Bound
                } else {
                    TaskPhase::Starting
                };
                if was != task.phase {
                    task.since = now;
                }
                self.node_task_started(&node, id, running);
            }
            (Some(uid), TaskPhase::Launching | TaskPhase::Unreachable) => {
                task.phase = TaskPhase::Starting;
                task.since = now;
                let uid = uid.clone();
                if self.pods.get(&uid).is_some_and(|p| p.view.node.is_some())
                    && let Some(task) = self.ledger.get_mut(id)
                {
                    task.phase = TaskPhase::Bound;
                }
                self.try_bind(&uid, &id.clone());
            }
            (Some(_), TaskPhase::Starting | TaskPhase::Binding | TaskPhase::Bound) => {}
        }
    }

    /// Sends the Binding if it is this task's turn.
    pub(super) fn try_bind(&mut self, uid: &PodUid, id: &TaskId) {
        let now = self.now;
        let Some(pod) = self.pods.get(uid) else {
            self.kill(id, "its pod is gone");
            return;
        };
        let Some(task) = self.ledger.get_mut(id) else {
            return;
        };
        let current = matches!(&pod.stage, Stage::Tasked(of_pod) if of_pod == id);
        if !current {
            self.kill(id, "its pod has another task");
            return;
        }
        if task.phase != TaskPhase::Starting || task.kill.is_some() || pod.view.node.is_some() {
            return;
        }
        if pod.bind_after > now {
            let at = pod.bind_after;
            self.timers.set(at, Timer::Pod(uid.clone()));
            return;
        }
        task.phase = TaskPhase::Binding;
        task.since = now;
        let effect = Effect::Bind {
            pod: pod.reference(),
            node: task.node.clone(),
            task: id.clone(),
            created: pod.view.created,
        };
        self.emit(effect);
        self.after(SILENCE, Timer::Task(id.clone()));
    }

    pub(super) fn bind_outcome(&mut self, uid: &PodUid, id: &TaskId, outcome: BindOutcome) {
        let Some(task) = self.ledger.get_mut(id) else {
            return;
        };
        if task.phase != TaskPhase::Binding {
            return;
        }
        match outcome {
            BindOutcome::Created => {
                // The watch will say so too; until then the pod is not to be bound again.
                task.phase = TaskPhase::Bound;
                if let Some(pod) = self.pods.get_mut(uid) {
                    pod.failures = 0;
                }
            }
            BindOutcome::Refused(why) => {
                // Bound already, perhaps by ourselves, or gone: the watch tells which. If it
                // tells nothing, the pod needs another task.
                task.phase = TaskPhase::Starting;
                self.problem(format!(
                    "binding of pod {uid} to task {id} was refused: {why}"
                ));
                let again = self.now + BIND_AGAIN;
                let refused = self.pods.get_mut(uid).map(|pod| {
                    pod.bind_after = again;
                    pod.failures += 1;
                    pod.failures
                });
                if refused.is_none_or(|times| times > 3) {
                    self.kill(id, "its Binding was refused");
                } else {
                    self.after(BIND_AGAIN, Timer::Pod(uid.clone()));
                }
            }
            BindOutcome::Failed(why) => {
                task.phase = TaskPhase::Starting;
                self.problem(format!("binding of pod {uid} to task {id} failed: {why}"));
                let again = self.now + BIND_AGAIN;
                if let Some(pod) = self.pods.get_mut(uid) {
                    pod.bind_after = again;
                }
                self.after(BIND_AGAIN, Timer::Pod(uid.clone()));
            }
        }
    }

    fn task_unreachable(&mut self, id: &TaskId) {
        let now = self.now;
        let Some(task) = self.ledger.get_mut(id) else {
            return;
        };
        let (node, pod, was) = (task.node.clone(), task.pod.clone(), task.phase);
        match (pod, was) {
            (None, _) => {
                task.phase = TaskPhase::Unreachable;
                task.since = now;
                self.node_unreachable(&node, id);
            }
            // Not bound: nothing runs there before a Binding, so the pod may go elsewhere. Should
            // the task come back, it is killed as one that no pod needs.
            (Some(_), TaskPhase::Launching | TaskPhase::Starting) => {
                self.task_ended(id, End::NeverStarted, "its agent is unreachable");
            }
            // The Binding may have happened; the watch or its outcome tells.
            (Some(_), TaskPhase::Binding) => {}
            (Some(_), TaskPhase::Bound | TaskPhase::Unreachable) => {
                task.phase = TaskPhase::Unreachable;
                task.since = now;
            }
        }
    }

    fn task_is_back(&mut self, id: &TaskId) {
        if let Some(task) = self.ledger.get_mut(id) {
            task.phase = TaskPhase::Launching;
        }
    }

    pub(super) fn task_ended(&mut self, id: &TaskId, end: End, text: &str) {
        let Some(task) = self.ledger.end(id) else {
            return;
        };
        self.dirty = true;
        let Some(uid) = task.pod.clone() else {
            self.node_task_ended(&task.node, id, end, text);
            return;
        };
        self.ports_may_be_owed(&task);
        // What it held is free, and may be what a pod waits for.
        self.wants_revive |= !self.queue.is_empty();
        self.node_touched(&task.node);
        let Some(pod) = self.pods.get(&uid) else {
            return;
        };
        if !matches!(&pod.stage, Stage::Tasked(of_pod) if of_pod == id) {
            return;
        }
        if pod.view.node.is_some() {
            // Its end will show in the API, or it gets another task.
            self.set_stage(&uid, Stage::Unaccounted(self.now));
            self.after(Duration::from_secs(10), Timer::Pod(uid));
            return;
        }
        if task.phase == TaskPhase::Bound {
            // Bound, but the watch has not shown it yet: it is about to, and then the pod is
            // unaccounted for. Should the Binding have been undone, the pod is tried again.
            self.back_off(&uid);
            return;
        }
        let failed = task.kill.is_none() || end != End::Proven(Outcome::Killed);
        if failed {
            let reference = pod.reference();
            let message = format!("Its task on node {} ended before it ran: {text}", task.node);
            self.emit(Effect::Unschedulable {
                pod: reference,
                message,
            });
        }
        self.back_off(&uid);
        self.wants_revive = true;
    }

    /// Wants a task to end: KILL now, and again until it has ended.
    pub(super) fn kill(&mut self, id: &TaskId, reason: &'static str) {
        let now = self.now;
        let Some(task) = self.ledger.get_mut(id) else {
            return;
        };
        if task.kill.is_some() {
            return;
        }
        task.kill = Some(Kill {
            reason,
            next: now + Kill::wait(0),
            sent: 1,
        });
        let effect = Effect::Kill {
            task: id.clone(),
            agent: task.agent.clone(),
            reason,
        };
        self.emit(effect);
        self.after(Kill::wait(0), Timer::Task(id.clone()));
    }

    pub(super) fn check_task(&mut self, id: &TaskId) {
        let now = self.now;
        let Some(task) = self.ledger.get_mut(id) else {
            return;
        };
        if let Some(kill) = &mut task.kill {
            if kill.next > now {
                let at = kill.next;
                self.timers.set(at, Timer::Task(id.clone()));
                return;
            }
            let wait = Kill::wait(kill.sent);
            kill.next = now + wait;
            kill.sent = kill.sent.saturating_add(1);
            let effect = Effect::Kill {
                task: id.clone(),
                agent: task.agent.clone(),
                reason: kill.reason,
            };
            self.emit(effect);
            self.after(wait, Timer::Task(id.clone()));
            return;
        }
        if let Some(uid) = task.pod.clone()
            && !self.pods.contains_key(&uid)
        {
            self.kill(id, "its pod is gone");
            return;
        }
        let Some(task) = self.ledger.get_mut(id) else {
            return;
        };
        match task.phase {
            TaskPhase::Binding if now.since(task.since) >= SILENCE => {
                // The outcome got lost. Binding again is refused if it was created.
                task.phase = TaskPhase::Starting;
                if let Some(uid) = task.pod.clone() {
                    self.try_bind(&uid, &id.clone());
                }
            }
            TaskPhase::Launching | TaskPhase::Binding | TaskPhase::Starting => {
                if now.since(task.heard) >= SILENCE && self.connected {
                    task.heard = now;
                    self.ask_for(vec![id.clone()]);
                }
                self.after(SILENCE, Timer::Task(id.clone()));
            }
            TaskPhase::Bound | TaskPhase::Unreachable => {}
        }
    }

    pub(super) fn failure(&mut self, agent: &AgentId, executor: Option<&ExecutorId>) {
        // FAILURE proves nothing and is not repeated: the tasks' updates say what is the case.
        let Some(node) = self.node_of.get(agent).cloned() else {
            return;
        };
        let concerned = executor.is_none_or(|executor| {
            self.nodes
                .get(&node)
                .and_then(|n| n.life.as_ref())
                .is_some_and(|life| life.note.executor == *executor)
        });
        if concerned {
            let tasks: Vec<TaskId> = self.ledger.of_node(&node).map(|t| t.id.clone()).collect();
            self.ask_for(tasks);
        }
    }

    pub(super) fn doubt(&mut self, tasks: &[TaskId]) {
        self.ask_for(tasks.to_vec());
    }
}
