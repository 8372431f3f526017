//! `/v2/apps`.

use serde_json::{Value, json};

use super::view::{self, Embed};
use super::{Answered, Request, Response, path_id, tasks, version_of};
use crate::marathon::core::{Core, Notice};
use crate::marathon::error::ApiError;
use crate::marathon::ids::PathId;
use crate::marathon::model::{App, read};

pub(super) fn route(core: &mut Core, request: &Request, rest: &str) -> Answered {
    let method = request.method.as_str();
    let rest = rest.trim_matches('/');
    if rest.is_empty() {
        return match method {
            "GET" => Ok(list(core, request)),
            "POST" => create(core, request),
            "PUT" => update_many(core, request, request.flag("partialUpdate", true), true),
            "PATCH" => update_many(core, request, true, false),
            _ => Err(ApiError::Method),
        };
    }
    if let Some((id, task)) = split(rest, "tasks") {
        return tasks::of_app(core, request, id, task);
    }
    if let Some((id, version)) = split(rest, "versions") {
        return versions(core, request, id, version);
    }
    if let Some(id) = rest.strip_suffix("/restart")
        && method == "POST"
    {
        return restart(core, request, &path_id(id)?);
    }
    match method {
        "GET" => show(core, request, rest),
        "PUT" => update(
            core,
            request,
            rest,
            request.flag("partialUpdate", true),
            true,
        ),
        "PATCH" => update(core, request, rest, true, false),
        "DELETE" => delete(core, request, rest),
        _ => Err(ApiError::Method),
    }
}

/// `<id>/<word>` and `<id>/<word>/<more>`.
fn split<'a>(path: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    if let Some(id) = path.strip_suffix(word).and_then(|p| p.strip_suffix('/')) {
        return Some((id, ""));
    }
    let (id, more) = path.rsplit_once('/')?;
    let id = id.strip_suffix(word)?.strip_suffix('/')?;
    Some((id, more))
}

/// An app that is not there.
pub(super) fn unknown(id: &PathId) -> ApiError {
    ApiError::UnknownApp {
        id: id.clone(),
        version: None,
    }
}

fn list(core: &Core, request: &Request) -> Response {
    let embed = Embed {
        counts: true,
        deployments: true,
        ..Embed::parse(request.all("embed"))
    };
    let contains = |value: Option<&str>, text: &str| {
        value.is_none_or(|v| text.to_lowercase().contains(&v.to_lowercase()))
    };
    let apps = core.durable.root.apps.values();
    let apps = apps
        .filter(|app| contains(request.query("id"), app.id.as_str()))
        .filter(|app| contains(request.query("cmd"), app.cmd.as_deref().unwrap_or("")))
        .filter(|app| request.query("label").is_none_or(|l| has_labels(app, l)));
    let list: Vec<Value> = apps.map(|app| view::app(core, app, &embed)).collect();
    Response::ok(json!({"apps": list}))
}

/// A selector: `a`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`; comma for and.
fn has_labels(app: &App, selector: &str) -> bool {
    let mut parts: Vec<String> = Vec::new();
    let mut depth = 0;
    let mut part = String::new();
    for c in selector.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts.iter().all(|part| {
        let part = part.trim();
        let value = |name: &str| app.labels.get(name.trim()).map(String::as_str);
        if let Some((name, wanted)) = part.split_once("==") {
            return value(name) == Some(wanted.trim());
        }
        if let Some((name, wanted)) = part.split_once("!=") {
            return value(name).is_some_and(|v| v != wanted.trim());
        }
        for (word, expected) in [(" notin ", false), (" in ", true)] {
            if let Some((name, set)) = part.split_once(word) {
                let set = set.trim().trim_start_matches('(').trim_end_matches(')');
                let in_set = |v: &str| set.split(',').any(|s| s.trim() == v);
                return value(name).is_some_and(|v| in_set(v) == expected);
            }
        }
        value(part).is_some()
    })
}

fn show(core: &Core, request: &Request, id: &str) -> Answered {
    let embed = Embed {
        counts: true,
        deployments: true,
        tasks: true,
        last_failure: true,
        ..Embed::parse(request.all("embed"))
    };
    if let Some(group) = id.strip_suffix('*') {
        let group = path_id(group)?;
        if !core.durable.root.groups.contains_key(&group) {
            return Err(ApiError::UnknownGroup(group));
        }
        let apps = core.durable.root.apps_below(&group);
        let list: Vec<Value> = apps.map(|app| view::app(core, app, &embed)).collect();
        return Ok(Response::ok(json!({"*": list})));
    }
    let id = path_id(id)?;
    let app = core
        .durable
        .root
        .apps
        .get(&id)
        .ok_or_else(|| unknown(&id))?;
    Ok(Response::ok(json!({"app": view::app(core, app, &embed)})))
}

fn create(core: &mut Core, request: &Request) -> Answered {
    let body = read::json(&request.body)?;
    let mut app = read::app(body, None, &PathId::root())?;
    core.complete(&mut app)?;
    let id = app.id.clone();
    if core.durable.root.apps.contains_key(&id) {
        return Err(ApiError::Conflict(format!(
            "An app with id [{id}] already exists."
        )));
    }
    let mut change = core.change(request.flag("force", false));
    let version = change.version;
    change.target.put(app, version);
    core.prepare(&mut change)?;
    let (deployment, _) = core.deploy(change)?;
    let app = core
        .durable
        .root
        .apps
        .get(&id)
        .ok_or_else(|| unknown(&id))?;
    let mut document = view::definition(app);
    for name in [
        "tasksStaged",
        "tasksRunning",
        "tasksHealthy",
        "tasksUnhealthy",
    ] {
        document[name] = 0.into();
    }
    document["deployments"] = json!([{"id": deployment}]);
    posted(core, request, &id);
    Ok(Response {
        location: Some(id.to_string()),
        deployment: Some(deployment),
        ..Response::json(201, document)
    })
}

/// Tells that somebody posted an app.
fn posted(core: &mut Core, request: &Request, id: &PathId) {
    let Some(app) = core.durable.root.apps.get(id) else {
        return;
    };
    let data = json!({
        "clientIp": request.client,
        "uri": request.path,
        "appDefinition": view::definition(app),
    });
    core.notify(Notice::new("api_post_event", data));
}

/// The app that an update leads to.
fn updated(
    core: &Core,
    id: &PathId,
    body: Value,
    partial: bool,
    allow_creation: bool,
) -> Result<App, ApiError> {
    let existing = core.durable.root.apps.get(id);
    if existing.is_none() && !allow_creation {
        return Err(unknown(id));
    }
    // Going back to a version: only `version`, besides `id`.
    if let Some(fields) = body.as_object()
        && let Some(version) = fields.get("version").and_then(Value::as_str)
        && partial
    {
        if fields.keys().any(|k| k != "version" && k != "id") {
            return Err(ApiError::Invalid(vec![
                crate::marathon::error::Violation::new(
                    "/",
                    "The 'version' field may only be combined with the 'id' field.",
                ),
            ]));
        }
        let version = version_of(version)?;
        let old = core.durable.app_version(id, version);
        let old = old.cloned().ok_or_else(|| ApiError::UnknownApp {
            id: id.clone(),
            version: Some(version),
        })?;
        return Ok(old);
    }
    let mut app = match existing {
        Some(existing) if partial => read::updated(existing, body)?,
        _ => read::app(body, Some(id), &PathId::root())?,
    };
    core.complete(&mut app)?;
    Ok(app)
}

fn update(
    core: &mut Core,
    request: &Request,
    id: &str,
    partial: bool,
    allow_creation: bool,
) -> Answered {
    let id = path_id(id)?;
    let body = read::json(&request.body)?;
    let existed = core.durable.root.apps.contains_key(&id);
    let app = updated(core, &id, body, partial, allow_creation)?;
    let mut change = core.change(request.flag("force", false));
    let version = change.version;
    change.target.put(app, version);
    core.prepare(&mut change)?;
    let (deployment, version) = core.deploy(change)?;
    posted(core, request, &id);
    let status = if existed { 200 } else { 201 };
    Ok(Response {
        location: (!existed).then(|| id.to_string()),
        ..Response::deployed(status, deployment, version)
    })
}

fn update_many(
    core: &mut Core,
    request: &Request,
    partial: bool,
    allow_creation: bool,
) -> Answered {
    let Value::Array(list) = read::json(&request.body)? else {
        return Err(ApiError::Malformed(vec![
            crate::marathon::error::Violation::new("", "error.expected.jsarray"),
        ]));
    };
    let mut apps = Vec::new();
    for body in list {
        let Some(id) = body.get("id").and_then(Value::as_str) else {
            return Err(ApiError::Unprocessable(
                "requirement failed: App Update must have app id set".to_owned(),
            ));
        };
        let id = path_id(id)?;
        apps.push(updated(core, &id, body, partial, allow_creation)?);
    }
    let mut change = core.change(request.flag("force", false));
    let version = change.version;
    for app in apps {
        change.target.put(app, version);
    }
    core.prepare(&mut change)?;
    let (deployment, version) = core.deploy(change)?;
    Ok(Response::deployed(200, deployment, version))
}

fn delete(core: &mut Core, request: &Request, id: &str) -> Answered {
    let id = path_id(id)?;
    if !core.durable.root.apps.contains_key(&id) {
        return Err(unknown(&id));
    }
    // Unlike all other calls, this one does not wait for deployments unless told to.
    let mut change = core.change(request.flag("force", true));
    change.target.remove_app(&id);
    core.prepare(&mut change)?;
    let (deployment, version) = core.deploy(change)?;
    Ok(Response::deployed(200, deployment, version))
}

fn restart(core: &mut Core, request: &Request, id: &PathId) -> Answered {
    if !core.durable.root.apps.contains_key(id) {
        return Err(unknown(id));
    }
    let mut change = core.change(request.flag("force", false));
    change.restart.insert(id.clone());
    core.prepare(&mut change)?;
    let (deployment, version) = core.deploy(change)?;
    Ok(Response::deployed(200, deployment, version))
}

fn versions(core: &Core, request: &Request, id: &str, version: &str) -> Answered {
    if request.method != "GET" {
        return Err(ApiError::Method);
    }
    let id = path_id(id)?;
    let history = core.durable.history.get(&id);
    let history = history.filter(|_| core.durable.root.apps.contains_key(&id));
    let history = history.ok_or_else(|| unknown(&id))?;
    if version.is_empty() {
        let list: Vec<_> = history.keys().rev().collect();
        return Ok(Response::ok(json!({"versions": list})));
    }
    let version = version_of(version)?;
    let app = history.get(&version).ok_or_else(|| ApiError::UnknownApp {
        id: id.clone(),
        version: Some(version),
    })?;
    Ok(Response::ok(view::definition(app)))
}
