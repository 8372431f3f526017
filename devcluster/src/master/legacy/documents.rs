//! The documents of the unversioned endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesos::pb;
use serde_json::{Map, Value, json};

use crate::clock::Time;
use crate::http;
use crate::ids::FrameworkId;
use crate::master::frameworks::{capabilities_of, roles_of};
use crate::master::state::{Agent, Executor, Framework, MasterState, VERSION};
use crate::master::view;
use crate::resources::{self, Format, Resources, Scalar};

pub(super) fn version() -> Value {
    json!({
        "version": VERSION,
        "build_date": "",
        "build_time": 0.0,
        "build_user": "devcluster",
        "git_tag": format!("devcluster-{}", env!("CARGO_PKG_VERSION")),
    })
}

pub(super) fn flags(state: &MasterState, cluster: Option<&str>) -> Value {
    let mut out: Map<String, Value> = state
        .flags()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    if let Some(cluster) = cluster {
        out.insert("cluster".to_owned(), cluster.into());
    }
    Value::Object(out)
}

fn seconds(time: Time) -> f64 {
    time.as_secs_f64()
}

/// Resources as these endpoints write them: four scalars always, ranges and sets as text.
pub(crate) fn quantities(resources: &Resources) -> Value {
    let mut out = Map::new();
    for name in ["disk", "mem", "gpus", "cpus"] {
        let scalar = resources.scalar(name).unwrap_or_default();
        out.insert(name.to_owned(), json!(scalar.to_f64()));
    }
    let mut ranges: BTreeMap<&str, String> = BTreeMap::new();
    for resource in resources {
        let name = resource.name();
        match resource.value() {
            resources::Value::Scalar(_) => {
                let sum = resources.scalar(name).unwrap_or_default();
                out.insert(name.to_owned(), json!(sum.to_f64()));
            }
            resources::Value::Ranges(_) => {
                ranges.insert(name, resources.ranges(name).to_string());
            }
            set @ resources::Value::Set(_) => {
                ranges.insert(name, set.to_string());
            }
        }
    }
    for (name, text) in ranges {
        out.insert(name.to_owned(), text.into());
    }
    Value::Object(out)
}

fn attributes(agent: &Agent) -> Value {
    let mut out = Map::new();
    for attribute in &agent.info.attributes {
        let value = if let Some(text) = &attribute.text {
            json!(text.value)
        } else if let Some(scalar) = &attribute.scalar {
            json!(scalar.value)
        } else if let Some(ranges) = &attribute.ranges {
            let list = ranges.range.iter().map(|r| (r.begin, r.end));
            json!(resources::Ranges::new(list).to_string())
        } else {
            continue;
        };
        out.insert(attribute.name.clone(), value);
    }
    Value::Object(out)
}

fn slave(state: &MasterState, id: &str, agent: &Agent) -> Value {
    let (used, offered) = view::agent_used_and_offered(state, agent);
    let reserved: Map<String, Value> = agent
        .total
        .by_reservation()
        .iter()
        .map(|(role, part)| (role.clone(), quantities(part)))
        .collect();
    let mut out = json!({
        "id": id,
        "hostname": agent.info.hostname,
        "port": agent.port(),
        "attributes": attributes(agent),
        "pid": agent.pid(),
        "registered_time": seconds(agent.registered),
        "resources": quantities(&agent.total),
        "used_resources": quantities(&used),
        "offered_resources": quantities(&offered),
        "reserved_resources": reserved,
        "unreserved_resources": quantities(&agent.total.unreserved()),
        "active": agent.active(),
        "deactivated": agent.deactivated,
        "version": agent.version,
        "capabilities": agent
            .capabilities
            .iter()
            .map(|c| c.r#type().as_str_name())
            .collect::<Vec<_>>(),
    });
    if let (Some(map), Some(time)) = (out.as_object_mut(), agent.reregistered) {
        map.insert("reregistered_time".to_owned(), json!(seconds(time)));
    }
    if let (Some(map), Some(domain)) = (out.as_object_mut(), &agent.info.domain) {
        map.insert("domain".to_owned(), http::json::print(domain));
    }
    if let (Some(map), Some(drain)) = (out.as_object_mut(), state.drain_of(agent)) {
        map.insert("drain_info".to_owned(), http::json::print(&drain.info()));
        let since = json!(seconds(drain.since));
        map.insert("estimated_drain_start_time_seconds".to_owned(), since);
    }
    out
}

fn slave_list(state: &MasterState) -> Vec<Value> {
    state
        .agents
        .iter()
        .map(|(id, agent)| slave(state, id.as_str(), agent))
        .collect()
}

fn recovered(state: &MasterState) -> Vec<Value> {
    state
        .recovered
        .iter()
        .map(|(id, info)| json!({"id": id.as_str(), "hostname": info.hostname}))
        .collect()
}

pub(super) fn slaves(state: &MasterState, query: &BTreeMap<String, String>) -> Value {
    let only = query.get("slave_id");
    let list: Vec<_> = state
        .agents
        .iter()
        .filter(|(id, _)| only.is_none_or(|only| id.as_str() == only))
        .map(|(id, agent)| {
            let mut out = slave(state, id.as_str(), agent);
            let (used, offered) = view::agent_used_and_offered(state, agent);
            let full = |r: &Resources| -> Value {
                let list = r.to_pb(Format::Endpoint);
                list.iter().map(http::json::print).collect()
            };
            let reserved: Map<String, Value> = agent
                .total
                .by_reservation()
                .iter()
                .map(|(role, part)| (role.clone(), full(part)))
                .collect();
            if let Some(map) = out.as_object_mut() {
                map.insert("reserved_resources_full".to_owned(), reserved.into());
                let unreserved = full(&agent.total.unreserved());
                map.insert("unreserved_resources_full".to_owned(), unreserved);
                map.insert("used_resources_full".to_owned(), full(&used));
                map.insert("offered_resources_full".to_owned(), full(&offered));
            }
            out
        })
        .collect();
    json!({
        "slaves": list,
        "recovered_slaves": recovered(state),
    })
}

pub(crate) fn task(task: &pb::Task) -> Value {
    let uses = Resources::from_pb(&task.resources).unwrap_or_default();
    let role = uses.by_allocation().into_keys().next().unwrap_or_default();
    let statuses: Vec<_> = task
        .statuses
        .iter()
        .map(|status| {
            let mut out = json!({
                "state": state_name(status.state),
                "timestamp": status.timestamp.unwrap_or_default(),
            });
            if let Some(map) = out.as_object_mut() {
                if let Some(labels) = &status.labels {
                    map.insert("labels".to_owned(), list_of_labels(labels));
                }
                if let Some(container) = &status.container_status {
                    let mut container = http::json::print(container);
                    if let Some(map) = container.as_object_mut() {
                        map.remove("executor_pid");
                    }
                    map.insert("container_status".to_owned(), container);
                }
                if let Some(healthy) = status.healthy {
                    map.insert("healthy".to_owned(), healthy.into());
                }
            }
            out
        })
        .collect();
    let mut out = json!({
        "id": task.task_id.value,
        "name": task.name,
        "framework_id": task.framework_id.value,
        "executor_id": task.executor_id.as_ref().map_or("", |e| e.value.as_str()),
        "slave_id": task.agent_id.value,
        "state": state_name(task.state),
        "resources": quantities(&uses.unallocated()),
        "role": role,
        "statuses": statuses,
    });
    if let Some(map) = out.as_object_mut() {
        if let Some(labels) = &task.labels {
            map.insert("labels".to_owned(), list_of_labels(labels));
        }
        if let Some(discovery) = &task.discovery {
            map.insert("discovery".to_owned(), http::json::print(discovery));
        }
        if let Some(container) = &task.container {
            map.insert("container".to_owned(), http::json::print(container));
        }
        if let Some(check) = &task.health_check {
            map.insert("health_check".to_owned(), http::json::print(check));
        }
        if let Some(user) = &task.user {
            map.insert("user".to_owned(), user.as_str().into());
        }
    }
    out
}

fn state_name(state: i32) -> &'static str {
    pb::TaskState::try_from(state).map_or("TASK_UNKNOWN", |s| s.as_str_name())
}

pub(crate) fn list_of_labels(labels: &pb::Labels) -> Value {
    labels
        .labels
        .iter()
        .map(|label| json!({"key": label.key, "value": label.value.clone().unwrap_or_default()}))
        .collect()
}

fn executor(agent: &str, executor: &Executor) -> Value {
    let info = &executor.info;
    let allocations = executor.resources.by_allocation();
    let mut out = json!({
        "executor_id": info.executor_id.value,
        "name": info.name.clone().unwrap_or_default(),
        "framework_id": info.framework_id.as_ref().map_or("", |f| f.value.as_str()),
        "command": info.command.as_ref().map(command).unwrap_or_else(|| json!({})),
        "resources": quantities(&executor.resources.unallocated()),
        "slave_id": agent,
    });
    if let Some(map) = out.as_object_mut() {
        if let Some(role) = allocations.keys().next() {
            map.insert("role".to_owned(), role.as_str().into());
        }
        if info.r#type.is_some() {
            map.insert("type".to_owned(), info.r#type().as_str_name().into());
        }
    }
    out
}

fn command(info: &pb::CommandInfo) -> Value {
    let mut out = http::json::print(info);
    if let Some(map) = out.as_object_mut() {
        let arguments = map.remove("arguments");
        map.insert("argv".to_owned(), arguments.unwrap_or_else(|| json!([])));
        map.entry("uris").or_insert_with(|| json!([]));
    }
    out
}

fn framework(state: &MasterState, id: &FrameworkId, f: &Framework) -> Value {
    let (used, offered) = view::used_and_offered(state, id);
    let offers: Vec<_> = f
        .offers
        .iter()
        .filter_map(|offer| {
            let record = state.offers.get(offer)?;
            Some(json!({
                "id": offer.as_str(),
                "framework_id": id.as_str(),
                "allocation_info": {"role": record.role},
                "slave_id": record.agent.as_str(),
                "resources": quantities(&record.resources.unallocated()),
            }))
        })
        .collect();
    let executors: Vec<_> = state
        .agents
        .iter()
        .flat_map(|(agent, a)| {
            a.executors
                .iter()
                .filter(|((framework, _), _)| framework == id)
                .map(move |(_, e)| executor(agent.as_str(), e))
        })
        .collect();
    let list = |tasks: &mut dyn Iterator<Item = &pb::Task>| tasks.map(task).collect::<Vec<_>>();
    let mut out = framework_head(&f.info);
    if let Some(map) = out.as_object_mut() {
        let more = json!({
            "used_resources": quantities(&used.unallocated()),
            "offered_resources": quantities(&offered.unallocated()),
            "resources": quantities(&used.plus(&offered).unallocated()),
            "active": f.connected(),
            "connected": f.connected(),
            "recovered": f.recovered,
            "registered_time": seconds(f.registered),
            "offer_constraints": f
                .offer_constraints
                .as_ref()
                .map_or_else(|| json!({}), http::json::print),
            "unregistered_time": seconds(f.unregistered),
            "tasks": list(&mut f.tasks.values().map(|t| &t.pb)),
            "unreachable_tasks": list(&mut f.unreachable.iter()),
            "completed_tasks": list(&mut f.completed.iter()),
            "offers": offers,
            "executors": executors,
        });
        if let Value::Object(more) = more {
            map.extend(more);
        }
        if f.reregistered != f.registered {
            map.insert(
                "reregistered_time".to_owned(),
                json!(seconds(f.reregistered)),
            );
        }
    }
    out
}

fn framework_head(info: &pb::FrameworkInfo) -> Value {
    let mut out = json!({
        "id": info.id.as_ref().map_or("", |id| id.value.as_str()),
        "name": info.name,
        "user": info.user,
        "failover_timeout": info.failover_timeout(),
        "checkpoint": info.checkpoint(),
        "hostname": info.hostname(),
        "webui_url": info.webui_url(),
        "capabilities": info
            .capabilities
            .iter()
            .map(|c| c.r#type().as_str_name())
            .collect::<Vec<_>>(),
    });
    if let Some(map) = out.as_object_mut() {
        let roles: Vec<_> = roles_of(info).into_iter().collect();
        if capabilities_of(info).multi_role {
            map.insert("roles".to_owned(), json!(roles));
        } else {
            map.insert("role".to_owned(), json!(roles.first()));
        }
        if let Some(principal) = &info.principal {
            map.insert("principal".to_owned(), principal.as_str().into());
        }
        if let Some(labels) = &info.labels {
            map.insert("labels".to_owned(), list_of_labels(labels));
        }
    }
    out
}

pub(super) fn frameworks(state: &MasterState, query: &BTreeMap<String, String>) -> Value {
    let only = query.get("framework_id");
    let wanted = |id: &FrameworkId| only.is_none_or(|only| id.as_str() == only);
    let live: Vec<_> = state
        .frameworks
        .iter()
        .filter(|(id, _)| wanted(id))
        .map(|(id, f)| framework(state, id, f))
        .collect();
    let completed: Vec<_> = state
        .completed
        .iter()
        .filter(|(id, ..)| wanted(id))
        .map(|(_, record, tasks)| {
            let mut out = framework_head(&record.framework_info);
            if let Some(map) = out.as_object_mut() {
                let time = |t: Option<pb::TimeInfo>| t.map_or(0.0, |t| t.nanoseconds as f64 / 1e9);
                let none = quantities(&Resources::default());
                let more = json!({
                    "used_resources": none, "offered_resources": none, "resources": none,
                    "active": false, "connected": false, "recovered": false,
                    "registered_time": time(record.registered_time),
                    "unregistered_time": time(record.unregistered_time),
                    "offer_constraints": record
                        .offer_constraints
                        .as_ref()
                        .map_or_else(|| json!({}), http::json::print),
                    "tasks": [], "unreachable_tasks": [],
                    "completed_tasks": tasks.iter().map(task).collect::<Vec<_>>(),
                    "offers": [], "executors": [],
                });
                if let Value::Object(more) = more {
                    map.extend(more);
                }
            }
            out
        })
        .collect();
    json!({
        "frameworks": live,
        "completed_frameworks": completed,
        "unregistered_frameworks": [],
    })
}

pub(super) fn state(state: &MasterState, cluster: Option<&str>) -> Value {
    let info = &state.info;
    let mut out = version();
    let Value::Object(map) = &mut out else {
        return out;
    };
    let active = state.agents.values().filter(|a| a.active()).count();
    let more = json!({
        "start_time": seconds(state.started),
        "elected_time": seconds(state.started),
        "id": info.id,
        "pid": info.pid,
        "hostname": info.hostname,
        "capabilities": info
            .capabilities
            .iter()
            .map(|c| c.r#type().as_str_name())
            .collect::<Vec<_>>(),
        "activated_slaves": active as f64,
        "deactivated_slaves": (state.agents.len() - active) as f64,
        "unreachable_slaves": state.registry.unreachable.len() as f64,
        "leader": info.pid,
        "leader_info": {
            "id": info.id, "pid": info.pid, "port": info.port, "hostname": info.hostname,
        },
        "flags": flags(state, cluster),
        "slaves": slave_list(state),
        "recovered_slaves": recovered(state),
        "orphan_tasks": [],
    });
    if let Some(cluster) = cluster {
        map.insert("cluster".to_owned(), cluster.into());
    }
    for part in [more, frameworks(state, &BTreeMap::new())] {
        if let Value::Object(part) = part {
            map.extend(part);
        }
    }
    out
}

pub(super) fn summary(state: &MasterState, cluster: Option<&str>) -> Value {
    const STATES: [pb::TaskState; 10] = [
        pb::TaskState::TaskStaging,
        pb::TaskState::TaskStarting,
        pb::TaskState::TaskRunning,
        pb::TaskState::TaskKilling,
        pb::TaskState::TaskFinished,
        pb::TaskState::TaskKilled,
        pb::TaskState::TaskFailed,
        pb::TaskState::TaskLost,
        pb::TaskState::TaskError,
        pb::TaskState::TaskUnreachable,
    ];
    let counts = |tasks: &[&pb::Task]| -> Map<String, Value> {
        STATES
            .iter()
            .map(|s| {
                let n = tasks.iter().filter(|t| t.state == *s as i32).count();
                (s.as_str_name().to_owned(), json!(n))
            })
            .collect()
    };
    let tasks_of = |f: &FrameworkId| -> Vec<&pb::Task> {
        match state.frameworks.get(f) {
            Some(f) => {
                let live = f.tasks.values().map(|t| &t.pb);
                live.chain(&f.unreachable).chain(&f.completed).collect()
            }
            None => Vec::new(),
        }
    };
    let frameworks: Vec<_> = state
        .frameworks
        .iter()
        .map(|(id, f)| {
            let mut out = framework_head(&f.info);
            let (used, offered) = view::used_and_offered(state, id);
            if let Some(map) = out.as_object_mut() {
                for longer in ["user", "failover_timeout", "checkpoint", "roles", "role"] {
                    map.remove(longer);
                }
                map.insert("used_resources".to_owned(), quantities(&used.unallocated()));
                map.insert(
                    "offered_resources".to_owned(),
                    quantities(&offered.unallocated()),
                );
                map.insert("active".to_owned(), f.connected().into());
                map.insert("connected".to_owned(), f.connected().into());
                map.insert("recovered".to_owned(), f.recovered.into());
                map.extend(counts(&tasks_of(id)));
                let agents: std::collections::BTreeSet<_> = f
                    .tasks
                    .values()
                    .map(|t| t.pb.agent_id.value.as_str())
                    .collect();
                map.insert("slave_ids".to_owned(), json!(agents));
            }
            out
        })
        .collect();
    let slaves: Vec<_> = state
        .agents
        .iter()
        .map(|(id, agent)| {
            let mut out = slave(state, id.as_str(), agent);
            // Ended ones too, as far as they are remembered.
            let tasks: Vec<_> = state
                .frameworks
                .keys()
                .flat_map(&tasks_of)
                .filter(|t| t.agent_id.value == id.as_str())
                .collect();
            let frameworks: std::collections::BTreeSet<_> = tasks
                .iter()
                .map(|t| t.framework_id.value.as_str())
                .collect();
            if let Some(map) = out.as_object_mut() {
                map.extend(counts(&tasks));
                map.insert("framework_ids".to_owned(), json!(frameworks));
            }
            out
        })
        .collect();
    json!({
        "hostname": state.info.hostname,
        "cluster": cluster,
        "slaves": slaves,
        "frameworks": frameworks,
    })
}

pub(super) fn tasks(state: &MasterState, query: &BTreeMap<String, String>) -> Value {
    /// Tasks shown when no limit is given, as in Mesos.
    const LIMIT: usize = 100;
    let number = |name: &str| query.get(name).and_then(|n| n.parse::<usize>().ok());
    let mut all: Vec<&pb::Task> = Vec::new();
    for framework in state.frameworks.values() {
        all.extend(framework.tasks.values().map(|t| &t.pb));
        all.extend(&framework.unreachable);
        all.extend(&framework.completed);
    }
    for (.., completed) in &state.completed {
        all.extend(completed);
    }
    all.retain(|t| {
        let is = |name: &str, value: &str| query.get(name).is_none_or(|q| q == value);
        is("framework_id", &t.framework_id.value) && is("task_id", &t.task_id.value)
    });
    let first = |t: &pb::Task| t.statuses.first().and_then(|s| s.timestamp).unwrap_or(0.0);
    all.sort_by(|a, b| first(a).total_cmp(&first(b)));
    // The newest first unless told otherwise.
    if query.get("order").is_none_or(|order| order != "asc") {
        all.reverse();
    }
    let shown = all
        .into_iter()
        .skip(number("offset").unwrap_or(0))
        .take(number("limit").unwrap_or(LIMIT));
    json!({"tasks": shown.map(task).collect::<Vec<_>>()})
}

pub(super) fn roles(state: &MasterState) -> Value {
    let scalars = |r: &Resources| {
        let mut out: Map<String, Value> = r
            .scalars()
            .into_iter()
            .map(|(name, s): (_, Scalar)| (name.to_string(), json!(s.to_f64())))
            .collect();
        let names: std::collections::BTreeSet<_> = r.iter().map(|r| r.name()).collect();
        for name in names {
            let count = r.ranges(name).count();
            if count > 0 {
                out.insert(name.to_owned(), json!(count as f64));
            }
        }
        Value::Object(out)
    };
    let list: Vec<_> = state
        .roles()
        .into_iter()
        .map(|(role, holds)| {
            let (mut used, mut offered) = (Resources::default(), Resources::default());
            for id in state.frameworks.keys() {
                let (u, o) = view::used_and_offered(state, id);
                used.add_all(&u.filter(|r| r.allocation() == Some(role.name.as_str())));
                offered.add_all(&o.filter(|r| r.allocation() == Some(role.name.as_str())));
            }
            let (used, offered) = (used.unallocated(), offered.unallocated());
            let mut reserved = Resources::default();
            for agent in state.agents.values() {
                let own = |r: &resources::Resource| r.reserved_for() == Some(role.name.as_str());
                reserved.add_all(&agent.total.filter(own).unallocated());
            }
            // What is offered does not count here, what is reserved does, used or not.
            let mut consumed = used.unreserved();
            consumed.add_all(&reserved);
            let quotas = state.allocator.quotas();
            let quota = quotas.get(&role.name).cloned().unwrap_or_default();
            json!({
                "name": role.name,
                "weight": role.weight,
                "quota": {
                    "role": role.name,
                    "guarantee": amounts(&quota.guarantees),
                    "limit": amounts(&quota.limits),
                    "consumed": amounts(&consumed.scalars()),
                },
                "resources": scalars(&holds.unallocated()),
                "allocated": scalars(&used),
                "offered": scalars(&offered),
                "reserved": scalars(&reserved),
                "frameworks": role.frameworks.iter().map(|f| f.value.clone()).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"roles": list})
}

fn amounts(scalars: &BTreeMap<Arc<str>, Scalar>) -> Value {
    let members = scalars.iter();
    members
        .map(|(name, scalar)| (name.to_string(), json!(scalar.to_f64())))
        .collect()
}

pub(super) fn weights(state: &MasterState) -> Value {
    state
        .allocator
        .config()
        .weights
        .iter()
        .map(|(role, weight)| json!({"role": role, "weight": weight}))
        .collect()
}
