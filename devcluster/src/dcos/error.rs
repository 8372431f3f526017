//! What Cosmos answers when something does not work: `{type, message, data}`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::media;

/// An error as Cosmos says it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
    data: Option<Value>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl Failure {
    /// One of the caller's making, which most are.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind,
            message: message.into(),
            data: None,
        }
    }

    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub fn data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    pub fn unsupported(wanted: &str, found: &str) -> Self {
        let message = format!("Unsupported Content-Type: {found} Accept: [{wanted}]");
        Self::new("UnsupportedContentType", message)
            .data(json!({"supported": [wanted], "actual": found}))
    }

    pub fn not_acceptable(wanted: &str, found: &str) -> Self {
        let message = format!(
            "Item 'header 'Accept'' deemed invalid by rule: '{found}' is not one of [{wanted}]"
        );
        Self::new("not_valid", message)
    }

    pub fn no_package(name: &str) -> Self {
        Self::new("PackageNotFound", format!("Package [{name}] not found"))
            .data(json!({"packageName": name}))
    }

    pub fn no_version(name: &str, version: &str) -> Self {
        Self::new(
            "VersionNotFound",
            format!("Version [{version}] of package [{name}] not found"),
        )
        .data(json!({"packageName": name, "packageVersion": version}))
    }

    pub fn not_installed(name: &str) -> Self {
        Self::new(
            "PackageNotInstalled",
            format!("Package [{name}] is not installed"),
        )
        .data(json!({"packageName": name}))
    }

    pub fn no_app(id: &str) -> Self {
        let message = format!("Unable to locate service with marathon appId: '{id}'");
        Self::new("MarathonAppNotFound", message).data(json!({"appId": id}))
    }

    /// Marathon or Mesos did not do what it was asked.
    pub fn upstream(what: &str, reason: &str) -> Self {
        Self::new("MarathonBadResponse", format!("{what}: {reason}"))
            .status(StatusCode::BAD_GATEWAY)
    }

    #[cfg(test)]
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

impl From<packaging::cosmos::Error> for Failure {
    fn from(error: packaging::cosmos::Error) -> Self {
        use packaging::cosmos::Error;
        match &error {
            Error::Mismatch(mismatches) => {
                let errors: Vec<Value> = mismatches
                    .iter()
                    .map(|m| json!({"level": "error", "instance": {"pointer": m.path}, "message": m.message}))
                    .collect();
                Self::new(error.kind(), "Options JSON failed validation")
                    .data(json!({"errors": errors}))
            }
            Error::OptionsNotAllowed => Self::new(
                error.kind(),
                "No schema available to validate the provided options",
            ),
            _ => Self::new(error.kind(), error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = json!({"type": self.kind, "message": self.message});
        if let Some(data) = self.data {
            body["data"] = data;
        }
        (
            self.status,
            [(header::CONTENT_TYPE, media::ERROR)],
            body.to_string(),
        )
            .into_response()
    }
}
