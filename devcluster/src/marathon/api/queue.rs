//! `/v2/queue`: what waits, and why.

use serde_json::{Value, json};

use super::apps::unknown;
use super::{Answered, Request, Response, path_id, view};
use crate::marathon::core::{Core, waiting};
use crate::marathon::error::ApiError;

/// Reasons in the order in which an offer is looked at.
const REASONS: [&str; 9] = [
    "UnfulfilledRole",
    "UnfulfilledConstraint",
    "NoCorrespondingReservationFound",
    "InsufficientCpus",
    "InsufficientMemory",
    "InsufficientDisk",
    "InsufficientGpus",
    "InsufficientPorts",
    "DeclinedScarceResources",
];

pub(super) fn route(core: &mut Core, request: &Request, rest: &str) -> Answered {
    match (request.method.as_str(), rest) {
        ("GET", "") => Ok(list(core)),
        ("DELETE", rest) if rest.ends_with("/delay") => {
            let id = path_id(rest.trim_end_matches("/delay"))?;
            if !core.durable.root.apps.contains_key(&id) {
                return Err(unknown(&id));
            }
            if !waiting(core).contains_key(&id) {
                return Err(ApiError::NotFound(format!(
                    "Application {id} not found in tasks queue."
                )));
            }
            core.queue.reset(&id);
            Ok(Response::empty(204))
        }
        _ => Err(ApiError::Method),
    }
}

fn list(core: &Core) -> Response {
    let mut queue: Vec<Value> = Vec::new();
    for (id, (count, since)) in waiting(core) {
        let Some(app) = core.durable.root.apps.get(&id) else {
            continue;
        };
        let left = core.queue.delay(app).map_or(0, |d| {
            let left = d.until.since(core.now);
            left.as_secs() + u64::from(left.subsec_nanos() > 0)
        });
        let offered = core.queue.offered.get(&id).cloned().unwrap_or_default();
        let all = |declined: &dyn Fn(&str) -> u64, processed: u64| -> Vec<Value> {
            let mut processed = processed;
            REASONS
                .iter()
                .map(|reason| {
                    let declined = declined(reason);
                    let step =
                        json!({"reason": reason, "declined": declined, "processed": processed});
                    processed = processed.saturating_sub(declined);
                    step
                })
                .collect()
        };
        let mut summary = json!({
            "processedOffersCount": offered.processed,
            "unusedOffersCount": offered.unused,
            "rejectSummaryLaunchAttempt": all(
                &|r| offered.reasons.get(r).copied().unwrap_or(0),
                offered.processed,
            ),
            "rejectSummaryLastOffers": all(
                &|r| offered.last_reasons.values().filter(|v| **v == r).count() as u64,
                offered.last_reasons.len() as u64,
            ),
        });
        if let Some(at) = offered.last_unused {
            summary["lastUnusedOfferAt"] = json!(at);
        }
        if let Some(at) = offered.last_used {
            summary["lastUsedOfferAt"] = json!(at);
        }
        queue.push(json!({
            "app": view::definition(app),
            "count": count,
            "role": app.role,
            "delay": {"timeLeftSeconds": left, "overdue": left == 0},
            "since": since,
            "processedOffersSummary": summary,
        }));
    }
    Response::ok(json!({"queue": queue}))
}
