//! The calls.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::{Error, from_answer};
use super::model::{AppState, Deployment, Info, Queued, Submitted};

/// One call's time. Marathon answers a change once it is stored, which a slow ZooKeeper delays.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// How long a read is tried again: a leader that ends is followed by another within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Who we are to Marathon.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// DC/OS: `Authorization: token=...`.
    Token(String),
    /// The same, read from a file for each call, so that somebody can keep it good.
    TokenFile(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => write!(f, "Basic({user}, <secret>)"),
            Self::Token(_) => f.write_str("Token(<secret>)"),
            Self::TokenFile(path) => write!(f, "TokenFile({})", path.display()),
        }
    }
}

impl Credentials {
    /// From the environment: `MARATHON_TOKEN` (or `DCOS_ACS_TOKEN`), else `MARATHON_USER` and
    /// `MARATHON_PASSWORD`. Never from arguments, which every user of the machine sees.
    pub fn from_env() -> Self {
        let read = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        if let Some(token) = read("MARATHON_TOKEN").or_else(|| read("DCOS_ACS_TOKEN")) {
            return Self::Token(token);
        }
        match read("MARATHON_USER") {
            Some(user) => Self::Basic {
                user,
                password: read("MARATHON_PASSWORD").unwrap_or_default(),
            },
            None => Self::None,
        }
    }
}

/// Where Marathon is.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `http[s]://host:port[/path]`, several with commas: all of one cluster.
    pub url: String,
    /// PEM file with the authority to trust instead of the operating system's.
    pub ca: Option<PathBuf>,
    /// Who we are.
    pub credentials: Credentials,
}

/// A client. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    bases: Arc<[Url]>,
    credentials: Credentials,
}

/// An app's id as it stands in a path: without its leading slash.
fn in_path(id: &str) -> &str {
    id.trim_start_matches('/')
}

impl Client {
    /// A client; opens no connection yet.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let mut bases = Vec::new();
        for part in config.url.split(',').map(str::trim) {
            bases.push(base(part)?);
        }
        if bases.is_empty() {
            return Err(Error::Address {
                url: config.url.clone(),
                reason: "it is empty".to_owned(),
            });
        }
        let https = bases.iter().any(|url| url.scheme() == "https");
        let http = crate::http::public_client(config.ca.as_deref(), https, CALL_DEADLINE)
            .map_err(|e| Error::SetUp(crate::error::chain(&e)))?;
        Ok(Self {
            http,
            bases: bases.into(),
            credentials: config.credentials.clone(),
        })
    }

    /// What it says about itself.
    pub async fn info(&self) -> Result<Info, Error> {
        let what = "read what Marathon says about itself";
        self.read(what, "/v2/info")
            .await?
            .map(|value| parse(what, &self.bases[0], value))
            .transpose()?
            .ok_or_else(|| Error::Protocol {
                attempt: what.to_owned(),
                url: self.bases[0].to_string(),
                reason: "it has no /v2/info".to_owned(),
            })
    }

    /// One app; `None` when there is none of that id.
    pub async fn app(&self, id: &str) -> Result<Option<AppState>, Error> {
        let what = format!("read the app {id}");
        let path = format!("/v2/apps/{}", in_path(id));
        let Some(mut value) = self.read(&what, &path).await? else {
            return Ok(None);
        };
        let app = AppState::from_value(value["app"].take());
        app.map(Some)
            .map_err(|e| self.protocol(&what, &e.to_string()))
    }

    /// Every app below a path, itself included, with its tasks. Marathon filters by a part of the
    /// id, so the exact rule is applied here.
    pub async fn apps_below(&self, prefixes: &[&str]) -> Result<Vec<AppState>, Error> {
        let what = "list apps";
        let path = "/v2/apps?embed=apps.tasks&embed=apps.counts&embed=apps.deployments&embed=apps.lastTaskFailure";
        let Some(mut value) = self.read(what, path).await? else {
            return Err(self.protocol(what, "it has no /v2/apps"));
        };
        let Value::Array(apps) = value["apps"].take() else {
            return Err(self.protocol(what, "there is no list of apps in it"));
        };
        let mut found = Vec::new();
        for app in apps {
            let id = app["id"].as_str().unwrap_or_default();
            let below = prefixes
                .iter()
                .any(|p| id == *p || id.strip_prefix(p).is_some_and(|rest| rest.starts_with('/')));
            if below {
                let app = AppState::from_value(app);
                found.push(app.map_err(|e| self.protocol(what, &e.to_string()))?);
            }
        }
        Ok(found)
    }

    /// Deployments that are under way.
    pub async fn deployments(&self) -> Result<Vec<Deployment>, Error> {
        let what = "list deployments";
        let value = self.read(what, "/v2/deployments").await?;
        parse(what, &self.bases[0], value.unwrap_or_else(|| json!([])))
    }

    /// Apps that wait for offers.
    pub async fn queue(&self) -> Result<Vec<Queued>, Error> {
        let value = self.read("read the queue", "/v2/queue").await?;
        let entries = value.map(|mut v| v["queue"].take()).unwrap_or_default();
        Ok(entries
            .as_array()
            .into_iter()
            .flatten()
            .map(Queued::from_value)
            .collect())
    }

    /// Creates an app, or replaces it as a whole.
    pub async fn put(
        &self,
        id: &str,
        app: &impl Serialize,
        force: bool,
    ) -> Result<Submitted, Error> {
        let what = format!("put the app {id}");
        // Without `partialUpdate=false` members that are left out would keep their old value.
        let path = format!("/v2/apps/{}?partialUpdate=false&force={force}", in_path(id));
        let body = serde_json::to_value(app).map_err(|e| self.protocol(&what, &e.to_string()))?;
        self.change(&what, Method::PUT, &path, Some(&body)).await
    }

    /// Changes only some members of an app.
    pub async fn patch(&self, id: &str, members: &Value, force: bool) -> Result<Submitted, Error> {
        let what = format!("change the app {id}");
        let path = format!("/v2/apps/{}?partialUpdate=true&force={force}", in_path(id));
        self.change(&what, Method::PUT, &path, Some(members)).await
    }

    /// Deletes an app with its volumes. One that is gone already is fine.
    pub async fn delete(&self, id: &str, force: bool) -> Result<Option<Submitted>, Error> {
        let what = format!("delete the app {id}");
        // `force` is true unless told otherwise.
        let path = format!("/v2/apps/{}?force={force}", in_path(id));
        self.gone_is_fine(self.change(&what, Method::DELETE, &path, None).await)
    }

    /// Deletes a group that has become empty.
    pub async fn delete_group(&self, id: &str) -> Result<Option<Submitted>, Error> {
        let what = format!("delete the group {id}");
        let path = format!("/v2/groups/{}?force=false", in_path(id));
        self.gone_is_fine(self.change(&what, Method::DELETE, &path, None).await)
    }

    /// Takes a deployment back. `abandon` leaves everything as it is instead.
    pub async fn cancel(
        &self,
        deployment: &str,
        abandon: bool,
    ) -> Result<Option<Submitted>, Error> {
        let what = format!("cancel the deployment {deployment}");
        let path = format!("/v2/deployments/{deployment}?force={abandon}");
        self.gone_is_fine(self.change(&what, Method::DELETE, &path, None).await)
    }

    /// Ends the time for which Marathon waits after failures.
    pub async fn reset_delay(&self, id: &str) -> Result<(), Error> {
        let what = format!("reset the delay of {id}");
        let path = format!("/v2/queue/{}/delay", in_path(id));
        let done = self.change(&what, Method::DELETE, &path, None).await;
        self.gone_is_fine(done).map(drop)
    }

    /// Reads, several times where that may help; `None` is 404.
    async fn read(&self, what: &str, path: &str) -> Result<Option<Value>, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(200);
        loop {
            match self.send(what, Method::GET, path, None).await {
                Ok(value) => return Ok(Some(value)),
                Err(Error::Refused { status: 404, .. }) => return Ok(None),
                Err(error) if error.retryable() && Instant::now() + pause < deadline => {
                    tracing::debug!("{error}");
                    let jitter = rand::rng().random_range(0.5..1.5);
                    tokio::time::sleep(pause.mul_f64(jitter)).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn change(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Submitted, Error> {
        let value = self.send(what, method, path, body).await?;
        // Answers differ by version; what counts is that it is done.
        Ok(serde_json::from_value(value).unwrap_or_default())
    }

    fn gone_is_fine(&self, done: Result<Submitted, Error>) -> Result<Option<Submitted>, Error> {
        match done {
            Ok(submitted) => Ok(Some(submitted)),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends one request, to each address until one answers.
    async fn send(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let mut last = None;
        for base in self.bases.iter() {
            let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
            let mut request = self.http.request(method.clone(), &url);
            let token = |token: &str| format!("token={}", token.trim());
            request = match &self.credentials {
                Credentials::None => request,
                Credentials::Basic { user, password } => request.basic_auth(user, Some(password)),
                Credentials::Token(text) => request.header(AUTHORIZATION, token(text)),
                Credentials::TokenFile(path) => {
                    let text = tokio::fs::read_to_string(path)
                        .await
                        .map_err(|e| Error::SetUp(format!("read {}: {e}", path.display())))?;
                    request.header(AUTHORIZATION, token(&text))
                }
            };
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(response) => return answer(what, path, base, response).await,
                Err(error) => {
                    last = Some(Error::Unreachable {
                        attempt: what.to_owned(),
                        url: base.to_string(),
                        reason: crate::error::chain(&error.without_url()),
                    });
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::SetUp("it has no address".to_owned())))
    }

    fn protocol(&self, attempt: &str, reason: &str) -> Error {
        Error::Protocol {
            attempt: attempt.to_owned(),
            url: self.bases[0].to_string(),
            reason: reason.to_owned(),
        }
    }
}

fn base(text: &str) -> Result<Url, Error> {
    let bad = |reason: &str| Error::Address {
        url: crate::instance::without_password(text),
        reason: reason.to_owned(),
    };
    let url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            "credentials do not belong into it, put them into MARATHON_USER and MARATHON_PASSWORD",
        ));
    }
    Ok(url)
}

async fn answer(
    what: &str,
    path: &str,
    base: &Url,
    response: reqwest::Response,
) -> Result<Value, Error> {
    let status = response.status();
    let unreachable = |reason: String| Error::Unreachable {
        attempt: what.to_owned(),
        url: base.to_string(),
        reason,
    };
    if response.content_length().unwrap_or(0) > LONGEST_ANSWER {
        return Err(unreachable("its answer is far too long".to_owned()));
    }
    let bytes = response
        .bytes()
        .await
        .map_err(|e| unreachable(crate::error::chain(&e.without_url())))?;
    if !status.is_success() {
        let part = path.split('?').next().unwrap_or(path);
        let part = part.trim_start_matches("/v2/apps");
        return Err(from_answer(what, part, status.as_u16(), &bytes));
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|e| Error::Protocol {
        attempt: what.to_owned(),
        url: base.to_string(),
        reason: e.to_string(),
    })
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, base: &Url, value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|e| Error::Protocol {
        attempt: what.to_owned(),
        url: base.to_string(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_no_use_is_refused_without_showing_a_password() {
        for (url, word) in [
            ("marathon:8080", "neither http nor https"),
            ("http://u:geheim@host:8080", "MARATHON_USER"),
            ("", "no address"),
        ] {
            let config = Config {
                url: url.to_owned(),
                ..Config::default()
            };
            let error = Client::new(&config).unwrap_err().to_string();
            assert!(error.contains(word), "{url}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_token_in_a_file_is_read_for_each_call() {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let router = axum::Router::new().fallback(move |headers: axum::http::HeaderMap| {
            let token = headers["authorization"].to_str().unwrap().to_owned();
            kept.lock().unwrap().push(token);
            async { "{}" }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let client = Client::new(&Config {
            url,
            credentials: Credentials::TokenFile(file.clone()),
            ..Config::default()
        });
        let client = client.unwrap();
        assert!(client.delete("/a", false).await.is_err(), "no file yet");
        for token in ["one", "two"] {
            std::fs::write(&file, token).unwrap();
            client.delete("/a", false).await.unwrap();
        }
        assert_eq!(*seen.lock().unwrap(), ["token=one", "token=two"]);
    }

    #[test]
    fn credentials_are_never_printed() {
        let basic = Credentials::Basic {
            user: "op".to_owned(),
            password: "geheim".to_owned(),
        };
        let text = format!("{basic:?} {:?}", Credentials::Token("geheim".to_owned()));
        assert!(!text.contains("geheim"), "{text}");
    }

    mod against_a_server {
        //! Calls against a small server that answers from a list and notes what it was asked.

        use std::sync::{Arc, Mutex};

        use axum::Router;
        use axum::extract::{Request, State};
        use axum::http::StatusCode;
        use axum::response::IntoResponse;

        use super::super::*;

        type Answers = Arc<Mutex<Vec<(u16, &'static str)>>>;
        type Asked = Arc<Mutex<Vec<String>>>;

        async fn answer(
            State((answers, asked)): State<(Answers, Asked)>,
            request: Request,
        ) -> impl IntoResponse {
            let authorization = request
                .headers()
                .get("authorization")
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned();
            let line = format!("{} {} {authorization}", request.method(), request.uri());
            asked.lock().unwrap().push(line.trim_end().to_owned());
            let mut answers = answers.lock().unwrap();
            let (status, body) = match answers.len() {
                0 => (500, "nothing is left to be said"),
                _ => answers.remove(0),
            };
            (StatusCode::from_u16(status).unwrap(), body)
        }

        async fn server(answers: &[(u16, &'static str)]) -> (Client, Asked) {
            let asked = Asked::default();
            let answers: Answers = Arc::new(Mutex::new(answers.to_vec()));
            let router = Router::new()
                .fallback(answer)
                .with_state((answers, asked.clone()));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, router).await });
            let config = Config {
                url,
                ca: None,
                credentials: Credentials::Token("t".to_owned()),
            };
            (Client::new(&config).unwrap(), asked)
        }

        #[tokio::test]
        async fn a_read_is_tried_again_and_carries_the_token() {
            let (client, asked) = server(&[
                (503, "no leader"),
                (200, r#"{"version":"1.11.24","name":"marathon"}"#),
            ])
            .await;
            assert_eq!(client.info().await.unwrap().version, "1.11.24");
            let asked = asked.lock().unwrap().clone();
            assert_eq!(asked, ["GET /v2/info token=t", "GET /v2/info token=t"]);
        }

        #[tokio::test]
        async fn a_change_is_sent_once_whole_and_tells_of_a_lock() {
            let locked = r#"{"message":"locked","deployments":[{"id":"d1"}]}"#;
            let (client, asked) = server(&[(409, locked)]).await;
            let error = client
                .put("/k-cp/etcd-0", &json!({}), false)
                .await
                .unwrap_err();
            assert!(
                error.retryable() && error.to_string().contains("d1"),
                "{error}"
            );
            let asked = asked.lock().unwrap().clone();
            assert_eq!(
                asked,
                ["PUT /v2/apps/k-cp/etcd-0?partialUpdate=false&force=false token=t"]
            );
        }

        #[tokio::test]
        async fn what_is_gone_already_is_no_error_to_whoever_deletes_it() {
            let (client, _) = server(&[(404, r#"{"message":"no such app"}"#)]).await;
            assert_eq!(client.delete("/k", true).await.unwrap(), None);
        }

        #[tokio::test]
        async fn only_apps_of_exactly_these_paths_are_listed() {
            let apps =
                r#"{"apps":[{"id":"/k"},{"id":"/k-cp/etcd-0"},{"id":"/k-cpx/a"},{"id":"/k2"}]}"#;
            let (client, _) = server(&[(200, apps)]).await;
            let found = client.apps_below(&["/k", "/k-cp"]).await.unwrap();
            let ids: Vec<&str> = found.iter().map(|a| a.id.as_str()).collect();
            assert_eq!(ids, ["/k", "/k-cp/etcd-0"]);
        }

        #[tokio::test]
        async fn an_answer_that_is_no_json_is_told_with_its_place() {
            let (client, _) = server(&[(200, "<html>")]).await;
            let error = client.app("/k").await.unwrap_err().to_string();
            assert!(error.contains("none of Marathon's"), "{error}");
        }
    }
}
