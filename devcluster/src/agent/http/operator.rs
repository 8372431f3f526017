//! `/api/v1` for operators, and the unversioned endpoints.

use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use mesos::pb;
use pb::agent::call::Type as Call;
use pb::agent::response::{self as r, Type};
use serde_json::{Value, json};

use super::files::{self, FileError, MAX_DOWNLOAD, Shown};
use super::{Requests, describe, look};
use crate::agent::container::ContainerId;
use crate::agent::run::View;
use crate::http::{accepted, body, empty, encode, error, json_response, read_call};
use crate::master::legacy::parse_query;

/// Handles one call to `/api/v1`.
pub(super) async fn call(requests: &Requests, headers: &HeaderMap, bytes: &[u8]) -> Response {
    let call = match read_call::<pb::agent::Call>(headers, bytes, "Call") {
        Ok(call) => call,
        Err(refusal) => return *refusal,
    };
    let encoding = match accepted(headers) {
        Ok(encoding) => encoding,
        Err(refusal) => return *refusal,
    };
    let invalid = |why: &str| error(400, format!("Failed to validate agent::Call: {why}"));
    let answer = match call.r#type() {
        Call::Unknown => return invalid("Expecting 'type' to be present"),
        Call::ListFiles => {
            let Some(list) = call.list_files else {
                return invalid("Expecting 'list_files' to be present");
            };
            list_files(requests, list.path).await
        }
        Call::ReadFile => {
            let Some(read) = call.read_file else {
                return invalid("Expecting 'read_file' to be present");
            };
            read_file(requests, read).await
        }
        Call::KillContainer => {
            let Some(kill) = call.kill_container else {
                return invalid("Expecting 'kill_container' to be present");
            };
            return kill_container(requests, kill).await;
        }
        kind => look(requests, move |view| describe_as(view, kind))
            .await
            .and_then(|answer| {
                answer.ok_or_else(|| {
                    let name = kind.as_str_name();
                    Box::new(error(
                        501,
                        format!("{name} is not implemented by this agent"),
                    ))
                })
            }),
    };
    match answer {
        Ok(answer) => body(encoding, encode(encoding, &answer)),
        Err(refusal) => *refusal,
    }
}

fn describe_as(view: &View<'_>, kind: Call) -> Option<pb::agent::Response> {
    let mut out = pb::agent::Response::default();
    let mut is = |kind: Type| out.r#type = Some(kind as i32);
    match kind {
        Call::GetHealth => {
            is(Type::GetHealth);
            out.get_health = Some(r::GetHealth { healthy: true });
        }
        Call::GetFlags => {
            is(Type::GetFlags);
            let flags = view.config.flags(view.address.port());
            let flags = flags.into_iter().map(|(name, value)| pb::Flag {
                name: name.to_owned(),
                value: Some(value),
            });
            out.get_flags = Some(r::GetFlags {
                flags: flags.collect(),
            });
        }
        Call::GetVersion => {
            is(Type::GetVersion);
            out.get_version = Some(r::GetVersion {
                version_info: describe::version(),
            });
        }
        Call::GetMetrics => {
            is(Type::GetMetrics);
            let metrics = describe::metrics(view).into_iter();
            let metrics = metrics.map(|(name, value)| pb::Metric {
                name,
                value: Some(value),
            });
            out.get_metrics = Some(r::GetMetrics {
                metrics: metrics.collect(),
            });
        }
        Call::GetLoggingLevel => {
            is(Type::GetLoggingLevel);
            out.get_logging_level = Some(r::GetLoggingLevel { level: 0 });
        }
        Call::GetState => {
            is(Type::GetState);
            out.get_state = Some(r::GetState {
                get_tasks: Some(describe::get_tasks(view)),
                get_executors: Some(describe::get_executors(view)),
                get_frameworks: Some(describe::get_frameworks(view)),
            });
        }
        Call::GetContainers => {
            is(Type::GetContainers);
            out.get_containers = Some(r::GetContainers {
                containers: describe::containers(view),
            });
        }
        Call::GetFrameworks => {
            is(Type::GetFrameworks);
            out.get_frameworks = Some(describe::get_frameworks(view));
        }
        Call::GetExecutors => {
            is(Type::GetExecutors);
            out.get_executors = Some(describe::get_executors(view));
        }
        Call::GetOperations => {
            is(Type::GetOperations);
            out.get_operations = Some(r::GetOperations::default());
        }
        Call::GetTasks => {
            is(Type::GetTasks);
            out.get_tasks = Some(describe::get_tasks(view));
        }
        Call::GetAgent => {
            is(Type::GetAgent);
            out.get_agent = Some(r::GetAgent {
                agent_info: Some(view.core.info.clone()),
                ..Default::default()
            });
        }
        Call::GetResourceProviders => {
            is(Type::GetResourceProviders);
            out.get_resource_providers = Some(r::GetResourceProviders::default());
        }
        _ => return None,
    }
    Some(out)
}

async fn list_files(
    requests: &Requests,
    path: String,
) -> Result<pb::agent::Response, Box<Response>> {
    let shown = look(requests, |view| Shown::of(view.core)).await?;
    let entries = in_background(move || files::list(&path, &shown.resolve(&path)?)).await;
    let file_infos = entries.map_err(|e| Box::new(refused(&e)))?.into_iter();
    let file_infos = file_infos.map(|e| pb::FileInfo {
        path: e.path,
        nlink: i32::try_from(e.nlink).ok(),
        size: Some(e.size),
        mtime: Some(pb::TimeInfo {
            nanoseconds: e.mtime.saturating_mul(1_000_000_000),
        }),
        mode: Some(e.mode),
        uid: Some(e.user),
        gid: Some(e.group),
    });
    Ok(pb::agent::Response {
        r#type: Some(Type::ListFiles as i32),
        list_files: Some(r::ListFiles {
            file_infos: file_infos.collect(),
        }),
        ..Default::default()
    })
}

async fn read_file(
    requests: &Requests,
    call: pb::agent::call::ReadFile,
) -> Result<pb::agent::Response, Box<Response>> {
    let shown = look(requests, |view| Shown::of(view.core)).await?;
    let read = in_background(move || {
        let path = shown.resolve(&call.path)?;
        files::read(&path, Some(call.offset), call.length)
    });
    let (data, size) = read.await.map_err(|e| Box::new(refused(&e)))?;
    Ok(pb::agent::Response {
        r#type: Some(Type::ReadFile as i32),
        read_file: Some(r::ReadFile { size, data }),
        ..Default::default()
    })
}

async fn kill_container(requests: &Requests, kill: pb::agent::call::KillContainer) -> Response {
    let id = ContainerId::from(kill.container_id.value);
    let signal = kill.signal.unwrap_or(nix::libc::SIGKILL);
    let name = id.to_string();
    let done = look(requests, move |view| view.containerizer.signal(&id, signal)).await;
    match done {
        Ok(true) => empty(200),
        Ok(false) => error(404, format!("Container {name} cannot be found")),
        Err(refusal) => *refusal,
    }
}

/// Answers a request to an unversioned endpoint; `None` if there is none of this name.
pub(super) async fn get(
    requests: &Requests,
    method: &Method,
    path: &str,
    query: &str,
) -> Option<Response> {
    let document: fn(&View<'_>) -> Value = match path {
        "/state" => describe::state,
        "/containers" => |view| describe::container_list(view, true),
        "/monitor/statistics" => |view| describe::container_list(view, false),
        "/flags" => |view| json!({"flags": describe::flags(view)}),
        "/version" => |_| crate::http::json::print(&describe::version()),
        "/metrics/snapshot" => |view| {
            let metrics = describe::metrics(view).into_iter();
            Value::Object(metrics.map(|(name, value)| (name, json!(value))).collect())
        },
        "/files/debug" => |view| Shown::of(view.core).debug(),
        "/files/browse" | "/files/read" | "/files/download" => {
            return Some(file(requests, path, query).await);
        }
        _ => return None,
    };
    if method != Method::GET && method != Method::HEAD {
        return Some(crate::http::method_not_allowed("GET", method.as_str()));
    }
    Some(match look(requests, document).await {
        Ok(value) => json_response(&value),
        Err(refusal) => *refusal,
    })
}

async fn file(requests: &Requests, endpoint: &str, query: &str) -> Response {
    let mut query = parse_query(query);
    let Some(path) = query.remove("path").filter(|path| !path.is_empty()) else {
        return error(400, "Expecting 'path=value' in query.\n");
    };
    let number = |name: &str| query.get(name).map(|text| text.parse::<i64>());
    let (offset, length) = match (number("offset").transpose(), number("length").transpose()) {
        (Ok(offset), Ok(length)) => (offset, length),
        _ => return error(400, "Failed to parse offset or length: not a number.\n"),
    };
    let shown = match look(requests, |view| Shown::of(view.core)).await {
        Ok(shown) => shown,
        Err(refusal) => return *refusal,
    };
    let endpoint = endpoint.to_owned();
    let answer = in_background(move || {
        let real = shown.resolve(&path)?;
        match endpoint.as_str() {
            "/files/browse" => {
                let entries = files::list(&path, &real)?;
                let entries: Value = entries.iter().map(files::browse_entry).collect();
                Ok(json_response(&entries))
            }
            "/files/read" => {
                // A negative offset asks for the size only, a negative length for everything.
                let from = offset.and_then(|o| u64::try_from(o).ok());
                let from = if offset.is_none() { Some(0) } else { from };
                let length = length.and_then(|l| u64::try_from(l).ok());
                let (data, size) = files::read(&real, from, length)?;
                Ok(json_response(&json!({
                    "data": String::from_utf8_lossy(&data),
                    "offset": from.unwrap_or(size),
                })))
            }
            _ => download(&real),
        }
    });
    match answer.await {
        Ok(response) => response,
        Err(why) => refused(&why),
    }
}

fn download(real: &std::path::Path) -> Result<Response, FileError> {
    if real.is_dir() {
        return Err(FileError::Kind("Cannot download a directory.\n"));
    }
    if std::fs::metadata(real)?.len() > MAX_DOWNLOAD {
        return Err(FileError::Kind("The file is too large to be downloaded.\n"));
    }
    let mut response = Response::new(std::fs::read(real)?.into());
    let headers = response.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, octets);
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename={name}")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

fn refused(why: &FileError) -> Response {
    match why {
        FileError::NotFound => error(404, ""),
        FileError::Kind(words) => error(400, *words),
        FileError::Io(source) => error(500, format!("{source}.\n")),
    }
}

/// Files may be on slow disks; the reactor does not wait for them.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic).into()))
}
