//! `/v2/deployments`.

use serde_json::{Value, json};

use super::{Answered, Request, Response};
use crate::marathon::core::{Core, Deployment};
use crate::marathon::error::ApiError;

pub(super) fn route(core: &mut Core, request: &Request, rest: &str) -> Answered {
    match (request.method.as_str(), rest) {
        ("GET", "") => {
            let list = core.durable.deployments.iter();
            let list: Vec<Value> = list.map(|d| document(core, d)).collect();
            Ok(Response::ok(list.into()))
        }
        ("DELETE", id) if !id.is_empty() => cancel(core, request, id),
        _ => Err(ApiError::Method),
    }
}

fn document(core: &Core, deployment: &Deployment) -> Value {
    let mut affected: Vec<_> = deployment.affected().collect();
    affected.sort();
    affected.dedup();
    let steps: Vec<Value> = deployment.steps.iter().map(|s| s.document()).collect();
    let current = deployment.steps.get(deployment.current);
    let actions: Vec<Value> = current
        .iter()
        .flat_map(|s| &s.actions)
        .map(|action| {
            let mut out = action.document();
            let app = deployment.target.apps.get(&action.app);
            let results = app.map(|a| core.readiness_results(a)).unwrap_or_default();
            out["readinessCheckResults"] = results.into();
            out
        })
        .collect();
    json!({
        "id": deployment.id,
        "version": deployment.version,
        "affectedApps": affected,
        "affectedPods": [],
        "steps": steps,
        "currentActions": actions,
        "currentStep": deployment.current + 1,
        "totalSteps": deployment.steps.len(),
    })
}

/// Undoes a deployment by another one, or, forced, just ends it.
fn cancel(core: &mut Core, request: &Request, id: &str) -> Answered {
    let found = core
        .durable
        .deployments
        .iter()
        .find(|d| d.id.as_str() == id);
    let Some(deployment) = found.cloned() else {
        return Err(ApiError::UnknownDeployment(id.to_owned()));
    };
    if request.flag("force", false) {
        core.cancel(&deployment.id, "cancelled by the user");
        return Ok(Response::empty(202));
    }
    let mut change = core.change(true);
    let version = change.version;
    for id in deployment.affected() {
        match deployment.original.apps.get(id) {
            Some(app) => {
                change.reverted.insert(id.clone());
                change.target.put(app.clone(), version);
            }
            None => change.target.remove_app(id),
        }
    }
    // Groups that it made go again, unless something else is in them by now.
    let made: Vec<_> = deployment
        .target
        .groups
        .keys()
        .filter(|g| !deployment.original.groups.contains_key(*g))
        .cloned()
        .collect();
    for group in made.iter().rev() {
        let used = change.target.apps_below(group).next().is_some()
            || change.target.groups.keys().any(|g| g.is_below(group));
        if !used {
            change.target.remove_group(group);
        }
    }
    for (id, group) in &deployment.original.groups {
        change
            .target
            .groups
            .entry(id.clone())
            .or_insert_with(|| group.clone());
    }
    core.prepare(&mut change)?;
    let (deployment, version) = core.deploy(change)?;
    Ok(Response::deployed(200, deployment, version))
}
