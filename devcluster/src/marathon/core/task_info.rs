//! What Mesos is told of a task.

mod container;
mod environment;

use mesos::pb;

use super::Core;
use super::durable::Agent;
use crate::marathon::ids::TaskId;
use crate::marathon::model::app::Limit;
use crate::marathon::model::health::{Check, HealthCheck, MesosCommand, Protocol};
use crate::marathon::model::{App, EnvValue};

/// What was found for a task on an offer.
#[derive(Debug, Clone, Default)]
pub(super) struct Launch {
    /// What the task takes.
    pub resources: Vec<pb::Resource>,
    /// One for each of the app's ports; none where it has none on the host.
    pub host_ports: Vec<Option<u16>>,
    /// Its persistent volumes.
    pub volumes: Vec<pb::Resource>,
}

impl Core {
    pub(super) fn task_info(
        &self,
        app: &App,
        agent: &Agent,
        task: &TaskId,
        launch: &Launch,
    ) -> pb::TaskInfo {
        let command = command(app, agent, task, &launch.host_ports);
        let container = container::container(app, &launch.host_ports);
        let mut resources = launch.resources.clone();
        resources.extend(launch.volumes.iter().cloned());
        let limits = app.resource_limits.iter().flat_map(|limits| {
            [("cpus", limits.cpus), ("mem", limits.mem)]
                .into_iter()
                .filter_map(|(name, limit)| limit.map(|l: Limit| (name, l.value())))
        });
        let mut info = pb::TaskInfo {
            name: app.id.to_hostname(),
            task_id: pb::TaskId {
                value: task.as_str().to_owned(),
            },
            agent_id: pb::AgentId {
                value: agent.id.clone(),
            },
            resources,
            labels: (!app.labels.is_empty()).then(|| environment::labels(&app.labels)),
            discovery: Some(discovery(app, &launch.host_ports)),
            kill_policy: app.task_kill_grace_period_seconds.map(|s| pb::KillPolicy {
                grace_period: Some(pb::DurationInfo {
                    nanoseconds: i64::from(s) * 1_000_000_000,
                }),
            }),
            health_check: app
                .health_checks
                .iter()
                .find(|c| c.by_mesos())
                .and_then(|c| health_check(app, c, &launch.host_ports)),
            check: app
                .check
                .as_ref()
                .and_then(|c| check(app, c, &launch.host_ports)),
            limits: limits
                .map(|(name, value)| (name.to_owned(), pb::value::Scalar { value }))
                .collect(),
            ..Default::default()
        };
        if app.executor.is_empty() || app.executor == "//cmd" {
            info.command = Some(command);
            info.container = container;
        } else {
            info.executor = Some(custom_executor(app, task, command, container));
        }
        info
    }
}

fn command(app: &App, agent: &Agent, task: &TaskId, host_ports: &[Option<u16>]) -> pb::CommandInfo {
    let mut variables = environment::of_task(app, task, agent, host_ports);
    for (name, value) in &app.env {
        let variable = match value {
            EnvValue::Text(value) => environment::variable(name, value),
            EnvValue::Secret(secret) => {
                let source = app.secrets.get(&secret.secret);
                let source = source.map_or("", |s| &s.source);
                environment::secret_variable(name, source)
            }
        };
        variables.retain(|v| v.name != *name);
        variables.push(variable);
    }
    let uris = app.fetch.iter().map(|artifact| pb::command_info::Uri {
        value: artifact.uri.clone(),
        executable: Some(artifact.executable),
        extract: Some(artifact.extract),
        cache: Some(artifact.cache),
        output_file: artifact.dest_path.clone(),
    });
    let has_args = !app.args.is_empty();
    let value = match &app.cmd {
        Some(cmd) => Some(cmd.clone()),
        // Without an image the first argument is the program itself.
        None if app.container.is_none() => app.args.first().cloned(),
        None => None,
    };
    pb::CommandInfo {
        uris: uris.collect(),
        environment: Some(pb::Environment { variables }),
        shell: Some(app.cmd.is_some() && !has_args),
        value,
        arguments: app.args.clone(),
        user: app.user.clone(),
    }
}

/// An executor that is a program of the agent.
fn custom_executor(
    app: &App,
    task: &TaskId,
    command: pb::CommandInfo,
    container: Option<pb::ContainerInfo>,
) -> pb::ExecutorInfo {
    let path = app.executor.replace('\'', r"'\''");
    let rest = app.cmd.clone().unwrap_or_else(|| app.args.join(" "));
    let scalar = |name: &str, value: f64| pb::Resource {
        name: name.to_owned(),
        r#type: pb::value::Type::Scalar as i32,
        scalar: Some(pb::value::Scalar { value }),
        ..Default::default()
    };
    let resources = app.executor_resources.iter().flat_map(|r| {
        [
            scalar("cpus", r.cpus),
            scalar("mem", r.mem),
            scalar("disk", r.disk),
        ]
    });
    pb::ExecutorInfo {
        r#type: Some(pb::executor_info::Type::Custom as i32),
        executor_id: pb::ExecutorId {
            value: format!("marathon-{task}"),
        },
        command: Some(pb::CommandInfo {
            shell: Some(true),
            value: Some(format!("chmod ug+rx '{path}' && exec '{path}' {rest}")),
            arguments: Vec::new(),
            ..command
        }),
        container,
        resources: resources.collect(),
        ..Default::default()
    }
}

/// Names for the outside.
fn discovery(app: &App, host_ports: &[Option<u16>]) -> pb::DiscoveryInfo {
    let mut ports = Vec::new();
    let mut add = |number: Option<u16>,
                   name: Option<&String>,
                   protocols: &[&str],
                   labels: &std::collections::BTreeMap<String, String>,
                   scope: Option<&str>| {
        let Some(number) = number else {
            return;
        };
        for protocol in protocols {
            let mut labels = labels.clone();
            if let Some(scope) = scope {
                labels.insert("network-scope".to_owned(), scope.to_owned());
            }
            ports.push(pb::Port {
                number: number.into(),
                name: name.cloned(),
                protocol: Some((*protocol).to_owned()),
                visibility: None,
                labels: (!labels.is_empty()).then(|| environment::labels(&labels)),
            });
        }
    };
    if app.port_mappings().is_empty() {
        let definitions = app.port_definitions.iter().flatten();
        for (definition, port) in definitions.zip(host_ports) {
            let names = definition.protocol.names();
            add(
                *port,
                definition.name.as_ref(),
                names,
                &definition.labels,
                None,
            );
        }
    } else {
        for (mapping, port) in app.port_mappings().iter().zip(host_ports) {
            let names = mapping.protocol.names();
            let (number, scope) = match port {
                Some(port) => (Some(*port), "host"),
                None => (Some(mapping.container_port), "container"),
            };
            add(
                number,
                mapping.name.as_ref(),
                names,
                &mapping.labels,
                Some(scope),
            );
        }
    }
    pb::DiscoveryInfo {
        visibility: pb::discovery_info::Visibility::Framework as i32,
        name: Some(app.id.to_hostname()),
        ports: Some(pb::Ports { ports }),
        ..Default::default()
    }
}

/// The port that a check is about, as the task itself sees it.
pub(super) fn port_of_check(
    app: &App,
    port: Option<u16>,
    index: Option<u16>,
    host_ports: &[Option<u16>],
) -> Option<u16> {
    if let Some(port) = port {
        return Some(port);
    }
    let index = usize::from(index.unwrap_or(0));
    if let Some(mapping) = app.port_mappings().get(index) {
        return match mapping.container_port {
            0 => host_ports.get(index).copied().flatten(),
            port => Some(port),
        };
    }
    host_ports.get(index).copied().flatten()
}

fn health_check(
    app: &App,
    check: &HealthCheck,
    host_ports: &[Option<u16>],
) -> Option<pb::HealthCheck> {
    let mut info = pb::HealthCheck {
        delay_seconds: Some(check.delay_seconds.into()),
        interval_seconds: Some(check.interval_seconds.into()),
        timeout_seconds: Some(check.timeout_seconds.into()),
        consecutive_failures: Some(check.max_consecutive_failures),
        grace_period_seconds: Some(check.grace_period_seconds.into()),
        ..Default::default()
    };
    if check.protocol == Protocol::Command {
        let command = check.command.as_ref()?;
        info.r#type = Some(pb::health_check::Type::Command as i32);
        info.command = Some(shell(&command.value));
        return Some(info);
    }
    let port = port_of_check(app, check.port, check.port_index, host_ports)?;
    if check.protocol == Protocol::MesosTcp {
        info.r#type = Some(pb::health_check::Type::Tcp as i32);
        info.tcp = Some(pb::health_check::TcpCheckInfo {
            port: port.into(),
            ..Default::default()
        });
    } else {
        let scheme = match check.protocol {
            Protocol::MesosHttps => "https",
            _ => "http",
        };
        info.r#type = Some(pb::health_check::Type::Http as i32);
        info.http = Some(pb::health_check::HttpCheckInfo {
            scheme: Some(scheme.to_owned()),
            port: port.into(),
            path: Some(check.http_path()),
            ..Default::default()
        });
    }
    Some(info)
}

fn check(app: &App, check: &Check, host_ports: &[Option<u16>]) -> Option<pb::CheckInfo> {
    let mut info = pb::CheckInfo {
        delay_seconds: Some(check.delay_seconds.into()),
        interval_seconds: Some(check.interval_seconds.into()),
        timeout_seconds: Some(check.timeout_seconds.into()),
        ..Default::default()
    };
    if let Some(http) = &check.http {
        let port = port_of_check(app, http.port, http.port_index, host_ports)?;
        info.r#type = Some(pb::check_info::Type::Http as i32);
        info.http = Some(pb::check_info::Http {
            port: port.into(),
            path: http.path.clone(),
        });
    } else if let Some(tcp) = &check.tcp {
        let port = port_of_check(app, tcp.port, tcp.port_index, host_ports)?;
        info.r#type = Some(pb::check_info::Type::Tcp as i32);
        info.tcp = Some(pb::check_info::Tcp { port: port.into() });
    } else {
        let exec = check.exec.as_ref()?;
        info.r#type = Some(pb::check_info::Type::Command as i32);
        info.command = Some(pb::check_info::Command {
            command: mesos_command(&exec.command),
        });
    }
    Some(info)
}

fn shell(value: &str) -> pb::CommandInfo {
    pb::CommandInfo {
        shell: Some(true),
        value: Some(value.to_owned()),
        ..Default::default()
    }
}

fn mesos_command(command: &MesosCommand) -> pb::CommandInfo {
    match &command.argv {
        Some(argv) => pb::CommandInfo {
            shell: Some(false),
            value: argv.first().cloned(),
            arguments: argv.clone(),
            ..Default::default()
        },
        None => shell(command.shell.as_deref().unwrap_or("")),
    }
}
