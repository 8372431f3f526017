//! `/v2/tasks` and `/v2/apps/<id>/tasks`.

use serde_json::{Value, json};

use super::apps::unknown;
use super::{Answered, Request, Response, path_id, view};
use crate::marathon::core::{Condition, Core, Instance};
use crate::marathon::error::ApiError;
use crate::marathon::ids::{InstanceId, PathId};
use crate::marathon::model::read;

pub(super) fn route(core: &mut Core, request: &Request, rest: &str) -> Answered {
    match (request.method.as_str(), rest) {
        ("GET", "") => {
            let wanted: Vec<&str> = request
                .all("status")
                .chain(request.all("status[]"))
                .collect();
            let instances = core.durable.all_instances();
            let tasks: Vec<Value> = instances
                .filter(|i| wanted.is_empty() || wanted.contains(&status_of(i)))
                .filter_map(|i| view::task(core, i))
                .collect();
            Ok(Response::ok(json!({"tasks": tasks})))
        }
        ("POST", "delete") => {
            let body = read::object(read::json(&request.body)?)?;
            let ids: Vec<String> = read::typed(body.get("ids").cloned().unwrap_or_default())?;
            kill(core, request, None, |i| {
                let task = i.task.as_ref();
                ids.iter()
                    .any(|id| i.id.as_str() == id || task.is_some_and(|t| t.id.as_str() == id))
            })
        }
        _ => Err(ApiError::Method),
    }
}

fn status_of(instance: &Instance) -> &'static str {
    match instance.condition {
        Condition::Running => "running",
        _ => "staging",
    }
}

pub(super) fn of_app(core: &mut Core, request: &Request, id: &str, task: &str) -> Answered {
    let method = request.method.as_str();
    if let Some(group) = id.strip_suffix('*') {
        let group = path_id(group)?;
        if !core.durable.root.groups.contains_key(&group) {
            return Err(ApiError::UnknownGroup(group));
        }
        if method != "GET" || !task.is_empty() {
            return Err(ApiError::Method);
        }
        let tasks = view::tasks(core, |app| app.is_below(&group));
        return Ok(Response::ok(json!({"tasks": tasks})));
    }
    let id = path_id(id)?;
    if !core.durable.root.apps.contains_key(&id) {
        return Err(unknown(&id));
    }
    match (method, task) {
        ("GET", "") => {
            let tasks = view::tasks(core, |app| *app == id);
            Ok(Response::ok(json!({"tasks": tasks})))
        }
        ("DELETE", "") => {
            let host = request.query("host").map(str::to_owned);
            kill(core, request, Some(&id), |i| {
                let on = i.agent.as_ref().map(|a| a.host.as_str());
                host.as_deref().is_none_or(|h| h == "*" || on == Some(h))
            })
        }
        ("DELETE", task) => {
            let wanted = InstanceId::of_task(task);
            let found = core
                .durable
                .instances_of(&id)
                .find(|i| Some(&i.id) == wanted.as_ref() || i.id.as_str() == task)
                .map(|i| i.id.clone());
            let Some(found) = found else {
                return Err(ApiError::UnknownTask(task.to_owned()));
            };
            let document = core
                .durable
                .instance(&found)
                .and_then(|i| view::task(core, i));
            let killed = kill(core, request, Some(&id), |i| i.id == found)?;
            if killed.deployment.is_some() {
                return Ok(killed);
            }
            Ok(Response::ok(json!({"task": document})))
        }
        _ => Err(ApiError::Method),
    }
}

/// Kills instances; with `scale` there are so many fewer afterwards, with `wipe` their volumes
/// go too.
fn kill(
    core: &mut Core,
    request: &Request,
    app: Option<&PathId>,
    which: impl Fn(&Instance) -> bool,
) -> Answered {
    let (scale, wipe) = (request.flag("scale", false), request.flag("wipe", false));
    if scale && wipe {
        return Err(ApiError::BadRequest(
            "You cannot use scale and wipe at the same time.".to_owned(),
        ));
    }
    let chosen: Vec<Instance> = core
        .durable
        .all_instances()
        .filter(|i| app.is_none_or(|a| i.app == *a))
        .filter(|i| which(i))
        .cloned()
        .collect();
    if scale {
        let mut change = core.change(request.flag("force", false));
        for instance in &chosen {
            if let Some(app) = change.target.apps.get_mut(&instance.app) {
                app.instances = app.instances.saturating_sub(1);
            }
        }
        change.sentenced = chosen.into_iter().map(|i| i.id).collect();
        core.prepare(&mut change)?;
        let (deployment, version) = core.deploy(change)?;
        return Ok(Response::deployed(200, deployment, version));
    }
    let tasks: Vec<Value> = chosen.iter().filter_map(|i| view::task(core, i)).collect();
    for instance in &chosen {
        core.end_by_user(&instance.id, wipe);
    }
    Ok(Response::ok(json!({"tasks": tasks})))
}
