//! What Marathon, Mesos-DNS and DC/OS would refuse, or take and silently get wrong, and what the
//! published schemas cannot say. Rules are those of Marathon 1.5 to 1.12 (`AppValidation`,
//! `SchedulingValidation`), Cosmos and the admin router.

mod life;
mod names;
mod ports;
mod together;

use std::fmt;

use super::app::{App, AppId};
use life::{constraints, residents, upgrades};
use names::{fetches, labels, names, secrets};
use ports::{checks, ports};
use together::together;

/// Most bytes of an app: ZooKeeper's node size in Marathon's default, with room for what Cosmos
/// and Marathon add.
const LARGEST_APP: usize = 768 * 1024;
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
