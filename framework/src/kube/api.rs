//! Calls of the Kubernetes API: one error type, one deadline.

use std::future::Future;
use std::time::Duration;

use kube::Error as KubeError;
use kube::core::Status;

/// How long a call may take. The API server
/// itself ends requests after 60 s; half of that leaves room to try again.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call will fail again.
    Never,
    /// Read the object again, decide again, then call.
    Anew,
    /// The same call may succeed later.
    Later,
}

/// A call of the API server that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The object is not there.
    #[error("{attempted}: not found")]
    NotFound {
        /// What was attempted.
        attempted: String,
    },
    /// An object of that name exists.
    #[error("{attempted}: exists already")]
    Exists {
        /// What was attempted.
        attempted: String,
    },
    /// The object is not what the caller thought it was.
    #[error("{attempted}: {message}")]
    Conflict {
        /// What was attempted.
        attempted: String,
        /// The API server's words.
        message: String,
    },
    /// We may not do that: the role `system:k8sm:framework` lacks a rule or is not bound yet.
    #[error("{attempted}: not permitted ({message}); the ClusterRole {role} and its binding give the framework its rights", role = seam::names::FRAMEWORK_USER)]
    Forbidden {
        /// What was attempted.
        attempted: String,
        /// The API server's words.
        message: String,
    },
    /// The API server understood and refused.
    #[error("{attempted}: refused ({code}): {message}")]
    Refused {
        /// What was attempted.
        attempted: String,
        /// HTTP status.
        code: u16,
        /// The API server's words.
        message: String,
    },
    /// The API server has trouble or too much to do.
    #[error("{attempted}: the API server answered {code}: {message}")]
    Busy {
        /// What was attempted.
        attempted: String,
        /// HTTP status.
        code: u16,
        /// The API server's words.
        message: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    #[error("{attempted}: no answer within {} s", DEADLINE.as_secs())]
    TimedOut {
        /// What was attempted.
        attempted: String,
    },
    /// The API server could not be reached, or the connection broke.
    #[error("{attempted}: {source}")]
    Unreachable {
        /// What was attempted.
        attempted: String,
        /// The cause.
        source: Box<KubeError>,
    },
    /// The API server's answer, or our request, is not what it should be.
    #[error("{attempted}: {message}")]
    Malformed {
        /// What was attempted.
        attempted: String,
        /// What is wrong.
        message: String,
    },
}

impl ApiError {
    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotFound { .. } | Self::Refused { .. } | Self::Malformed { .. } => Retry::Never,
            Self::Exists { .. } | Self::Conflict { .. } => Retry::Anew,
            Self::Forbidden { .. }
            | Self::Busy { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. } => Retry::Later,
        }
    }

    /// How long the API server asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn of(attempted: String, error: KubeError) -> Self {
        let status = match error {
            KubeError::Api(status) => status,
            KubeError::SerdeError(e) => {
                return Self::Malformed {
                    attempted,
                    message: e.to_string(),
                };
            }
            KubeError::BuildRequest(e) => {
                return Self::Malformed {
                    attempted,
                    message: e.to_string(),
                };
            }
            other => {
                return Self::Unreachable {
                    attempted,
                    source: Box::new(other),
                };
            }
        };
        let message = status.message.clone();
        let code = status.code;
        match code {
            404 => Self::NotFound { attempted },
            409 if status.reason == "AlreadyExists" => Self::Exists { attempted },
            409 => Self::Conflict { attempted, message },
            // What a patch answers whose uid is not the object's: another one has the name now.
            422 if names_uid(&status) => Self::Conflict { attempted, message },
            401 | 403 => Self::Forbidden { attempted, message },
            408 | 429 | 500..=599 => {
                let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
                Self::Busy {
                    attempted,
                    code,
                    message,
                    retry_after: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
                }
            }
            _ => Self::Refused {
                attempted,
                code,
                message,
            },
        }
    }
}

fn names_uid(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.field == "metadata.uid")
}

/// Runs a call with the deadline and gives its error a place.
pub(crate) async fn call<T>(
    attempted: impl FnOnce() -> String,
    future: impl Future<Output = Result<T, KubeError>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ApiError::of(attempted(), error)),
        Err(_) => Err(ApiError::TimedOut {
            attempted: attempted(),
        }),
    }
}

/// `None` where the object is not there.
pub(crate) fn unless_missing<T>(result: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ApiError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str) -> ApiError {
        let mut status = kube::core::Status::failure("why", reason);
        status.code = code;
        ApiError::of("create pod a/b".to_owned(), KubeError::Api(status.boxed()))
    }

    #[test]
    fn an_error_says_what_was_attempted_and_whether_to_retry() {
        for (code, reason, retry) in [
            (404, "NotFound", Retry::Never),
            (409, "AlreadyExists", Retry::Anew),
            (409, "Conflict", Retry::Anew),
            (403, "Forbidden", Retry::Later),
            (422, "Invalid", Retry::Never),
            (429, "TooManyRequests", Retry::Later),
            (500, "InternalError", Retry::Later),
        ] {
            let error = status(code, reason);
            assert_eq!(error.retry(), retry, "{code}");
            assert!(error.to_string().starts_with("create pod a/b: "), "{error}");
        }
    }
}
