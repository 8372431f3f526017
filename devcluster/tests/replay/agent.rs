//! A played agent: it speaks the agents' protocol with the master and reports what the
//! recorded agent reported.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use devcluster::master::Master;
use devcluster::protocol::{self, from_agent, to_agent};
use devcluster::resources::{Format, Resources, parse_attributes};
use mesos::pb;

use crate::link::Link;

pub struct PlayedAgent {
    pub subscribe: protocol::Subscribe,
    peer: IpAddr,
    link: Option<Link>,
    pub id: Option<pb::AgentId>,
    frameworks: BTreeMap<String, pb::FrameworkInfo>,
    executors: BTreeMap<(String, String), pb::ExecutorInfo>,
    tasks: BTreeMap<(String, String), pb::Task>,
    /// Updates that wait for their acknowledgement, the first of each task is sent.
    updates: BTreeMap<(String, String), VecDeque<pb::TaskStatus>>,
    /// What the master said: kind and task, executor or framework.
    pub heard: Vec<(&'static str, String)>,
    /// Stopped by a signal: it hears and says nothing, but its connection stands.
    pub frozen: bool,
    /// Without a connection, but the same process.
    kept: bool,
}

impl PlayedAgent {
    /// From the recorded command line.
    pub fn new(args: &[String], peer: IpAddr) -> Self {
        let flag = |name: &str| {
            let prefix = format!("--{name}=");
            args.iter()
                .find_map(|a| a.strip_prefix(&prefix))
                .map(str::to_owned)
        };
        use pb::agent_info::capability::Type;
        let capabilities = [
            Type::MultiRole,
            Type::HierarchicalRole,
            Type::ReservationRefinement,
            Type::ResourceProvider,
            Type::ResizeVolume,
            Type::AgentOperationFeedback,
            Type::AgentDraining,
            Type::TaskResourceLimits,
        ];
        let resources = Resources::parse(&flag("resources").unwrap()).unwrap();
        let domain = flag("domain")
            .map(|json| mesos::codec::from_json(&serde_json::from_str(&json).unwrap()).unwrap());
        let subscribe = protocol::Subscribe {
            info: pb::AgentInfo {
                hostname: flag("hostname").unwrap(),
                port: flag("port").map(|p| p.parse().unwrap()),
                resources: resources.to_pb(Format::PostRefinement),
                attributes: parse_attributes(&flag("attributes").unwrap_or_default()).unwrap(),
                domain,
                checkpoint: Some(true),
                ..Default::default()
            },
            ip: flag("ip").unwrap(),
            capabilities: capabilities
                .iter()
                .map(|c| pb::agent_info::Capability {
                    r#type: Some(*c as i32),
                })
                .collect(),
            version: "1.12.0".to_owned(),
            checkpoint: true,
            ..Default::default()
        };
        Self {
            subscribe,
            peer,
            link: None,
            id: None,
            frameworks: BTreeMap::new(),
            executors: BTreeMap::new(),
            tasks: BTreeMap::new(),
            updates: BTreeMap::new(),
            heard: Vec::new(),
            frozen: false,
            kept: false,
        }
    }

    /// Subscribes, with all that it has if it was there before.
    pub fn start(&mut self, master: &Master) {
        if self.link.is_none() && !std::mem::take(&mut self.kept) {
            // A new process: what was not on its disk is forgotten.
            let lost: Vec<_> = self
                .frameworks
                .iter()
                .filter(|(_, info)| !info.checkpoint())
                .map(|(id, _)| id.clone())
                .collect();
            for id in lost {
                self.forget(&id);
            }
            for task in self.tasks.values_mut() {
                task.status_update_state = None;
                task.status_update_uuid = None;
            }
        }
        self.link = None;
        let mut subscribe = self.subscribe.clone();
        subscribe.info.id.clone_from(&self.id);
        subscribe.frameworks = self.frameworks.values().cloned().collect();
        subscribe.executors = self.executors.values().cloned().collect();
        // In the order in which they were launched.
        let launched = |id: &str| {
            self.heard
                .iter()
                .position(|(k, t)| *k == "LAUNCH" && t == id)
        };
        subscribe.tasks = self.tasks.values().cloned().collect();
        subscribe.tasks.sort_by_key(|t| launched(&t.task_id.value));
        self.link = Some(Link::open(master, self.peer, &subscribe));
        self.pump(master);
        let refused = self
            .heard
            .last()
            .is_some_and(|(what, _)| *what == "REFUSED");
        assert!(self.id.is_some() || refused, "not registered");
    }

    fn forget(&mut self, framework: &str) {
        self.tasks.retain(|(f, _), _| f != framework);
        self.executors.retain(|(f, _), _| f != framework);
        self.updates.retain(|(f, _), _| f != framework);
        self.frameworks.remove(framework);
    }

    /// Its master died: nothing is forgotten.
    pub fn cut_off(&mut self) {
        self.link = None;
        self.kept = true;
    }

    /// Whether it has a connection.
    pub fn connected(&self) -> bool {
        self.link.is_some()
    }

    /// It ends for good.
    pub fn unregister(&mut self, master: &Master) {
        self.call(
            master,
            from_agent::Message::Unregister(protocol::Unregister {}),
        );
    }

    /// Its connection breaks.
    pub fn kill(&mut self) {
        self.link = None;
    }

    fn call(&self, master: &Master, message: from_agent::Message) {
        if let Some(link) = &self.link {
            link.call(master, message);
        }
    }

    /// Hears what the master says and answers.
    pub fn pump(&mut self, master: &Master) {
        while !self.frozen {
            let Some(link) = &mut self.link else {
                return;
            };
            let Some(message) = link.next() else {
                if link.ended() {
                    self.link = None;
                }
                return;
            };
            self.hear(master, message);
        }
    }

    fn hear(&mut self, master: &Master, message: to_agent::Message) {
        use to_agent::Message as M;
        match message {
            M::Registered(registered) => {
                self.id = Some(registered.agent_id);
                let waiting: Vec<_> = self.updates.keys().cloned().collect();
                for key in waiting {
                    self.send_head(master, &key);
                }
            }
            M::Refused(refused) => self.heard.push(("REFUSED", refused.message)),
            M::Ping(_) => self.call(master, from_agent::Message::Pong(protocol::Pong {})),
            M::RunTask(run) => {
                self.heard.push(("LAUNCH", run.task.task_id.value.clone()));
                let framework = run.framework.id.clone().unwrap();
                if let Some(executor) = &run.task.executor {
                    let key = (framework.value.clone(), executor.executor_id.value.clone());
                    self.executors.insert(key, executor.clone());
                }
                let executor = run.task.executor.as_ref();
                let task = pb::Task {
                    name: run.task.name.clone(),
                    task_id: run.task.task_id.clone(),
                    framework_id: framework.clone(),
                    executor_id: executor.map(|e| e.executor_id.clone()),
                    agent_id: run.task.agent_id.clone(),
                    state: pb::TaskState::TaskStaging as i32,
                    resources: run.task.resources.clone(),
                    ..Default::default()
                };
                self.frameworks
                    .insert(framework.value.clone(), run.framework);
                self.tasks
                    .insert((framework.value, run.task.task_id.value), task);
            }
            M::RunTaskGroup(run) => {
                for task in run.task_group.tasks {
                    self.heard.push(("LAUNCH", task.task_id.value));
                }
            }
            M::KillTask(kill) => self.heard.push(("KILL", kill.task_id.value)),
            M::ShutdownExecutor(shutdown) => {
                self.heard.push(("SHUTDOWN", shutdown.executor_id.value));
            }
            M::ShutdownFramework(shutdown) => {
                let id = shutdown.framework_id.value;
                self.forget(&id);
                self.heard.push(("SHUTDOWN_FRAMEWORK", id));
            }
            M::Acknowledge(acknowledge) => {
                let key = (acknowledge.framework_id.value, acknowledge.task_id.value);
                let Some(queue) = self.updates.get_mut(&key) else {
                    return;
                };
                let head = queue.front().and_then(|s| s.uuid.clone());
                if head.as_ref() != Some(&acknowledge.uuid) {
                    return;
                }
                if queue.pop_front().is_some_and(|s| is_terminal(s.state)) {
                    self.tasks.remove(&key);
                }
                self.send_head(master, &key);
            }
            M::FrameworkMessage(message) => {
                self.heard.push(("MESSAGE", message.executor_id.value));
            }
            M::UpdateFramework(update) => {
                let id = update.framework.id.clone().unwrap().value;
                if let std::collections::btree_map::Entry::Occupied(mut known) =
                    self.frameworks.entry(id.clone())
                {
                    known.insert(update.framework);
                }
                let waiting: Vec<_> = self
                    .updates
                    .keys()
                    .filter(|(f, _)| *f == id)
                    .cloned()
                    .collect();
                for key in waiting {
                    self.send_head(master, &key);
                }
            }
            M::ApplyOperation(operation) => {
                self.subscribe.checkpointed = operation.total;
                if operation.wants_feedback {
                    // Which one it is does not matter: it is compared as an id.
                    let uuid = uuid::Uuid::new_v4().as_bytes().to_vec();
                    let applied = protocol::OperationApplied {
                        serial: operation.serial,
                        uuid,
                    };
                    self.call(master, from_agent::Message::OperationApplied(applied));
                }
            }
            M::Drain(_) => {
                let running = self.tasks.values().filter(|t| !is_terminal(t.state));
                let kills = running.map(|t| ("KILL", t.task_id.value.clone()));
                self.heard.extend(kills);
            }
            M::Shutdown(shutdown) => {
                self.heard.push(("SHUTDOWN_AGENT", shutdown.message));
                self.tasks.clear();
                self.executors.clear();
                self.updates.clear();
                self.frameworks.clear();
            }
        }
    }

    /// The recorded agent reported this.
    pub fn report(&mut self, master: &Master, framework: &str, status: pb::TaskStatus) {
        let key = (framework.to_owned(), status.task_id.value.clone());
        let head = self.updates.get(&key).and_then(VecDeque::front);
        if head.is_some_and(|head| head.uuid == status.uuid) {
            return self.send_head(master, &key);
        }
        if let Some(task) = self.tasks.get_mut(&key) {
            task.state = status.state;
            task.statuses.retain(|s| s.state != status.state);
            task.statuses.push(status.clone());
        }
        let queue = self.updates.entry(key.clone()).or_default();
        let first = queue.is_empty();
        queue.push_back(status);
        if first {
            self.send_head(master, &key);
        }
    }

    fn send_head(&mut self, master: &Master, key: &(String, String)) {
        let Some(queue) = self.updates.get(key) else {
            return;
        };
        let Some(head) = queue.front().cloned() else {
            return;
        };
        let latest = queue.back().map(|s| s.state);
        if self.link.is_some()
            && let Some(task) = self.tasks.get_mut(key)
        {
            task.status_update_state = Some(head.state);
            task.status_update_uuid.clone_from(&head.uuid);
        }
        let update = protocol::Update {
            framework_id: pb::FrameworkId {
                value: key.0.clone(),
            },
            executor_id: head.executor_id.clone(),
            status: head,
            latest_state: latest,
        };
        self.call(master, from_agent::Message::Update(update));
    }

    /// The recorded executor ended.
    pub fn executor_exits(
        &mut self,
        master: &Master,
        framework: &str,
        executor: &str,
        status: i32,
    ) {
        self.executors
            .remove(&(framework.to_owned(), executor.to_owned()));
        let exited = protocol::ExitedExecutor {
            framework_id: pb::FrameworkId {
                value: framework.to_owned(),
            },
            executor_id: pb::ExecutorId {
                value: executor.to_owned(),
            },
            status,
        };
        self.call(master, from_agent::Message::ExitedExecutor(exited));
    }

    /// The recorded executor said something to its scheduler.
    pub fn executor_says(
        &mut self,
        master: &Master,
        framework: &str,
        executor: &str,
        data: Vec<u8>,
    ) {
        let message = protocol::ExecutorMessage {
            framework_id: pb::FrameworkId {
                value: framework.to_owned(),
            },
            executor_id: pb::ExecutorId {
                value: executor.to_owned(),
            },
            data,
        };
        self.call(master, from_agent::Message::ExecutorMessage(message));
    }
}

fn is_terminal(state: i32) -> bool {
    use pb::TaskState as S;
    !matches!(
        S::try_from(state),
        Ok(S::TaskStaging | S::TaskStarting | S::TaskRunning | S::TaskKilling)
    )
}
