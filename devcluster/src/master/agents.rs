//! The life of an agent: registration, return, what it says. Its loss is in [`super::loss`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesos::pb;
use mesos::pb::TaskState;
use mesos::pb::task_status::Reason;

use super::event::{Answer, Effect, StreamId};
use super::loss::{Loss, failure};
use super::maintenance::Machine;
use super::state::{Agent, Executor, MasterState, Owner, Timer, VERSION, is_terminal};
use super::updates;
use super::view;
use crate::clock::Time;
use crate::ids::{self, AgentId, ExecutorId, FrameworkId, TaskId};
use crate::protocol::{
    self, ReconcileTask, Refused, Registered, ShutdownFramework, Subscribe, UpdateFramework,
    from_agent, to_agent,
};
use crate::resources::Resources;

impl MasterState {
    pub(super) fn subscribe_agent(
        &mut self,
        stream: StreamId,
        peer: IpAddr,
        mut subscribe: Subscribe,
    ) -> Answer {
        let total = match check(&subscribe) {
            Ok(total) => total,
            Err(error) => return self.refuse_agent(stream, error),
        };
        if subscribe.ip.is_empty() {
            subscribe.ip = peer.to_string();
        }
        if subscribe.version.is_empty() {
            VERSION.clone_into(&mut subscribe.version);
        }
        let known = subscribe
            .info
            .id
            .as_ref()
            .filter(|id| !id.value.is_empty())
            .map(AgentId::from);
        if let Some(id) = &known
            && self.registry.gone.contains_key(id)
        {
            return self.refuse_agent(stream, "Agent has been marked gone".to_owned());
        }
        let machine = Machine::of_agent(&subscribe.info.hostname, &subscribe.ip);
        if self.is_down(&machine) {
            return self.refuse_agent(stream, "Machine is `DOWN`".to_owned());
        }
        self.remove_predecessor(&subscribe, known.as_ref());
        let came_back = known.is_some();
        let id = known.unwrap_or_else(|| {
            let id = AgentId::from(format!("{}-S{}", self.info.id, self.next_agent));
            self.next_agent += 1;
            id
        });
        subscribe.info.id = Some(id.to_pb());
        let again = self.agents.contains_key(&id);
        if again {
            self.agent_is_back(&id, stream, subscribe, total);
        } else {
            self.admit_agent(&id, stream, subscribe, total, came_back);
            self.allocate_agent(&id);
        }
        self.tell_to_drain(&id);
        Answer::Stream
    }

    fn refuse_agent(&mut self, stream: StreamId, message: String) -> Answer {
        tracing::warn!(%message, "an agent is refused");
        self.effects.push(Effect::ToAgent {
            stream,
            message: Box::new(to_agent::Message::Refused(Refused { message })),
        });
        self.effects.push(Effect::Close(stream));
        Answer::Stream
    }

    /// An agent that starts anew at the address of another is the end of that one.
    fn remove_predecessor(&mut self, subscribe: &Subscribe, known: Option<&AgentId>) {
        let port = subscribe.info.port;
        let old = self.agents.iter().find(|(id, agent)| {
            agent.ip == subscribe.ip && agent.info.port == port && Some(*id) != known
        });
        if let Some((id, agent)) = old {
            let id = id.clone();
            let message = format!(
                "Agent {} removed: a new agent registered at the same address",
                agent.info.hostname
            );
            self.lose_agent(&id, Loss::Removed, &message);
        }
    }

    /// The first word of a stream.
    fn welcome(
        &mut self,
        id: &AgentId,
        stream: StreamId,
        reregistered: bool,
        reconcile: Vec<ReconcileTask>,
    ) {
        self.streams.insert(stream, Owner::Agent(id.clone()));
        let timeout =
            self.settings.agent_ping_timeout * self.settings.max_agent_ping_timeouts.max(1);
        let next = self.now + self.settings.agent_ping_timeout;
        if let Some(agent) = self.agents.get_mut(id) {
            agent.stream = Some(stream);
            agent.pinged = false;
            agent.missed_pings = 0;
            agent.next_ping = next;
            self.timers.insert((next, Timer::Ping(id.clone())));
        }
        let message = to_agent::Message::Registered(Registered {
            agent_id: id.to_pb(),
            ping_timeout_nanos: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            reconcile,
            reregistered,
            master_info: self.info.clone(),
        });
        self.tell_agent(id, message);
    }

    /// An agent that is not in the books: new, recovered, unreachable before, or forgotten.
    fn admit_agent(
        &mut self,
        id: &AgentId,
        stream: StreamId,
        s: Subscribe,
        total: Resources,
        came_back: bool,
    ) {
        let before = if self.recovered.remove(id).is_some() {
            Before::Recovered
        } else if self.registry.unreachable.remove(id).is_some() {
            Before::Unreachable
        } else if !came_back {
            Before::New
        } else {
            Before::Unknown
        };
        tracing::info!(agent = %id, hostname = s.info.hostname, ?before, "registered");
        self.count(match before {
            Before::New => "master/slave_registrations",
            _ => "master/slave_reregistrations",
        });
        let reregistered = before != Before::New;
        self.registry.admitted.insert(id.clone(), s.info.clone());
        self.save();
        let remote = self.is_remote(&s.info);
        let agent = Agent {
            ip: s.ip,
            version: s.version,
            capabilities: s.capabilities,
            checkpoint: s.checkpoint,
            total: total.clone(),
            stream: None,
            deactivated: self.registry.deactivated.contains(id),
            registered: self.now,
            reregistered: reregistered.then_some(self.now),
            tasks: BTreeSet::new(),
            executors: BTreeMap::new(),
            offers: BTreeSet::new(),
            kills: BTreeSet::new(),
            pinged: false,
            missed_pings: 0,
            next_ping: Time::NEVER,
            info: s.info,
        };
        let active = !agent.deactivated;
        self.agents.insert(id.clone(), agent);
        self.allocator.add_agent(id, total, remote);
        self.allocator.set_agent_active(id, active);
        self.welcome(id, stream, reregistered, Vec::new());
        for task in &s.tasks {
            self.tell_task_is_back(task, before);
        }
        for framework in self.frameworks.values_mut() {
            // What the agent does not list any more is not unreachable, but unknown.
            framework
                .unreachable
                .retain(|t| t.agent_id.value != id.as_str());
        }
        self.adopt(id, &s.frameworks, s.executors, s.tasks);
        self.tell_operators(|state| view::agent_added(state, id));
    }

    /// An agent in the books subscribes again: it, its connection or the master's was away.
    fn agent_is_back(&mut self, id: &AgentId, stream: StreamId, s: Subscribe, total: Resources) {
        tracing::info!(agent = %id, hostname = s.info.hostname, "registered again");
        self.count("master/slave_reregistrations");
        let remote = self.is_remote(&s.info);
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let old = agent.stream.take();
        let resources_changed = agent.total != total;
        let info_changed = agent.info != s.info;
        agent.info = s.info;
        agent.ip = s.ip;
        agent.version = s.version;
        agent.capabilities = s.capabilities;
        agent.checkpoint = s.checkpoint;
        agent.total = total.clone();
        agent.reregistered = Some(self.now);
        if let Some(old) = old {
            self.close(old);
        }
        if resources_changed || old.is_some() {
            self.rescind_offers_of(id);
        }
        // If it is as it was, it is offered with the next round, as in Mesos.
        if resources_changed {
            self.allocate_agent(id);
        }
        if info_changed {
            if let Some(agent) = self.agents.get(id) {
                self.registry
                    .admitted
                    .insert(id.clone(), agent.info.clone());
            }
            self.save();
        }
        self.allocator.add_agent(id, total, remote);
        let deactivated = self.agents.get(id).is_some_and(|a| a.deactivated);
        self.allocator.set_agent_active(id, !deactivated);
        let listed: BTreeSet<_> = s.tasks.iter().map(key_of).collect();
        let mine = self
            .agents
            .get(id)
            .map(|a| a.tasks.clone())
            .unwrap_or_default();
        let reconcile = mine
            .difference(&listed)
            .map(|(framework, task)| ReconcileTask {
                framework_id: framework.to_pb(),
                task_id: task.to_pb(),
                partition_aware: self
                    .frameworks
                    .get(framework)
                    .is_some_and(|f| f.capabilities.partition_aware),
            })
            .collect();
        self.welcome(id, stream, true, reconcile);
        let running: BTreeSet<_> = s.executors.iter().filter_map(executor_key).collect();
        let lost: Vec<_> = self
            .agents
            .get(id)
            .map(|a| {
                a.executors
                    .keys()
                    .filter(|k| !running.contains(*k))
                    .cloned()
                    .collect()
            })
            .unwrap_or_default();
        for (framework, executor) in lost {
            self.remove_executor(id, &framework, &executor);
        }
        self.adopt(id, &s.frameworks, s.executors, s.tasks);
        let kills = self
            .agents
            .get_mut(id)
            .map(|a| std::mem::take(&mut a.kills))
            .unwrap_or_default();
        for (framework, task) in kills {
            let message = to_agent::Message::KillTask(protocol::KillTask {
                framework_id: framework.to_pb(),
                task_id: task.to_pb(),
                kill_policy: None,
            });
            self.tell_agent(id, message);
        }
    }

    /// Takes what an agent has into the books, as far as it is not there yet.
    fn adopt(
        &mut self,
        id: &AgentId,
        frameworks: &[pb::FrameworkInfo],
        executors: Vec<pb::ExecutorInfo>,
        tasks: Vec<pb::Task>,
    ) {
        for info in frameworks {
            let Some(framework) = info.id.as_ref().map(FrameworkId::from) else {
                continue;
            };
            if self.is_completed(&framework) {
                let message = to_agent::Message::ShutdownFramework(ShutdownFramework {
                    framework_id: framework.to_pb(),
                });
                self.tell_agent(id, message);
            } else if let Some(known) = self.frameworks.get(&framework) {
                // Its scheduler may have changed it while the agent was away.
                let message = to_agent::Message::UpdateFramework(UpdateFramework {
                    framework: known.info.clone(),
                });
                if !known.recovered {
                    self.tell_agent(id, message);
                }
            } else {
                self.recover_framework(info);
            }
        }
        for info in executors {
            let Some(key) = executor_key(&info) else {
                continue;
            };
            let Some(framework) = self.frameworks.get(&key.0) else {
                continue;
            };
            let role = framework.roles.first().cloned().unwrap_or_default();
            let Ok(resources) = Resources::from_pb(&info.resources) else {
                continue;
            };
            let resources = resources.allocated_by_default(&role);
            let Some(agent) = self.agents.get_mut(id) else {
                return;
            };
            if let std::collections::btree_map::Entry::Vacant(entry) = agent.executors.entry(key) {
                let framework = entry.key().0.clone();
                self.allocator.charge(&framework, id, &resources);
                entry.insert(Executor { info, resources });
            }
        }
        for mut task in tasks {
            let (framework_id, task_id) = key_of(&task);
            let Some(framework) = self.frameworks.get_mut(&framework_id) else {
                continue;
            };
            if let Some(known) = framework.tasks.get(&task_id) {
                if known.pb.agent_id.value != id.as_str() {
                    tracing::warn!(agent = %id, task = %task_id, framework = %framework_id,
                        "a task with this id is on another agent too");
                }
                continue;
            }
            framework.completed.retain(|t| t.task_id != task.task_id);
            let role = framework.roles.first().cloned().unwrap_or_default();
            task.agent_id = id.to_pb();
            let resources = if is_terminal(task.state) {
                Resources::default()
            } else {
                Resources::from_pb(&task.resources)
                    .unwrap_or_default()
                    .allocated_by_default(&role)
            };
            self.allocator.charge(&framework_id, id, &resources);
            self.add_task(&framework_id, task, resources);
        }
    }

    fn tell_task_is_back(&mut self, task: &pb::Task, before: Before) {
        let message = match before {
            Before::Unreachable => "Unreachable agent re-reregistered",
            Before::Unknown => "Unknown agent reregistered",
            Before::New | Before::Recovered => return,
        };
        let id = FrameworkId::from(&task.framework_id);
        let mut status = updates::latest(self.now, task, Reason::AgentReregistered, message);
        status.state = task.state;
        self.forward(&id, status);
    }

    pub(super) fn is_remote(&self, info: &pb::AgentInfo) -> bool {
        let region = |d: &Option<pb::DomainInfo>| {
            let fault = d.as_ref()?.fault_domain.as_ref()?;
            Some(fault.region.name.clone())
        };
        match (region(&self.info.domain), region(&info.domain)) {
            (Some(mine), Some(theirs)) => mine != theirs,
            (_, theirs) => theirs.is_some(),
        }
    }

    pub(super) fn agent_call(&mut self, stream: StreamId, message: from_agent::Message) -> Answer {
        let Some(Owner::Agent(id)) = self.streams.get(&stream).cloned() else {
            return Answer::error(409, "The stream is over: subscribe again");
        };
        match message {
            from_agent::Message::Pong(_) => {
                if let Some(agent) = self.agents.get_mut(&id) {
                    agent.pinged = false;
                    agent.missed_pings = 0;
                }
            }
            from_agent::Message::Update(update) => self.status_update(&id, update),
            from_agent::Message::ExitedExecutor(exited) => self.executor_exited(&id, &exited),
            from_agent::Message::ExecutorMessage(message) => {
                self.count("master/messages_executor_to_framework");
                let event = pb::scheduler::Event {
                    r#type: Some(pb::scheduler::event::Type::Message as i32),
                    message: Some(pb::scheduler::event::Message {
                        agent_id: id.to_pb(),
                        executor_id: message.executor_id,
                        data: message.data,
                    }),
                    ..Default::default()
                };
                self.tell_scheduler(&FrameworkId::from(&message.framework_id), event);
            }
            from_agent::Message::OperationApplied(applied) => {
                self.operation_applied(&id, applied);
            }
            from_agent::Message::Unregister(_) => {
                let hostname = self.agents.get(&id).map(|a| a.info.hostname.clone());
                let message = format!(
                    "Agent {} removed: the agent unregistered",
                    hostname.unwrap_or_default()
                );
                self.lose_agent(&id, Loss::Removed, &message);
            }
        }
        Answer::Accepted
    }

    fn executor_exited(&mut self, agent: &AgentId, exited: &protocol::ExitedExecutor) {
        let framework = FrameworkId::from(&exited.framework_id);
        let executor = ExecutorId::from(&exited.executor_id);
        self.remove_executor(agent, &framework, &executor);
        let event = failure(pb::scheduler::event::Failure {
            agent_id: Some(agent.to_pb()),
            executor_id: Some(executor.to_pb()),
            status: Some(exited.status),
        });
        self.tell_scheduler(&framework, event);
    }
}

/// What is known of an agent that is not in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    New,
    Recovered,
    Unreachable,
    Unknown,
}

fn key_of(task: &pb::Task) -> (FrameworkId, TaskId) {
    (
        FrameworkId::from(&task.framework_id),
        TaskId::from(&task.task_id),
    )
}

fn executor_key(info: &pb::ExecutorInfo) -> Option<(FrameworkId, ExecutorId)> {
    let framework = FrameworkId::from(info.framework_id.as_ref()?);
    Some((framework, ExecutorId::from(&info.executor_id)))
}

/// Checks what an agent says of itself. Returns what it has.
fn check(s: &Subscribe) -> Result<Resources, String> {
    if s.info.hostname.is_empty() {
        return Err("AgentInfo has no hostname".to_owned());
    }
    if let Some(id) = s.info.id.as_ref().filter(|id| !id.value.is_empty())
        && let Some(why) = ids::why_invalid(&id.value)
    {
        return Err(format!("AgentInfo has an invalid id: {why}"));
    }
    let resources = match s.checkpointed.is_empty() {
        true => &s.info.resources,
        false => &s.checkpointed,
    };
    let total = Resources::from_pb(resources)
        .map_err(|e| format!("AgentInfo has invalid resources: {e}"))?;
    for framework in &s.frameworks {
        if framework.id.is_none() {
            return Err("FrameworkInfo without an id".to_owned());
        }
    }
    for executor in &s.executors {
        if executor_key(executor).is_none() {
            return Err("ExecutorInfo without a framework id".to_owned());
        }
        Resources::from_pb(&executor.resources)
            .map_err(|e| format!("Executor uses invalid resources: {e}"))?;
    }
    for task in &s.tasks {
        if let Some(why) = ids::why_invalid(&task.task_id.value) {
            return Err(format!("Task has an invalid TaskID: {why}"));
        }
        TaskState::try_from(task.state)
            .map_err(|_| format!("Task {} has an unknown state", task.task_id.value))?;
        Resources::from_pb(&task.resources)
            .map_err(|e| format!("Task uses invalid resources: {e}"))?;
    }
    Ok(total)
}
