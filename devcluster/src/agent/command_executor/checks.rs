//! Checks and health checks: a command, an HTTP request, or a TCP connection, repeated.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use mesos::pb;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::inside::Inside;
use crate::agent::container::start::Line;
use crate::agent::environment::TOKEN;

/// Least pause between two checks, whatever was asked for.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// What a check found.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// A check's result, different from the one before.
    Check(pb::CheckStatusInfo),
    /// A health check's result, different from the one before.
    Healthy(bool),
    /// The task failed its health check too often in a row and has to be killed.
    Unhealthy,
}

/// What a check looks at.
enum Probe {
    Command(pb::CommandInfo),
    Http {
        url: String,
        /// Statuses that are fine; empty: 200 to 399.
        statuses: Vec<u32>,
    },
    Tcp(u16),
    Nothing,
}

/// What it saw; `None` where there was nothing to see.
enum Seen {
    Exit(Option<i32>),
    Status(Option<u16>),
    Connected(bool),
    Nothing,
}

impl Probe {
    async fn run(
        &self,
        environment: &[(String, String)],
        inside: Option<&Inside>,
        limit: Duration,
    ) -> Seen {
        match self {
            Self::Command(info) => {
                let code = timeout(limit, run_command(info, environment, inside)).await;
                Seen::Exit(code.ok().flatten())
            }
            Self::Http { url, .. } => {
                let get = async {
                    // As Mesos: it asks whether the task answers, not who it is.
                    let client = crate::client::builder()
                        .tls_danger_accept_invalid_certs(true)
                        .build()
                        .ok()?;
                    let response = client.get(url).send().await.ok()?;
                    Some(response.status().as_u16())
                };
                Seen::Status(timeout(limit, get).await.ok().flatten())
            }
            Self::Tcp(port) => {
                let address = (Ipv4Addr::LOCALHOST, *port);
                let connected = timeout(limit, tokio::net::TcpStream::connect(address)).await;
                Seen::Connected(matches!(connected, Ok(Ok(_))))
            }
            Self::Nothing => Seen::Nothing,
        }
    }

    fn is_fine(&self, seen: &Seen) -> bool {
        match (self, seen) {
            (_, Seen::Exit(code)) => *code == Some(0),
            (Self::Http { statuses, .. }, Seen::Status(Some(status))) => {
                if statuses.is_empty() {
                    (200..400).contains(status)
                } else {
                    statuses.contains(&u32::from(*status))
                }
            }
            (_, Seen::Status(_)) => false,
            (_, Seen::Connected(connected)) => *connected,
            (_, Seen::Nothing) => true,
        }
    }
}

async fn run_command(
    info: &pb::CommandInfo,
    environment: &[(String, String)],
    inside: Option<&Inside>,
) -> Option<i32> {
    let own = info.environment.iter().flat_map(|e| &e.variables);
    let own = own.filter_map(|v| Some((v.name.clone(), v.value.clone()?)));
    if let Some(inside) = inside {
        let variables = environment.iter().cloned().chain(own).collect();
        let mut child = inside.start(info, variables).ok()?;
        return child.wait().await.ok()?.code();
    }
    let mut child = Command::from(Line::of(info).ok()?.command())
        .envs(environment.iter().cloned())
        .envs(own)
        .env_remove(TOKEN)
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    child.wait().await.ok()?.code()
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

fn url(scheme: &str, port: u32, path: Option<&str>) -> String {
    format!("{scheme}://127.0.0.1:{port}{}", path.unwrap_or("/"))
}

fn port(port: u32) -> u16 {
    u16::try_from(port).unwrap_or(0)
}

/// The status of a check that has no result yet.
pub fn empty_status(check: &pb::CheckInfo) -> pb::CheckStatusInfo {
    use pb::check_info::Type;
    use pb::check_status_info as status;
    pb::CheckStatusInfo {
        r#type: check.r#type,
        command: (check.r#type() == Type::Command).then(status::Command::default),
        http: (check.r#type() == Type::Http).then(status::Http::default),
        tcp: (check.r#type() == Type::Tcp).then(status::Tcp::default),
    }
}

/// Runs a check for ever and tells each change of its result. Commands run where the task is.
pub async fn check(
    check: pb::CheckInfo,
    environment: Vec<(String, String)>,
    inside: Option<Inside>,
    out: mpsc::Sender<Observation>,
) {
    let probe = match (&check.command, &check.http, &check.tcp) {
        (Some(c), ..) => Probe::Command(c.command.clone()),
        (_, Some(h), _) => Probe::Http {
            url: url("http", h.port, h.path.as_deref()),
            statuses: Vec::new(),
        },
        (_, _, Some(t)) => Probe::Tcp(port(t.port)),
        _ => Probe::Nothing,
    };
    let mut before = None;
    sleep(seconds(check.delay_seconds())).await;
    loop {
        let limit = seconds(check.timeout_seconds());
        let mut status = empty_status(&check);
        match probe.run(&environment, inside.as_ref(), limit).await {
            Seen::Exit(code) => {
                status.command.get_or_insert_default().exit_code = code;
            }
            Seen::Status(code) => {
                status.http.get_or_insert_default().status_code = code.map(u32::from);
            }
            Seen::Connected(connected) => {
                status.tcp.get_or_insert_default().succeeded = Some(connected);
            }
            Seen::Nothing => {}
        }
        if before.as_ref() != Some(&status) {
            before = Some(status);
            if out.send(Observation::Check(status)).await.is_err() {
                return;
            }
        }
        sleep(seconds(check.interval_seconds()).max(MIN_INTERVAL)).await;
    }
}

/// Runs a health check until it has failed too often, and tells each change of its result.
pub async fn health_check(
    check: pb::HealthCheck,
    environment: Vec<(String, String)>,
    inside: Option<Inside>,
    out: mpsc::Sender<Observation>,
) {
    let probe = match (&check.command, &check.http, &check.tcp) {
        (Some(command), ..) => Probe::Command(command.clone()),
        (_, Some(h), _) => Probe::Http {
            url: url(
                h.scheme.as_deref().unwrap_or("http"),
                h.port,
                h.path.as_deref(),
            ),
            statuses: h.statuses.clone(),
        },
        (_, _, Some(t)) => Probe::Tcp(port(t.port)),
        _ => Probe::Nothing,
    };
    let grace_until = Instant::now() + seconds(check.grace_period_seconds());
    let (mut before, mut failures) = (None, 0);
    sleep(seconds(check.delay_seconds())).await;
    loop {
        let limit = seconds(check.timeout_seconds());
        let seen = probe.run(&environment, inside.as_ref(), limit).await;
        let healthy = probe.is_fine(&seen);
        // Failures count from the first success or the end of the grace period on.
        let counts = healthy || before.is_some() || Instant::now() >= grace_until;
        if counts {
            failures = if healthy { 0 } else { failures + 1 };
            let observation = if failures >= check.consecutive_failures() && !healthy {
                Some(Observation::Unhealthy)
            } else {
                (before != Some(healthy)).then_some(Observation::Healthy(healthy))
            };
            before = Some(healthy);
            if let Some(observation) = observation {
                let last = observation == Observation::Unhealthy;
                if out.send(observation).await.is_err() || last {
                    return;
                }
            }
        }
        sleep(seconds(check.interval_seconds()).max(MIN_INTERVAL)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_health_check_that_fails_too_often_gives_up_the_task() {
        let (out, mut seen) = mpsc::channel(8);
        let info = pb::HealthCheck {
            r#type: Some(pb::health_check::Type::Command as i32),
            command: Some(pb::CommandInfo {
                value: Some("exit 1".into()),
                ..Default::default()
            }),
            delay_seconds: Some(0.0),
            interval_seconds: Some(0.01),
            grace_period_seconds: Some(0.0),
            consecutive_failures: Some(2),
            ..Default::default()
        };
        health_check(info, Vec::new(), None, out).await;
        assert_eq!(seen.recv().await, Some(Observation::Healthy(false)));
        assert_eq!(seen.recv().await, Some(Observation::Unhealthy));
        assert_eq!(seen.recv().await, None);
    }

    #[tokio::test]
    async fn a_check_tells_its_result_once() {
        let (out, mut seen) = mpsc::channel(8);
        let info = pb::CheckInfo {
            r#type: Some(pb::check_info::Type::Command as i32),
            command: Some(pb::check_info::Command {
                command: pb::CommandInfo {
                    value: Some("exit $CODE".into()),
                    ..Default::default()
                },
            }),
            delay_seconds: Some(0.0),
            interval_seconds: Some(0.01),
            ..Default::default()
        };
        let environment = vec![("CODE".to_owned(), "4".to_owned())];
        let running = tokio::spawn(check(info, environment, None, out));
        let Some(Observation::Check(status)) = seen.recv().await else {
            panic!("no result")
        };
        assert_eq!(status.command.unwrap().exit_code, Some(4));
        running.abort();
    }
}
