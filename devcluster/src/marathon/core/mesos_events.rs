//! What Mesos says: subscriptions, offers, states of tasks.

use mesos::pb;
use pb::scheduler::call::Type;
use pb::scheduler::event::Type as EventType;
use pb::task_status::Reason;
use pb::{TaskState, TaskStatus};
use serde_json::json;

use super::durable::{Condition, Goal, Instance};
use super::updates::TaskFailure;
use super::{Core, Effect, Notice, Timer};
use crate::marathon::ids::{InstanceId, TaskId};

/// The longest time between two questions about tasks that the master does not answer.
const RECONCILE_BACKOFF_MAX: std::time::Duration = std::time::Duration::from_secs(60);

impl Core {
    pub(super) fn mesos_event(&mut self, event: pb::scheduler::Event) {
        match event.r#type() {
            EventType::Subscribed => {
                if let Some(subscribed) = event.subscribed {
                    self.on_subscribed(&subscribed);
                }
            }
            EventType::Offers => {
                let offers = event.offers.map(|o| o.offers).unwrap_or_default();
                self.offers(offers);
            }
            EventType::Update => {
                if let Some(update) = event.update {
                    self.on_update(&update.status);
                }
            }
            EventType::Message => {
                if let Some(message) = event.message {
                    let data = json!({
                        "executorId": message.executor_id.value,
                        "slaveId": message.agent_id.value,
                        "message": String::from_utf8_lossy(&message.data),
                    });
                    self.notify(Notice::new("framework_message_event", data));
                }
            }
            // Offers are used or declined at once; tasks of a lost agent are told one by one.
            _ => {}
        }
    }

    fn on_subscribed(&mut self, subscribed: &pb::scheduler::event::Subscribed) {
        self.subscribed = true;
        self.forget_offers();
        let id = subscribed.framework_id.value.clone();
        let master = self.master.clone().unwrap_or_default();
        tracing::info!(framework = %id, %master, "subscribed");
        if self.durable.framework_id.as_ref() != Some(&id) {
            self.durable.framework_id = Some(id.clone());
            self.touch();
        }
        self.notify(Notice::new(
            "scheduler_registered_event",
            json!({"frameworkId": id, "master": master}),
        ));
        let known = self.durable.all_instances();
        self.unreconciled = known
            .filter_map(|i| i.task.as_ref().map(|t| t.id.clone()))
            .collect();
        self.reconcile_round = 0;
        self.reconcile_due();
        // Kills that were under way may be lost.
        let leaving: Vec<TaskId> = self
            .durable
            .all_instances()
            .filter(|i| i.condition.has_task())
            .filter_map(|i| i.task.as_ref().map(|t| (i, t)))
            .filter(|(i, t)| i.goal != Goal::Running || t.kill_sent.is_some())
            .map(|(_, t)| t.id.clone())
            .collect();
        for task in leaving {
            self.kill(&task);
        }
    }

    pub(super) fn disconnected(&mut self) {
        if self.subscribed {
            self.notify(Notice::new("scheduler_disconnected_event", json!({})));
        }
        self.subscribed = false;
        self.forget_offers();
    }

    /// The framework was removed: Mesos ended its tasks.
    pub(super) fn removed(&mut self) {
        tracing::warn!("the framework's id is used up: beginning anew with another one");
        self.subscribed = false;
        self.durable.framework_id = Some(self.new_framework_id());
        let lost: Vec<InstanceId> = self
            .durable
            .all_instances()
            .filter(|i| i.condition.has_task() || i.reservation.is_some())
            .map(|i| i.id.clone())
            .collect();
        for id in lost {
            // Reservations are under the old id and cannot be used any more.
            if let Some(instance) = self.durable.instance_mut(&id) {
                instance.reservation = None;
            }
            self.task_gone(&id, "Gone");
        }
        self.durable.garbage.clear();
        self.touch();
        self.effect(Effect::Resubscribe);
    }

    /// Asks about tasks whose state is not known, again and again until it is, and now and then
    /// about all.
    pub(super) fn reconcile_due(&mut self) {
        if !self.subscribed {
            return;
        }
        let known: Vec<&Instance> = self.durable.all_instances().collect();
        let tasks: Vec<_> = known
            .into_iter()
            .filter_map(|i| Some((i.task.as_ref()?, i.agent.as_ref()?)))
            .filter(|(task, _)| self.unreconciled.contains(&task.id))
            .map(|(task, agent)| pb::scheduler::call::reconcile::Task {
                task_id: pb::TaskId {
                    value: task.id.as_str().to_owned(),
                },
                agent_id: Some(pb::AgentId {
                    value: agent.id.clone(),
                }),
            })
            .collect();
        let first = self.reconcile_round == 0;
        let pending = !tasks.is_empty();
        if pending {
            self.reconcile(tasks);
        }
        if first || !pending {
            // Tasks that nobody knows any more show up in the answer to the question for all.
            self.reconcile(Vec::new());
        }
        let wait = if pending {
            let doubled = std::time::Duration::from_secs(1 << self.reconcile_round.min(6));
            self.reconcile_round += 1;
            doubled.min(RECONCILE_BACKOFF_MAX)
        } else {
            self.reconcile_round = 0;
            self.settings.reconcile
        };
        self.timers.retain(|(_, t)| *t != Timer::Reconcile);
        self.arm(self.now + wait, Timer::Reconcile);
    }

    /// A call did not reach the master, or may not have: what it was about is asked for again.
    pub(super) fn call_failed(&mut self, call: &pb::scheduler::Call) {
        match call.r#type() {
            Type::Accept => {
                let operations = call.accept.iter().flat_map(|a| &a.operations);
                let launches = operations.filter_map(|o| o.launch.as_ref());
                let tasks: Vec<String> = launches
                    .flat_map(|l| &l.task_infos)
                    .map(|t| t.task_id.value.clone())
                    .collect();
                for task in tasks {
                    let instance = self.durable.instance_of_task(&task);
                    let id = instance.and_then(|i| i.task.as_ref()).map(|t| t.id.clone());
                    self.unreconciled.extend(id);
                }
                self.reconcile_round = 0;
                self.timers.retain(|(_, t)| *t != Timer::Reconcile);
                let soon = std::time::Duration::from_secs(1);
                self.arm(self.now + soon, Timer::Reconcile);
            }
            Type::Revive | Type::Suppress => self.forget_offers(),
            // Kills and questions are repeated by themselves, updates by the agent.
            _ => {}
        }
    }

    fn reconcile(&mut self, tasks: Vec<pb::scheduler::call::reconcile::Task>) {
        self.call(pb::scheduler::Call {
            r#type: Some(Type::Reconcile as i32),
            reconcile: Some(pb::scheduler::call::Reconcile { tasks }),
            ..Default::default()
        });
    }

    fn acknowledge(&mut self, status: &TaskStatus) {
        let (Some(uuid), Some(agent_id)) = (&status.uuid, &status.agent_id) else {
            return;
        };
        self.call(pb::scheduler::Call {
            r#type: Some(Type::Acknowledge as i32),
            acknowledge: Some(pb::scheduler::call::Acknowledge {
                agent_id: agent_id.clone(),
                task_id: status.task_id.clone(),
                uuid: uuid.clone(),
            }),
            ..Default::default()
        });
    }

    fn on_update(&mut self, status: &TaskStatus) {
        let task = status.task_id.value.as_str();
        let known = self.durable.instance_of_task(task).cloned();
        match known {
            Some(instance) => self.update_of(&instance, status),
            None => self.update_of_unknown(status),
        }
        // After the change: the effects keep their order, and the change is on disk first.
        self.acknowledge(status);
    }

    /// A task that is not ours any more, or never was: it must not run.
    fn update_of_unknown(&mut self, status: &TaskStatus) {
        let state = status.state();
        let task = &status.task_id.value;
        if is_over(state) {
            if let Some(instance) = InstanceId::of_task(task) {
                let data = json!({"instanceId": instance, "condition": condition_name(state)});
                self.notify(Notice::new("unknown_instance_terminated_event", data));
            }
            return;
        }
        if matches!(state, TaskState::TaskUnreachable | TaskState::TaskUnknown) {
            return;
        }
        tracing::info!(%task, state = state.as_str_name(), "is not known and is killed");
        let agent = status.agent_id.as_ref().map(|a| a.value.clone());
        self.send_kill(task, agent);
    }

    fn update_of(&mut self, instance: &Instance, status: &TaskStatus) {
        let Some(task) = &instance.task else {
            return;
        };
        self.unreconciled.remove(&task.id);
        self.notify_status(instance, status);
        let state = status.state();
        match state {
            TaskState::TaskStaging => self.move_on(&instance.id, Condition::Staging),
            TaskState::TaskStarting => self.move_on(&instance.id, Condition::Starting),
            TaskState::TaskRunning => self.on_running(&instance.id, status),
            TaskState::TaskKilling => self.move_on(&instance.id, Condition::Killing),
            TaskState::TaskUnreachable => self.became_unreachable(&instance.id),
            // The master does not know the agent; it may still come back.
            TaskState::TaskUnknown if instance.agent.is_none() => {}
            TaskState::TaskUnknown => self.became_unreachable(&instance.id),
            _ => self.on_end(instance, status),
        }
    }

    /// States only move forward, but for agents that come back.
    fn move_on(&mut self, id: &InstanceId, to: Condition) {
        let now = self.timestamp();
        let Some(instance) = self.durable.instance_mut(id) else {
            return;
        };
        let rank = |c: Condition| match c {
            Condition::Scheduled | Condition::Provisioned => 0,
            Condition::Unreachable | Condition::UnreachableInactive => 0,
            Condition::Staging => 1,
            Condition::Starting => 2,
            Condition::Running => 3,
            Condition::Killing => 4,
        };
        if rank(to) <= rank(instance.condition) {
            return;
        }
        instance.condition = to;
        if to == Condition::Running {
            instance.since = now;
        }
        let snapshot = instance.clone();
        self.notify_instance(&snapshot, &format!("{to:?}"));
        self.touch();
    }

    fn on_running(&mut self, id: &InstanceId, status: &TaskStatus) {
        let now = self.timestamp();
        let was = self.durable.instance(id).map(|i| i.condition);
        self.move_on(id, Condition::Running);
        let Some(instance) = self.durable.instance_mut(id) else {
            return;
        };
        let role = instance.role.clone();
        if let Some(task) = &mut instance.task {
            task.started_at.get_or_insert(now);
            if let Some(container) = &status.container_status {
                let infos = container.network_infos.iter();
                let addresses: Vec<String> = infos
                    .flat_map(|n| &n.ip_addresses)
                    .filter_map(|a| a.ip_address.clone())
                    .collect();
                if !addresses.is_empty() {
                    task.addresses = addresses;
                }
                task.container_id = container.container_id.as_ref().map(|c| c.value.clone());
            }
        }
        let snapshot = instance.clone();
        if was != Some(Condition::Running) {
            tracing::debug!(instance = %id, %role, "runs");
            if let Some(app) = self.durable.root.apps.get(&snapshot.app).cloned() {
                self.queue.runs(&app, self.now);
            }
            self.watch(&snapshot);
            self.touch();
        }
        self.mesos_health(&snapshot, status);
        if snapshot.goal != Goal::Running {
            // It was told to end before it ran, or came back from an unreachable agent.
            if let Some(task) = snapshot.task.filter(|t| t.kill_sent.is_none()) {
                self.kill(&task.id);
            }
        }
    }

    fn on_end(&mut self, instance: &Instance, status: &TaskStatus) {
        let state = status.state();
        let killed_by_us = instance
            .task
            .as_ref()
            .is_some_and(|t| t.kill_sent.is_some());
        if instance.goal == Goal::Running {
            if status.reason() == Reason::InvalidOffers && !killed_by_us {
                // The offer was gone: nothing is wrong with the app.
                self.task_gone(&instance.id, "Dropped");
                return;
            }
            self.failures.insert(
                instance.app.clone(),
                TaskFailure {
                    app_id: instance.app.clone(),
                    host: instance.agent.as_ref().map_or("", |a| &a.host).to_owned(),
                    message: status.message.clone().unwrap_or_default(),
                    state: state.as_str_name().to_owned(),
                    task_id: status.task_id.value.clone(),
                    timestamp: self.timestamp(),
                    version: instance.version,
                    slave_id: instance.agent.as_ref().map(|a| a.id.clone()),
                },
            );
            let waits = matches!(
                state,
                TaskState::TaskFailed
                    | TaskState::TaskError
                    | TaskState::TaskFinished
                    | TaskState::TaskDropped
                    | TaskState::TaskGone
                    | TaskState::TaskLost
            );
            let unhealthy = killed_by_us && instance.healthy == Some(false);
            if waits || unhealthy {
                self.delay_app(&instance.app);
            }
        }
        tracing::info!(
            task = %status.task_id.value,
            state = state.as_str_name(),
            message = status.message(),
            "ended"
        );
        self.task_gone(&instance.id, condition_name(state));
    }

    fn notify_status(&mut self, instance: &Instance, status: &TaskStatus) {
        let task = instance.task.as_ref();
        let ports: Vec<u16> = task
            .iter()
            .flat_map(|t| t.host_ports.iter().flatten().copied())
            .collect();
        let addresses: Vec<_> = task
            .iter()
            .flat_map(|t| &t.addresses)
            .map(|a| json!({"ipAddress": a, "protocol": "IPv4"}))
            .collect();
        let agent = instance.agent.as_ref();
        let data = json!({
            "slaveId": agent.map_or("", |a| &a.id),
            "taskId": status.task_id.value,
            "taskStatus": status.state().as_str_name(),
            "message": status.message.as_deref().unwrap_or(""),
            "appId": instance.app,
            "host": agent.map_or("", |a| &a.host),
            "ipAddresses": addresses,
            "ports": ports,
            "version": instance.version,
        });
        self.notify(Notice::new("status_update_event", data));
    }
}

/// Whether nothing runs any more.
fn is_over(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::TaskFinished
            | TaskState::TaskFailed
            | TaskState::TaskKilled
            | TaskState::TaskError
            | TaskState::TaskLost
            | TaskState::TaskDropped
            | TaskState::TaskGone
            | TaskState::TaskGoneByOperator
    )
}

/// As `instance_changed_event` names it.
fn condition_name(state: TaskState) -> &'static str {
    match state {
        TaskState::TaskFinished => "Finished",
        TaskState::TaskFailed => "Failed",
        TaskState::TaskKilled => "Killed",
        TaskState::TaskError => "Error",
        TaskState::TaskDropped => "Dropped",
        TaskState::TaskGone | TaskState::TaskGoneByOperator => "Gone",
        _ => "Unknown",
    }
}
