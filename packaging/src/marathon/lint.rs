//! What Marathon, Mesos-DNS and DC/OS would refuse, or take and silently get wrong, and what the
//! published schemas cannot say. Rules are those of Marathon 1.5 to 1.12 (`AppValidation`,
//! `SchedulingValidation`), Cosmos and the admin router.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::app::{
    App, AppId, CheckProtocol, EnvValue, HealthCheck, NetworkMode, UnreachableStrategy,
};

/// Most bytes of an app: ZooKeeper's node size in Marathon's default, with room for what Cosmos
/// and Marathon add.
const LARGEST_APP: usize = 768 * 1024;
/// Longer labels are left out of tasks' environment.
const LONGEST_LABEL: usize = 512;
/// Longest name of a task in Mesos-DNS, with room for its suffix.
const LONGEST_DNS_NAME: usize = 54;
/// Longest URI that Marathon takes.
const LONGEST_URI: usize = 1024;
/// Least memory in which one of our programs starts, MiB.
const LEAST_MEMORY: f64 = 32.0;

/// Something wrong with an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which app.
    pub app: AppId,
    /// Which member of it.
    pub member: &'static str,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.app, self.member, self.what)
    }
}

/// Checks apps that are to run beside each other.
pub fn lint(apps: &[App]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for app in apps {
        let mut found = Found {
            app: &app.id,
            findings: &mut findings,
        };
        command(app, &mut found);
        size(app, &mut found);
        ports(app, &mut found);
        checks(app, &mut found);
        residents(app, &mut found);
        upgrades(app, &mut found);
        constraints(app, &mut found);
        secrets(app, &mut found);
        labels(app, &mut found);
        names(app, &mut found);
        fetches(app, &mut found);
    }
    together(apps, &mut findings);
    findings
}

struct Found<'a> {
    app: &'a AppId,
    findings: &'a mut Vec<Finding>,
}

impl Found<'_> {
    fn add(&mut self, member: &'static str, what: impl Into<String>) {
        self.findings.push(Finding {
            app: self.app.clone(),
            member,
            what: what.into(),
        });
    }
}

fn command(app: &App, found: &mut Found<'_>) {
    let image = app.container.as_ref().is_some_and(|c| c.docker.is_some());
    match (&app.cmd, &app.args) {
        (Some(_), Some(_)) => found.add("cmd", "excludes args; give one of them"),
        (None, None) if !image => found.add("cmd", "is needed, or args, or an image"),
        (Some(cmd), None) if cmd.len() < 2 => found.add("cmd", "must not be empty"),
        _ => {}
    }
}

fn size(app: &App, found: &mut Found<'_>) {
    if app.cpus < 0.01 {
        found.add(
            "cpus",
            format!("{} is less than Mesos gives out, 0.01", app.cpus),
        );
    }
    if app.mem < LEAST_MEMORY {
        found.add(
            "mem",
            format!("{} MiB is too little for any program", app.mem),
        );
    }
    if app.disk < 0.0 {
        found.add("disk", "is negative");
    }
    let bytes = serde_json::to_vec(app).map_or(0, |json| json.len());
    if bytes > LARGEST_APP {
        found.add(
            "env",
            format!("the app has {bytes} bytes, more than Marathon stores ({LARGEST_APP})"),
        );
    }
}

fn ports(app: &App, found: &mut Found<'_>) {
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

fn checks(app: &App, found: &mut Found<'_>) {
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

fn residents(app: &App, found: &mut Found<'_>) {
    let disabled = matches!(app.unreachable_strategy, Some(UnreachableStrategy::Word(_)));
    if !app.is_resident() {
        if app.residency.is_some() {
            found.add("residency", "is for apps with a persistent volume");
        }
        if disabled {
            found.add("unreachableStrategy", "a lost task would never be replaced");
        }
        return;
    }
    if app.residency.is_none() {
        found.add(
            "residency",
            "is needed with a persistent volume before Marathon 1.9",
        );
    }
    if !disabled {
        found.add(
            "unreachableStrategy",
            "must be \"disabled\" with a persistent volume",
        );
    }
    if app.role.as_deref() == Some("*") {
        found.add("role", "nothing can be reserved for the role *");
    }
    let unreserved = |roles: &Vec<String>| roles.as_slice() == ["*"];
    if !app.accepted_resource_roles.as_ref().is_none_or(unreserved) {
        found.add(
            "acceptedResourceRoles",
            "must be left out, or [\"*\"], with a persistent volume",
        );
    }
    for volume in app.container.iter().flat_map(|c| &c.volumes) {
        if volume.persistent.is_some()
            && (volume.container_path.contains('/') || volume.host_path.is_some())
        {
            found.add(
                "container",
                format!(
                    "`{}` of a persistent volume must be one name in the sandbox",
                    volume.container_path
                ),
            );
        }
    }
}

fn upgrades(app: &App, found: &mut Found<'_>) {
    let Some(strategy) = app.upgrade_strategy else {
        found.add(
            "upgradeStrategy",
            "is needed: Marathon's default starts twice as many tasks",
        );
        return;
    };
    let (least, over) = (
        strategy.minimum_health_capacity,
        strategy.maximum_over_capacity,
    );
    if !(0.0..=1.0).contains(&least) || !(0.0..=1.0).contains(&over) {
        found.add("upgradeStrategy", "shares are from 0 to 1");
    }
    let single = app
        .labels
        .get("MARATHON_SINGLE_INSTANCE_APP")
        .is_some_and(|v| v == "true");
    if single && (app.instances > 1 || least != 0.0 || over != 0.0) {
        found.add(
            "upgradeStrategy",
            "MARATHON_SINGLE_INSTANCE_APP wants one instance and 0/0",
        );
    }
    if app.is_resident() && over != 0.0 {
        found.add(
            "upgradeStrategy",
            "maximumOverCapacity must be 0 with a persistent volume",
        );
    }
    if app.require_ports && over != 0.0 {
        found.add(
            "upgradeStrategy",
            "maximumOverCapacity must be 0 with fixed ports",
        );
    }
    let instances = f64::from(app.instances);
    if app.instances > 0
        && (instances * least).ceil() >= instances
        && (instances * over).floor() < 1.0
    {
        found.add(
            "upgradeStrategy",
            "no task may end and none may start beside: an upgrade would never begin",
        );
    }
    if app.task_kill_grace_period_seconds.is_none_or(|s| s == 0) {
        found.add(
            "taskKillGracePeriodSeconds",
            "is needed: Mesos' default is 3 s or what the agent says",
        );
    }
}

fn constraints(app: &App, found: &mut Found<'_>) {
    for row in &app.constraints {
        let texts: Vec<&str> = row.iter().map(String::as_str).collect();
        let good = match texts.as_slice() {
            [field, "UNIQUE"] | [field, "GROUP_BY"] => !field.is_empty(),
            [field, "CLUSTER" | "LIKE" | "UNLIKE" | "IS", value] => {
                !field.is_empty() && !value.is_empty()
            }
            [field, "GROUP_BY" | "MAX_PER", value] => {
                !field.is_empty() && value.parse::<u32>().is_ok()
            }
            _ => false,
        };
        if !good {
            found.add(
                "constraints",
                format!("{texts:?} is none that Marathon knows"),
            );
        }
    }
}

fn secrets(app: &App, found: &mut Found<'_>) {
    let mut used = BTreeSet::new();
    for (name, value) in &app.env {
        if let EnvValue::Secret { secret } = value {
            used.insert(secret);
            if !app.secrets.contains_key(secret) {
                found.add(
                    "env",
                    format!("{name} names the secret {secret}, which is not declared"),
                );
            }
        }
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(good) {
            found.add("env", format!("`{name}` is no name of a variable"));
        }
    }
    for secret in app.secrets.keys() {
        if !used.contains(secret) {
            found.add("secrets", format!("{secret} is declared and not used"));
        }
    }
    let words = app.args.iter().flatten().chain(&app.cmd);
    if words
        .chain(app.labels.values())
        .any(|text| text.contains("PRIVATE KEY"))
    {
        found.add("labels", "a private key in a label or on the command line");
    }
}

fn labels(app: &App, found: &mut Found<'_>) {
    for (name, value) in &app.labels {
        // Cosmos' own are long, and nobody reads them from the environment.
        if value.len() > LONGEST_LABEL && !name.starts_with("DCOS_PACKAGE_") {
            found.add(
                "labels",
                format!(
                    "{name} has {} bytes; beyond {LONGEST_LABEL} the task does not see it",
                    value.len()
                ),
            );
        }
    }
    let service: Vec<&str> = [
        "DCOS_SERVICE_NAME",
        "DCOS_SERVICE_SCHEME",
        "DCOS_SERVICE_PORT_INDEX",
    ]
    .into_iter()
    .filter(|l| app.labels.contains_key(*l))
    .collect();
    if !service.is_empty() && service.len() < 3 {
        found.add(
            "labels",
            format!(
                "the admin router wants NAME, SCHEME and PORT_INDEX of DCOS_SERVICE_*; there is {}",
                service.join(", ")
            ),
        );
    }
    if let Some(index) = app.labels.get("DCOS_SERVICE_PORT_INDEX") {
        let ports = app.port_definitions.as_ref().map_or(0, Vec::len);
        if !index.parse::<usize>().is_ok_and(|i| i < ports) {
            found.add(
                "labels",
                format!("DCOS_SERVICE_PORT_INDEX={index}: the app has {ports} ports"),
            );
        }
    }
    // `/service/<id>/...` is where Cosmos asks during an uninstall.
    let name = app.labels.get("DCOS_SERVICE_NAME");
    if app.labels.contains_key("DCOS_COMMONS_UNINSTALL")
        && name.map(String::as_str) != app.id.as_str().strip_prefix('/')
    {
        found.add(
            "labels",
            "DCOS_SERVICE_NAME must be the app's id without its first / for the uninstall protocol",
        );
    }
}

fn names(app: &App, found: &mut Found<'_>) {
    // Mesos-DNS: `/a/b` is `b.a.marathon.mesos`, and as a task `b-a`.
    let path = app.id.as_str().trim_start_matches('/');
    if path.contains('.') {
        found.add(
            "id",
            "a dot in a name makes another domain of it in Mesos-DNS",
        );
    }
    let name: Vec<&str> = path.rsplit('/').collect();
    if name.join("-").len() > LONGEST_DNS_NAME {
        found.add(
            "id",
            format!("longer than Mesos-DNS takes ({LONGEST_DNS_NAME})"),
        );
    }
}

fn fetches(app: &App, found: &mut Found<'_>) {
    let mut destinations = BTreeSet::new();
    for fetch in &app.fetch {
        if fetch.uri.len() > LONGEST_URI {
            found.add(
                "fetch",
                format!(
                    "a URI of {} bytes, {LONGEST_URI} are allowed",
                    fetch.uri.len()
                ),
            );
        }
        let authority = fetch
            .uri
            .split("://")
            .nth(1)
            .and_then(|r| r.split('/').next());
        if authority.is_some_and(|a| a.contains('@')) {
            found.add("fetch", "a user or password in a URI is seen by everybody");
        }
        let last = fetch.uri.rsplit('/').next().unwrap_or_default();
        let destination = fetch.dest_path.as_deref().unwrap_or(last);
        if !destinations.insert(destination) {
            found.add("fetch", format!("two files become {destination}"));
        }
        if fetch.executable && fetch.extract {
            found.add(
                "fetch",
                format!("{destination} cannot be both a program and an archive"),
            );
        }
    }
}

/// What concerns several apps.
fn together(apps: &[App], findings: &mut Vec<Finding>) {
    let mut ids = BTreeSet::new();
    let mut ports: BTreeMap<u16, &AppId> = BTreeMap::new();
    for app in apps {
        let mut found = Found {
            app: &app.id,
            findings,
        };
        if !ids.insert(&app.id) {
            found.add("id", "twice");
        }
        let below = format!("{}/", app.id);
        if let Some(other) = apps.iter().find(|o| o.id.as_str().starts_with(&below)) {
            found.add(
                "id",
                format!(
                    "is also the group of {}; an app and a group cannot share an id",
                    other.id
                ),
            );
        }
        // Members of etcd never share an agent; all others may.
        let definitions = app.port_definitions.iter().flatten();
        for definition in definitions.filter(|d| d.port != 0) {
            match ports.get(&definition.port) {
                Some(other) if !pinned_apart(apps, app, other) => {
                    found.add(
                        "portDefinitions",
                        format!(
                            "port {} is also {other}'s; both may be on one agent",
                            definition.port
                        ),
                    );
                }
                _ => {
                    ports.insert(definition.port, &app.id);
                }
            }
        }
    }
    for app in apps {
        let mut found = Found {
            app: &app.id,
            findings,
        };
        if reaches(apps, app, &app.id, &mut BTreeSet::new()) {
            found.add("dependencies", "lead back to the app itself");
        }
        for dependency in &app.dependencies {
            if !ids.contains(dependency) {
                found.add("dependencies", format!("there is no {dependency}"));
            }
        }
    }
}

/// Whether constraints keep two apps on different agents.
fn pinned_apart(apps: &[App], app: &App, other: &AppId) -> bool {
    let agent = |app: &App| {
        app.constraints.iter().find_map(|row| match row.as_slice() {
            [field, operator, value] if field == "hostname" && operator == "CLUSTER" => {
                Some(value.clone())
            }
            _ => None,
        })
    };
    let other = apps.iter().find(|a| a.id == *other).and_then(agent);
    matches!((agent(app), other), (Some(a), Some(b)) if a != b)
}

fn reaches<'a>(apps: &'a [App], from: &'a App, to: &AppId, seen: &mut BTreeSet<&'a AppId>) -> bool {
    from.dependencies.iter().any(|d| {
        d == to
            || (seen.insert(d)
                && apps
                    .iter()
                    .find(|a| a.id == *d)
                    .is_some_and(|next| reaches(apps, next, to, seen)))
    })
}
