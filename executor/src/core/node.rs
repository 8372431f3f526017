//! The node task and the node's life.

use mesos::pb;
use seam::id::TaskKind;
use seam::message::ToFramework;
use seam::node::NodeConfig;

use super::event::{Effect, Millis, Refusal};
use super::task::{Grant, NodeTask, TaskId};
use super::updates::{Status, TaskState};
use super::{Core, Ending, FAREWELL, NodeState};
use crate::report::NodeEvent;

impl Core {
    pub(super) fn launch(&mut self, now: Millis, task: pb::TaskInfo, out: &mut Vec<Effect>) {
        let id = TaskId::of(&task);
        let kind = match TaskKind::parse(&id.0) {
            Ok(kind) => kind,
            Err(foreign) => {
                self.refuse(
                    task,
                    TaskState::Failed,
                    &Refusal::ForeignId(foreign.to_string()),
                );
                return;
            }
        };
        let node_killed = self.node.as_ref().is_some_and(|n| n.killed);
        if self.ending.is_some() || node_killed {
            self.refuse(task, TaskState::Dropped, &Refusal::Ending);
            return;
        }
        if self.pods.contains_key(&id) || self.updates.queues.contains_key(&id) {
            // The same id twice would be an error of the framework's that the master refuses;
            // an update for it would end the first one.
            tracing::warn!(task = %id, "{}", Refusal::Duplicate);
            return;
        }
        match kind {
            TaskKind::Node { .. } => self.launch_node(id, task, out),
            TaskKind::Pod { .. } => self.launch_pod(now, id, task),
        }
    }

    fn launch_node(&mut self, id: TaskId, task: pb::TaskInfo, out: &mut Vec<Effect>) {
        if let Some(node) = &self.node {
            if node.id != id {
                let refusal = Refusal::SecondNode(node.id.clone());
                self.refuse(task, TaskState::Dropped, &refusal);
            }
            return;
        }
        let config = match NodeConfig::from_data(task.data()) {
            Ok(config) => config,
            Err(error) => {
                let refusal = Refusal::BadData(error.to_string());
                self.refuse(task, TaskState::Failed, &refusal);
                return;
            }
        };
        self.node = Some(NodeTask {
            id: id.clone(),
            config: config.clone(),
            grant: Grant::of(&task),
            killed: false,
        });
        self.state = NodeState::Starting;
        self.updates.launched(task);
        self.report(&id, Status::new(TaskState::Starting));
        out.push(Effect::StartNode(Box::new(config)));
    }

    pub(super) fn node_event(&mut self, now: Millis, event: NodeEvent, out: &mut Vec<Effect>) {
        match event {
            NodeEvent::Progress { step } => tracing::debug!("{step}"),
            NodeEvent::Ready => {
                self.node_ready = true;
                if self.state == NodeState::Starting {
                    self.state = NodeState::Up;
                    if let Some(node) = &self.node {
                        let id = node.id.clone();
                        self.report(&id, Status::new(TaskState::Running));
                    }
                }
                self.ready_for_revision(out);
                self.start_waiting_pods(now);
            }
            NodeEvent::NotReady { reason } => {
                if self.node_ready {
                    tracing::warn!("the node is no longer Ready: {reason}");
                }
                self.node_ready = false;
            }
            NodeEvent::Failed { component, message } => {
                let told = format!("{component}: {message}");
                match self.state {
                    NodeState::Absent | NodeState::Stopping | NodeState::Ended => {}
                    NodeState::Starting => self.stop(Ending::Failed(told), out),
                    NodeState::Up => {
                        if self.failed_for_revision(&told, out) {
                            return;
                        }
                        // Its pods run on; the node half begins again and takes over what runs.
                        out.push(Effect::Tell(ToFramework::Component {
                            component,
                            reason: "Restarted".to_owned(),
                            message,
                            warning: true,
                        }));
                        if let Some(node) = &self.node {
                            out.push(Effect::StartNode(Box::new(node.config.clone())));
                        }
                    }
                }
            }
            NodeEvent::Listed(pods) => self.listed(now, pods, out),
            NodeEvent::Pod(pod) => self.observe(now, pod, out),
            NodeEvent::PodGone { uid } => self.gone(now, &uid, out),
            NodeEvent::EvictionHeld { uid, message } => {
                self.eviction_held(now, &uid, &message, out);
            }
            NodeEvent::Component {
                component,
                reason,
                message,
                warning,
            } => out.push(Effect::Tell(ToFramework::Component {
                component,
                reason,
                message,
                warning,
            })),
        }
    }

    /// Begins to end the node. Where there is none, the end is reached at once.
    pub(super) fn stop(&mut self, ending: Ending, out: &mut Vec<Effect>) {
        if self.ending.is_some() {
            return;
        }
        // After a failure the logs are wanted.
        let give_up = !matches!(ending, Ending::Failed(_));
        self.ending = Some(ending);
        self.state = NodeState::Stopping;
        self.node_ready = false;
        self.revising = None;
        out.push(Effect::StopNode { give_up });
    }

    /// The node task was killed and no pod is left: give the agent back.
    pub(super) fn give_up_idle_node(&mut self, out: &mut Vec<Effect>) {
        let killed = self.node.as_ref().is_some_and(|n| n.killed);
        if killed && self.pods.is_empty() {
            self.stop(Ending::Killed, out);
        }
    }

    pub(super) fn node_stopped(&mut self, now: Millis, _out: &mut Vec<Effect>) {
        if self.state != NodeState::Stopping {
            return;
        }
        self.state = NodeState::Ended;
        self.farewell = Some(now.after(FAREWELL));
        let (state, message) = match &self.ending {
            Some(Ending::Failed(message)) => (
                TaskState::Failed,
                format!("the node could not be brought up: {message}"),
            ),
            Some(Ending::Shutdown) => (
                TaskState::Killed,
                "the agent shut the executor down".to_owned(),
            ),
            Some(Ending::Killed) | None => (TaskState::Killed, "the node was given up".to_owned()),
        };
        for (id, pod) in std::mem::take(&mut self.pods) {
            let status = pod
                .outcome
                .unwrap_or_else(|| Status::new(state).message(message.clone()));
            self.report(&id, status);
        }
        if let Some(node) = &self.node {
            self.last_word = Some((node.id.clone(), Status::new(state).message(message)));
        }
    }

    /// The node task's end is told when the agent has all others', or when the patience is half
    /// over: it carries the container's memory, and must be the last to go.
    pub(super) fn say_last_word(&mut self, now: Millis) {
        let half_over = self
            .farewell
            .is_some_and(|at| now.after(Millis(FAREWELL.0 / 2)) >= at);
        if (self.updates.is_empty() || half_over)
            && let Some((id, status)) = self.last_word.take()
        {
            self.report(&id, status);
        }
    }
}
