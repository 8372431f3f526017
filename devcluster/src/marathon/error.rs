//! What the API answers when it does not do what it is asked.

use serde_json::{Value, json};

use super::ids::{DeploymentId, PathId, Version};

/// A rule that a definition breaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which part, `/container/volumes(0)/containerPath`.
    pub path: String,
    /// What is wrong.
    pub error: String,
}

impl Violation {
    /// Says what is wrong with a part.
    pub fn new(path: impl Into<String>, error: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            error: error.into(),
        }
    }
}

/// Why a request is refused. Worth a retry only where it says so.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// 400: the body is no JSON.
    #[error("Invalid JSON: {0}")]
    Syntax(String),
    /// 400: the request contradicts itself.
    #[error("{0}")]
    BadRequest(String),
    /// 422: JSON that is no such object.
    #[error("Invalid JSON")]
    Malformed(Vec<Violation>),
    /// 422: an object that breaks rules.
    #[error("Object is not valid")]
    Invalid(Vec<Violation>),
    /// 422: for another reason.
    #[error("{0}")]
    Unprocessable(String),
    /// 404: no such app.
    #[error("App '{id}' does not exist{}", in_version(*.version))]
    UnknownApp {
        /// Its path.
        id: PathId,
        /// The version asked for.
        version: Option<Version>,
    },
    /// 404: no such group.
    #[error("Group '{0}' does not exist")]
    UnknownGroup(PathId),
    /// 404: no such task.
    #[error("Task '{0}' does not exist")]
    UnknownTask(String),
    /// 404: no such deployment.
    #[error("DeploymentPlan {0} does not exist")]
    UnknownDeployment(String),
    /// 404: something else that is not there.
    #[error("{0}")]
    NotFound(String),
    /// 404: no such address.
    #[error("URI not found")]
    NoRoute,
    /// 405: another method.
    #[error("Method Not Allowed")]
    Method,
    /// 409: something is there already.
    #[error("{0}")]
    Conflict(String),
    /// 409: deployments are at work on the same apps. Wait for their end, or force.
    #[error(
        "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."
    )]
    Locked(Vec<DeploymentId>),
    /// 403: wait for the end of others.
    #[error(
        "Max number ({0}) of running deployments is achieved. Wait for existing deployments to complete or cancel one using force=true parameter. You can increase max deployment number by using --max_running_deployments parameter but be advised that this can have negative effects on the performance."
    )]
    TooManyDeployments(usize),
    /// 503: the master does not answer; try again later.
    #[error("{0}")]
    Unavailable(String),
}

fn in_version(version: Option<Version>) -> String {
    version.map_or_else(String::new, |v| format!(" in version {v}"))
}

impl ApiError {
    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Syntax(_) | Self::BadRequest(_) => 400,
            Self::Malformed(_) | Self::Invalid(_) | Self::Unprocessable(_) => 422,
            Self::UnknownApp { .. }
            | Self::UnknownGroup(_)
            | Self::UnknownTask(_)
            | Self::UnknownDeployment(_)
            | Self::NotFound(_)
            | Self::NoRoute => 404,
            Self::Method => 405,
            Self::Conflict(_) | Self::Locked(_) => 409,
            Self::TooManyDeployments(_) => 403,
            Self::Unavailable(_) => 503,
        }
    }

    /// The document that says it.
    pub fn body(&self) -> Value {
        let mut body = json!({"message": self.to_string()});
        let details = match self {
            Self::Syntax(why) => {
                body["message"] = "Invalid JSON".into();
                Some(why.as_str().into())
            }
            Self::Malformed(violations) | Self::Invalid(violations) => Some(grouped(violations)),
            _ => None,
        };
        if let Some(details) = details {
            body["details"] = details;
        }
        if let Self::Locked(deployments) = self {
            let list = deployments.iter().map(|id| json!({"id": id})).collect();
            body["deployments"] = Value::Array(list);
        }
        body
    }
}

/// One entry for each path, with all that is wrong there.
fn grouped(violations: &[Violation]) -> Value {
    let mut details: Vec<Value> = Vec::new();
    for violation in violations {
        let known = details.iter_mut().find(|d| d["path"] == violation.path);
        match known.and_then(|d| d["errors"].as_array_mut()) {
            Some(errors) => errors.push(violation.error.as_str().into()),
            None => details.push(json!({"path": violation.path, "errors": [violation.error]})),
        }
    }
    Value::Array(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_at_one_path_come_together() {
        let error = ApiError::Invalid(vec![
            Violation::new("/id", "a"),
            Violation::new("/cmd", "b"),
            Violation::new("/id", "c"),
        ]);
        assert_eq!(error.status(), 422);
        assert_eq!(
            error.body(),
            json!({"message": "Object is not valid", "details": [
                {"path": "/id", "errors": ["a", "c"]},
                {"path": "/cmd", "errors": ["b"]},
            ]})
        );
    }

    #[test]
    fn a_lock_names_its_deployments() {
        let id = DeploymentId::new(uuid::Uuid::from_u128(1));
        let error = ApiError::Locked(vec![id.clone()]);
        assert_eq!(error.status(), 409);
        assert_eq!(error.body()["deployments"], json!([{"id": id}]));
    }
}
