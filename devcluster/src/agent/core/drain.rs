//! The agent is taken out of use: its tasks are killed, and nothing is launched any more.

use mesos::pb;
use pb::TaskState;
use pb::task_status::Reason;

use super::Core;
use crate::clock::Time;
use crate::ids::FrameworkId;
use crate::protocol;

impl Core {
    /// Kills every task. The master says it again when the agent has been away, and KILL is safe
    /// to repeat. Where nothing runs there is nothing to drain.
    pub(super) fn drain(&mut self, now: Time, drain: &protocol::Drain) {
        if self.frameworks.is_empty() {
            return;
        }
        tracing::info!(config = ?drain.config, "draining");
        self.drain = Some(drain.config);
        let mut kills = Vec::new();
        for (id, framework) in &self.frameworks {
            for executor in framework.executors.values() {
                let launched = executor.launched.iter();
                let launched = launched.map(|task| (&task.task_id, task.kill_policy.as_ref()));
                let queued = executor.queued.iter();
                let queued = queued.map(|q| (&q.task.task_id, q.task.kill_policy.as_ref()));
                kills.extend(
                    launched
                        .chain(queued)
                        .map(|(task, own)| protocol::KillTask {
                            framework_id: id.to_pb(),
                            task_id: task.clone(),
                            kill_policy: policy(&drain.config, own),
                        }),
                );
            }
        }
        for kill in kills {
            self.kill_task(now, &kill);
        }
    }

    /// What frameworks hear of a task that ends because of the drain.
    pub(super) fn note_drain(&self, framework: &FrameworkId, status: &mut pb::TaskStatus) {
        let Some(config) = &self.drain else { return };
        if !matches!(
            status.state(),
            TaskState::TaskKilling | TaskState::TaskKilled
        ) {
            return;
        }
        status.reason = Some(Reason::AgentDraining as i32);
        let aware = self
            .frameworks
            .get(framework)
            .is_some_and(|f| f.partition_aware());
        if config.mark_gone() && aware {
            status.state = TaskState::TaskGoneByOperator as i32;
        }
    }
}

/// The operator's grace, where it is shorter than the task's own or the task has none.
fn policy(config: &pb::DrainConfig, own: Option<&pb::KillPolicy>) -> Option<pb::KillPolicy> {
    let most = config.max_grace_period?;
    let own = own.and_then(|policy| policy.grace_period);
    let shorter = own.is_none_or(|own| most.nanoseconds < own.nanoseconds);
    shorter.then_some(pb::KillPolicy {
        grace_period: Some(most),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_grace_bounds_the_tasks_own() {
        let nanoseconds = |n| pb::DurationInfo { nanoseconds: n };
        let of = |n| pb::KillPolicy {
            grace_period: Some(nanoseconds(n)),
        };
        let config = pb::DrainConfig {
            max_grace_period: Some(nanoseconds(5)),
            mark_gone: None,
        };
        assert_eq!(policy(&config, None), Some(of(5)));
        assert_eq!(
            policy(&config, Some(&pb::KillPolicy::default())),
            Some(of(5))
        );
        assert_eq!(policy(&config, Some(&of(9))), Some(of(5)));
        assert_eq!(policy(&config, Some(&of(3))), None);
        assert_eq!(policy(&pb::DrainConfig::default(), Some(&of(9))), None);
    }
}
