//! `dcos kubernetes ...`: the package's part of the `dcos` command. DC/OS fetches `k8sm` as
//! `resource.cli` says and calls it with `kubernetes` as its first argument, the cluster's address
//! and token in the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::siblings::Kubeconfig;

/// Variable with the cluster's address.
const URL_ENV: &str = "DCOS_URL";
/// Variable with the caller's token.
const TOKEN_ENV: &str = "DCOS_ACS_TOKEN";
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Arguments of `dcos kubernetes`.
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub struct PluginArgs {
    /// Says what this part of the dcos command is for
    #[arg(long, exclusive = true)]
    pub info: bool,
    /// Name of the service
    #[arg(long, global = true, value_name = "NAME", default_value = "kubernetes")]
    pub name: String,
    /// What to do
    #[command(subcommand)]
    pub command: Option<PluginCommand>,
}

/// The commands of `dcos kubernetes`.
#[derive(Debug, Clone, Subcommand)]
pub enum PluginCommand {
    /// Shows how far the service is
    Status,
    /// Writes a kubeconfig with all rights
    Kubeconfig {
        /// Where to; standard output when it is -
        #[arg(long, value_name = "FILE", default_value = "kubeconfig")]
        path: PathBuf,
    },
    /// Brings the service to new options
    Update {
        /// The options that change, JSON or YAML
        #[arg(long, value_name = "FILE")]
        options: PathBuf,
        /// Options that are not named go back to their defaults
        #[arg(long)]
        replace: bool,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not called by the `dcos` command.
    #[error(
        "{URL_ENV} is not set: `dcos kubernetes` sets it; else say it, for instance https://dcos.example.org"
    )]
    NoUrl,
    /// The cluster. Worth a retry.
    #[error("{what}: {reason}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// There is nothing to be had.
    #[error("{0}")]
    NotYet(String),
    /// The options.
    #[error("{path}: {problems}", path = .path.display())]
    Options {
        /// In which file.
        path: PathBuf,
        /// What is wrong.
        problems: packaging::options::Problems,
    },
    /// The disk.
    #[error("{action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Writing the kubeconfig.
    #[error(transparent)]
    File(#[from] packaging::files::Error),
    /// The runtime.
    #[error("start the runtime: {0}")]
    Runtime(std::io::Error),
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] crate::http::Error),
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Runs a command; what comes back is for standard output.
pub fn run(args: &PluginArgs) -> Result<String, Error> {
    let Some(command) = &args.command else {
        return Ok("Kubernetes on Mesos: status, kubeconfig, options\n".to_owned());
    };
    let cluster = Dcos::from_env()?;
    crate::runtime::runtime()
        .map_err(Error::Runtime)?
        .block_on(async {
            match command {
                PluginCommand::Status => cluster.status(&args.name).await,
                PluginCommand::Kubeconfig { path } => cluster.kubeconfig(&args.name, path).await,
                PluginCommand::Update { options, replace } => {
                    cluster.update(&args.name, options, *replace).await
                }
            }
        })
}

/// The cluster.
struct Dcos {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Dcos {
    fn from_env() -> Result<Self, Error> {
        let read = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let url = read(URL_ENV).ok_or(Error::NoUrl)?;
        let ca = read("DCOS_TLS_CA_PATH").map(PathBuf::from);
        Self::new(&url, read(TOKEN_ENV), ca.as_deref())
    }

    fn new(url: &str, token: Option<String>, ca: Option<&Path>) -> Result<Self, Error> {
        let https = url.starts_with("https:");
        Ok(Self {
            http: crate::http::public_client(ca, https, DEADLINE)?,
            url: url.trim_end_matches('/').to_owned(),
            token,
        })
    }

    async fn send(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, Value), Error> {
        let request = match &self.token {
            Some(token) => request.header("authorization", format!("token={token}")),
            None => request,
        };
        let failed = |e: reqwest::Error| Error::Call {
            what,
            reason: crate::error::chain(&e.without_url()),
        };
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(failed)?;
        if status == 401 {
            return Err(Error::Call {
                what,
                reason: "not allowed: `dcos auth login`".to_owned(),
            });
        }
        let value = serde_json::from_str(&text);
        Ok((
            status,
            value.unwrap_or_else(|_| Value::String(text.trim().to_owned())),
        ))
    }

    async fn status(&self, name: &str) -> Result<String, Error> {
        let what = "ask the service";
        let url = format!("{}/service/{name}/v1", self.url);
        let (code, plan) = self
            .send(what, self.http.get(format!("{url}/plans/deploy")))
            .await?;
        let errors = plan["errors"].as_array().into_iter().flatten();
        let errors: String = errors
            .filter_map(Value::as_str)
            .map(|e| format!("  {e}\n"))
            .collect();
        let head = match code {
            200 => "everything runs\n".to_owned(),
            202 => "the control plane is being brought to its options\n".to_owned(),
            503 => {
                return Err(Error::NotYet(format!(
                    "no task of the service {name} runs: see its app in Marathon"
                )));
            }
            other => format!("the service answers {other}\n"),
        };
        let (_, health) = self
            .send(what, self.http.get(format!("{url}/health")))
            .await?;
        let mut lines = String::new();
        for (member, label) in [
            ("framework_id", "framework"),
            ("agents", "agents"),
            ("offers", "offers"),
            ("tasks", "tasks"),
            ("nodes", "nodes"),
            ("pods", "pods"),
            ("warning", "warning"),
        ] {
            if let Some(value) = health.get(member).filter(|v| !v.is_null()) {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                lines.push_str(&format!("  {label:<10} {text}\n"));
            }
        }
        // Who may not see it learns the rest all the same.
        let keys = match self.state(name).await {
            Ok(Some(Kubeconfig::Secret(_))) => "in DC/OS' secret store",
            Ok(Some(Kubeconfig::Here(_))) => {
                "in the apps' environment: everybody who may read Marathon's apps can read them"
            }
            _ => "not known",
        };
        lines.push_str(&format!("  {:<10} {keys}\n", "keys"));
        Ok(format!("{head}{errors}{lines}"))
    }

    /// What the app that keeps the state, or points to it, says; `None` when there is no such app.
    async fn state(&self, name: &str) -> Result<Option<Kubeconfig>, Error> {
        let what = "read the state of the cluster";
        let app = crate::siblings::state_app(name);
        let url = format!("{}/marathon/v2/apps{app}", self.url);
        match self.send(what, self.http.get(url)).await? {
            (200, value) => crate::siblings::kubeconfig_of(&value["app"])
                .map(Some)
                .map_err(|reason| Error::Call { what, reason }),
            (404, _) => Ok(None),
            (other, _) => Err(Error::Call {
                what,
                reason: format!("Marathon answers {other}"),
            }),
        }
    }

    /// A secret of DC/OS' store.
    async fn secret(&self, path: &str) -> Result<Option<String>, Error> {
        let what = "read the kubeconfig in DC/OS' secret store";
        let url = format!("{}/secrets/v1/secret/default/{path}", self.url);
        match self.send(what, self.http.get(url)).await? {
            (200, value) => Ok(value["value"].as_str().map(str::to_owned)),
            (404, _) => Ok(None),
            (403, _) => Err(Error::Call {
                what,
                reason: format!(
                    "not allowed; who may says `dcos security org users grant <you> dcos:secrets:default:/{path} read`"
                ),
            }),
            (other, _) => Err(Error::Call {
                what,
                reason: format!("the secret store answers {other}"),
            }),
        }
    }

    async fn kubeconfig(&self, name: &str, path: &Path) -> Result<String, Error> {
        let text = match self.state(name).await? {
            None => {
                return Err(Error::NotYet(format!(
                    "there is no app {}: the service {name} has not begun yet, or was not installed as a package",
                    crate::siblings::state_app(name)
                )));
            }
            Some(Kubeconfig::Here(text)) => text,
            Some(Kubeconfig::Secret(secret)) => self.secret(&secret).await?,
        };
        let text = text.ok_or_else(|| {
            Error::NotYet(
                "the cluster does not serve its API yet: `dcos kubernetes status`".to_owned(),
            )
        })?;
        if path == Path::new("-") {
            return Ok(text);
        }
        packaging::files::write_atomic(path, text.as_bytes(), packaging::files::SECRET)?;
        Ok(format!("export KUBECONFIG={}\n", path.display()))
    }

    async fn update(&self, name: &str, options: &Path, replace: bool) -> Result<String, Error> {
        let what = "change the options";
        let text = std::fs::read_to_string(options).map_err(Error::io("read", options))?;
        let mut layers = packaging::options::Layers::new();
        layers.document(&text).map_err(|problems| Error::Options {
            path: options.to_owned(),
            problems,
        })?;
        let body =
            json!({"appId": format!("/{name}"), "options": layers.said(), "replace": replace});
        let kind = |what: &str| {
            format!("application/vnd.dcos.service.update-{what}+json;charset=utf-8;version=v1")
        };
        let request = self
            .http
            .post(format!("{}/cosmos/service/update", self.url))
            .header("content-type", kind("request"))
            .header("accept", kind("response"))
            .body(body.to_string());
        let (code, answer) = self.send(what, request).await?;
        if code == 200 {
            return Ok(
                "the options are taken over; `dcos kubernetes status` shows how far it is\n"
                    .to_owned(),
            );
        }
        let mut reason = answer["message"]
            .as_str()
            .map_or_else(|| answer.to_string(), str::to_owned);
        for error in answer["data"]["errors"].as_array().into_iter().flatten() {
            reason.push_str(&format!(
                "\n  {}: {}",
                error["instance"]["pointer"].as_str().unwrap_or("/"),
                error["message"].as_str().unwrap_or_default()
            ));
        }
        Err(Error::Call { what, reason })
    }
}
