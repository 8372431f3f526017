//! The master's state as messages: offers, and what operators ask for or are told.

use mesos::pb;
use mesos::pb::master::Event;
use mesos::pb::master::event::Type as EventType;
use mesos::pb::master::response::{GetAgents, GetExecutors, GetFrameworks, GetTasks};
use mesos::pb::master::response::{get_agents, get_executors, get_frameworks};

use super::drain::Drain;
use super::state::{Agent, Framework, MasterState, Offer};
use crate::clock::Time;
use crate::ids::{AgentId, FrameworkId, OfferId};
use crate::resources::{Format, Resources};

pub(super) fn time_info(time: Time) -> pb::TimeInfo {
    pb::TimeInfo {
        nanoseconds: i64::try_from(time.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// An offer as its framework can read it.
pub(super) fn offer(state: &MasterState, id: &OfferId, offer: &Offer) -> pb::Offer {
    let capabilities = state
        .frameworks
        .get(&offer.framework)
        .map(|f| f.capabilities)
        .unwrap_or_default();
    let format = if capabilities.reservation_refinement {
        Format::PostRefinement
    } else {
        Format::PreRefinement
    };
    let resources = if capabilities.multi_role {
        offer.resources.to_pb(format)
    } else {
        offer.resources.unallocated().to_pb(format)
    };
    let mut out = pb::Offer {
        id: id.to_pb(),
        framework_id: offer.framework.to_pb(),
        agent_id: offer.agent.to_pb(),
        resources,
        allocation_info: capabilities
            .multi_role
            .then(|| pb::resource::AllocationInfo {
                role: Some(offer.role.clone()),
            }),
        ..Default::default()
    };
    if let Some(agent) = state.agents.get(&offer.agent) {
        out.hostname.clone_from(&agent.info.hostname);
        out.attributes.clone_from(&agent.info.attributes);
        out.domain.clone_from(&agent.info.domain);
        out.url = Some(agent_url(agent));
        out.unavailability = state.unavailability_of(agent).cloned();
        out.executor_ids = agent
            .executors
            .keys()
            .filter(|(framework, _)| *framework == offer.framework)
            .map(|(_, executor)| executor.to_pb())
            .collect();
    }
    out
}

/// Where an agent's own HTTP API is.
pub(super) fn agent_url(agent: &Agent) -> pb::Url {
    pb::Url {
        scheme: "http".to_owned(),
        address: pb::Address {
            hostname: Some(agent.info.hostname.clone()),
            ip: Some(agent.ip.clone()),
            port: i32::from(agent.port()),
        },
        path: Some("/slave(1)".to_owned()),
        ..Default::default()
    }
}

/// What a framework's tasks and executors use, and what it is offered.
pub(super) fn used_and_offered(state: &MasterState, id: &FrameworkId) -> (Resources, Resources) {
    let (mut used, mut offered) = (Resources::default(), Resources::default());
    if let Some(framework) = state.frameworks.get(id) {
        for task in framework.tasks.values() {
            used.add_all(&task.resources);
        }
        for offer in framework.offers.iter().filter_map(|o| state.offers.get(o)) {
            offered.add_all(&offer.resources);
        }
    }
    for agent in state.agents.values() {
        for ((framework, _), executor) in &agent.executors {
            if framework == id {
                used.add_all(&executor.resources);
            }
        }
    }
    (used, offered)
}

pub(super) fn framework(state: &MasterState, id: &FrameworkId) -> get_frameworks::Framework {
    match state.frameworks.get(id) {
        Some(framework) => framework_of(state, id, framework),
        None => get_frameworks::Framework::default(),
    }
}

fn framework_of(
    state: &MasterState,
    id: &FrameworkId,
    framework: &Framework,
) -> get_frameworks::Framework {
    let (used, offered) = used_and_offered(state, id);
    let time = |t: Time| (t != Time::EPOCH).then(|| time_info(t));
    get_frameworks::Framework {
        framework_info: framework.info.clone(),
        active: framework.connected(),
        connected: framework.connected(),
        recovered: framework.recovered,
        registered_time: time(framework.registered),
        reregistered_time: time(framework.reregistered),
        unregistered_time: time(framework.unregistered),
        offers: framework
            .offers
            .iter()
            .filter_map(|o| Some(offer(state, o, state.offers.get(o)?)))
            .collect(),
        inverse_offers: state.inverse_offers_to(id),
        allocated_resources: used.to_pb(Format::Endpoint),
        offered_resources: offered.to_pb(Format::Endpoint),
        offer_constraints: Some(framework.offer_constraints.clone().unwrap_or_default()),
    }
}

/// What tasks, executors and offers take of an agent.
pub(super) fn agent_used_and_offered(state: &MasterState, agent: &Agent) -> (Resources, Resources) {
    let (mut used, mut offered) = (Resources::default(), Resources::default());
    for (framework, task) in &agent.tasks {
        if let Some(task) = state
            .frameworks
            .get(framework)
            .and_then(|f| f.tasks.get(task))
        {
            used.add_all(&task.resources);
        }
    }
    for executor in agent.executors.values() {
        used.add_all(&executor.resources);
    }
    for offer in agent.offers.iter().filter_map(|o| state.offers.get(o)) {
        offered.add_all(&offer.resources);
    }
    (used, offered)
}

pub(super) fn agent(state: &MasterState, agent: &Agent) -> get_agents::Agent {
    let (used, offered) = agent_used_and_offered(state, agent);
    let drain = state.drain_of(agent);
    get_agents::Agent {
        agent_info: agent.info.clone(),
        active: agent.active(),
        deactivated: Some(agent.deactivated),
        version: agent.version.clone(),
        pid: Some(agent.pid()),
        registered_time: Some(time_info(agent.registered)),
        reregistered_time: agent.reregistered.map(time_info),
        total_resources: agent.total.to_pb(Format::Endpoint),
        allocated_resources: used.to_pb(Format::Endpoint),
        offered_resources: offered.to_pb(Format::Endpoint),
        capabilities: agent.capabilities.clone(),
        drain_info: drain.map(Drain::info),
        estimated_drain_start_time: drain.map(|drain| time_info(drain.since)),
        ..Default::default()
    }
}

pub(super) fn get_agents(state: &MasterState) -> GetAgents {
    GetAgents {
        agents: state.agents.values().map(|a| agent(state, a)).collect(),
        recovered_agents: state.recovered.values().cloned().collect(),
    }
}

pub(super) fn get_frameworks(state: &MasterState) -> GetFrameworks {
    GetFrameworks {
        frameworks: state
            .frameworks
            .iter()
            .map(|(id, f)| framework_of(state, id, f))
            .collect(),
        completed_frameworks: state.completed.iter().map(|(_, f, _)| f.clone()).collect(),
        ..Default::default()
    }
}

pub(super) fn get_tasks(state: &MasterState) -> GetTasks {
    let mut out = GetTasks::default();
    for framework in state.frameworks.values() {
        for task in framework.tasks.values() {
            // Ended but not acknowledged still counts among the live ones.
            out.tasks.push(task.pb.clone());
        }
        out.unreachable_tasks
            .extend(framework.unreachable.iter().cloned());
        out.completed_tasks
            .extend(framework.completed.iter().cloned());
    }
    for (.., tasks) in &state.completed {
        out.completed_tasks.extend(tasks.iter().cloned());
    }
    out
}

pub(super) fn get_executors(state: &MasterState) -> GetExecutors {
    let executors = state.agents.iter().flat_map(|(id, agent)| {
        agent.executors.values().map(|e| get_executors::Executor {
            executor_info: e.info.clone(),
            agent_id: id.to_pb(),
        })
    });
    GetExecutors {
        executors: executors.collect(),
        ..Default::default()
    }
}

pub(super) fn get_state(state: &MasterState) -> pb::master::response::GetState {
    pb::master::response::GetState {
        get_tasks: Some(get_tasks(state)),
        get_executors: Some(get_executors(state)),
        get_frameworks: Some(get_frameworks(state)),
        get_agents: Some(get_agents(state)),
    }
}

fn event(kind: EventType) -> Event {
    Event {
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

/// Events say when a framework left even if it never did, and not what it has.
fn for_event(state: &MasterState, id: &FrameworkId) -> get_frameworks::Framework {
    let mut out = framework(state, id);
    out.unregistered_time.get_or_insert(time_info(Time::EPOCH));
    out.offer_constraints = None;
    out.offers = Vec::new();
    out.allocated_resources = Vec::new();
    out.offered_resources = Vec::new();
    out
}

pub(super) fn framework_added(state: &MasterState, id: &FrameworkId) -> Event {
    Event {
        framework_added: Some(pb::master::event::FrameworkAdded {
            framework: for_event(state, id),
        }),
        ..event(EventType::FrameworkAdded)
    }
}

pub(super) fn framework_updated(state: &MasterState, id: &FrameworkId) -> Event {
    Event {
        framework_updated: Some(pb::master::event::FrameworkUpdated {
            framework: for_event(state, id),
        }),
        ..event(EventType::FrameworkUpdated)
    }
}

pub(super) fn framework_removed(info: pb::FrameworkInfo) -> Event {
    Event {
        framework_removed: Some(pb::master::event::FrameworkRemoved {
            framework_info: info,
        }),
        ..event(EventType::FrameworkRemoved)
    }
}

pub(super) fn agent_added(state: &MasterState, id: &AgentId) -> Event {
    let record = state.agents.get(id).map(|a| agent(state, a));
    Event {
        agent_added: Some(pb::master::event::AgentAdded {
            agent: record.unwrap_or_default(),
        }),
        ..event(EventType::AgentAdded)
    }
}

pub(super) fn agent_removed(id: &AgentId) -> Event {
    Event {
        agent_removed: Some(pb::master::event::AgentRemoved {
            agent_id: id.to_pb(),
        }),
        ..event(EventType::AgentRemoved)
    }
}

pub(super) fn task_added(task: pb::Task) -> Event {
    Event {
        task_added: Some(pb::master::event::TaskAdded { task }),
        ..event(EventType::TaskAdded)
    }
}

pub(super) fn task_updated(id: &FrameworkId, status: pb::TaskStatus, state: i32) -> Event {
    Event {
        task_updated: Some(pb::master::event::TaskUpdated {
            framework_id: id.to_pb(),
            status,
            state,
        }),
        ..event(EventType::TaskUpdated)
    }
}
