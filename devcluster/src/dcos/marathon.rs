//! The calls of Marathon that Cosmos and the admin router make.

use std::sync::Arc;

use axum::http::StatusCode;
use reqwest::Method;
use serde_json::Value;

use super::auth::Accounts;
use super::error::Failure;

/// A client of Marathon's.
#[derive(Debug, Clone)]
pub(crate) struct Marathon {
    http: reqwest::Client,
    base: String,
    accounts: Arc<Accounts>,
}

impl Marathon {
    pub fn new(http: reqwest::Client, base: String, accounts: Arc<Accounts>) -> Self {
        Self {
            http,
            base,
            accounts,
        }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Failure> {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let mut request = self.accounts.authorize(request);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|e| {
            Failure::upstream("Marathon does not answer", &e.without_url().to_string())
        })?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        Ok((
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ))
    }

    /// An app; `None` when there is none.
    pub async fn app(&self, id: &str) -> Result<Option<Value>, Failure> {
        let (status, mut value) = self.call(Method::GET, &path(id), None).await?;
        match status {
            StatusCode::OK => Ok(Some(value["app"].take())),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(Failure::upstream(
                "Marathon does not tell about an app",
                &format!("{other} {value}"),
            )),
        }
    }

    /// All apps, with their tasks.
    pub async fn apps(&self) -> Result<Vec<Value>, Failure> {
        let (status, mut value) = self
            .call(Method::GET, "/v2/apps?embed=apps.tasks", None)
            .await?;
        match value["apps"].take() {
            Value::Array(apps) if status.is_success() => Ok(apps),
            _ => Err(Failure::upstream(
                "Marathon does not list apps",
                &status.to_string(),
            )),
        }
    }

    /// Posts an app; the answer is the app as Marathon has it.
    pub async fn create(&self, app: &Value) -> Result<Value, Failure> {
        let (status, value) = self.call(Method::POST, "/v2/apps", Some(app)).await?;
        match status {
            StatusCode::CONFLICT => Err(Failure::new(
                "PackageAlreadyInstalled",
                "Package is already installed",
            )
            .status(StatusCode::CONFLICT)),
            status if status.is_success() => Ok(value),
            other => Err(Failure::upstream(
                "Received response status code from Marathon",
                &format!("{other} {value}"),
            )),
        }
    }

    /// Replaces an app; the answer is the deployment's id.
    pub async fn replace(&self, id: &str, app: &Value) -> Result<String, Failure> {
        let path = format!("{}?force=true&partialUpdate=false", path(id));
        let (status, value) = self.call(Method::PUT, &path, Some(app)).await?;
        match value["deploymentId"].as_str() {
            Some(deployment) if status.is_success() => Ok(deployment.to_owned()),
            _ => Err(Failure::upstream(
                "Marathon does not take the app",
                &format!("{status} {value}"),
            )),
        }
    }

    /// Deletes an app. One that is gone is fine.
    pub async fn delete(&self, id: &str) -> Result<(), Failure> {
        let (status, value) = self
            .call(Method::DELETE, &format!("{}?force=true", path(id)), None)
            .await?;
        match status {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            other => Err(Failure::upstream(
                "Marathon does not delete the app",
                &format!("{other} {value}"),
            )),
        }
    }

    /// Whether a deployment is still under way.
    pub async fn deploys(&self, deployment: &str) -> Result<bool, Failure> {
        let (status, value) = self.call(Method::GET, "/v2/deployments", None).await?;
        match value.as_array() {
            Some(all) if status.is_success() => Ok(all.iter().any(|d| d["id"] == deployment)),
            _ => Err(Failure::upstream(
                "Marathon does not list deployments",
                &status.to_string(),
            )),
        }
    }
}

fn path(id: &str) -> String {
    format!("/v2/apps/{}", id.trim_start_matches('/'))
}

/// A label of an app.
pub(super) fn label<'a>(app: &'a Value, name: &str) -> Option<&'a str> {
    app["labels"][name].as_str()
}

/// An app as it was read -> as it can be put: Marathon does not take its own additions.
pub(super) fn puttable(mut app: Value) -> Value {
    if let Some(members) = app.as_object_mut() {
        for name in [
            "version",
            "versionInfo",
            "tasks",
            "tasksStaged",
            "tasksRunning",
            "tasksHealthy",
            "tasksUnhealthy",
            "deployments",
            "lastTaskFailure",
            "uris",
            "readinessCheckResults",
        ] {
            members.remove(name);
        }
    }
    app
}
