//! Instances: scheduled, launched, ended, replaced.

use mesos::pb;
use serde_json::json;

use super::durable::{Condition, Goal, Instance};
use super::{Core, Notice, Timer};
use crate::marathon::ids::{InstanceId, PathId, TaskId};
use crate::marathon::model::app::KillSelection;
use crate::marathon::model::{App, UnreachableStrategy};

impl Core {
    /// One more instance waits for an offer; one that stopped and kept its reservation first.
    pub(super) fn schedule(&mut self, app: &App) {
        let stopped = self.durable.instances_of(&app.id).find(|i| {
            i.goal == Goal::Stopped && !i.condition.has_task() && i.reservation.is_some()
        });
        let since = self.timestamp();
        if let Some(id) = stopped.map(|i| i.id.clone()) {
            if let Some(instance) = self.durable.instance_mut(&id) {
                instance.goal = Goal::Running;
                instance.version = app.version();
                instance.since = since;
            }
        } else {
            let id = self.new_instance_id(&app.id);
            let instance = Instance {
                id: id.clone(),
                app: app.id.clone(),
                version: app.version(),
                goal: Goal::Running,
                condition: Condition::Scheduled,
                since,
                role: app
                    .role
                    .clone()
                    .unwrap_or_else(|| self.settings.role.clone()),
                attempts: 0,
                task: None,
                agent: None,
                reservation: None,
                healthy: None,
            };
            self.notify_instance(&instance, "Scheduled");
            let of_app = self.durable.instances.entry(app.id.clone()).or_default();
            of_app.insert(id, instance);
        }
        self.touch();
    }

    /// An instance of an old version has no task: nothing needs to end for the new one.
    pub(super) fn replace_waiting(&mut self, id: &InstanceId, app: &App) {
        let Some(instance) = self.durable.instance_mut(id) else {
            return;
        };
        if instance.reservation.is_some() && app.is_resident() {
            instance.version = app.version();
            self.touch();
        } else {
            self.give_up(id, Goal::Decommissioned);
        }
    }

    /// An instance is not wanted any more: its task is told to end, or it goes at once.
    pub(super) fn give_up(&mut self, id: &InstanceId, goal: Goal) {
        let Some(instance) = self.durable.instance_mut(id) else {
            return;
        };
        if instance.goal == goal && instance.condition.has_task() {
            return;
        }
        instance.goal = goal;
        let task = instance.task.as_ref().map(|t| t.id.clone());
        let has_task = instance.condition.has_task();
        self.touch();
        match task {
            Some(task) if has_task => {
                self.kill(&task);
                // Where nobody hears the kill nobody is waited for.
                self.unreachable_due(id);
            }
            _ => self.task_gone(id, "Killed"),
        }
    }

    /// Tells a task to end, and again until it does.
    pub(super) fn kill(&mut self, task: &TaskId) {
        let now = self.timestamp();
        let Some(id) = InstanceId::of_task(task.as_str()) else {
            return;
        };
        let agent_id = match self.durable.instance_mut(&id) {
            Some(instance) => {
                match &mut instance.task {
                    Some(current) if current.id == *task => current.kill_sent = Some(now),
                    _ => return,
                }
                instance.agent.as_ref().map(|a| a.id.clone())
            }
            None => return,
        };
        self.send_kill(task.as_str(), agent_id);
        let again = self.now + self.settings.kill_retry;
        self.arm(again, Timer::Kill(task.clone()));
        self.touch();
    }

    /// KILL of any task.
    pub(super) fn send_kill(&mut self, task: &str, agent_id: Option<String>) {
        self.count("tasks_killed");
        self.call(pb::scheduler::Call {
            r#type: Some(pb::scheduler::call::Type::Kill as i32),
            kill: Some(pb::scheduler::call::Kill {
                task_id: pb::TaskId {
                    value: task.to_owned(),
                },
                agent_id: agent_id.map(|value| pb::AgentId { value }),
                kill_policy: None,
            }),
            ..Default::default()
        });
    }

    pub(super) fn kill_due(&mut self, task: &TaskId) {
        let Some(instance) = self.durable.instance_of_task(task.as_str()) else {
            return;
        };
        let sent = instance.task.as_ref().and_then(|t| t.kill_sent);
        let waited = sent.map(|at| self.now.since(at.time()));
        // A kill that was sent later has a timer of its own; times of documents are rounded.
        let rounding = std::time::Duration::from_millis(5);
        if waited.is_none_or(|w| w + rounding >= self.settings.kill_retry) {
            self.kill(task);
        }
    }

    pub(super) fn launch_overdue(&mut self, task: &TaskId) {
        let Some(instance) = self.durable.instance_of_task(task.as_str()) else {
            return;
        };
        let waits = matches!(
            instance.condition,
            Condition::Provisioned | Condition::Staging | Condition::Starting
        );
        if waits {
            tracing::warn!(%task, "did not start in time and is killed");
            self.kill(task);
        }
    }

    /// The task of an instance is no more. What follows depends on what the instance is for.
    pub(super) fn task_gone(&mut self, id: &InstanceId, condition: &str) {
        let now = self.timestamp();
        let Some(instance) = self.durable.instance_mut(id) else {
            return;
        };
        if let Some(task) = instance.task.take() {
            self.health.remove(&task.id);
            self.readiness.remove(&task.id);
            self.unreconciled.remove(&task.id);
        }
        let Some(instance) = self.durable.instance_mut(id) else {
            return;
        };
        instance.healthy = None;
        instance.since = now;
        instance.condition = Condition::Scheduled;
        let snapshot = instance.clone();
        let app = self.durable.root.apps.get(&snapshot.app);
        let resident = snapshot.reservation.is_some();
        let keep = match snapshot.goal {
            Goal::Running => app.is_some(),
            // Its reservation waits for the next one.
            Goal::Stopped => resident && app.is_some_and(App::is_resident),
            Goal::Decommissioned => false,
        };
        if keep {
            if let Some(instance) = self.durable.instance_mut(id)
                && !resident
            {
                instance.agent = None;
            }
        } else {
            self.forget_instance(&snapshot);
        }
        self.notify_instance(&snapshot, condition);
        self.touch();
    }

    pub(super) fn forget_instance(&mut self, instance: &Instance) {
        if let Some(of_app) = self.durable.instances.get_mut(&instance.app) {
            of_app.remove(&instance.id);
            if of_app.is_empty() {
                self.durable.instances.remove(&instance.app);
            }
        }
        if instance.reservation.is_some() {
            self.remember_garbage(instance);
        }
        self.touch();
    }

    /// Which instances go when there are `count` too many: first those that do not run, then
    /// those on values of GROUP_BY that have most, then by age.
    pub(super) fn surplus(&self, app: &App, count: usize) -> Vec<InstanceId> {
        if count == 0 {
            return Vec::new();
        }
        let mut left: Vec<&Instance> = self
            .durable
            .instances_of(&app.id)
            .filter(|i| i.is_active())
            .collect();
        let mut chosen = Vec::new();
        while chosen.len() < count && !left.is_empty() {
            let crowding = super::matching::crowding(app, &left);
            let order = |at: &usize| {
                let instance = left[*at];
                let weight = match instance.condition {
                    Condition::Scheduled => 0,
                    Condition::Unreachable | Condition::UnreachableInactive => 1,
                    Condition::Provisioned | Condition::Staging => 2,
                    Condition::Starting => 3,
                    Condition::Running | Condition::Killing => 4,
                };
                let age = match app.kill_selection {
                    KillSelection::YoungestFirst => (std::cmp::Reverse(instance.since), None),
                    KillSelection::OldestFirst => {
                        (std::cmp::Reverse(Default::default()), Some(instance.since))
                    }
                };
                (weight, std::cmp::Reverse(crowding[*at]), age)
            };
            let Some(at) = (0..left.len()).min_by_key(order) else {
                break;
            };
            chosen.push(left.remove(at).id.clone());
        }
        chosen
    }

    /// The agent of a task cannot be reached.
    pub(super) fn became_unreachable(&mut self, id: &InstanceId) {
        let now = self.timestamp();
        let Some(instance) = self.durable.instance_mut(id) else {
            return;
        };
        if !matches!(
            instance.condition,
            Condition::Unreachable | Condition::UnreachableInactive
        ) {
            instance.condition = Condition::Unreachable;
            instance.since = now;
            instance.healthy = None;
            let snapshot = instance.clone();
            self.notify_instance(&snapshot, "Unreachable");
            self.touch();
        }
        self.unreachable_due(id);
    }

    /// Replaces or forgets an instance whose agent cannot be reached for long enough.
    pub(super) fn unreachable_due(&mut self, id: &InstanceId) {
        let Some(instance) = self.durable.instance(id).cloned() else {
            return;
        };
        if !matches!(
            instance.condition,
            Condition::Unreachable | Condition::UnreachableInactive
        ) {
            return;
        }
        if instance.goal == Goal::Decommissioned {
            // Nobody will answer the kill; if the agent comes back its task is unknown then.
            self.task_gone(id, "Killed");
            return;
        }
        let app = self.durable.root.apps.get(&instance.app);
        let UnreachableStrategy::Enabled {
            inactive_after_seconds,
            expunge_after_seconds,
        } = app.map_or(UnreachableStrategy::Disabled, App::unreachable)
        else {
            return;
        };
        let seconds = std::time::Duration::from_secs;
        let inactive = instance.since.time() + seconds(inactive_after_seconds);
        let expunge = instance.since.time() + seconds(expunge_after_seconds);
        if self.now >= expunge {
            if let Some(instance) = self.durable.instance_mut(id) {
                instance.goal = Goal::Decommissioned;
            }
            self.task_gone(id, "UnreachableInactive");
            return;
        }
        if self.now >= inactive && instance.condition == Condition::Unreachable {
            if let Some(instance) = self.durable.instance_mut(id) {
                instance.condition = Condition::UnreachableInactive;
            }
            self.notify_instance(&instance, "UnreachableInactive");
            self.touch();
        }
        let next = if self.now < inactive {
            inactive
        } else {
            expunge
        };
        self.arm(next, Timer::Unreachable(id.clone()));
    }

    /// A task ended by itself or was lost: the app waits before the next.
    pub(super) fn delay_app(&mut self, app: &PathId) {
        let Some(app) = self.durable.root.apps.get(app).cloned() else {
            return;
        };
        let until = self.queue.failed(&app, self.now);
        self.arm(until, Timer::Delay(app.id));
        self.queue.forget_old(self.now);
    }

    /// Somebody ends an instance; another takes its place. With `wipe` its volumes go too.
    pub(in crate::marathon) fn end_by_user(&mut self, id: &InstanceId, wipe: bool) {
        let Some(instance) = self.durable.instance(id) else {
            return;
        };
        let task = instance.task.as_ref().map(|t| t.id.clone());
        if wipe || (instance.reservation.is_none() && instance.goal == Goal::Running) {
            self.give_up(id, Goal::Decommissioned);
        } else if let Some(task) = task {
            self.kill(&task);
        }
    }

    /// A health check gives up a task.
    pub(super) fn kill_unhealthy(&mut self, id: &InstanceId, reason: &str) {
        let Some(instance) = self.durable.instance(id).cloned() else {
            return;
        };
        let Some(task) = instance.task.as_ref() else {
            return;
        };
        if task.kill_sent.is_some() || instance.condition != Condition::Running {
            return;
        }
        let agent = instance.agent.as_ref();
        let data = json!({
            "appId": instance.app,
            "taskId": task.id,
            "instanceId": instance.id,
            "version": instance.version,
            "reason": reason,
            "host": agent.map(|a| &a.host),
            "slaveId": agent.map(|a| &a.id),
        });
        self.notify(Notice::new("unhealthy_instance_kill_event", data));
        tracing::info!(task = %task.id, reason, "is unhealthy and killed");
        self.kill(&task.id.clone());
    }

    /// After a restart: what was due then.
    pub(super) fn resume(&mut self) {
        let instances: Vec<Instance> = self.durable.all_instances().cloned().collect();
        for instance in instances {
            if instance.reservation.as_ref().is_some_and(|r| !r.confirmed) {
                let at = self.now + self.settings.reservation_timeout;
                self.arm(at, Timer::Reservation(instance.id.clone()));
            }
            let Some(task) = &instance.task else {
                continue;
            };
            self.unreconciled.insert(task.id.clone());
            if task.kill_sent.is_some() || instance.goal != Goal::Running {
                self.arm(self.now, Timer::Kill(task.id.clone()));
            }
            if task.started_at.is_none() {
                let at = self.now + self.settings.launch_timeout;
                self.arm(at, Timer::Launch(task.id.clone()));
            }
            if instance.condition == Condition::Running {
                self.watch(&instance);
            }
            self.unreachable_due(&instance.id);
        }
    }
}
