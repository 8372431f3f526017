//! The life of a framework: subscription, failover, disconnection, removal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mesos::pb;
use mesos::pb::framework_info::capability::Type as Capability;
use mesos::pb::scheduler::event::Type as EventType;

use super::event::{Answer, Effect, StreamId};
use super::state::{Capabilities, Framework, HEARTBEAT, MasterState, Owner, Timer};
use super::{updates, validate, view};
use crate::allocator::FrameworkOptions;
use crate::ids::FrameworkId;
use crate::protocol::{ShutdownFramework, UpdateFramework, to_agent};
use crate::resources::{DEFAULT_ROLE, Scalar};

/// The roles that a framework asks for.
#[allow(deprecated, reason = "frameworks without MULTI_ROLE have only `role`")]
pub(super) fn roles_of(info: &pb::FrameworkInfo) -> BTreeSet<String> {
    if capabilities_of(info).multi_role {
        info.roles.iter().cloned().collect()
    } else {
        [info.role.as_deref().unwrap_or(DEFAULT_ROLE).to_owned()].into()
    }
}

pub(super) fn capabilities_of(info: &pb::FrameworkInfo) -> Capabilities {
    let has = |kind: Capability| info.capabilities.iter().any(|c| c.r#type() == kind);
    Capabilities {
        multi_role: has(Capability::MultiRole),
        reservation_refinement: has(Capability::ReservationRefinement),
        partition_aware: has(Capability::PartitionAware),
        gpu: has(Capability::GpuResources),
        region: has(Capability::RegionAware),
        revocable: has(Capability::RevocableResources),
    }
}

fn options_of(info: &pb::FrameworkInfo, suppressed: &[String]) -> FrameworkOptions {
    let capabilities = capabilities_of(info);
    let min_allocatable = info
        .offer_filters
        .iter()
        .filter_map(|(role, filter)| {
            let list = filter.min_allocatable_resources.as_ref()?;
            let list = list.quantities.iter().map(|q| {
                let scalars = q.quantities.iter();
                scalars
                    .map(|(name, s)| (name.clone(), Scalar::from_f64(s.value)))
                    .collect::<BTreeMap<_, _>>()
            });
            Some((role.clone(), list.collect()))
        })
        .collect();
    FrameworkOptions {
        roles: roles_of(info),
        suppressed: suppressed.iter().cloned().collect(),
        gpu_aware: capabilities.gpu,
        region_aware: capabilities.region,
        revocable: capabilities.revocable,
        min_allocatable,
    }
}

impl Framework {
    fn new(info: pb::FrameworkInfo, now: crate::clock::Time) -> Self {
        Self {
            capabilities: capabilities_of(&info),
            roles: roles_of(&info),
            info,
            offer_constraints: None,
            stream: None,
            recovered: false,
            registered: now,
            reregistered: now,
            unregistered: crate::clock::Time::EPOCH,
            failover_deadline: None,
            tasks: BTreeMap::new(),
            unreachable: VecDeque::new(),
            completed: VecDeque::new(),
            offers: BTreeSet::new(),
        }
    }

    pub(super) fn connected(&self) -> bool {
        self.stream.is_some()
    }
}

impl MasterState {
    pub(super) fn subscribe_framework(
        &mut self,
        stream: StreamId,
        subscribe: pb::scheduler::call::Subscribe,
    ) -> Answer {
        let mut info = subscribe.framework_info;
        let id = info
            .id
            .as_ref()
            .filter(|id| !id.value.is_empty())
            .map(FrameworkId::from);
        let error = self
            .why_refused(&info, &subscribe.suppressed_roles)
            .or_else(|| validate::offer_constraints(&info, subscribe.offer_constraints.as_ref()));
        if let Some(error) = error {
            return self.refuse_framework(stream, error);
        }
        let options = options_of(&info, &subscribe.suppressed_roles);
        let Some(id) = id else {
            self.count("master/messages_register_framework");
            let id = FrameworkId::from(format!("{}-{:04}", self.id(), self.next_framework));
            self.next_framework += 1;
            info.id = Some(id.to_pb());
            let mut framework = Framework::new(info, self.now);
            framework.offer_constraints = subscribe.offer_constraints;
            self.frameworks.insert(id.clone(), framework);
            self.allocator.add_framework(&id, options, true);
            self.connect_framework(&id, stream);
            self.allocate_all();
            self.tell_operators(|state| view::framework_added(state, &id));
            return Answer::Stream;
        };
        self.count("master/messages_reregister_framework");
        if let Some(framework) = self.frameworks.get(&id) {
            if framework.info.principal != info.principal {
                let error = "Changing framework's principal is not allowed.".to_owned();
                return self.refuse_framework(stream, error);
            }
            // These two cannot change; asking for it on SUBSCRIBE is ignored.
            info.user.clone_from(&framework.info.user);
            info.checkpoint = framework.info.checkpoint;
        }
        if !self.frameworks.contains_key(&id) {
            self.recover_framework(&info);
        }
        self.change_framework(&id, info, options, subscribe.offer_constraints);
        let now = self.now;
        let Some(framework) = self.frameworks.get_mut(&id) else {
            return Answer::error(500, "Framework was lost");
        };
        if !framework.recovered {
            framework.reregistered = now;
        }
        framework.recovered = false;
        let was_connected = framework.stream.take();
        if let Some(at) = framework.failover_deadline.take() {
            self.timers.remove(&(at, Timer::Failover(id.clone())));
        }
        match was_connected {
            Some(old) => {
                tracing::info!(framework = %id, "failed over to another scheduler");
                self.effects.push(Effect::ToScheduler {
                    stream: old,
                    event: Box::new(error_event("Framework failed over".to_owned())),
                });
                self.close(old);
                self.drop_offers_of(&id);
                self.forget_inverse_offers_to(&id);
            }
            None => {
                self.allocator.set_framework_active(&id, true);
                self.allocate_all();
            }
        }
        self.connect_framework(&id, stream);
        self.announce_framework(&id);
        Answer::Stream
    }

    /// Sends what every fresh stream begins with.
    fn connect_framework(&mut self, id: &FrameworkId, stream: StreamId) {
        tracing::info!(framework = %id, "subscribed");
        self.streams.insert(stream, Owner::Framework(id.clone()));
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.stream = Some(stream);
        }
        let event = pb::scheduler::Event {
            r#type: Some(EventType::Subscribed as i32),
            subscribed: Some(pb::scheduler::event::Subscribed {
                framework_id: id.to_pb(),
                heartbeat_interval_seconds: Some(HEARTBEAT.as_secs_f64()),
                master_info: Some(self.info.clone()),
            }),
            ..Default::default()
        };
        self.tell_scheduler(id, event);
        self.heartbeat(stream, self.now);
    }

    fn refuse_framework(&mut self, stream: StreamId, error: String) -> Answer {
        tracing::info!(%error, "a subscription is refused");
        self.effects.push(Effect::ToScheduler {
            stream,
            event: Box::new(error_event(error)),
        });
        self.effects.push(Effect::Close(stream));
        Answer::Stream
    }

    /// What a FrameworkInfo is refused for, in Mesos' words.
    fn why_refused(&self, info: &pb::FrameworkInfo, suppressed: &[String]) -> Option<String> {
        if let Err(error) = validate::framework_info(info) {
            return Some(error);
        }
        let roles = roles_of(info);
        if !self.settings.roles.is_empty() {
            for role in &roles {
                if role != DEFAULT_ROLE && !self.settings.roles.contains(role) {
                    return Some(format!(
                        "Roles {{ {role} }} are not present in the master's --roles"
                    ));
                }
            }
        }
        let principal = info.principal.as_deref();
        let acls = &self.settings.acls;
        if !roles.iter().all(|role| acls.may_register(principal, role)) {
            let roles: Vec<_> = roles.iter().map(String::as_str).collect();
            // Mesos leaves out the id here, with the space after it.
            return Some(format!(
                "Not authorized to register framework  with roles {{ {} }}",
                roles.join(", ")
            ));
        }
        if let Some(id) = &info.id
            && self.is_completed(&FrameworkId::from(id))
        {
            return Some("Framework has been removed".to_owned());
        }
        validate::suppressed_roles(&roles, suppressed).err()
    }

    /// Adds a framework that is known from an agent, or from its own word, but not here.
    pub(super) fn recover_framework(&mut self, info: &pb::FrameworkInfo) {
        let Some(id) = info.id.as_ref().map(FrameworkId::from) else {
            return;
        };
        let mut framework = Framework::new(info.clone(), self.now);
        framework.recovered = true;
        self.frameworks.insert(id.clone(), framework);
        self.allocator
            .add_framework(&id, options_of(info, &[]), false);
        self.tell_operators(|state| view::framework_added(state, &id));
    }

    fn change_framework(
        &mut self,
        id: &FrameworkId,
        mut info: pb::FrameworkInfo,
        options: FrameworkOptions,
        constraints: Option<pb::scheduler::OfferConstraints>,
    ) {
        info.id = Some(id.to_pb());
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        framework.capabilities = capabilities_of(&info);
        framework.roles.clone_from(&options.roles);
        framework.offer_constraints = constraints;
        framework.info = info;
        let left: Vec<_> = framework
            .offers
            .iter()
            .filter(|offer| {
                self.offers
                    .get(*offer)
                    .is_some_and(|o| !options.roles.contains(&o.role))
            })
            .cloned()
            .collect();
        for offer in left {
            self.rescind(&offer);
        }
        self.allocator.update_framework(id, options);
    }

    /// Tells agents and operators that a framework is back or has changed.
    fn announce_framework(&mut self, id: &FrameworkId) {
        self.tell_operators(|state| view::framework_updated(state, id));
        let Some(framework) = self.frameworks.get(id) else {
            return;
        };
        let message = to_agent::Message::UpdateFramework(UpdateFramework {
            framework: framework.info.clone(),
        });
        let streams: Vec<_> = self.agents.values().filter_map(|a| a.stream).collect();
        for stream in streams {
            self.effects.push(Effect::ToAgent {
                stream,
                message: Box::new(message.clone()),
            });
        }
    }

    pub(super) fn update_framework_call(
        &mut self,
        id: &FrameworkId,
        update: pb::scheduler::call::UpdateFramework,
    ) -> Answer {
        let info = update.framework_info;
        let refused =
            |error| Answer::bad_request(format!("Supplied FrameworkInfo is not valid: {error}"));
        if let Err(error) = validate::framework_info(&info) {
            return refused(error);
        }
        let Some(framework) = self.frameworks.get(id) else {
            return Answer::bad_request("Framework cannot be found");
        };
        if let Err(error) = validate::framework_update(&framework.info, &info) {
            return Answer::bad_request(format!("FrameworkInfo update is not valid: {error}"));
        }
        if let Some(error) = self.why_refused(&info, &[]) {
            return refused(error);
        }
        let suppressed = validate::suppressed_roles(&roles_of(&info), &update.suppressed_roles);
        let error = suppressed
            .err()
            .or_else(|| validate::offer_constraints(&info, update.offer_constraints.as_ref()));
        if let Some(error) = error {
            return Answer::bad_request(format!("'UpdateFramework' call is not valid: {error}"));
        }
        let changed = framework.info != info;
        let options = options_of(&info, &update.suppressed_roles);
        self.change_framework(id, info, options, update.offer_constraints);
        if changed {
            self.announce_framework(id);
        }
        Answer::Ok
    }

    pub(super) fn framework_disconnected(&mut self, id: &FrameworkId, stream: StreamId) {
        self.streams.remove(&stream);
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        if framework.stream != Some(stream) {
            return;
        }
        tracing::info!(framework = %id, "disconnected");
        framework.stream = None;
        let timeout = framework.info.failover_timeout.unwrap_or(0.0);
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
        let deadline = self.now + timeout;
        framework.failover_deadline = Some(deadline);
        self.drop_offers_of(id);
        self.forget_inverse_offers_to(id);
        self.allocator.set_framework_active(id, false);
        if timeout.is_zero() {
            self.remove_framework(id);
        } else {
            self.timers.insert((deadline, Timer::Failover(id.clone())));
        }
    }

    /// Ends a framework for good: its executors are shut down, its id is refused from now on.
    pub(super) fn remove_framework(&mut self, id: &FrameworkId) {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        tracing::info!(framework = %id, "removed");
        let stream = framework.stream.take();
        framework.unregistered = self.now;
        framework.failover_deadline = None;
        if let Some(stream) = stream {
            self.close(stream);
        }
        self.drop_offers_of(id);
        self.forget_inverse_offers_to(id);
        self.forget_operations(|o| o.framework == *id);
        self.allocator.set_framework_active(id, false);
        let agents: Vec<_> = self.agents.keys().cloned().collect();
        for agent in &agents {
            let message = to_agent::Message::ShutdownFramework(ShutdownFramework {
                framework_id: id.to_pb(),
            });
            self.tell_agent(agent, message);
        }
        let tasks: Vec<_> = match self.frameworks.get(id) {
            Some(framework) => framework.tasks.keys().cloned().collect(),
            None => Vec::new(),
        };
        for task in tasks {
            let Some(record) = self.frameworks.get(id).and_then(|f| f.tasks.get(&task)) else {
                continue;
            };
            let mut status = updates::status(
                self.now,
                &record.pb.task_id,
                pb::TaskState::TaskKilled,
                pb::task_status::Reason::FrameworkRemoved,
                format!("Framework {id} removed"),
            );
            status.agent_id = Some(record.pb.agent_id.clone());
            self.update_task(id, &status, None);
            self.remove_task(id, &task, updates::Keep::Completed);
        }
        for agent in &agents {
            let executors: Vec<_> = self
                .agents
                .get(agent)
                .map(|a| {
                    a.executors
                        .keys()
                        .filter(|(f, _)| f == id)
                        .cloned()
                        .collect()
                })
                .unwrap_or_default();
            for (framework, executor) in executors {
                self.remove_executor(agent, &framework, &executor);
            }
        }
        let record = view::framework(self, id);
        let info = record.framework_info.clone();
        let mut tasks = Vec::new();
        if let Some(framework) = self.frameworks.remove(id) {
            tasks.extend(framework.completed);
            tasks.extend(framework.unreachable.into_iter().map(|mut task| {
                task.state = pb::TaskState::TaskKilled as i32;
                task
            }));
        }
        self.allocator.remove_framework(id);
        self.completed.push_back((id.clone(), record, tasks));
        while self.completed.len() > self.settings.max_completed_frameworks {
            self.completed.pop_front();
        }
        self.tell_operators(|_| view::framework_removed(info));
    }
}

fn error_event(message: String) -> pb::scheduler::Event {
    pb::scheduler::Event {
        r#type: Some(EventType::Error as i32),
        error: Some(pb::scheduler::event::Error { message }),
        ..Default::default()
    }
}
