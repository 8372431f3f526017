//! The calls of a subscribed scheduler, but for ACCEPT ([`super::launch`]).

use std::collections::BTreeSet;

use mesos::pb;
use mesos::pb::scheduler::call::Type as CallType;

use super::event::Answer;
use super::state::MasterState;
use crate::ids::{AgentId, ExecutorId, FrameworkId, OfferId, TaskId};
use crate::protocol::{self, to_agent};
use crate::resources::role;

/// Seconds for which declined resources are not wanted when nothing is said: the default in
/// the protocol.
const DEFAULT_REFUSE_SECONDS: f64 = 5.0;

pub(super) fn refuse_seconds(filters: Option<&pb::Filters>) -> f64 {
    filters
        .and_then(|f| f.refuse_seconds)
        .unwrap_or(DEFAULT_REFUSE_SECONDS)
}

impl MasterState {
    pub(super) fn framework_call(
        &mut self,
        stream: Option<String>,
        call: pb::scheduler::Call,
    ) -> Answer {
        let id = call.framework_id.as_ref().map(FrameworkId::from);
        let Some((id, framework)) = id.and_then(|id| {
            let framework = self.frameworks.get(&id)?;
            Some((id, framework))
        }) else {
            return Answer::bad_request("Framework cannot be found");
        };
        let Some(current) = framework.stream else {
            return Answer::error(403, "Framework is not subscribed");
        };
        let Some(given) = stream else {
            return Answer::bad_request(
                "All non-subscribe calls should include the 'Mesos-Stream-Id' header",
            );
        };
        if given != current.to_string() {
            return Answer::bad_request(format!(
                "The stream ID '{given}' included in this request didn't match the stream ID \
                 currently associated with framework ID {id}"
            ));
        }
        match call.r#type() {
            CallType::Unknown | CallType::Subscribe => Answer::error(501, ""),
            CallType::Teardown => {
                self.remove_framework(&id);
                Answer::Accepted
            }
            CallType::Accept => match call.accept {
                Some(accept) => self.accept(&id, accept),
                None => Answer::Accepted,
            },
            CallType::Decline => {
                let decline = call.decline.unwrap_or_default();
                let refuse = refuse_seconds(decline.filters.as_ref());
                self.count("master/messages_decline_offers");
                for offer in &decline.offer_ids {
                    self.return_offer(&id, &OfferId::from(offer), refuse);
                }
                Answer::Accepted
            }
            CallType::AcceptInverseOffers => {
                let call = call.accept_inverse_offers.unwrap_or_default();
                let filters = call.filters.as_ref();
                self.answer_inverse_offers(&id, &call.inverse_offer_ids, filters, true)
            }
            CallType::DeclineInverseOffers => {
                let call = call.decline_inverse_offers.unwrap_or_default();
                let filters = call.filters.as_ref();
                self.answer_inverse_offers(&id, &call.inverse_offer_ids, filters, false)
            }
            CallType::Revive => {
                let roles = call.revive.map(|r| r.roles).unwrap_or_default();
                self.count("master/messages_revive_offers");
                if let Some(roles) = self.own_roles(&id, roles, "REVIVE") {
                    self.allocator.revive(&id, &roles);
                    self.allocate_all();
                }
                Answer::Accepted
            }
            CallType::Suppress => {
                let roles = call.suppress.map(|s| s.roles).unwrap_or_default();
                self.count("master/messages_suppress_offers");
                if let Some(roles) = self.own_roles(&id, roles, "SUPPRESS") {
                    self.allocator.suppress(&id, &roles);
                }
                Answer::Accepted
            }
            CallType::Kill => match call.kill {
                Some(kill) => self.kill(&id, kill),
                None => Answer::Accepted,
            },
            CallType::Shutdown => {
                if let Some(shutdown) = call.shutdown {
                    self.shutdown_executor(&id, &shutdown);
                }
                Answer::Accepted
            }
            CallType::Acknowledge => match call.acknowledge {
                Some(acknowledge) => self.acknowledge(&id, acknowledge),
                None => Answer::Accepted,
            },
            CallType::AcknowledgeOperationStatus => {
                if let Some(acknowledge) = call.acknowledge_operation_status {
                    self.acknowledge_operation(&id, &acknowledge);
                }
                Answer::Accepted
            }
            CallType::Reconcile => {
                let tasks = call.reconcile.map(|r| r.tasks).unwrap_or_default();
                self.reconcile(&id, tasks)
            }
            CallType::ReconcileOperations => {
                let operations = call.reconcile_operations.map(|r| r.operations);
                self.reconcile_operations(&id, &operations.unwrap_or_default());
                Answer::Accepted
            }
            CallType::Message => {
                if let Some(message) = call.message {
                    self.framework_message(&id, message);
                }
                Answer::Accepted
            }
            // A hint to the allocator; Mesos' own ignores it too.
            CallType::Request => Answer::Accepted,
            CallType::UpdateFramework => match call.update_framework {
                Some(update) => self.update_framework_call(&id, update),
                None => Answer::Accepted,
            },
        }
    }

    /// The roles of a call; none named: all of the framework's. One that is not the
    /// framework's makes the whole call void.
    fn own_roles(
        &self,
        id: &FrameworkId,
        named: Vec<String>,
        call: &str,
    ) -> Option<BTreeSet<String>> {
        let own = &self.frameworks.get(id)?.roles;
        if named.is_empty() {
            return Some(own.clone());
        }
        for role in &named {
            if role::validate(role).is_err() || !own.contains(role) {
                tracing::warn!(framework = %id, role, call, "dropped: not a role of the framework");
                return None;
            }
        }
        Some(named.into_iter().collect())
    }

    fn kill(&mut self, id: &FrameworkId, kill: pb::scheduler::call::Kill) -> Answer {
        self.count("master/messages_kill_task");
        let task_id = TaskId::from(&kill.task_id);
        let task = self.frameworks.get(id).and_then(|f| f.tasks.get(&task_id));
        let Some(task) = task else {
            if let Some(status) = self.reconciled(id, &kill.task_id, kill.agent_id.as_ref()) {
                self.forward(id, status);
            }
            return Answer::Accepted;
        };
        let agent_id = AgentId::from(&task.pb.agent_id);
        if let Some(given) = &kill.agent_id
            && given.value != agent_id.as_str()
        {
            tracing::warn!(framework = %id, task = %task_id, agent = %given.value,
                "a KILL is ignored: the task is on another agent");
            return Answer::Accepted;
        }
        let Some(agent) = self.agents.get_mut(&agent_id) else {
            return Answer::Accepted;
        };
        if agent.stream.is_none() {
            // Done when the agent comes back, with whatever policy it knows.
            agent.kills.insert((id.clone(), task_id));
            return Answer::Accepted;
        }
        let message = to_agent::Message::KillTask(protocol::KillTask {
            framework_id: id.to_pb(),
            task_id: kill.task_id,
            kill_policy: kill.kill_policy,
        });
        self.tell_agent(&agent_id, message);
        Answer::Accepted
    }

    fn shutdown_executor(&mut self, id: &FrameworkId, call: &pb::scheduler::call::Shutdown) {
        let agent = AgentId::from(&call.agent_id);
        let executor = ExecutorId::from(&call.executor_id);
        let known = self
            .agents
            .get(&agent)
            .is_some_and(|a| a.executors.contains_key(&(id.clone(), executor.clone())));
        if !known {
            tracing::warn!(framework = %id, %agent, %executor,
                "SHUTDOWN is ignored: no such executor");
            return;
        }
        let message = to_agent::Message::ShutdownExecutor(protocol::ShutdownExecutor {
            framework_id: id.to_pb(),
            executor_id: executor.to_pb(),
        });
        self.tell_agent(&agent, message);
    }

    fn framework_message(&mut self, id: &FrameworkId, call: pb::scheduler::call::Message) {
        self.count("master/messages_framework_to_executor");
        let agent = AgentId::from(&call.agent_id);
        let message = to_agent::Message::FrameworkMessage(protocol::ExecutorMessage {
            framework_id: id.to_pb(),
            executor_id: call.executor_id,
            data: call.data,
        });
        self.tell_agent(&agent, message);
    }

    /// Operations that are done and acknowledged are not known any more.
    fn reconcile_operations(
        &mut self,
        id: &FrameworkId,
        operations: &[pb::scheduler::call::reconcile_operations::Operation],
    ) {
        for operation in operations {
            if let Some(status) = self.operation_of(id, &operation.operation_id.value) {
                self.operation_status(id, status);
                continue;
            }
            let message = match &operation.agent_id {
                Some(_) => "Reconciliation: Operation is unknown",
                None => "Reconciliation: Operation is unknown and no 'agent_id' was provided",
            };
            let status = pb::OperationStatus {
                operation_id: Some(operation.operation_id.clone()),
                state: pb::OperationState::OperationUnknown as i32,
                message: Some(message.to_owned()),
                agent_id: operation.agent_id.clone(),
                resource_provider_id: operation.resource_provider_id.clone(),
                ..Default::default()
            };
            self.operation_status(id, status);
        }
    }

    pub(super) fn operation_status(&mut self, id: &FrameworkId, status: pb::OperationStatus) {
        let event = pb::scheduler::Event {
            r#type: Some(pb::scheduler::event::Type::UpdateOperationStatus as i32),
            update_operation_status: Some(pb::scheduler::event::UpdateOperationStatus { status }),
            ..Default::default()
        };
        self.tell_scheduler(id, event);
    }
}
