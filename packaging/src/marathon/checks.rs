//! Health and readiness checks of an app.

use serde::{Deserialize, Serialize};

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Who checks, and how.
    pub protocol: CheckProtocol,
    /// Path of a HTTP check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Port by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Port by its place in [`App::port_definitions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_index: Option<u16>,
    /// What a COMMAND check runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// Failures in this time after the start do not count, seconds.
    pub grace_period_seconds: u32,
    /// Time between two checks, seconds.
    pub interval_seconds: u32,
    /// Longest answer, seconds.
    pub timeout_seconds: u32,
    /// The task is killed after this many failures in a row.
    pub max_consecutive_failures: u32,
    /// Time before the first check (Mesos checks), seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<u32>,
}

/// A command of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The shell line.
    pub value: String,
}

/// Kinds of health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckProtocol {
    /// By Marathon.
    Http,
    /// By Marathon.
    Https,
    /// By Marathon.
    Tcp,
    /// In the task's container.
    Command,
    /// By the agent.
    MesosHttp,
    /// By the agent.
    MesosHttps,
    /// By the agent.
    MesosTcp,
}

impl CheckProtocol {
    /// Whether Mesos does it: only one of this kind is allowed, and not beside Marathon's.
    pub fn is_mesos(self) -> bool {
        matches!(
            self,
            Self::Command | Self::MesosHttp | Self::MesosHttps | Self::MesosTcp
        )
    }
}

/// A readiness check, by Marathon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessCheck {
    /// Its name.
    pub name: String,
    /// `HTTP` or `HTTPS`.
    pub protocol: ReadinessProtocol,
    /// The path.
    pub path: String,
    /// Name of the port in [`App::port_definitions`].
    pub port_name: String,
    /// Time between two checks, seconds.
    pub interval_seconds: u32,
    /// Longest answer, seconds; less than the interval.
    pub timeout_seconds: u32,
    /// Answers that mean ready.
    pub http_status_codes_for_ready: Vec<u16>,
    /// Whether the app's state shows the last answer.
    #[serde(default)]
    pub preserve_last_response: bool,
}

/// Kinds of readiness checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReadinessProtocol {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}
