//! `/api/v1/executor`.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use mesos::pb;
use pb::executor::Call;
use pb::executor::call::Type;
use tokio::sync::oneshot;

use super::{ExecutorClaims, Requests};
use crate::agent::core::Refusal;
use crate::agent::run::Request;
use crate::http::{accepted, empty, error, read_call};
use crate::ids::{ExecutorId, FrameworkId};

/// Handles one call. With claims, they must be the calling executor's own.
pub(super) async fn handle(
    requests: &Requests,
    headers: &HeaderMap,
    claims: Option<&ExecutorClaims>,
    body: &[u8],
) -> Response {
    let call = match read_call::<Call>(headers, body, "Call") {
        Ok(call) => call,
        Err(refusal) => return *refusal,
    };
    if let Err(why) = validate(&call) {
        return error(400, format!("Failed to validate Executor::Call: {why}"));
    }
    let framework = FrameworkId::from(&call.framework_id);
    let executor = ExecutorId::from(&call.executor_id);
    if let Some(claims) = claims {
        let (f, e) = (framework.clone(), executor.clone());
        let container = super::look(requests, move |view| view.core.container_of(&f, &e)).await;
        let container = match container {
            Ok(container) => container,
            Err(response) => return *response,
        };
        // One that is not known is refused below, in other words.
        if let Some(container) = container
            && let Some(why) = claims.mismatch(&framework, &executor, Some(&container))
        {
            return error(403, why);
        }
    }
    match call.r#type() {
        Type::Subscribe => {
            let encoding = match accepted(headers) {
                Ok(encoding) => encoding,
                Err(refusal) => return *refusal,
            };
            let (reply, answer) = oneshot::channel();
            let request = Request::Subscribe {
                framework,
                executor,
                call: Box::new(call.subscribe.unwrap_or_default()),
                encoding,
                reply,
            };
            match super::ask(requests, request, answer).await {
                Ok(Ok(body)) => {
                    let mut response = Response::new(body);
                    let content_type = HeaderValue::from_static(encoding.media_type());
                    let headers = response.headers_mut();
                    headers.insert(header::CONTENT_TYPE, content_type);
                    response
                }
                Ok(Err(refusal)) => refused(refusal),
                Err(response) => *response,
            }
        }
        Type::Update => {
            let (reply, answer) = oneshot::channel();
            let request = Request::Update {
                framework,
                executor,
                status: Box::new(call.update.map(|u| u.status).unwrap_or_default()),
                reply,
            };
            accepted_or(super::ask(requests, request, answer).await)
        }
        Type::Message => {
            let (reply, answer) = oneshot::channel();
            let request = Request::Message {
                framework,
                executor,
                data: call.message.map(|m| m.data).unwrap_or_default(),
                reply,
            };
            accepted_or(super::ask(requests, request, answer).await)
        }
        Type::Heartbeat => empty(202),
        Type::Unknown => empty(501),
    }
}

fn accepted_or(answer: Result<Result<(), Refusal>, Box<Response>>) -> Response {
    match answer {
        Ok(Ok(())) => empty(202),
        Ok(Err(refusal)) => refused(refusal),
        Err(response) => *response,
    }
}

fn refused(refusal: Refusal) -> Response {
    let status = match refusal {
        Refusal::Recovering => 503,
        Refusal::NoFramework | Refusal::NoExecutor => 400,
        Refusal::NotSubscribed => 403,
    };
    error(status, refusal.to_string())
}

/// Mesos' own checks, in its order and words.
fn validate(call: &Call) -> Result<(), String> {
    let present = |name: &str| format!("Expecting '{name}' to be present");
    let executor = &call.executor_id.value;
    let framework = &call.framework_id.value;
    match call.r#type() {
        Type::Unknown => Err(present("type")),
        Type::Subscribe if call.subscribe.is_none() => Err(present("subscribe")),
        Type::Message if call.message.is_none() => Err(present("message")),
        Type::Subscribe | Type::Message | Type::Heartbeat => Ok(()),
        Type::Update => {
            let status = match &call.update {
                Some(update) => &update.status,
                None => return Err(present("update")),
            };
            let Some(uuid) = &status.uuid else {
                return Err(present("uuid"));
            };
            if !is_uuid(uuid) {
                return Err("Not a valid UUID".to_owned());
            }
            if let Some(other) = &status.executor_id
                && other.value != *executor
            {
                return Err(format!(
                    "ExecutorID in Call: {executor} does not match ExecutorID in TaskStatus: {}",
                    other.value
                ));
            }
            let from = format!("from executor {executor} of framework {framework}");
            let wanted = pb::task_status::Source::Executor;
            if status.source.is_none() || status.source() != wanted {
                return Err(format!(
                    "Received Call {from} with invalid source, expecting 'SOURCE_EXECUTOR'"
                ));
            }
            if status.state() == pb::TaskState::TaskStaging {
                return Err(format!("Received TASK_STAGING {from} which is not allowed"));
            }
            Ok(())
        }
    }
}

/// 16 bytes of version 1 to 5. The variant does not matter to Mesos.
pub(super) fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 16 && (1..=5).contains(&(bytes[6] >> 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(change: impl FnOnce(&mut pb::TaskStatus)) -> Result<(), String> {
        let mut status = pb::TaskStatus {
            state: pb::TaskState::TaskRunning as i32,
            source: Some(pb::task_status::Source::Executor as i32),
            uuid: Some(uuid::Uuid::new_v4().as_bytes().to_vec()),
            ..Default::default()
        };
        change(&mut status);
        let call = Call {
            executor_id: pb::ExecutorId { value: "e1".into() },
            framework_id: pb::FrameworkId { value: "F".into() },
            r#type: Some(Type::Update as i32),
            update: Some(pb::executor::call::Update { status }),
            ..Default::default()
        };
        validate(&call)
    }

    #[test]
    fn an_update_is_checked_as_a_real_agent_does() {
        assert_eq!(update(|_| ()), Ok(()));
        let words = |r: Result<(), String>| r.unwrap_err();
        assert_eq!(
            words(update(|s| s.uuid = None)),
            "Expecting 'uuid' to be present"
        );
        for bad in [
            vec![0; 16],
            vec![0; 4],
            // Version 7.
            vec![
                0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x70, 0x11, 0x92, 0, 0, 0, 0, 0, 0, 0,
            ],
        ] {
            assert_eq!(words(update(|s| s.uuid = Some(bad))), "Not a valid UUID");
        }
        // Version 5, variant bits 00.
        let odd = vec![
            0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x50, 0x11, 0x02, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(update(|s| s.uuid = Some(odd)), Ok(()));
        assert_eq!(
            words(update(|s| s.source = None)),
            "Received Call from executor e1 of framework F with invalid source, expecting 'SOURCE_EXECUTOR'"
        );
        assert_eq!(
            words(update(|s| s.state = pb::TaskState::TaskStaging as i32)),
            "Received TASK_STAGING from executor e1 of framework F which is not allowed"
        );
        let other = Some(pb::ExecutorId {
            value: "other".into(),
        });
        assert_eq!(
            words(update(|s| s.executor_id = other)),
            "ExecutorID in Call: e1 does not match ExecutorID in TaskStatus: other"
        );
    }
}
