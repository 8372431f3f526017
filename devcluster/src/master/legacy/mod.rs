//! The unversioned HTTP endpoints (`/state`, `/slaves`, ...), which tools and older clients read.

mod documents;

use std::collections::BTreeMap;

use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use mesos::pb;
use serde_json::{Value, json};

use super::event::Answer;
use super::server::Shared;
use super::state::MasterState;
use crate::http;
use documents::{flags, frameworks, roles, slaves, state, summary, tasks, version, weights};
pub(crate) use documents::{list_of_labels, quantities, task};

/// Answers a GET of one of these endpoints. `path` has no `/master` in front and no slash at
/// its end.
pub(super) fn get(shared: &Shared, method: &Method, path: &str, query: &str) -> Response {
    let answer: fn(&MasterState, Option<&str>, &BTreeMap<String, String>) -> Value = match path {
        "/state" => |s, cluster, _| state(s, cluster),
        "/state-summary" => |s, cluster, _| summary(s, cluster),
        "/slaves" => |s, _, q| slaves(s, q),
        "/frameworks" => |s, _, q| frameworks(s, q),
        "/tasks" => |s, _, q| tasks(s, q),
        "/roles" => |s, _, _| roles(s),
        "/flags" => |s, cluster, _| json!({"flags": flags(s, cluster)}),
        "/version" => |_, _, _| version(),
        "/metrics/snapshot" => |s, _, _| {
            let metrics = s.metrics_snapshot();
            Value::Object(
                metrics
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), json!(v)))
                    .collect(),
            )
        },
        "/maintenance/schedule" => |s, _, _| http::json::print(&s.registry.schedule),
        "/maintenance/status" => |s, _, _| http::json::print(&s.maintenance_status()),
        "/weights" => |s, _, _| weights(s),
        "/quota" => |s, _, _| http::json::print(&s.quota_status()),
        "/health" => return http::empty(200),
        "/redirect" => return redirect(shared),
        "/machine/up" | "/machine/down" | "/reserve" | "/unreserve" | "/create-volumes"
        | "/destroy-volumes" => {
            return http::method_not_allowed("POST", method.as_str());
        }
        _ => return http::not_found(),
    };
    if *method != Method::GET && *method != Method::HEAD {
        return http::method_not_allowed("GET", method.as_str());
    }
    let query = parse_query(query);
    let value = shared.look(|state| answer(state, shared.cluster(), &query));
    if path == "/metrics/snapshot" || !query.contains_key("jsonp") {
        return http::json_response(&value);
    }
    let call = query.get("jsonp").map_or("", String::as_str);
    let mut response = http::error(200, format!("{call}({value});"));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/javascript"),
    );
    response
}

fn redirect(shared: &Shared) -> Response {
    let place = shared.look(|state| {
        let hostname = state.info.hostname.clone().unwrap_or_default();
        format!("//{hostname}:{}", state.info.port)
    });
    let mut response = http::empty(307);
    match HeaderValue::from_str(&place) {
        Ok(value) => {
            response.headers_mut().insert(header::LOCATION, value);
            response
        }
        Err(_) => http::error(500, "the advertised host name is not one"),
    }
}

/// `POST /teardown` with a form `frameworkId=...`.
pub(super) fn teardown(
    method: &Method,
    body: &[u8],
    call: impl FnOnce(String) -> Answer,
) -> Response {
    if *method != Method::POST {
        return http::method_not_allowed("POST", method.as_str());
    }
    let mut form = parse_query(&String::from_utf8_lossy(body));
    let Some(id) = form.remove("frameworkId") else {
        return http::error(
            400,
            "Missing 'frameworkId' query parameter in the request body",
        );
    };
    match call(id) {
        Answer::Error { status, text } => http::error(status, text),
        _ => http::empty(200),
    }
}

/// The operator's call that a form to `/reserve` and its like stands for: `slaveId`, and the
/// resources as JSON. Says what is wrong with another.
pub(crate) fn operation(path: &str, body: &[u8]) -> Result<pb::master::Call, String> {
    use pb::master::call::{self, Type};
    let mut form = parse_query(&String::from_utf8_lossy(body));
    let mut field = |name: &str| {
        let value = form.remove(name);
        value.ok_or_else(|| format!("Missing '{name}' query parameter in the request body"))
    };
    let agent_id = pb::AgentId {
        value: field("slaveId")?,
    };
    let name = match path {
        "/reserve" | "/unreserve" => "resources",
        _ => "volumes",
    };
    let text = field(name)?;
    let wrong = |why: String| format!("Error in parsing '{name}' query parameter: {why}");
    let resources = list_of(text.as_bytes(), mesos::codec::from_json).map_err(wrong)?;
    let mut call = pb::master::Call::default();
    let kind = match path {
        "/reserve" => {
            call.reserve_resources = Some(call::ReserveResources {
                agent_id,
                resources,
                ..Default::default()
            });
            Type::ReserveResources
        }
        "/unreserve" => {
            call.unreserve_resources = Some(call::UnreserveResources {
                agent_id,
                resources,
            });
            Type::UnreserveResources
        }
        "/create-volumes" => {
            call.create_volumes = Some(call::CreateVolumes {
                agent_id,
                volumes: resources,
            });
            Type::CreateVolumes
        }
        _ => {
            call.destroy_volumes = Some(call::DestroyVolumes {
                agent_id,
                volumes: resources,
            });
            Type::DestroyVolumes
        }
    };
    call.r#type = Some(kind as i32);
    Ok(call)
}

/// A list of messages, written as JSON.
fn list_of<M>(
    text: &[u8],
    read: impl Fn(&Value) -> Result<M, mesos::codec::DecodeError>,
) -> Result<Vec<M>, String> {
    let list: Vec<Value> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    list.iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

/// The operator's call that a list of machines to `/machine/down` or `/machine/up` stands for.
pub(crate) fn machines(path: &str, body: &[u8]) -> Result<pb::master::Call, String> {
    use pb::master::call::{self, Type};
    let wrong = |why: String| format!("Failed to parse the list of machines: {why}");
    let machines = list_of(body, mesos::codec::from_json).map_err(wrong)?;
    let mut call = pb::master::Call::default();
    let kind = match path {
        "/machine/down" => {
            call.start_maintenance = Some(call::StartMaintenance { machines });
            Type::StartMaintenance
        }
        _ => {
            call.stop_maintenance = Some(call::StopMaintenance { machines });
            Type::StopMaintenance
        }
    };
    call.r#type = Some(kind as i32);
    Ok(call)
}

/// `a=1&b=2`, with percent encoding and plus signs undone.
pub(crate) fn parse_query(text: &str) -> BTreeMap<String, String> {
    http::query::pairs(text).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_never_panic() {
        let query = parse_query("frameworkId=a%2Fb&x=1+2&y&%&z=%zz");
        assert_eq!(query["frameworkId"], "a/b");
        assert_eq!(query["x"], "1 2");
        assert_eq!(query["y"], "");
        assert_eq!(query["z"], "%zz");
    }
}
