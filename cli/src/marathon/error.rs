//! What can go wrong between us and Marathon, and whether to try again.

use std::fmt;

use serde::Deserialize;

/// One complaint of Marathon about a body that it refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Detail {
    /// Where in the body, for instance `/cpus`.
    #[serde(default)]
    pub path: String,
    /// What is wrong there.
    #[serde(default)]
    pub errors: Vec<String>,
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.errors.join(", "))
    }
}

/// Why a call to Marathon failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is of no use.
    #[error("`{url}` is no address of a Marathon: {reason}; write it like http://host:8080")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS, credentials or the client itself.
    #[error("set up a client for Marathon: {0}")]
    SetUp(String),
    /// No answer. Worth a retry.
    #[error("{attempt}: Marathon at {url} does not answer: {reason}")]
    Unreachable {
        /// What was tried.
        attempt: String,
        /// Where.
        url: String,
        /// Why not.
        reason: String,
    },
    /// It answered that it cannot answer now: no leader, overload. Worth a retry.
    #[error("{attempt}: Marathon answers {status}: {message}")]
    Unavailable {
        /// What was tried.
        attempt: String,
        /// The status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Credentials are missing or wrong.
    #[error(
        "{attempt}: Marathon answers {status} (not allowed): give credentials in MARATHON_TOKEN, or MARATHON_USER and MARATHON_PASSWORD, of an account that may change apps below {path}"
    )]
    NotAllowed {
        /// What was tried.
        attempt: String,
        /// 401 or 403.
        status: u16,
        /// Which part of the tree.
        path: String,
    },
    /// A deployment of somebody else's is under way. Worth a retry once it is over.
    #[error(
        "{attempt}: the app is locked by deployment {}; wait for it, or end it in Marathon", .deployments.join(", ")
    )]
    Locked {
        /// What was tried.
        attempt: String,
        /// Which deployments.
        deployments: Vec<String>,
    },
    /// It refuses the request as such; the same request will be refused again.
    #[error("{attempt}: Marathon refuses it with {status}: {message}{}", listed(.details))]
    Refused {
        /// What was tried.
        attempt: String,
        /// The status.
        status: u16,
        /// What it said.
        message: String,
        /// Where in the body.
        details: Vec<Detail>,
    },
    /// The answer is not what a Marathon says.
    #[error("{attempt}: the answer of {url} is none of Marathon's: {reason}")]
    Protocol {
        /// What was tried.
        attempt: String,
        /// Who answered.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Locked { .. }
        )
    }
}

fn listed(details: &[Detail]) -> String {
    details.iter().map(|d| format!("; {d}")).collect()
}

/// The body of an error, in any of Marathon's forms.
#[derive(Debug, Default, Deserialize)]
struct Body {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    deployments: Vec<DeploymentId>,
    // Older versions give a list of texts here, newer ones of objects.
    #[serde(default)]
    details: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct DeploymentId {
    id: String,
}

/// Reads an answer that is no success.
pub(super) fn from_answer(attempt: &str, path: &str, status: u16, body: &[u8]) -> Error {
    // An error page of something in between is long and no JSON.
    const LONGEST: usize = 400;
    let parsed: Body = serde_json::from_slice(body).unwrap_or_default();
    let message = parsed.message.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST)]);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    let attempt = attempt.to_owned();
    match status {
        401 | 403 => Error::NotAllowed {
            attempt,
            status,
            path: path.to_owned(),
        },
        409 if !parsed.deployments.is_empty() => Error::Locked {
            attempt,
            deployments: parsed.deployments.into_iter().map(|d| d.id).collect(),
        },
        408 | 429 | 500..=599 => Error::Unavailable {
            attempt,
            status,
            message,
        },
        _ => Error::Refused {
            attempt,
            status,
            message,
            details: parsed.details.into_iter().map(detail).collect(),
        },
    }
}

fn detail(value: serde_json::Value) -> Detail {
    match serde_json::from_value(value.clone()) {
        Ok(detail) => detail,
        Err(_) => Detail {
            path: String::new(),
            errors: vec![value.to_string()],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_app_is_told_with_every_place() {
        let body = br#"{"message":"Object is not valid","details":[{"path":"/cpus","errors":["must be positive","is required"]},{"path":"/id","errors":["no"]}]}"#;
        let error = from_answer("create /kubernetes", "/kubernetes", 422, body);
        assert_eq!(
            error.to_string(),
            "create /kubernetes: Marathon refuses it with 422: Object is not valid; /cpus: must be positive, is required; /id: no"
        );
        assert!(!error.retryable());
    }

    #[test]
    fn a_lock_names_its_deployments_and_passes() {
        let body = br#"{"message":"App is locked by one or more deployments.","deployments":[{"id":"97c1"}]}"#;
        let error = from_answer("update /kubernetes", "/kubernetes", 409, body);
        assert!(error.to_string().contains("97c1"), "{error}");
        assert!(error.retryable());
        let exists = br#"{"message":"An app with id [/kubernetes] already exists."}"#;
        assert!(!from_answer("create", "/", 409, exists).retryable());
    }

    #[test]
    fn a_page_of_something_in_between_is_shortened() {
        let body = "<html>\n".repeat(1000);
        let error = from_answer("read /v2/info", "/", 502, body.as_bytes());
        assert!(error.retryable());
        assert!(error.to_string().len() < 600);
    }

    #[test]
    fn missing_rights_name_the_remedy() {
        let error = from_answer("create /kubernetes", "/kubernetes", 401, b"");
        assert!(error.to_string().contains("MARATHON_TOKEN"), "{error}");
    }
}
