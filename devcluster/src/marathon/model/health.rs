//! Checks of tasks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether a task is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// What is run, for COMMAND.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandCheck>,
    /// Failures so soon after the start do not count until the first success; seconds.
    #[serde(default = "HealthCheck::grace")]
    pub grace_period_seconds: u32,
    /// Answers 100 to 199 change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_http1xx: Option<bool>,
    /// Time between two; seconds.
    #[serde(default = "HealthCheck::interval")]
    pub interval_seconds: u32,
    /// How many failures in a row are too many; 0: never for Marathon's own checks.
    #[serde(default = "HealthCheck::failures")]
    pub max_consecutive_failures: u32,
    /// For HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A fixed port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// One of the task's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_index: Option<u16>,
    /// How it is asked, and by whom.
    #[serde(default)]
    pub protocol: Protocol,
    /// Which addresses.
    #[serde(default)]
    pub ip_protocol: IpProtocol,
    /// How long it may take; seconds.
    #[serde(default = "HealthCheck::timeout")]
    pub timeout_seconds: u32,
    /// Time before the first, for Mesos' checks; seconds.
    #[serde(default = "HealthCheck::delay")]
    pub delay_seconds: u32,
}

/// A command that is run in the task's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandCheck {
    /// For the shell.
    pub value: String,
}

/// Kinds of checks. Those that begin with MESOS, and COMMAND, are run by the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Protocol {
    /// Marathon asks.
    #[default]
    Http,
    /// Marathon asks; certificates are not verified.
    Https,
    /// Marathon connects.
    Tcp,
    /// The executor runs a command.
    Command,
    /// The executor asks.
    MesosHttp,
    /// The executor asks.
    MesosHttps,
    /// The executor connects.
    MesosTcp,
}

/// Which addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IpProtocol {
    /// IPv4.
    #[default]
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl HealthCheck {
    const fn grace() -> u32 {
        300
    }
    const fn interval() -> u32 {
        60
    }
    const fn failures() -> u32 {
        3
    }
    const fn timeout() -> u32 {
        20
    }
    const fn delay() -> u32 {
        15
    }

    /// Whether the executor does it.
    pub const fn by_mesos(&self) -> bool {
        !matches!(
            self.protocol,
            Protocol::Http | Protocol::Https | Protocol::Tcp
        )
    }

    /// Time between two; never none, which would be a loop.
    pub fn interval_between(&self) -> Duration {
        Duration::from_secs(self.interval_seconds.max(1).into())
    }

    /// How long one may take.
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.max(1).into())
    }

    /// The path of HTTP checks.
    pub fn http_path(&self) -> String {
        match self.path.as_deref() {
            None | Some("") => "/".to_owned(),
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => format!("/{path}"),
        }
    }
}

/// When a new task of a deployment counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadinessCheck {
    /// Its name.
    #[serde(default = "ReadinessCheck::default_name")]
    pub name: String,
    /// With or without TLS.
    #[serde(default)]
    pub protocol: Scheme,
    /// Where it asks.
    #[serde(default = "ReadinessCheck::root")]
    pub path: String,
    /// Which of the task's ports.
    #[serde(default = "ReadinessCheck::default_port")]
    pub port_name: String,
    /// Time between two; seconds.
    #[serde(default = "ReadinessCheck::interval")]
    pub interval_seconds: u32,
    /// How long one may take; seconds.
    #[serde(default = "ReadinessCheck::timeout")]
    pub timeout_seconds: u32,
    /// Which answers are good.
    #[serde(default = "ReadinessCheck::good")]
    pub http_status_codes_for_ready: Vec<u16>,
    /// Show the last answer with the deployment.
    #[serde(default)]
    pub preserve_last_response: bool,
}

impl ReadinessCheck {
    fn default_name() -> String {
        "readinessCheck".to_owned()
    }
    fn root() -> String {
        "/".to_owned()
    }
    fn default_port() -> String {
        "http-api".to_owned()
    }
    const fn interval() -> u32 {
        30
    }
    const fn timeout() -> u32 {
        10
    }
    fn good() -> Vec<u16> {
        vec![200]
    }
}

/// With or without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Without.
    #[default]
    Http,
    /// With.
    Https,
}

impl Scheme {
    /// As in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A Mesos check whose result is shown but has no effect; one of `http`, `tcp` and `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// Asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Runs a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecCheck>,
    /// Time between two; seconds.
    #[serde(default = "HealthCheck::interval")]
    pub interval_seconds: u32,
    /// How long one may take; seconds.
    #[serde(default = "HealthCheck::timeout")]
    pub timeout_seconds: u32,
    /// Time before the first; seconds.
    #[serde(default = "HealthCheck::delay")]
    pub delay_seconds: u32,
}

/// An HTTP check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// One of the task's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_index: Option<u16>,
    /// A fixed port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// With or without TLS.
    #[serde(default)]
    pub scheme: Scheme,
}

/// A TCP check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpCheck {
    /// One of the task's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_index: Option<u16>,
    /// A fixed port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A command check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecCheck {
    /// The command.
    pub command: MesosCommand,
}

/// A command: one of `shell` and `argv`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MesosCommand {
    /// For the shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
}
