//! Behaviour of the state machine, told event by event.

mod kill;
mod node;
mod pods;
mod random;
mod revise;
mod updates;

use std::time::Duration;

use mesos::pb;
use seam::id::TaskKind;
use seam::message::ToFramework;
use seam::node::NodeConfig;
use seam::pod::PodTask;

use super::task::TaskId;
use super::*;
use crate::report::{NodeEvent, PodObservation, PodPhase, PodRef, Removal};

const MIB: u64 = 1 << 20;

/// The node of these tests.
fn config() -> NodeConfig {
    NodeConfig {
        node_name: "agent-1".to_owned(),
        ..seam::testing::node_config()
    }
}

fn scalar(name: &str, value: f64) -> pb::Resource {
    pb::Resource {
        name: name.to_owned(),
        r#type: pb::value::Type::Scalar as i32,
        scalar: Some(pb::value::Scalar { value }),
        ..Default::default()
    }
}

fn task(id: &TaskKind, data: Vec<u8>, mem: f64) -> Event {
    Event::Launch(Box::new(pb::TaskInfo {
        name: id.to_string(),
        task_id: pb::TaskId {
            value: id.to_string(),
        },
        data: Some(data),
        resources: vec![scalar("cpus", 0.5), scalar("mem", mem)],
        ..Default::default()
    }))
}

/// Runs a core against an agent that acknowledges at once, and keeps what it was told.
struct Bench {
    core: Core,
    now: u64,
    acknowledge: bool,
    /// `(task, state, message)`, in order.
    told: Vec<(String, pb::TaskState, String)>,
    /// Everything else.
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            core: Core::new([7; 32]),
            now: 1000,
            acknowledge: true,
            told: Vec::new(),
            effects: Vec::new(),
        };
        bench.event(Event::Subscribed);
        bench
    }

    fn up() -> Self {
        let mut bench = Self::new();
        bench.event(node_task());
        bench.event(Event::Node(NodeEvent::Ready));
        bench.told.clear();
        bench.effects.clear();
        bench
    }

    fn event(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.core.handle(Millis(self.now), event) {
                let Effect::Send(update) = effect else {
                    self.effects.push(effect);
                    continue;
                };
                let id = update.status.task_id.value.clone();
                let message = update.status.message.clone().unwrap_or_default();
                self.told.push((id.clone(), update.status.state(), message));
                if self.acknowledge {
                    events.push(Event::Acknowledged {
                        task: TaskId(id),
                        uuid: update.status.uuid().to_vec(),
                    });
                }
            }
        }
    }

    fn later(&mut self, millis: u64) {
        self.now += millis;
        self.event(Event::Tick);
    }

    fn states(&self) -> Vec<(&str, pb::TaskState)> {
        self.told
            .iter()
            .map(|(id, state, _)| (id.as_str(), *state))
            .collect()
    }

    fn deletions(&self) -> Vec<(&str, Option<Duration>)> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::RemovePod {
                    pod,
                    removal: Removal::Delete,
                    grace,
                } => Some((pod.uid.as_str(), *grace)),
                _ => None,
            })
            .collect()
    }

    /// How many evictions, and the grace of the last one.
    fn evictions(&self) -> (usize, Option<Duration>) {
        let mut evictions = self.effects.iter().filter_map(|effect| match effect {
            Effect::RemovePod {
                removal: Removal::Evict,
                grace,
                ..
            } => Some(*grace),
            _ => None,
        });
        (evictions.clone().count(), evictions.next_back().flatten())
    }

    fn stops(&self) -> usize {
        self.effects
            .iter()
            .filter(|effect| matches!(effect, Effect::StopNode { .. }))
            .count()
    }

    fn memory(&self) -> Option<u64> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Limits(limits) => Some(limits.memory),
            _ => None,
        })
    }
}

const NODE: &str = "node.agent-1.00000001";

fn node_task() -> Event {
    task(&TaskKind::node("agent-1", 1), config().to_data(), 256.0)
}

fn pod_task(uid: &str, attempt: u32) -> Event {
    let data = PodTask {
        namespace: "default".to_owned(),
        name: format!("pod-{uid}"),
        uid: uid.to_owned(),
    };
    task(
        &TaskKind::pod(uid, attempt),
        serde_json::to_vec(&data).unwrap(),
        32.0,
    )
}

fn id(uid: &str, attempt: u32) -> TaskId {
    TaskId(TaskKind::pod(uid, attempt).to_string())
}

fn seen(uid: &str, phase: PodPhase) -> PodObservation {
    PodObservation {
        pod: PodRef {
            namespace: "default".to_owned(),
            name: format!("pod-{uid}"),
            uid: uid.to_owned(),
        },
        phase,
        ready: phase == PodPhase::Running,
        deleting: false,
        grace: Some(Duration::from_secs(30)),
        reason: None,
        message: None,
        ip: None,
    }
}

fn pod(uid: &str, phase: PodPhase) -> Event {
    Event::Node(NodeEvent::Pod(seen(uid, phase)))
}

fn gone(uid: &str) -> Event {
    Event::Node(NodeEvent::PodGone {
        uid: uid.to_owned(),
    })
}

fn kill(task: TaskId) -> Event {
    Event::Kill { task, grace: None }
}

fn kill_within(task: TaskId, seconds: u64) -> Event {
    Event::Kill {
        task,
        grace: Some(Duration::from_secs(seconds)),
    }
}

fn held(uid: &str) -> Event {
    Event::Node(NodeEvent::EvictionHeld {
        uid: uid.to_owned(),
        message: "the budget web needs 2 healthy pods".to_owned(),
    })
}

fn emptied(uid: &str) -> Event {
    Event::Emptied {
        uid: uid.to_owned(),
    }
}

use pb::TaskState::{TaskDropped, TaskFailed, TaskFinished, TaskKilled, TaskRunning, TaskStarting};
