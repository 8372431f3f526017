//! Rules about names, labels, secrets and fetched files.

use std::collections::BTreeSet;

use super::Found;
use crate::marathon::app::{App, EnvValue};

/// Longer labels are left out of tasks' environment.
const LONGEST_LABEL: usize = 512;
/// Longest name of a task in Mesos-DNS, with room for its suffix.
const LONGEST_DNS_NAME: usize = 54;
/// Longest URI that Marathon takes.
const LONGEST_URI: usize = 1024;

pub(super) fn secrets(app: &App, found: &mut Found<'_>) {
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

pub(super) fn labels(app: &App, found: &mut Found<'_>) {
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

pub(super) fn names(app: &App, found: &mut Found<'_>) {
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

pub(super) fn fetches(app: &App, found: &mut Found<'_>) {
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
