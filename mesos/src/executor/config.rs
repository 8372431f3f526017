//! What an agent tells an executor in its environment.

use std::time::Duration;

use url::Url;

use crate::codec::Encoding;
use crate::http::{
    ClientConfig, ConfigError, Credentials, Identity, PemSource, Secret, SecretSource,
};
use crate::master::MasterAddress;
use crate::pb;

/// Mesos' default for `--executor_shutdown_grace_period`.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// What an executor client is told.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// The agent's base URL.
    pub agent: MasterAddress,
    /// The executor's id.
    pub executor_id: pb::ExecutorId,
    /// The framework's id.
    pub framework_id: pb::FrameworkId,
    /// Whether the agent waits for the executor after a restart of its own.
    pub checkpoint: bool,
    /// How long to look for an agent that is away, when checkpointing.
    pub recovery_timeout: Duration,
    /// How long the agent waits between SHUTDOWN and SIGKILL.
    pub shutdown_grace_period: Duration,
    /// How often to try to subscribe while there is no subscription. Default: 250 ms, since an
    /// agent that recovers kills executors that are not back within 2 s.
    pub retry_interval: Duration,
    /// What the first SUBSCRIBE carries, for an executor that has replaced itself by `exec`.
    /// [`super::ExecutorHandle::set_unacknowledged`] changes it.
    pub unacknowledged: pb::executor::call::Subscribe,
    /// How messages are written. Default: protobuf.
    pub encoding: Encoding,
    /// TLS, authentication, time limits.
    pub client: ClientConfig,
    /// Longest event that is accepted, in bytes. Default: 32 MiB.
    pub max_event_bytes: usize,
    /// How many events wait for a slow receiver before no more are read. Default: 64.
    pub buffered_events: usize,
}

impl ExecutorConfig {
    /// Reads the environment that the agent has set. The token that the agent may have given
    /// takes the place of the credentials in `client`. For an agent with TLS the authority in
    /// `client` counts, or without one `LIBPROCESS_SSL_CA_FILE`; if the agent wants to see
    /// certificates (`LIBPROCESS_SSL_REQUIRE_CERT`), that of `LIBPROCESS_SSL_CERT_FILE` is
    /// shown. The agent is reached by its IP address, so its certificate has to name that.
    ///
    /// The token stays in the environment of this process, from where children inherit it:
    /// start them without `MESOS_EXECUTOR_AUTHENTICATION_TOKEN`.
    pub fn from_env(client: ClientConfig) -> Result<Self, ConfigError> {
        Self::from_variables(client, |name| std::env::var(name).ok())
    }

    /// Like [`Self::from_env`], with the variables from elsewhere.
    pub fn from_variables(
        mut client: ClientConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let required = |name: &'static str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| ConfigError::Environment {
                    name,
                    reason: "not set: is this process started by a Mesos agent?".to_owned(),
                })
        };
        let duration = |name: &'static str| match variable(name) {
            None => Ok(None),
            Some(text) => parse_duration(&text)
                .map(Some)
                .ok_or_else(|| ConfigError::Environment {
                    name,
                    reason: format!("`{text}` is no duration"),
                }),
        };
        if let Some(token) = variable("MESOS_EXECUTOR_AUTHENTICATION_TOKEN") {
            client.credentials = Credentials::Bearer {
                token: SecretSource::Value(Secret::new(token)),
            };
        }
        client.unix_socket = variable("MESOS_DOMAIN_SOCKET").map(Into::into);
        tls_from_libprocess(&mut client, &variable);
        let checkpoint = variable("MESOS_CHECKPOINT").is_some_and(|value| value == "1");
        let recovery_timeout = match duration("MESOS_RECOVERY_TIMEOUT")? {
            Some(timeout) => timeout,
            None if checkpoint => {
                return Err(ConfigError::Environment {
                    name: "MESOS_RECOVERY_TIMEOUT",
                    reason: "not set, though MESOS_CHECKPOINT is".to_owned(),
                });
            }
            None => Duration::ZERO,
        };
        Ok(Self {
            agent: agent(&variable)?,
            executor_id: pb::ExecutorId {
                value: required("MESOS_EXECUTOR_ID")?,
            },
            framework_id: pb::FrameworkId {
                value: required("MESOS_FRAMEWORK_ID")?,
            },
            checkpoint,
            recovery_timeout,
            shutdown_grace_period: duration("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD")?
                .unwrap_or(DEFAULT_GRACE),
            retry_interval: Duration::from_millis(250),
            unacknowledged: pb::executor::call::Subscribe::default(),
            encoding: Encoding::default(),
            client,
            max_event_bytes: 32 << 20,
            buffered_events: 64,
        })
    }
}

/// The agent's base URL: `MESOS_AGENT_ENDPOINT` (`ip:port`), or, from agents that do not set
/// it, the same part of `MESOS_SLAVE_PID` (`slave(1)@ip:port`).
fn agent(variable: &impl Fn(&str) -> Option<String>) -> Result<MasterAddress, ConfigError> {
    const NAME: &str = "MESOS_AGENT_ENDPOINT";
    let endpoint = variable(NAME)
        .filter(|value| !value.is_empty())
        .or_else(|| {
            let pid = variable("MESOS_SLAVE_PID")?;
            Some(pid.rsplit_once('@')?.1.to_owned())
        })
        .ok_or_else(|| ConfigError::Environment {
            name: NAME,
            reason: "not set: is this process started by a Mesos agent?".to_owned(),
        })?;
    let scheme = if ssl_flag(variable, "ENABLED") {
        "https"
    } else {
        "http"
    };
    Url::parse(&format!("{scheme}://{endpoint}"))
        .map(MasterAddress::new)
        .map_err(|error| ConfigError::Environment {
            name: NAME,
            reason: format!("`{endpoint}`: {error}"),
        })
}

/// A setting of libprocess' TLS, which the agent passes on in its own environment. `SSL_` is
/// the older prefix, `LIBPROCESS_SSL_` wins.
fn ssl(variable: &impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(&format!("LIBPROCESS_SSL_{name}"))
        .or_else(|| variable(&format!("SSL_{name}")))
        .filter(|value| !value.is_empty())
}

fn ssl_flag(variable: &impl Fn(&str) -> Option<String>, name: &str) -> bool {
    ssl(variable, name).is_some_and(|value| matches!(value.as_str(), "1" | "true"))
}

fn tls_from_libprocess(client: &mut ClientConfig, variable: &impl Fn(&str) -> Option<String>) {
    if !ssl_flag(variable, "ENABLED") {
        return;
    }
    if client.ca.is_none() {
        client.ca = ssl(variable, "CA_FILE").map(|file| PemSource::File(file.into()));
    }
    // Only if it is asked for: the key is often readable for root alone.
    let wanted = ssl_flag(variable, "REQUIRE_CERT") || ssl_flag(variable, "REQUIRE_CLIENT_CERT");
    if client.identity.is_none() && wanted {
        let files = ssl(variable, "CERT_FILE").zip(ssl(variable, "KEY_FILE"));
        client.identity = files.map(|(certificates, key)| Identity {
            certificates: PemSource::File(certificates.into()),
            key: PemSource::File(key.into()),
        });
    }
}

/// A duration as Mesos (stout) writes it: `15mins`, `2secs`, `1.5hrs`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.trim().parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests;
