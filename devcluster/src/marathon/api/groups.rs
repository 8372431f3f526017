//! `/v2/groups`.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::view::{self, Embed};
use super::{Answered, Request, Response, path_id, version_of};
use crate::marathon::core::{Core, plan};
use crate::marathon::error::{ApiError, Violation};
use crate::marathon::ids::{PathId, Version};
use crate::marathon::model::{Group, Root, read};

/// What is shown of a group when nothing is said.
const DEFAULT_EMBEDS: [&str; 4] = [
    "group.groups",
    "group.apps",
    "group.pods",
    "group.apps.counts",
];

pub(super) fn route(core: &mut Core, request: &Request, rest: &str) -> Answered {
    let rest = rest.trim_matches('/');
    match request.method.as_str() {
        "GET" => get(core, request, rest),
        "POST" => create(core, request, rest),
        "PUT" => update(core, request, rest),
        "PATCH" if !rest.is_empty() => patch(core, request, rest),
        "DELETE" => delete(core, request, rest),
        _ => Err(ApiError::Method),
    }
}

fn get(core: &Core, request: &Request, rest: &str) -> Answered {
    let mut embeds: BTreeSet<&str> = request.all("embed").collect();
    if embeds.is_empty() {
        embeds.extend(DEFAULT_EMBEDS);
    }
    if rest == "versions" || rest.ends_with("/versions") {
        let id = path_id(rest.trim_end_matches("versions"))?;
        if !core.durable.root.groups.contains_key(&id) {
            return Err(ApiError::UnknownGroup(id));
        }
        let versions: Vec<_> = core
            .durable
            .group_history
            .iter()
            .rev()
            .map(|(v, _)| v)
            .collect();
        return Ok(Response::ok(json!(versions)));
    }
    let versioned = match rest.rsplit_once("versions/") {
        Some((id, version)) if id.is_empty() || id.ends_with('/') => Some((id, version)),
        _ => None,
    };
    if let Some((id, version)) = versioned {
        let (id, version) = (path_id(id)?, version_of(version)?);
        let history = core.durable.group_history.iter();
        let mut found = history.filter(|(v, _)| *v == version).map(|(_, root)| root);
        let root = found
            .next()
            .ok_or_else(|| ApiError::UnknownGroup(id.clone()))?;
        let group = view::group(core, root, &id, &embeds);
        return group.map(Response::ok).ok_or(ApiError::UnknownGroup(id));
    }
    if let Some(group) = rest
        .strip_suffix("apps")
        .filter(|g| g.is_empty() || g.ends_with('/'))
    {
        let id = path_id(group)?;
        // An app or group of this name has precedence.
        let named = path_id(rest)?;
        if !core.durable.root.groups.contains_key(&named) {
            let embed = Embed::parse(request.all("embed"));
            let apps = core.durable.root.apps_below(&id);
            let list: Vec<Value> = apps.map(|a| view::app(core, a, &embed)).collect();
            return Ok(Response::ok(list.into()));
        }
    }
    let id = path_id(rest)?;
    let group = view::group(core, &core.durable.root, &id, &embeds);
    group.map(Response::ok).ok_or(ApiError::UnknownGroup(id))
}

/// A group as it is posted.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Update {
    id: Option<String>,
    apps: Option<Vec<Value>>,
    groups: Option<Vec<Value>>,
    dependencies: Option<Vec<String>>,
    scale_by: Option<f64>,
    version: Option<Version>,
    enforce_role: Option<bool>,
    /// Only answers have them; this Marathon has none.
    pods: Option<Vec<Value>>,
}

impl Update {
    fn read(value: Value) -> Result<Self, ApiError> {
        let mut fields: Map<String, Value> = read::object(value)?;
        fields.retain(|_, v| !v.is_null());
        let update: Self = read::typed(Value::Object(fields))?;
        if update.pods.as_ref().is_some_and(|p| !p.is_empty()) {
            return Err(ApiError::Unprocessable(
                "This Marathon runs apps only: pods are not implemented".to_owned(),
            ));
        }
        Ok(update)
    }
}

fn wrong(path: &str, error: impl Into<String>) -> ApiError {
    ApiError::Invalid(vec![Violation::new(path, error)])
}

/// Brings a group in `root` to what the update says. Apps and groups that it names none of
/// stay; of those that it names some of, the others go.
fn apply(
    core: &Core,
    root: &mut Root,
    id: &PathId,
    update: Update,
    version: Version,
) -> Result<(), ApiError> {
    let group = root.groups.entry(id.clone()).or_insert_with(|| Group {
        version,
        ..Group::default()
    });
    group.version = version;
    if let Some(dependencies) = update.dependencies {
        group.dependencies = dependencies
            .iter()
            .map(|d| PathId::parse(d, &id.parent()))
            .collect::<Result<_, _>>()
            .map_err(|e| wrong("/dependencies", e.to_string()))?;
    }
    if let Some(enforce) = update.enforce_role {
        group.enforce_role = enforce;
    }
    for ancestor in id.ancestors() {
        root.groups.entry(ancestor).or_insert_with(|| Group {
            version,
            ..Group::default()
        });
    }
    if let Some(apps) = update.apps {
        root.apps.retain(|app, _| app.parent() != *id);
        for (index, app) in apps.into_iter().enumerate() {
            let at = |error| in_app(error, index);
            let mut app = read::app(app, None, id).map_err(at)?;
            if !app.id.is_below(id) {
                let text = format!(
                    "identifier {} is not child of '{id}'. Hint: use relative paths.",
                    app.id
                );
                return Err(wrong(&format!("/apps({index})/id"), text));
            }
            core.complete(&mut app).map_err(at)?;
            root.put(app, version);
        }
    }
    if let Some(groups) = update.groups {
        let mut named = Vec::new();
        for group in groups {
            let update = Update::read(group)?;
            let Some(text) = &update.id else {
                return Err(wrong("/groups/id", "error.path.missing"));
            };
            let child = PathId::parse(text, id).map_err(|e| wrong("/groups/id", e.to_string()))?;
            if !child.is_below(id) {
                let text =
                    format!("identifier {child} is not child of '{id}'. Hint: use relative paths.");
                return Err(wrong("/groups/id", text));
            }
            named.push((child, update));
        }
        let stays = |group: &PathId| {
            named
                .iter()
                .any(|(n, _)| n == group || group.is_below(n) || n.is_below(group))
        };
        let gone: Vec<PathId> = root
            .groups
            .keys()
            .filter(|g| g.is_below(id) && !stays(g))
            .cloned()
            .collect();
        for group in gone {
            // A group that was made for an app just named is not gone.
            let used = root.apps_below(&group).any(|a| a.version.is_none());
            if !used {
                root.remove_group(&group);
            }
        }
        for (child, update) in named {
            apply(core, root, &child, update, version)?;
        }
    }
    Ok(())
}

fn in_app(error: ApiError, index: usize) -> ApiError {
    let moved = |violations: Vec<Violation>| {
        let moved = violations.into_iter().map(|v| Violation {
            path: format!("/apps({index}){}", v.path.trim_end_matches('/')),
            error: v.error,
        });
        moved.collect()
    };
    match error {
        ApiError::Invalid(v) => ApiError::Invalid(moved(v)),
        ApiError::Malformed(v) => ApiError::Malformed(moved(v)),
        other => other,
    }
}

fn target(base: &PathId, update: &Update) -> Result<PathId, ApiError> {
    match &update.id {
        Some(text) => PathId::parse(text, base).map_err(|e| wrong("/id", e.to_string())),
        None => Ok(base.clone()),
    }
}

fn create(core: &mut Core, request: &Request, rest: &str) -> Answered {
    let base = path_id(rest)?;
    let update = Update::read(read::json(&request.body)?)?;
    let id = target(&base, &update)?;
    // The root is always there and may be posted as long as nothing is in it.
    let root = &core.durable.root;
    let in_use = !id.is_root() || !root.apps.is_empty() || root.groups.len() > 1;
    if root.groups.contains_key(&id) && in_use {
        return Err(ApiError::Conflict(format!(
            "Group {id} is already created. Use PUT to change this group."
        )));
    }
    if root.apps.contains_key(&id) {
        return Err(ApiError::Conflict(format!(
            "An app with the path {id} already exists."
        )));
    }
    let mut change = core.change(request.flag("force", false));
    apply(core, &mut change.target, &id, update, change.version)?;
    core.prepare(&mut change)?;
    let (deployment, version) = core.deploy(change)?;
    Ok(Response {
        location: Some(id.to_string()),
        ..Response::deployed(201, deployment, version)
    })
}

fn update(core: &mut Core, request: &Request, rest: &str) -> Answered {
    let base = path_id(rest)?;
    let update = Update::read(read::json(&request.body)?)?;
    let id = target(&base, &update)?;
    let mut change = core.change(request.flag("force", false));
    let version = change.version;
    if let Some(old) = update.version {
        // Back to what the group was then.
        let history = core.durable.group_history.iter();
        let mut found = history.filter(|(v, _)| *v == old).map(|(_, root)| root);
        let old = found
            .next()
            .ok_or_else(|| ApiError::UnknownGroup(id.clone()))?;
        let old = old.clone();
        change.target.remove_group(&id);
        for (group, value) in &old.groups {
            if *group == id || group.is_below(&id) {
                change.target.groups.insert(group.clone(), value.clone());
            }
        }
        if id.is_root() {
            change.target.apps.clear();
        }
        for app in old.apps_below(&id) {
            change.target.put(app.clone(), version);
        }
    } else if let Some(factor) = update.scale_by {
        if !factor.is_finite() || factor < 0.0 {
            return Err(wrong("/scaleBy", "must be 0 or more"));
        }
        if !change.target.groups.contains_key(&id) {
            return Err(ApiError::UnknownGroup(id));
        }
        for app in change
            .target
            .apps
            .values_mut()
            .filter(|a| a.id.is_below(&id))
        {
            app.instances = (f64::from(app.instances) * factor).ceil() as u32;
        }
    } else {
        apply(core, &mut change.target, &id, update, version)?;
    }
    core.prepare(&mut change)?;
    if request.flag("dryRun", false) {
        let steps = plan(&core.durable.root, &change.target);
        let steps: Vec<Value> = steps.iter().map(|s| s.document()).collect();
        return Ok(Response::ok(json!({"steps": steps})));
    }
    let (deployment, version) = core.deploy(change)?;
    Ok(Response::deployed(200, deployment, version))
}

/// The only thing that can be patched is `enforceRole`.
fn patch(core: &mut Core, request: &Request, rest: &str) -> Answered {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Patch {
        enforce_role: Option<bool>,
    }
    let id = path_id(rest)?;
    let patch: Patch = read::typed(read::json(&request.body)?)?;
    let Some(group) = core.durable.root.groups.get_mut(&id) else {
        return Err(ApiError::UnknownGroup(id));
    };
    if let Some(enforce) = patch.enforce_role {
        group.enforce_role = enforce;
        core.touch();
    }
    Ok(Response::empty(200))
}

fn delete(core: &mut Core, request: &Request, rest: &str) -> Answered {
    let id = path_id(rest)?;
    if !core.durable.root.groups.contains_key(&id) {
        return Err(ApiError::UnknownGroup(id));
    }
    let mut change = core.change(request.flag("force", false));
    change.target.remove_group(&id);
    if id.is_root() {
        change.target.apps.clear();
    }
    core.prepare(&mut change)?;
    let (deployment, version) = core.deploy(change)?;
    Ok(Response::deployed(200, deployment, version))
}
