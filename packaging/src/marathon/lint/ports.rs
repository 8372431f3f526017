//! Rules about networks, ports and checks.

use std::collections::BTreeSet;

use super::Found;
use crate::marathon::app::{App, CheckProtocol, HealthCheck, NetworkMode};

pub(super) fn ports(app: &App, found: &mut Found<'_>) {
    let host = app.networks.iter().all(|n| n.mode == NetworkMode::Host);
    let definitions = app.port_definitions.as_deref().unwrap_or_default();
    if app
        .networks
        .iter()
        .filter(|n| n.mode == NetworkMode::Host)
        .count()
        > 1
    {
        found.add("networks", "names the host's network more than once");
    }
    if !host && !definitions.is_empty() {
        found.add("portDefinitions", "are for the host's network only");
    }
    if app.require_ports && !host {
        found.add("requirePorts", "is for the host's network only");
    }
    let mut numbers = BTreeSet::new();
    let mut names = BTreeSet::new();
    for definition in definitions {
        if definition.port != 0 && !numbers.insert(definition.port) {
            found.add("portDefinitions", format!("port {} twice", definition.port));
        }
        match &definition.name {
            None => found.add(
                "portDefinitions",
                format!("port {} has no name for discovery", definition.port),
            ),
            Some(name) if !names.insert(name) => {
                found.add("portDefinitions", format!("name {name} twice"));
            }
            // IANA's rule for service names, which SRV records follow.
            Some(name) if name.len() > 15 || !port_name(name) => {
                found.add("portDefinitions", format!("`{name}` is no service name"));
            }
            Some(_) => {}
        }
        if app.require_ports && definition.port == 0 {
            found.add(
                "requirePorts",
                "asks for exact ports, and one is left to Marathon",
            );
        }
        for (label, value) in &definition.labels {
            if label.starts_with("VIP_") && !vip(value) {
                found.add(
                    "portDefinitions",
                    format!("{label}={value} is not /name:port"),
                );
            }
        }
    }
}

fn port_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.bytes().all(|b| inner(b) || b == b'-')
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner)
}

fn vip(value: &str) -> bool {
    value.rsplit_once(':').is_some_and(|(name, port)| {
        name.len() > 1 && name.starts_with('/') && port.parse::<u16>().is_ok_and(|p| p > 0)
    })
}

pub(super) fn checks(app: &App, found: &mut Found<'_>) {
    let mesos = app
        .health_checks
        .iter()
        .filter(|c| c.protocol.is_mesos())
        .count();
    if app.health_checks.is_empty() {
        found.add(
            "healthChecks",
            "are missing: nothing would notice that it hangs",
        );
    }
    if mesos > 1 {
        found.add("healthChecks", "at most one by Mesos");
    }
    if mesos > 0 && mesos < app.health_checks.len() {
        found.add("healthChecks", "by Mesos and by Marathon do not mix");
    }
    for check in &app.health_checks {
        health_check(app, check, found);
    }
    if app.readiness_checks.len() > 1 {
        found.add("readinessChecks", "at most one");
    }
    let definitions = app.port_definitions.as_deref().unwrap_or_default();
    for check in &app.readiness_checks {
        if !definitions
            .iter()
            .any(|d| d.name.as_ref() == Some(&check.port_name))
        {
            found.add(
                "readinessChecks",
                format!("there is no port named {}", check.port_name),
            );
        }
        if check.timeout_seconds >= check.interval_seconds {
            found.add(
                "readinessChecks",
                "the timeout must be shorter than the interval",
            );
        }
    }
}

fn health_check(app: &App, check: &HealthCheck, found: &mut Found<'_>) {
    if check.protocol == CheckProtocol::Command {
        match &check.command {
            None => found.add("healthChecks", "COMMAND without a command"),
            // It becomes `sh -c "..."`.
            Some(command) if unescaped_quote(&command.value) => {
                found.add(
                    "healthChecks",
                    "double quotes in a COMMAND check must be escaped",
                );
            }
            Some(_) => {}
        }
        return;
    }
    if check.protocol.is_mesos() && check.max_consecutive_failures == 0 {
        found.add(
            "healthChecks",
            "maxConsecutiveFailures 0 kills at the first failure",
        );
    }
    let definitions = app.port_definitions.as_deref().unwrap_or_default();
    match (check.port, check.port_index) {
        (Some(_), Some(_)) => found.add("healthChecks", "port and portIndex exclude each other"),
        (None, None) => found.add("healthChecks", "port or portIndex is needed"),
        (None, Some(index)) if usize::from(index) >= definitions.len() => {
            found.add(
                "healthChecks",
                format!("there is no port with the index {index}"),
            );
        }
        (Some(port), None) if app.require_ports && !definitions.iter().any(|d| d.port == port) => {
            found.add(
                "healthChecks",
                format!("port {port} is not among portDefinitions"),
            );
        }
        _ => {}
    }
    let http = !matches!(check.protocol, CheckProtocol::Tcp | CheckProtocol::MesosTcp);
    if http && !check.path.as_ref().is_some_and(|p| p.starts_with('/')) {
        found.add("healthChecks", "a path that begins with / is needed");
    }
}

fn unescaped_quote(command: &str) -> bool {
    let mut escaped = false;
    command.chars().any(|c| {
        let quote = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        quote
    })
}
