//! The secret store of DC/OS Enterprise. Its secrets are the files that agents put into tasks
//! (`k8sm dev mesos agent --secrets-dir`), so what is stored here is what tasks get.
//!
//! | call below `/secrets/v1/secret/default/<path>` | answers |
//! |---|---|
//! | `GET` | 200 `{"value": "..."}`, 404 |
//! | `GET ?list=true` | 200 `{"array": ["<path below>", ...]}`, 404 |
//! | `PUT {"value": "..."}` | 201, 409 where it exists |
//! | `PATCH {"value": "..."}` | 204, 404 |
//! | `DELETE` | 204, 404 |
//!
//! 401 without a token, 403 without the permission (`dcos:secrets:default:/<path>` with `create`,
//! `read`, `update`, `delete` or `full`; a `*` at the end stands for everything below). Open DC/OS has no secret store:
//! without accounts, or without a directory, there is none here either. A path cannot be a secret
//! and a folder of secrets at once, which the real store allows.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as InPath, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};
use packaging::files::{SECRET, make_dir, write_atomic};
use serde::Deserialize;
use serde_json::json;

use super::Dcos;

/// Largest secret, bytes: what DC/OS takes unless told otherwise.
const LARGEST: usize = 1 << 20;
/// Largest body: a secret and what JSON makes of it.
const LARGEST_BODY: usize = 4 * LARGEST;
/// Resources of secrets begin so in permissions.
const RESOURCE: &str = "dcos:secrets:default:";

/// The store.
#[derive(Debug, Default)]
pub struct Secrets {
    dir: Option<PathBuf>,
    /// Permissions of the accounts; an account that is not there may do everything.
    grants: BTreeMap<String, Vec<Grant>>,
}

/// A permission.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    /// Path, with `*` at the end for all that begins so.
    path: String,
    actions: Vec<String>,
}

impl Secrets {
    /// Secrets are files below `dir`. `grants` are permissions by accounts' names, as
    /// `dcos security org users grant` takes them: `dcos:secrets:default:/kubernetes/* full`.
    /// Those that are not about secrets are ignored.
    pub fn new(
        dir: Option<PathBuf>,
        grants: &BTreeMap<String, Vec<String>>,
    ) -> anyhow::Result<Self> {
        let mut read = BTreeMap::new();
        for (account, lines) in grants {
            let grants: anyhow::Result<Vec<Option<Grant>>> =
                lines.iter().map(|line| Grant::parse(line)).collect();
            let grants = grants.with_context(|| format!("the permissions of {account}"))?;
            read.insert(account.clone(), grants.into_iter().flatten().collect());
        }
        Ok(Self { dir, grants: read })
    }

    /// Reads permissions from a file `{"<uid>": ["<resource> <actions>", ...]}`.
    pub fn read(dir: Option<PathBuf>, grants: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = grants else {
            return Self::new(dir, &BTreeMap::new());
        };
        let text =
            std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let grants: BTreeMap<String, Vec<String>> = serde_json::from_str(&text)
            .with_context(|| format!("{} is no object of lists by names", file.display()))?;
        Self::new(dir, &grants)
    }

    fn may(&self, account: &str, path: &str, action: &str) -> bool {
        match self.grants.get(account) {
            None => true,
            Some(grants) => grants.iter().any(|g| g.allows(path, action)),
        }
    }
}

impl Grant {
    fn parse(line: &str) -> anyhow::Result<Option<Self>> {
        let (resource, actions) = line
            .trim()
            .rsplit_once(' ')
            .with_context(|| format!("`{line}`: a resource and its actions are wanted"))?;
        let path = match resource.trim() {
            "dcos:superuser" => "*",
            other => match other.strip_prefix(RESOURCE) {
                Some(path) => path.trim_start_matches('/'),
                None => return Ok(None),
            },
        };
        Ok(Some(Self {
            path: path.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        }))
    }

    fn allows(&self, path: &str, action: &str) -> bool {
        let here = match self.path.strip_suffix('*') {
            Some(begin) => path.starts_with(begin),
            None => path == self.path,
        };
        here && self.actions.iter().any(|a| a == action || a == "full")
    }
}

pub(super) fn routes() -> Router<Arc<Dcos>> {
    Router::new()
        .route("/secrets/v1/secret/{store}", any(root))
        .route("/secrets/v1/secret/{store}/", any(root))
        .route("/secrets/v1/secret/{store}/{*path}", any(one))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
}

/// What is asked for besides a path.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    list: Option<String>,
}

async fn root(
    state: State<Arc<Dcos>>,
    InPath(store): InPath<String>,
    asked: Query<Asked>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = InPath((store, String::new()));
    one(state, path, asked, method, headers, body).await
}

async fn one(
    State(dcos): State<Arc<Dcos>>,
    InPath((store, path)): InPath<(String, String)>,
    Query(asked): Query<Asked>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(dir) = dcos.secrets.dir.as_deref().filter(|_| dcos.accounts.any()) else {
        return refused(StatusCode::NOT_FOUND, "open DC/OS has no secret store");
    };
    let Some(account) = dcos.accounts.user(headers.get(header::AUTHORIZATION)) else {
        return refused(StatusCode::UNAUTHORIZED, "a token is wanted");
    };
    if store != "default" {
        return refused(StatusCode::NOT_FOUND, "there is one store, `default`");
    }
    let path = path.trim_matches('/');
    let listing = method == Method::GET && asked.list.as_deref() == Some("true");
    let action = match method {
        Method::GET => "read",
        Method::PUT => "create",
        Method::PATCH => "update",
        Method::DELETE => "delete",
        _ => return refused(StatusCode::METHOD_NOT_ALLOWED, "GET, PUT, PATCH or DELETE"),
    };
    if !listing && !dcos.secrets.may(&account, path, action) {
        let text = format!("{account} may not {action} {RESOURCE}/{path}");
        return refused(StatusCode::FORBIDDEN, &text);
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let bad = parts.iter().any(|p| crate::ids::why_invalid(p).is_some());
    if bad || (parts.is_empty() && !listing) {
        return refused(StatusCode::BAD_REQUEST, "this is no path of a secret");
    }
    let file = parts
        .iter()
        .fold(dir.to_owned(), |file, part| file.join(part));
    let answer = match (&method, listing) {
        (_, true) => list(&file),
        (&Method::GET, _) => get(&file),
        (&Method::DELETE, _) => delete(dir, &file),
        (method, _) => store_value(&file, method == Method::PUT, &body),
    };
    answer.unwrap_or_else(|error| {
        tracing::warn!("the secret {path}: {error}");
        refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the store does not work; its log says why",
        )
    })
}

fn refused(status: StatusCode, why: &str) -> Response {
    let body = json!({"code": status.as_u16(), "message": why});
    (status, Json(body)).into_response()
}

fn get(file: &Path) -> io::Result<Response> {
    if !file.is_file() {
        return Ok(refused(StatusCode::NOT_FOUND, "there is no such secret"));
    }
    let value = std::fs::read_to_string(file)?;
    Ok(Json(json!({"value": value})).into_response())
}

fn list(dir: &Path) -> io::Result<Response> {
    let mut found = Vec::new();
    walk(dir, "", &mut found)?;
    if found.is_empty() {
        return Ok(refused(StatusCode::NOT_FOUND, "there are no secrets"));
    }
    found.sort();
    Ok(Json(json!({"array": found})).into_response())
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // There is none, or it is a secret.
        Err(_) => return Ok(()),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.file_type()?.is_dir() {
            true => walk(&entry.path(), &format!("{prefix}{name}/"), found)?,
            // Those in the making aside.
            false if name.ends_with(".tmp") => {}
            false => found.push(format!("{prefix}{name}")),
        }
    }
    Ok(())
}

/// What a caller stores.
#[derive(Deserialize)]
struct Stored {
    value: String,
}

fn store_value(file: &Path, create: bool, body: &[u8]) -> io::Result<Response> {
    let Ok(stored) = serde_json::from_slice::<Stored>(body) else {
        return Ok(refused(
            StatusCode::BAD_REQUEST,
            "{\"value\": \"...\"} is wanted",
        ));
    };
    if stored.value.len() > LARGEST {
        return Ok(refused(StatusCode::PAYLOAD_TOO_LARGE, "at most 1 MiB"));
    }
    match (create, file.exists()) {
        (true, true) => return Ok(refused(StatusCode::CONFLICT, "there is one already")),
        (false, false) => return Ok(refused(StatusCode::NOT_FOUND, "there is no such secret")),
        _ => {}
    }
    let written = match file.parent() {
        Some(parent) => make_dir(parent, 0o700),
        None => Ok(()),
    };
    written
        .and_then(|()| write_atomic(file, stored.value.as_bytes(), SECRET))
        .map_err(io::Error::other)?;
    let status = match create {
        true => StatusCode::CREATED,
        false => StatusCode::NO_CONTENT,
    };
    Ok(status.into_response())
}

fn delete(dir: &Path, file: &Path) -> io::Result<Response> {
    if !file.is_file() {
        return Ok(refused(StatusCode::NOT_FOUND, "there is no such secret"));
    }
    std::fs::remove_file(file)?;
    // Folders that have become empty are no secrets' any more.
    let above = file.ancestors().skip(1).take_while(|above| *above != dir);
    for above in above {
        if std::fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_about_a_secret_or_all_below_a_path() {
        let grants = [(
            "a".to_owned(),
            vec![
                "dcos:secrets:default:/k/* full".to_owned(),
                "dcos:secrets:default:/other/one read,update".to_owned(),
                "dcos:mesos:master:task:app_id:/k create".to_owned(),
            ],
        )]
        .into();
        let secrets = Secrets::new(None, &grants).unwrap();
        for (path, action, may) in [
            ("k/state", "create", true),
            ("k-cp/pki-etcd-0", "create", false),
            ("k", "read", false),
            ("other/one", "update", true),
            ("other/one", "delete", false),
            ("other/two", "read", false),
        ] {
            assert_eq!(secrets.may("a", path, action), may, "{path} {action}");
        }
        assert!(secrets.may("who is not named", "x", "create"));
        let wrong = [("a".to_owned(), vec!["full".to_owned()])].into();
        assert!(Secrets::new(None, &wrong).is_err());
    }

    #[test]
    fn a_secret_is_created_once_changed_and_deleted_with_its_empty_folders() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k/state");
        let body = |value: &str| json!({"value": value}).to_string().into_bytes();
        let put = |value: &str| store_value(&file, true, &body(value)).unwrap().status();
        let patch = |value: &str| store_value(&file, false, &body(value)).unwrap().status();
        assert_eq!(patch("a"), 404);
        assert_eq!(put("a"), 201);
        assert_eq!(put("b"), 409);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a");
        assert_eq!(patch("b"), 204);
        assert_eq!(patch(&"x".repeat(LARGEST + 1)), 413);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "b");
        assert_eq!(list(dir.path()).unwrap().status(), 200);
        let gone = || delete(dir.path(), &file).unwrap().status();
        assert_eq!(gone(), 204);
        assert_eq!(gone(), 404);
        assert_eq!(get(&file).unwrap().status(), 404);
        assert_eq!(list(dir.path()).unwrap().status(), 404);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(
            store_value(&file, true, b"{}").unwrap().status(),
            400,
            "a value is wanted"
        );
    }
}
