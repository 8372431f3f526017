//! Sends the core's Mesos effects as calls, one after the other: reconciliation relies on their order.

use std::sync::Arc;
use std::time::Duration;

use mesos::pb;
use mesos::scheduler::SchedulerHandle;
use pb::scheduler::Call;
use pb::scheduler::call::{self, Type};
use seam::message::ToExecutor;
use tokio::sync::mpsc;

use crate::core::event::Update;
use crate::core::ids::{AgentId, ExecutorId, OfferId, TaskId};
use crate::core::task::{End, MesosState};
use crate::core::{Effect, Event};
use crate::metrics::{CallOutcome, Metrics};
use crate::wire::{self, NodeSettings};

/// How often a call is sent that failed without reaching Mesos for certain.
const ATTEMPTS: u32 = 3;

/// Sends calls until the channel closes.
pub async fn run(
    handle: SchedulerHandle,
    settings: NodeSettings,
    mut effects: mpsc::Receiver<Effect>,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
) {
    while let Some(effect) = effects.recv().await {
        let launched: Vec<TaskId> = match &effect {
            Effect::Accept { launches, .. } => launches.iter().map(|l| l.task().clone()).collect(),
            _ => Vec::new(),
        };
        let revives = matches!(effect, Effect::Revive);
        let Some(call) = call_for(effect, &settings, &events).await else {
            continue;
        };
        let name = call.r#type().as_str_name();
        let sent = send(&handle, call, launched.is_empty()).await;
        let outcome = if sent.is_ok() {
            CallOutcome::Ok
        } else {
            CallOutcome::Failed
        };
        metrics.mesos_call(name, outcome);
        if revives {
            // The receiver is gone only at the end of the process.
            let _ = events.send(Event::Revived).await;
        }
        let Err((error, certain)) = sent else {
            continue;
        };
        tracing::warn!(%error, "call of the Mesos master failed");
        if launched.is_empty() {
            // Repeated by its own reason: updates come again, kills and reconciliations are timed.
            continue;
        }
        if certain {
            not_started(&events, launched, &error.to_string()).await;
        } else {
            // The receiver is gone only at the end of the process.
            let _ = events.send(Event::Doubt(launched)).await;
        }
    }
}

async fn not_started(events: &mpsc::Sender<Event>, tasks: Vec<TaskId>, why: &str) {
    for task in tasks {
        let update = Update {
            task,
            agent: None,
            state: MesosState::Ended(End::NeverStarted),
            text: format!("ACCEPT failed: {why}"),
            uuid: None,
            reconciliation: false,
            draining: false,
        };
        let _ = events.send(Event::Update(update)).await;
    }
}

/// Sends a call. The error comes with whether the call certainly had no effect.
async fn send(
    handle: &SchedulerHandle,
    call: Call,
    repeatable: bool,
) -> Result<(), (mesos::Error, bool)> {
    let mut attempt = 1;
    loop {
        let error = match handle.call(call.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let certain = matches!(
            error,
            mesos::Error::NotSubscribed
                | mesos::Error::InvalidCall { .. }
                | mesos::Error::Status { .. }
                | mesos::Error::Redirect { .. }
        );
        let gone = matches!(error, mesos::Error::NotSubscribed | mesos::Error::Stopped);
        if gone || !error.retryable() || !repeatable || attempt == ATTEMPTS {
            return Err((error, certain));
        }
        let pause = Duration::from_millis(100 << attempt).mul_f64(rand::random_range(0.5..1.5));
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

fn offer_ids(offers: Vec<OfferId>) -> Vec<pb::OfferId> {
    offers
        .into_iter()
        .map(|id| pb::OfferId {
            value: id.to_string(),
        })
        .collect()
}

fn task_id(id: &TaskId) -> pb::TaskId {
    pb::TaskId {
        value: id.to_string(),
    }
}

fn agent_id(id: &AgentId) -> pb::AgentId {
    pb::AgentId {
        value: id.to_string(),
    }
}

/// MESSAGE to an executor; `None` for what has no JSON form, which plain data always has.
fn message(executor: &ExecutorId, agent: &AgentId, what: &ToExecutor) -> Option<Call> {
    Some(Call {
        message: Some(call::Message {
            agent_id: agent_id(agent),
            executor_id: pb::ExecutorId {
                value: executor.to_string(),
            },
            data: serde_json::to_vec(what).ok()?,
        }),
        r#type: Some(Type::Message as i32),
        ..Call::default()
    })
}

fn filters(refuse_seconds: f64) -> Option<pb::Filters> {
    Some(pb::Filters {
        refuse_seconds: Some(refuse_seconds),
    })
}

/// The call for an effect; `None` for effects that are none, or whose tasks cannot be made.
async fn call_for(
    effect: Effect,
    settings: &NodeSettings,
    events: &mpsc::Sender<Event>,
) -> Option<Call> {
    let blank = |kind: Type| Call {
        r#type: Some(kind.into()),
        ..Call::default()
    };
    Some(match effect {
        Effect::Accept {
            offers,
            agent,
            role,
            launches,
            refuse_seconds,
        } => {
            let mut tasks = Vec::with_capacity(launches.len());
            for launch in &launches {
                match wire::task_info(launch, &agent, &role, settings) {
                    Ok(task) => tasks.push(task),
                    Err(error) => {
                        tracing::error!(%error, "a task cannot be launched");
                        not_started(events, vec![launch.task().clone()], &error.to_string()).await;
                    }
                }
            }
            let operation = pb::offer::Operation {
                r#type: Some(pb::offer::operation::Type::Launch.into()),
                launch: Some(pb::offer::operation::Launch { task_infos: tasks }),
                ..Default::default()
            };
            Call {
                accept: Some(call::Accept {
                    offer_ids: offer_ids(offers),
                    operations: vec![operation],
                    filters: filters(refuse_seconds),
                }),
                ..blank(Type::Accept)
            }
        }
        Effect::Decline {
            offers,
            refuse_seconds,
        } => Call {
            decline: Some(call::Decline {
                offer_ids: offer_ids(offers),
                filters: filters(refuse_seconds),
            }),
            ..blank(Type::Decline)
        },
        Effect::AnswerInverse {
            offers,
            accept: true,
            refuse_seconds,
        } => Call {
            accept_inverse_offers: Some(call::AcceptInverseOffers {
                inverse_offer_ids: offer_ids(offers),
                filters: filters(refuse_seconds),
            }),
            ..blank(Type::AcceptInverseOffers)
        },
        Effect::AnswerInverse {
            offers,
            accept: false,
            refuse_seconds,
        } => Call {
            decline_inverse_offers: Some(call::DeclineInverseOffers {
                inverse_offer_ids: offer_ids(offers),
                filters: filters(refuse_seconds),
            }),
            ..blank(Type::DeclineInverseOffers)
        },
        Effect::Suppress => Call {
            suppress: Some(call::Suppress::default()),
            ..blank(Type::Suppress)
        },
        Effect::Revive => Call {
            revive: Some(call::Revive::default()),
            ..blank(Type::Revive)
        },
        Effect::Kill {
            task,
            agent,
            reason,
        } => {
            tracing::info!(%task, reason, "killing a task");
            Call {
                kill: Some(call::Kill {
                    task_id: task_id(&task),
                    agent_id: Some(agent_id(&agent)),
                    kill_policy: None,
                }),
                ..blank(Type::Kill)
            }
        }
        Effect::Shutdown { executor, agent } => {
            tracing::info!(%executor, %agent, "shutting an executor down that no node lives by");
            Call {
                shutdown: Some(call::Shutdown {
                    executor_id: pb::ExecutorId {
                        value: executor.to_string(),
                    },
                    agent_id: agent_id(&agent),
                }),
                ..blank(Type::Shutdown)
            }
        }
        Effect::Greet { executor, agent } => message(
            &executor,
            &agent,
            &ToExecutor::ApiServers {
                servers: settings.cluster.api_servers.clone(),
            },
        )?,
        Effect::Revise { executor, agent } => {
            let revision = settings.revision();
            let wish = ToExecutor::Revise {
                digest: revision.digest(),
                revision: Box::new(revision),
            };
            message(&executor, &agent, &wish)?
        }
        Effect::Acknowledge { task, agent, uuid } => Call {
            acknowledge: Some(call::Acknowledge {
                agent_id: agent_id(&agent),
                task_id: task_id(&task),
                uuid: uuid.to_vec(),
            }),
            ..blank(Type::Acknowledge)
        },
        Effect::Reconcile { tasks } => Call {
            reconcile: Some(call::Reconcile {
                tasks: tasks
                    .iter()
                    .map(|(task, agent)| call::reconcile::Task {
                        task_id: task_id(task),
                        agent_id: agent.as_ref().map(agent_id),
                    })
                    .collect(),
            }),
            ..blank(Type::Reconcile)
        },
        _ => return None,
    })
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
