//! Rules of a single app.

use super::{Check, Rules, constraints, container};
use crate::marathon::error::ApiError;
use crate::marathon::ids::PathId;
use crate::marathon::model::container::{ContainerType, NetworkMode};
use crate::marathon::model::health::{IpProtocol, Protocol};
use crate::marathon::model::{App, EnvValue, UnreachableStrategy};

/// Checks an app whose defaults are filled in. `size_limit`: how large a definition may be,
/// in bytes of JSON.
pub fn app(app: &App, rules: &Rules, size_limit: usize) -> Result<(), ApiError> {
    let mut check = Check::default();
    check.that(!app.id.is_root(), "/id", "must not be root");
    command(&mut check, app);
    amounts(&mut check, app, rules);
    networks(&mut check, app);
    if let Some(one) = &app.container {
        container::container(&mut check, app, one, rules);
    }
    ports(&mut check, app);
    health(&mut check, app);
    secrets(&mut check, app, rules);
    roles(&mut check, app, rules);
    lifecycle(&mut check, app);
    for (index, constraint) in app.constraints.iter().enumerate() {
        if let Some(why) = constraints::why_invalid(constraint) {
            check.that(false, &format!("/constraints({index})"), why);
        }
    }
    for (index, dependency) in app.dependencies.iter().enumerate() {
        if let Err(why) = PathId::parse(dependency, &app.id.parent()) {
            check.that(false, &format!("/dependencies({index})"), why.to_string());
        }
    }
    let size = serde_json::to_vec(app).map_or(usize::MAX, |v| v.len());
    check.that(
        size <= size_limit,
        "/",
        format!("The definition is too large to be stored: {size} bytes, at most {size_limit} (zk_max_node_size)"),
    );
    check.result()
}

fn command(check: &mut Check, app: &App) {
    let (cmd, args) = (app.cmd.is_some(), !app.args.is_empty());
    let container = app
        .container
        .as_ref()
        .is_some_and(|c| c.docker.is_some() || c.r#type == ContainerType::Mesos);
    check.that(
        (cmd ^ args) || (!(cmd && args) && container),
        "/",
        "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.",
    );
    if let Some(cmd) = &app.cmd {
        check.that(!cmd.is_empty(), "/cmd", "must not be an empty string");
    }
    let executor = app.executor.as_str();
    check.that(
        executor.is_empty() || executor == "//cmd" || !executor.starts_with("//"),
        "/executor",
        "must fully match regular expression '^(//cmd)|(/?[^/]+(/[^/]+)*)|$'",
    );
    for (index, artifact) in app.fetch.iter().enumerate() {
        let good = !artifact.uri.is_empty() && !artifact.uri.contains(char::is_whitespace);
        check.that(
            good,
            &format!("/fetch({index})/uri"),
            "URI has invalid syntax.",
        );
    }
}

/// How many instances an app may have. Marathon has no limit; this one keeps a typing error
/// from using up all memory.
const MAX_INSTANCES: u32 = 10_000;

fn amounts(check: &mut Check, app: &App, rules: &Rules) {
    check.that(
        app.instances <= MAX_INSTANCES,
        "/instances",
        format!("got {}, expected {MAX_INSTANCES} or less", app.instances),
    );
    for (name, value) in [("cpus", app.cpus), ("mem", app.mem), ("disk", app.disk)] {
        check.that(
            value >= 0.0 && value.is_finite(),
            &format!("/{name}"),
            format!("got {value}, expected 0.0 or more"),
        );
    }
    if app.gpus > 0 {
        let docker = |c: &crate::marathon::model::Container| c.r#type == ContainerType::Docker;
        check.that(
            !app.container.as_ref().is_some_and(docker),
            "/",
            "GPU resources only work with the Mesos containerizer",
        );
        check.feature(rules, "gpu_resources", "/");
    }
    if let Some(limits) = &app.resource_limits {
        for (name, limit, request) in [
            ("cpus", limits.cpus, app.cpus),
            ("mem", limits.mem, app.mem),
        ] {
            check.that(
                limit.is_none_or(|l| l.value() >= request),
                &format!("/resourceLimits/{name}"),
                format!(
                    "resource limit must be greater than or equal to requested resource ({request})"
                ),
            );
        }
    }
    check.that(
        app.backoff_factor >= 1.0,
        "/backoffFactor",
        format!("got {}, expected 1.0 or more", app.backoff_factor),
    );
}

fn networks(check: &mut Check, app: &App) {
    let count = |mode| app.networks.iter().filter(|n| n.mode == mode).count();
    let (host, bridge, named) = (
        count(NetworkMode::Host),
        count(NetworkMode::Bridge),
        count(NetworkMode::Container),
    );
    check.that(
        host <= 1 && bridge <= 1,
        "/networks",
        "Host networks and bridge networks may be given once only.",
    );
    check.that(
        [host, bridge, named].iter().filter(|n| **n > 0).count() <= 1,
        "/networks",
        "Networks must all be of the same mode.",
    );
    for (index, network) in app.networks.iter().enumerate() {
        check.that(
            network.mode == NetworkMode::Container || network.name.is_none(),
            &format!("/networks({index})/name"),
            "A network of this mode must not have a name.",
        );
        check.that(
            network.mode != NetworkMode::Container || network.name.is_some(),
            &format!("/networks({index})"),
            "Network name must be specified when container network is selected.",
        );
    }
    let has_mappings = app
        .container
        .as_ref()
        .and_then(|c| c.port_mappings.as_ref())
        .is_some_and(|m| !m.is_empty());
    check.that(
        host == 0 || !has_mappings,
        "/",
        "portMappings are not allowed with host-networking",
    );
    check.that(
        host > 0 || app.port_definitions.as_ref().is_none_or(Vec::is_empty),
        "/",
        "portDefinitions are only allowed with host-networking",
    );
    let docker = app
        .container
        .as_ref()
        .is_some_and(|c| c.r#type == ContainerType::Docker);
    check.that(
        !docker || named <= 1,
        "/",
        "may only specify a single container network when using the Docker container engine",
    );
}

fn ports(check: &mut Check, app: &App) {
    let definitions = app.port_definitions.as_deref().unwrap_or(&[]);
    let unique = |mut list: Vec<String>| {
        let count = list.len();
        list.sort();
        list.dedup();
        list.len() == count
    };
    check.that(
        unique(definitions.iter().filter_map(|d| d.name.clone()).collect()),
        "/portDefinitions",
        "Port names must be unique.",
    );
    let numbers = definitions.iter().filter(|d| d.port != 0);
    check.that(
        unique(numbers.map(|d| d.port.to_string()).collect()),
        "/portDefinitions",
        "Ports must be unique.",
    );
}

fn health(check: &mut Check, app: &App) {
    let ports = app.port_count();
    let mut by_mesos = 0;
    for (index, one) in app.health_checks.iter().enumerate() {
        let path = format!("/healthChecks({index})");
        by_mesos += usize::from(one.by_mesos() && one.protocol != Protocol::Command);
        match one.protocol {
            Protocol::Command => {
                let given = one.command.as_ref().is_some_and(|c| !c.value.is_empty());
                let text = "a COMMAND check must have a command";
                check.that(given, &format!("{path}/command"), text);
            }
            _ => {
                let addressed = match one.port_index {
                    Some(port) => usize::from(port) < ports,
                    None => one.port.is_some() || ports == 1,
                };
                check.that(
                    addressed,
                    &path,
                    "Health check port indices must address an element of the ports array or container port mappings.",
                );
            }
        }
        let docker = app
            .container
            .as_ref()
            .is_some_and(|c| c.r#type == ContainerType::Docker);
        let supported = docker && one.by_mesos() && one.protocol != Protocol::Command;
        check.that(
            one.ip_protocol == IpProtocol::V4 || supported,
            &path,
            "IPv6 can only be used for container type DOCKER and Mesos http/https/tcp health checks",
        );
    }
    check.that(
        by_mesos <= 1,
        "/",
        "AppDefinition can contain at most one Mesos health check",
    );
    check.that(
        app.readiness_checks.len() <= 1,
        "/readinessChecks",
        format!("got {}, expected 1 or less", app.readiness_checks.len()),
    );
    let names = app.port_names();
    for (index, one) in app.readiness_checks.iter().enumerate() {
        let path = format!("/readinessChecks({index})");
        check.that(
            names.contains(one.port_name.as_str()),
            &format!("{path}/portName"),
            format!(
                "No port definition reference for portName {}",
                one.port_name
            ),
        );
        check.that(
            one.timeout_seconds < one.interval_seconds,
            &format!("{path}/timeoutSeconds"),
            format!(
                "got {}, expected less than {}",
                one.timeout_seconds, one.interval_seconds
            ),
        );
    }
    if let Some(one) = &app.check {
        let kinds = [one.http.is_some(), one.tcp.is_some(), one.exec.is_some()];
        check.that(
            kinds.iter().filter(|k| **k).count() == 1,
            "/check",
            "Must specify a single type of check, http, tcp, or exec",
        );
        let docker = app
            .container
            .as_ref()
            .is_some_and(|c| c.r#type == ContainerType::Docker);
        check.that(
            !docker,
            "/",
            "AppDefinition must not use 'checks' if using docker",
        );
        let asked = one.http.as_ref().map(|h| (h.port_index, h.port));
        let asked = asked.or(one.tcp.as_ref().map(|t| (t.port_index, t.port)));
        let addressed = match asked {
            Some((Some(port), _)) => usize::from(port) < ports,
            Some((None, port)) => port.is_some() || ports == 1,
            None => true,
        };
        check.that(
            addressed,
            "/check",
            "check port index must address an element of the ports array or container port mappings.",
        );
    }
}

fn secrets(check: &mut Check, app: &App, rules: &Rules) {
    if !app.secrets.is_empty() {
        check.feature(rules, "secrets", "/secrets");
    }
    for (name, secret) in &app.secrets {
        let path = format!("/secrets/{name}/source");
        check.that(!secret.source.is_empty(), &path, "must not be empty");
    }
    for (name, value) in &app.env {
        check.that(!name.is_empty(), "/env", "must not be empty");
        if let EnvValue::Secret(secret) = value {
            check.feature(rules, "secrets", "/env");
            check.that(
                app.secrets.contains_key(&secret.secret),
                &format!("/env/{name}/secret"),
                format!("references an undefined secret named '{}'", secret.secret),
            );
        }
    }
}

fn roles(check: &mut Check, app: &App, rules: &Rules) {
    let role = app.role.as_deref().unwrap_or("*");
    let known: Vec<_> = rules.roles.iter().map(String::as_str).collect();
    check.that(
        known.contains(&role),
        "/role",
        format!("got {role}, expected one of: [{}]", known.join(", ")),
    );
    let Some(accepted) = &app.accepted_resource_roles else {
        return;
    };
    check.that(
        !accepted.is_empty(),
        "/acceptedResourceRoles",
        "must not be empty",
    );
    for one in accepted {
        check.that(
            one == "*" || one == role,
            "/acceptedResourceRoles",
            format!("acceptedResourceRoles can only contain *, {role}, or both. {one} is neither."),
        );
    }
    check.that(
        !app.is_resident() || accepted.iter().any(|r| r != "*"),
        "/acceptedResourceRoles",
        "A resident app must have at least one role other than * as an accepted resource role.",
    );
}

fn lifecycle(check: &mut Check, app: &App) {
    let upgrade = app.upgrade();
    for (name, value) in [
        ("minimumHealthCapacity", upgrade.minimum_health_capacity),
        ("maximumOverCapacity", upgrade.maximum_over_capacity),
    ] {
        check.that(
            (0.0..=1.0).contains(&value),
            &format!("/upgradeStrategy/{name}"),
            format!("got {value}, expected between 0.0 and 1.0"),
        );
    }
    if app.is_single_instance() {
        let text = "Single instance app may only have one instance";
        check.that(app.instances <= 1, "/", text);
        for (name, value) in [
            ("minimumHealthCapacity", upgrade.minimum_health_capacity),
            ("maximumOverCapacity", upgrade.maximum_over_capacity),
        ] {
            check.that(
                value == 0.0,
                &format!("/upgradeStrategy/{name}"),
                format!("got {value}, expected 0.0"),
            );
        }
    }
    if app.is_resident() {
        check.that(
            upgrade.maximum_over_capacity == 0.0,
            "/upgradeStrategy/maximumOverCapacity",
            format!("got {}, expected 0.0", upgrade.maximum_over_capacity),
        );
        check.that(
            app.unreachable() == UnreachableStrategy::Disabled,
            "/",
            "unreachableStrategy must be disabled for resident tasks",
        );
        check.that(
            app.role.as_deref() != Some("*"),
            "/role",
            "Resident apps cannot have the role *",
        );
    }
    if let UnreachableStrategy::Enabled {
        inactive_after_seconds: inactive,
        expunge_after_seconds: expunge,
    } = app.unreachable()
    {
        check.that(
            inactive <= expunge,
            "/unreachableStrategy/inactiveAfterSeconds",
            format!(
                "inactiveAfterSeconds ({inactive}) must be less or equal to expungeAfterSeconds, which is {expunge}"
            ),
        );
    }
    let label = |name: &str| app.labels.get(name).filter(|v| !v.is_empty());
    if let Some(version) = label("DCOS_MIGRATION_API_VERSION") {
        check.that(
            version == "v1"
                && label("DCOS_PACKAGE_FRAMEWORK_NAME").is_some()
                && label("DCOS_MIGRATION_API_PATH").is_some(),
            "/",
            "DCOS_PACKAGE_FRAMEWORK_NAME and DCOS_MIGRATION_API_PATH must be defined when using DCOS_MIGRATION_API_VERSION",
        );
    }
}
