//! Mesos' events for the core, and the agents that the operator API knows.

use std::sync::Arc;
use std::time::Duration;

use mesos::http::ClientConfig;
use mesos::master::MasterUrl;
use mesos::operator::OperatorClient;
use mesos::pb;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::core::Event;
use crate::core::ids::{AgentId, ExecutorId, OfferId};
use crate::metrics::Metrics;
use crate::wire;

/// Agents are asked for at least so often; their total resources and capabilities change seldom.
const PERIOD: Duration = Duration::from_secs(60);
/// And at most so often.
const LEAST: Duration = Duration::from_millis(500);

/// Reads an event. What is of no concern yields nothing.
pub fn read(event: pb::scheduler::Event, metrics: &Metrics) -> Option<Event> {
    use pb::scheduler::event::Type;
    match event.r#type() {
        Type::Subscribed => Some(Event::Subscribed),
        Type::Offers => {
            let offers = event.offers?.offers;
            Some(Event::Offers(offers.into_iter().map(wire::offer).collect()))
        }
        Type::Rescind => Some(Event::Rescind(OfferId::from(event.rescind?.offer_id.value))),
        Type::Update => {
            let status = event.update?.status;
            let state = pb::TaskState::try_from(status.state);
            metrics.status_update(state.map_or("unknown", |s| s.as_str_name()));
            tracing::debug!(
                task = status.task_id.value,
                state = state.map_or("unknown", |s| s.as_str_name()),
                message = status.message.as_deref().unwrap_or_default(),
                "status update"
            );
            Some(Event::Update(wire::update(&status)))
        }
        Type::Failure => {
            let failure = event.failure?;
            Some(Event::Failure {
                agent: AgentId::from(failure.agent_id?.value),
                executor: failure.executor_id.map(|id| ExecutorId::from(id.value)),
            })
        }
        Type::Message => {
            let message = event.message?;
            match serde_json::from_slice(&message.data) {
                Ok(read) => Some(Event::Message {
                    executor: ExecutorId::from(message.executor_id.value),
                    message: read,
                }),
                Err(error) => {
                    tracing::debug!(%error, executor = message.executor_id.value, "a message that this version does not know");
                    None
                }
            }
        }
        Type::InverseOffers => {
            let offers = event.inverse_offers?.inverse_offers;
            let offers = offers.iter().filter_map(wire::inverse_offer).collect();
            Some(Event::InverseOffers(offers))
        }
        // Answered at once, so none is out for long; see `core::maintenance`.
        Type::RescindInverseOffer
        | Type::UpdateOperationStatus
        | Type::Error
        | Type::Heartbeat
        | Type::Unknown => None,
    }
}

/// Asks for the agents at start, when told to, and once a minute.
pub async fn poll_agents(
    master: MasterUrl,
    config: ClientConfig,
    roles: Vec<String>,
    wanted: Arc<Notify>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let client = match OperatorClient::new(&master, &config) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "the operator API cannot be used: nodes are sized by what is offered");
            return;
        }
    };
    let call = pb::master::Call {
        r#type: Some(pb::master::call::Type::GetAgents.into()),
        ..Default::default()
    };
    let mut failures = 0u32;
    loop {
        let pause = match client.call(&call).await {
            Ok(answer) => {
                failures = 0;
                let agents = answer.get_agents.unwrap_or_default();
                let usable = |role: &str| role_is_ours(&roles, role);
                let reports = wire::agents(agents, usable);
                if events.send(Event::Agents(reports)).await.is_err() {
                    return;
                }
                PERIOD
            }
            Err(error) => {
                tracing::warn!(%error, "agents cannot be asked for");
                failures = failures.saturating_add(1);
                Duration::from_secs(1 << failures.min(5)).mul_f64(rand::random_range(0.8..1.2))
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LEAST) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Asks which ports our tasks hold, whenever that is wanted; until there is an answer.
pub async fn poll_ports(
    master: MasterUrl,
    config: ClientConfig,
    framework: String,
    wanted: Arc<Notify>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    // `poll_agents` says why, if there is none.
    let Ok(client) = OperatorClient::new(&master, &config) else {
        return;
    };
    let call = pb::master::Call {
        r#type: Some(pb::master::call::Type::GetTasks.into()),
        ..Default::default()
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = wanted.notified() => {}
        }
        let mut failures = 0u32;
        let tasks = loop {
            match client.call(&call).await {
                Ok(answer) => break answer.get_tasks.unwrap_or_default(),
                Err(error) => tracing::warn!(%error, "tasks cannot be asked for"),
            }
            failures = failures.saturating_add(1);
            let pause =
                Duration::from_secs(1 << failures.min(6)).mul_f64(rand::random_range(0.8..1.2));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        };
        let held = wire::held_ports(&tasks, &framework);
        if events.send(Event::HeldPorts(held)).await.is_err() {
            return;
        }
    }
}

/// Whether what is reserved for `role` may be offered to one of `roles`: its own, or one below it.
fn role_is_ours(roles: &[String], role: &str) -> bool {
    roles.iter().any(|ours| {
        ours == role
            || ours
                .strip_prefix(role)
                .is_some_and(|rest| rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_for_a_role_are_offered_to_the_roles_below_it() {
        let ours = vec!["dev/k8s".to_owned()];
        assert!(role_is_ours(&ours, "dev/k8s"));
        assert!(role_is_ours(&ours, "dev"));
        assert!(!role_is_ours(&ours, "de"));
        assert!(!role_is_ours(&ours, "dev/k8s/a"));
    }
}
