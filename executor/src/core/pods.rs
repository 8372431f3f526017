//! Pods' tasks: from LAUNCH to the terminal update.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use mesos::pb;
use seam::message::ToFramework;
use seam::pod::PodTask;

use super::event::{Effect, Millis, Refusal};
use super::task::{Grant, KillRequest, PodState, PodTaskState, TaskId};
use super::updates::{Status, TaskState};
use super::{Core, EMPTY_PATIENCE, KILLED_MEMORY_MAX, NODE_TASK_DEADLINE, NodeState};
use crate::report::{PodObservation, PodPhase, Removal};

impl Core {
    pub(super) fn launch_pod(&mut self, now: Millis, id: TaskId, task: pb::TaskInfo) {
        let data: PodTask = match serde_json::from_slice(task.data()) {
            Ok(data) => data,
            Err(error) => {
                let refusal = Refusal::BadData(error.to_string());
                self.refuse(task, TaskState::Failed, &refusal);
                return;
            }
        };
        let grant = Grant::of(&task);
        self.killed.retain(|(_, pod)| pod.uid != data.uid);
        self.pods
            .insert(id.clone(), PodTaskState::new(now, data, grant));
        self.updates.launched(task);
        if self.node_ready {
            self.start_waiting_pods(now);
        }
    }

    /// The node is Ready: the framework may bind.
    pub(super) fn start_waiting_pods(&mut self, now: Millis) {
        let waiting: Vec<TaskId> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.state == PodState::Waiting)
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            let Some(pod) = self.pods.get_mut(&id) else {
                continue;
            };
            pod.state = PodState::Starting;
            pod.since = now;
            let seen = self.observed.get(&pod.pod.uid).cloned();
            self.report(&id, Status::new(TaskState::Starting));
            // A pod that was here before its task: named its node itself, or got a second task.
            if let Some(seen) = seen {
                self.reflect(now, &id, &seen);
            }
        }
    }

    pub(super) fn kill(
        &mut self,
        now: Millis,
        id: &TaskId,
        grace: Option<Duration>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(node) = self.node.as_mut().filter(|node| node.id == *id) {
            node.killed = true;
            return;
        }
        let Some(pod) = self.pods.get_mut(id) else {
            // Ended already; its terminal update is on its way or was acknowledged.
            tracing::debug!(task = %id, "KILL of a task that is not here");
            return;
        };
        if let Some(under_way) = &mut pod.kill {
            under_way.again(now, grace);
            self.ask_removals(now, out);
            return;
        }
        let state = pod.state;
        let uid = pod.pod.uid.clone();
        let another = self
            .pods
            .iter()
            .any(|(other, p)| other != id && p.pod.uid == uid && p.kill.is_none());
        let bound = self.observed.contains_key(&uid) && state != PodState::Waiting;
        if state == PodState::Emptying {
            return;
        }
        if another {
            // A top-up task is given back; the pod lives on by the other.
            self.pods.remove(id);
            let status = Status::new(TaskState::Killed).message("given back; the pod goes on");
            self.report(id, status);
        } else if bound {
            if let Some(pod) = self.pods.get_mut(id) {
                pod.kill = Some(KillRequest::new(now, grace));
            }
            self.ask_removals(now, out);
        } else if let Some(pod) = self.pods.remove(id) {
            if self.killed.len() >= KILLED_MEMORY_MAX {
                self.killed.pop_front();
            }
            self.killed.push_back((now, pod.pod));
            let status = Status::new(TaskState::Killed).message("killed before the pod was bound");
            self.report(id, status);
        }
    }

    /// Asks the API to end the pods of killed tasks, and again while it does not show.
    fn ask_removals(&mut self, now: Millis, out: &mut Vec<Effect>) {
        for task in self.pods.values_mut() {
            let Some(kill) = &mut task.kill else { continue };
            let Some(seen) = self.observed.get(&task.pod.uid) else {
                continue;
            };
            if kill.is_due(now) && !seen.deleting && task.state != PodState::Emptying {
                kill.asked = Some(now);
                out.push(Effect::RemovePod {
                    pod: task.pod.clone(),
                    removal: kill.removal(now),
                    grace: kill.grace_for(seen.grace),
                });
            }
        }
    }

    /// A disruption budget did not let a pod go. It is asked again; people are told once.
    pub(super) fn eviction_held(
        &mut self,
        now: Millis,
        uid: &str,
        budget: &str,
        out: &mut Vec<Effect>,
    ) {
        for task in self.pods.values_mut().filter(|task| task.pod.uid == uid) {
            let Some(kill) = &mut task.kill else { continue };
            let Some(until) = kill.budgets_until.filter(|until| now < *until) else {
                continue;
            };
            if std::mem::replace(&mut kill.told, true) {
                continue;
            }
            out.push(Effect::Tell(ToFramework::Component {
                component: "pods".to_owned(),
                reason: "EvictionBlocked".to_owned(),
                message: format!(
                    "pod {}/{} is to end, but is not evicted now: {budget}; it is deleted all the \
                     same in {} s, when the time that Mesos was told to leave it is over",
                    task.pod.namespace,
                    task.pod.name,
                    until.since(now).0.div_ceil(1000),
                ),
                warning: true,
            }));
        }
    }

    pub(super) fn listed(&mut self, now: Millis, pods: Vec<PodObservation>, out: &mut Vec<Effect>) {
        let present: HashSet<String> = pods.iter().map(|p| p.pod.uid.clone()).collect();
        // After an `exec` nothing is remembered as observed, but a running task had its pod.
        let known = self.observed.keys().chain(
            self.pods
                .values()
                .filter(|task| matches!(task.state, PodState::Running | PodState::Emptying))
                .map(|task| &task.pod.uid),
        );
        let missing: BTreeSet<String> = known
            .filter(|uid| !present.contains(*uid))
            .cloned()
            .collect();
        for uid in missing {
            self.gone(now, &uid, out);
        }
        for pod in pods {
            self.observe(now, pod, out);
        }
    }

    pub(super) fn observe(&mut self, now: Millis, seen: PodObservation, out: &mut Vec<Effect>) {
        let uid = seen.pod.uid.clone();
        let tasks: Vec<TaskId> = self.tasks_of(&uid);
        if tasks.is_empty()
            && !seen.deleting
            && let Some(at) = self.killed.iter().position(|(_, pod)| pod.uid == uid)
        {
            // Bound in the moment of the KILL. It has no task any more, so it must not run.
            self.killed.remove(at);
            out.push(Effect::RemovePod {
                pod: seen.pod.clone(),
                removal: Removal::Delete,
                grace: None,
            });
        }
        for id in &tasks {
            self.reflect(now, id, &seen);
        }
        self.observed.insert(uid.clone(), seen);
        self.await_empty(&uid, &tasks, out);
    }

    /// Brings one task in line with what is known of its pod.
    fn reflect(&mut self, now: Millis, id: &TaskId, seen: &PodObservation) {
        let Some(task) = self.pods.get_mut(id) else {
            return;
        };
        if matches!(task.state, PodState::Waiting | PodState::Emptying) {
            return;
        }
        let status = match seen.phase {
            PodPhase::Pending => return,
            PodPhase::Running => {
                if task.state == PodState::Running && task.healthy == Some(seen.ready) {
                    return;
                }
                task.state = PodState::Running;
                task.healthy = Some(seen.ready);
                let mut status = Status::new(TaskState::Running);
                status.healthy = Some(seen.ready);
                status.ip = seen.ip;
                self.report(id, status);
                return;
            }
            PodPhase::Succeeded => Status::new(TaskState::Finished),
            PodPhase::Failed => {
                let mut status = Status::new(TaskState::Failed);
                status.out_of_memory = seen.reason.as_deref() == Some("OOMKilled");
                status
            }
        };
        let words: Vec<&str> = [seen.reason.as_deref(), seen.message.as_deref()]
            .into_iter()
            .flatten()
            .filter(|word| !word.is_empty())
            .collect();
        let status = Status {
            message: (!words.is_empty()).then(|| words.join(": ")),
            ..status
        };
        task.state = PodState::Emptying;
        task.since = now;
        task.outcome = Some(status);
    }

    pub(super) fn gone(&mut self, now: Millis, uid: &str, out: &mut Vec<Effect>) {
        self.observed.remove(uid);
        let tasks = self.tasks_of(uid);
        for id in &tasks {
            let Some(task) = self.pods.get_mut(id) else {
                continue;
            };
            if matches!(task.state, PodState::Starting | PodState::Running) {
                let asked = task.kill.is_some();
                let why = if asked {
                    "killed; the pod was deleted"
                } else {
                    "the pod was deleted"
                };
                task.state = PodState::Emptying;
                task.since = now;
                task.outcome = Some(Status::new(TaskState::Killed).message(why));
            }
        }
        self.await_empty(uid, &tasks, out);
    }

    fn await_empty(&self, uid: &str, tasks: &[TaskId], out: &mut Vec<Effect>) {
        let emptying = tasks
            .iter()
            .filter_map(|id| self.pods.get(id))
            .any(|task| task.state == PodState::Emptying);
        if emptying {
            out.push(Effect::AwaitEmpty {
                uid: uid.to_owned(),
            });
        }
    }

    pub(super) fn emptied(&mut self, _now: Millis, uid: &str, _out: &mut Vec<Effect>) {
        for id in self.tasks_of(uid) {
            let emptying = self
                .pods
                .get(&id)
                .is_some_and(|task| task.state == PodState::Emptying);
            if emptying && let Some(task) = self.pods.remove(&id) {
                let status = task
                    .outcome
                    .unwrap_or_else(|| Status::new(TaskState::Killed));
                self.report(&id, status);
            }
        }
    }

    pub(super) fn tick_pods(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.ask_removals(now, out);
        if self.state == NodeState::Absent {
            let late: Vec<TaskId> = self
                .pods
                .iter()
                .filter(|(_, task)| now.since(task.since) > NODE_TASK_DEADLINE)
                .map(|(id, _)| id.clone())
                .collect();
            for id in late {
                self.pods.remove(&id);
                let status =
                    Status::new(TaskState::Failed).message(Refusal::NoNodeTask.to_string());
                self.report(&id, status);
            }
        }
        for task in self.pods.values_mut() {
            let late = task.state == PodState::Emptying && now.since(task.since) > EMPTY_PATIENCE;
            if late && !task.told {
                task.told = true;
                out.push(Effect::Tell(ToFramework::Component {
                    component: "kubelet".to_owned(),
                    reason: "ProcessesRemain".to_owned(),
                    message: format!(
                        "pod {}/{} has ended, but processes of it remain; its resources stay taken",
                        task.pod.namespace, task.pod.name
                    ),
                    warning: true,
                }));
            }
        }
    }

    fn tasks_of(&self, uid: &str) -> Vec<TaskId> {
        self.pods
            .iter()
            .filter(|(_, task)| task.pod.uid == uid)
            .map(|(id, _)| id.clone())
            .collect()
    }
}
