//! The REST API, without HTTP: requests and answers are values.

mod apps;
mod deployments;
mod groups;
mod info;
mod queue;
mod tasks;
pub(super) mod view;

use serde_json::{Value, json};

use super::core::Core;
use super::error::ApiError;
use super::ids::{DeploymentId, PathId, Version};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// Its path, decoded.
    pub path: String,
    /// Its query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// Who asks, for events.
    pub client: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// `Marathon-Deployment-Id`.
    pub deployment: Option<DeploymentId>,
    /// `Location`.
    pub location: Option<String>,
    /// Its body.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// JSON.
    Json(Value),
    /// Plain text.
    Text(String),
}

impl Response {
    /// 200 and a document.
    pub fn ok(document: Value) -> Self {
        Self::json(200, document)
    }

    fn json(status: u16, document: Value) -> Self {
        Self {
            status,
            deployment: None,
            location: None,
            body: Body::Json(document),
        }
    }

    fn text(text: &str) -> Self {
        Self {
            status: 200,
            deployment: None,
            location: None,
            body: Body::Text(text.to_owned()),
        }
    }

    fn empty(status: u16) -> Self {
        Self {
            status,
            deployment: None,
            location: None,
            body: Body::Empty,
        }
    }

    /// What a deployment is answered with.
    fn deployed(status: u16, id: DeploymentId, version: Version) -> Self {
        Self {
            deployment: Some(id.clone()),
            ..Self::json(status, json!({"version": version, "deploymentId": id}))
        }
    }
}

impl From<ApiError> for Response {
    fn from(error: ApiError) -> Self {
        Self::json(error.status(), error.body())
    }
}

impl Request {
    fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self.query.iter().filter(move |(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A parameter that is `true` or not.
    fn flag(&self, name: &str, default: bool) -> bool {
        self.query(name)
            .map_or(default, |v| v.eq_ignore_ascii_case("true"))
    }
}

type Answered = Result<Response, ApiError>;

/// Answers a request.
pub(super) fn answer(core: &mut Core, request: &Request) -> Response {
    core.count("api_requests");
    route(core, request).unwrap_or_else(Response::from)
}

fn route(core: &mut Core, request: &Request) -> Answered {
    let path = request.path.trim_matches('/');
    let method = request.method.as_str();
    let (head, rest) = match path.strip_prefix("v2/") {
        Some(v2) => v2.split_once('/').unwrap_or((v2, "")),
        None => {
            return match (path, method) {
                ("ping", "GET") => Ok(Response::text("pong\n")),
                ("metrics", "GET") => Ok(info::metrics(core)),
                ("" | "help" | "ui", "GET") => Ok(Response::text(
                    "Marathon: see /v2/info, /v2/apps, /v2/groups, /v2/deployments\n",
                )),
                ("ping" | "metrics", _) => Err(ApiError::Method),
                _ => Err(ApiError::NoRoute),
            };
        }
    };
    match head {
        "apps" => apps::route(core, request, rest),
        "groups" => groups::route(core, request, rest),
        "deployments" => deployments::route(core, request, rest),
        "tasks" => tasks::route(core, request, rest),
        "queue" => queue::route(core, request, rest),
        "info" | "leader" | "plugins" | "pods" => info::route(core, request, head, rest),
        _ => Err(ApiError::NoRoute),
    }
}

/// A path in the address of a request.
fn path_id(text: &str) -> Result<PathId, ApiError> {
    PathId::parse(text, &PathId::root())
        .map_err(|e| ApiError::Invalid(vec![super::error::Violation::new("/", e.to_string())]))
}

fn version_of(text: &str) -> Result<Version, ApiError> {
    Version::try_from(text.to_owned()).map_err(|e| ApiError::Unprocessable(format!("{text}: {e}")))
}
