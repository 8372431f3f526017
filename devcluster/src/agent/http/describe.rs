//! The agent's state as messages and documents, the same for the operator API and for the
//! endpoints that are older.

use mesos::pb;
use pb::agent::response as r;
use serde_json::{Map, Value, json};

use crate::agent::config::VERSION;
use crate::agent::core::capabilities;
use crate::agent::core::model::{Executor, ExecutorState, Framework, sum, task_of};
use crate::agent::run::View;
use crate::clock::Time;
use crate::http::json::print;
use crate::ids::FrameworkId;
use crate::master::legacy::{list_of_labels, quantities, task};
use crate::resources::{Format, Resources};

fn frameworks<'a>(view: &'a View<'_>) -> impl Iterator<Item = &'a Framework> {
    view.core
        .frameworks
        .values()
        .chain(&view.core.completed_frameworks)
}

fn live_executors<'a>(view: &'a View<'_>) -> impl Iterator<Item = (FrameworkId, &'a Executor)> {
    view.core
        .frameworks
        .iter()
        .flat_map(|(id, f)| f.executors.values().map(move |e| (id.clone(), e)))
}

/// Containers of live executors with what they use.
pub fn containers(view: &View<'_>) -> Vec<r::get_containers::Container> {
    live_executors(view)
        .filter(|(_, e)| e.state != ExecutorState::Terminated)
        .map(|(framework, e)| r::get_containers::Container {
            framework_id: Some(framework.to_pb()),
            executor_id: Some(e.id.to_pb()),
            executor_name: Some(e.info.name().to_owned()),
            container_id: e.container.to_pb(),
            container_status: Some(pb::ContainerStatus {
                container_id: Some(e.container.to_pb()),
                executor_pid: e.pid,
                ..Default::default()
            }),
            resource_statistics: view.containerizer.statistics(&e.container),
        })
        .collect()
}

/// `/containers`, and without `status` `/monitor/statistics`.
pub fn container_list(view: &View<'_>, with_status: bool) -> Value {
    let sources = live_executors(view)
        .filter(|(_, e)| e.state != ExecutorState::Terminated)
        .map(|(_, e)| source(e));
    containers(view)
        .into_iter()
        .zip(sources)
        .map(|(c, source)| {
            let mut out = json!({
                "executor_id": c.executor_id.map(|id| id.value),
                "executor_name": c.executor_name,
                "framework_id": c.framework_id.map(|id| id.value),
                "source": source,
                "statistics": c.resource_statistics.as_ref().map(print),
            });
            if with_status && let Some(map) = out.as_object_mut() {
                map.insert("container_id".to_owned(), c.container_id.value.into());
                map.insert(
                    "status".to_owned(),
                    c.container_status.as_ref().map(print).into(),
                );
            }
            out
        })
        .collect()
}

#[allow(deprecated, reason = "Mesos still shows it")]
fn source(executor: &Executor) -> String {
    executor.info.source().to_owned()
}

/// GET_FRAMEWORKS.
pub fn get_frameworks(view: &View<'_>) -> r::GetFrameworks {
    let entry = |f: &Framework| r::get_frameworks::Framework {
        framework_info: f.info.clone(),
    };
    r::GetFrameworks {
        frameworks: view.core.frameworks.values().map(entry).collect(),
        completed_frameworks: view.core.completed_frameworks.iter().map(entry).collect(),
    }
}

/// GET_EXECUTORS.
pub fn get_executors(view: &View<'_>) -> r::GetExecutors {
    let entry = |e: &Executor| r::get_executors::Executor {
        executor_info: e.info.clone(),
    };
    r::GetExecutors {
        executors: live_executors(view).map(|(_, e)| entry(e)).collect(),
        completed_executors: frameworks(view)
            .flat_map(|f| &f.completed)
            .map(entry)
            .collect(),
    }
}

/// GET_TASKS.
pub fn get_tasks(view: &View<'_>) -> r::GetTasks {
    let mut out = r::GetTasks::default();
    for framework in frameworks(view) {
        let id = framework.id();
        for e in framework.executors.values().chain(&framework.completed) {
            let queued = e
                .queued
                .iter()
                .map(|q| task_of(&q.task, &id, e.command_task));
            out.queued_tasks.extend(queued);
            out.launched_tasks.extend(e.launched.iter().cloned());
            out.terminated_tasks.extend(e.terminated.iter().cloned());
            out.completed_tasks.extend(e.completed.iter().cloned());
        }
    }
    out
}

/// What this agent claims to be.
pub fn version() -> pb::VersionInfo {
    pb::VersionInfo {
        version: VERSION.to_owned(),
        build_user: Some("devcluster".to_owned()),
        ..Default::default()
    }
}

/// What is used now, by executors and tasks.
fn used(view: &View<'_>) -> Resources {
    let mut all = Resources::default();
    for (_, executor) in live_executors(view) {
        if executor.state != ExecutorState::Terminated
            && let Ok(part) = Resources::from_pb(&executor.resources())
        {
            all.add_all(&part);
        }
    }
    all
}

fn executor(e: &Executor, framework: &FrameworkId) -> Value {
    let uses = Resources::from_pb(&e.resources()).unwrap_or_default();
    let role = uses.by_allocation().into_keys().next().unwrap_or_default();
    let tasks = |tasks: &mut dyn Iterator<Item = &pb::Task>| tasks.map(task).collect::<Vec<_>>();
    let queued = e.queued.iter();
    let queued = queued.map(|q| task(&task_of(&q.task, framework, e.command_task)));
    let mut out = json!({
        "id": e.id.as_str(),
        "name": e.info.name(),
        "source": source(e),
        "container": e.container.as_str(),
        "directory": e.directory.display().to_string(),
        "resources": quantities(&uses.unallocated()),
        "role": role,
        "tasks": tasks(&mut e.launched.iter()),
        "queued_tasks": queued.collect::<Vec<_>>(),
        "completed_tasks": tasks(&mut e.terminated.iter().chain(&e.completed)),
    });
    if let Some(map) = out.as_object_mut() {
        if let Some(labels) = &e.info.labels {
            map.insert("labels".to_owned(), list_of_labels(labels));
        }
        if e.info.r#type.is_some() {
            map.insert("type".to_owned(), e.info.r#type().as_str_name().into());
        }
    }
    out
}

fn framework(f: &Framework) -> Value {
    let id = f.id();
    let live: Vec<_> = f.executors.values().map(|e| executor(e, &id)).collect();
    let past: Vec<_> = f.completed.iter().map(|e| executor(e, &id)).collect();
    json!({
        "id": id.as_str(),
        "name": f.info.name,
        "user": f.info.user,
        "failover_timeout": f.info.failover_timeout(),
        "checkpoint": f.info.checkpoint(),
        "hostname": f.info.hostname(),
        "roles": f.info.roles,
        "executors": live,
        "completed_executors": past,
    })
}

fn attributes(info: &pb::AgentInfo) -> Value {
    let mut out = Map::new();
    for attribute in &info.attributes {
        let value = match (&attribute.text, &attribute.scalar) {
            (Some(text), _) => json!(text.value),
            (_, Some(scalar)) => json!(scalar.value),
            _ => print(attribute)["ranges"].clone(),
        };
        out.insert(attribute.name.clone(), value);
    }
    Value::Object(out)
}

/// The flags as an object.
pub fn flags(view: &View<'_>) -> Value {
    let flags = view.config.flags(view.address.port());
    let flags = flags.into_iter().map(|(k, v)| (k.to_owned(), v.into()));
    Value::Object(flags.collect())
}

/// `/state`.
pub fn state(view: &View<'_>) -> Value {
    let info = &view.core.info;
    let total = Resources::from_pb(view.core.total()).unwrap_or_default();
    let in_use = used(view).unallocated();
    let by_role = |all: &Resources| {
        let parts = all.by_reservation();
        let parts = parts
            .iter()
            .map(|(role, part)| (role.clone(), quantities(part)));
        Value::Object(parts.collect())
    };
    let full = |all: &Resources| {
        let list = all.to_pb(Format::Endpoint);
        list.iter().map(print).collect::<Vec<_>>()
    };
    let full_by_role: Map<String, Value> = total
        .by_reservation()
        .iter()
        .map(|(role, part)| (role.clone(), full(part).into()))
        .collect();
    let names = capabilities();
    let names: Vec<_> = names.iter().map(|c| c.r#type().as_str_name()).collect();
    let live = view.core.frameworks.values();
    let past = view.core.completed_frameworks.iter();
    json!({
        "version": VERSION,
        "build_date": "",
        "build_time": 0.0,
        "build_user": "devcluster",
        "start_time": view.started.as_secs_f64(),
        "id": view.core.agent_id().as_str(),
        "pid": format!("slave(1)@{}", view.address),
        "hostname": info.hostname,
        "capabilities": names,
        "resources": quantities(&total),
        "reserved_resources": by_role(&total),
        "unreserved_resources": quantities(&total.unreserved()),
        "reserved_resources_full": full_by_role,
        "unreserved_resources_full": full(&total.unreserved()),
        "reserved_resources_allocated": by_role(&in_use),
        "unreserved_resources_allocated": quantities(&in_use.unreserved()),
        "resource_providers": [],
        "attributes": attributes(info),
        "master_hostname": view.master.map(|m| m.hostname()).unwrap_or_default(),
        "flags": flags(view),
        "frameworks": live.map(framework).collect::<Vec<_>>(),
        "completed_frameworks": past.map(framework).collect::<Vec<_>>(),
    })
}

/// `/metrics/snapshot`, those that say something here.
pub fn metrics(view: &View<'_>) -> Vec<(String, f64)> {
    let mut out = Vec::new();
    let mut set = |name: &str, value: f64| out.push((name.to_owned(), value));
    let by_state = |state| {
        live_executors(view)
            .filter(|(_, e)| e.state == state)
            .count() as f64
    };
    set(
        "slave/container_launch_errors",
        view.counters.launch_errors as f64,
    );
    let total = view.core.total();
    let in_use = used(view).to_pb(Format::PostRefinement);
    for name in ["cpus", "disk", "gpus", "mem"] {
        let (all, part) = (
            sum(total, name).unwrap_or(0.0),
            sum(&in_use, name).unwrap_or(0.0),
        );
        let share = if all > 0.0 { part / all } else { 0.0 };
        set(&format!("slave/{name}_percent"), share);
        set(&format!("slave/{name}_total"), all);
        set(&format!("slave/{name}_used"), part);
    }
    set(
        "slave/executors_registering",
        by_state(ExecutorState::Registering),
    );
    set("slave/executors_running", by_state(ExecutorState::Running));
    set(
        "slave/executors_terminating",
        by_state(ExecutorState::Terminating),
    );
    set(
        "slave/executors_terminated",
        view.counters.executors_terminated as f64,
    );
    set("slave/frameworks_active", view.core.frameworks.len() as f64);
    set("slave/registered", f64::from(u8::from(view.connected)));
    let tasks = get_tasks(view);
    let over = tasks.terminated_tasks.iter().chain(&tasks.completed_tasks);
    let count = |wanted: pb::TaskState, list: &mut dyn Iterator<Item = &pb::Task>| {
        list.filter(|t| t.state() == wanted).count() as f64
    };
    use pb::TaskState as S;
    for (name, wanted) in [
        ("starting", S::TaskStarting),
        ("running", S::TaskRunning),
        ("killing", S::TaskKilling),
    ] {
        set(
            &format!("slave/tasks_{name}"),
            count(wanted, &mut tasks.launched_tasks.iter()),
        );
    }
    let staging = count(S::TaskStaging, &mut tasks.launched_tasks.iter());
    set(
        "slave/tasks_staging",
        staging + tasks.queued_tasks.len() as f64,
    );
    for (name, wanted) in [
        ("failed", S::TaskFailed),
        ("finished", S::TaskFinished),
        ("gone", S::TaskGone),
        ("killed", S::TaskKilled),
        ("lost", S::TaskLost),
    ] {
        set(
            &format!("slave/tasks_{name}"),
            count(wanted, &mut over.clone()),
        );
    }
    set(
        "slave/uptime_secs",
        Time::now().since(view.started).as_secs_f64(),
    );
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}
