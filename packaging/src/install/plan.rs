//! The steps of each command. They are the same whether it runs for the first time or goes on
//! after it was killed: a step whose end is there already takes no time.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::INSTALL_LABEL;
use super::diff::{Change, diff};
use super::judge::{Standing, World};
use crate::marathon::literal;

/// What an app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A member of etcd.
    Etcd,
    /// The API servers.
    ApiServer,
    /// The controller managers.
    ControllerManager,
    /// The framework.
    Framework,
    /// The front door.
    Proxy,
    /// Removes a member's directory, during an uninstallation.
    Wipe,
    /// Looks at the agents, before an installation.
    Probe,
    /// Brings artifacts to the agents.
    Keep,
    /// Removes them from there.
    Sweep,
}

impl Part {
    /// Which part of the cluster `name` an app is; `None` for an app that is none of it.
    pub fn of(name: &str, id: &str) -> Option<Self> {
        let rest = id.strip_prefix('/')?.strip_prefix(name)?;
        match rest.strip_prefix("-cp/") {
            None => rest.is_empty().then_some(Self::Framework),
            Some("apiserver") => Some(Self::ApiServer),
            Some("controller-manager") => Some(Self::ControllerManager),
            Some("proxy") => Some(Self::Proxy),
            Some("probe") => Some(Self::Probe),
            Some("keep") => Some(Self::Keep),
            Some("sweep") => Some(Self::Sweep),
            Some(rest) => {
                let (part, number) = rest.split_once('-')?;
                match part {
                    "etcd" => number.parse::<u8>().is_ok().then_some(Self::Etcd),
                    "wipe" => number.parse::<u8>().is_ok().then_some(Self::Wipe),
                    _ => None,
                }
            }
        }
    }
}

/// Path of the group of a cluster's apps, the framework's aside.
pub fn group(name: &str) -> String {
    format!("/{name}-cp")
}

/// Something other than a change of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Access rights, cluster DNS and konnectivity's agents, through the API.
    Access,
    /// The kubeconfig.
    Kubeconfig,
    /// Waits for this many ready nodes.
    Nodes(u32),
    /// Takes a snapshot of etcd.
    Snapshot,
    /// Waits until etcd has a leader and every member answers.
    Quorum,
    /// Removes the member of etcd of this number that is to be replaced, as long as it is the old one.
    RemoveMember(u8),
    /// Adds its successor, which has no data yet.
    AddMember(u8),
    /// Lets pods end, nodes are given back without a restart of pods elsewhere.
    EndPods,
    /// Removes the framework from Mesos, which ends its nodes.
    Teardown,
    /// Removes the framework's id from the API, so that the next start gets a new one.
    ForgetFramework,
    /// Removes the artifacts that agents keep, from those that answer.
    Sweep,
    /// Removes the group, which is empty by now.
    RemoveGroup,
    /// Checks that neither Mesos nor Marathon holds anything of the cluster any more.
    VerifyGone,
    /// Waits until the framework has brought its nodes to their new revision, one after the other.
    Rollout,
    /// Notes that the command is complete.
    Complete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access => f.write_str("access rights, cluster DNS, konnectivity"),
            Self::Kubeconfig => f.write_str("kubeconfig"),
            Self::Nodes(n) => write!(
                f,
                "wait for {n} ready node{}",
                if *n == 1 { "" } else { "s" }
            ),
            Self::Snapshot => f.write_str("snapshot of etcd"),
            Self::Quorum => f.write_str("quorum of etcd"),
            Self::RemoveMember(n) => write!(f, "remove the lost member etcd-{n} from etcd"),
            Self::AddMember(n) => write!(f, "add the new member etcd-{n} to etcd"),
            Self::EndPods => f.write_str("end the pods"),
            Self::Teardown => f.write_str("remove the framework from Mesos"),
            Self::ForgetFramework => f.write_str("forget the framework's id"),
            Self::Sweep => f.write_str("remove the artifacts that agents keep"),
            Self::RemoveGroup => f.write_str("remove the empty group"),
            Self::VerifyGone => f.write_str("check that nothing is left"),
            Self::Rollout => f.write_str("nodes, one after the other"),
            Self::Complete => f.write_str("note that it is done"),
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Brings an app to its definition.
    Put {
        /// Which.
        app: String,
        /// Whether the next step has to wait until it is healthy.
        wait: bool,
    },
    /// Waits until an app is healthy.
    Await {
        /// Which.
        app: String,
    },
    /// Changes how many instances an app has, and waits until it has them.
    Scale {
        /// Which.
        app: String,
        /// How many.
        instances: u32,
    },
    /// Deletes an app, and its volumes with it.
    Delete {
        /// Which.
        app: String,
    },
    /// Something else.
    Do(Action),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { app, .. } => write!(f, "{app}"),
            Self::Await { app } => write!(f, "{app} healthy"),
            Self::Scale { app, instances: 0 } => write!(f, "stop {app}"),
            Self::Scale { app, instances } => write!(f, "start {app} with {instances}"),
            Self::Delete { app } => write!(f, "delete {app}"),
            Self::Do(action) => write!(f, "{action}"),
        }
    }
}

/// An app as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its id.
    pub id: String,
    /// Its definition.
    pub definition: Value,
}

/// What will happen to one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AppPlan {
    /// Which.
    pub app: String,
    /// What is done with it.
    pub what: What,
    /// What changes in it, for people.
    pub changes: Vec<String>,
}

/// What is done with an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It stays as it is.
    Keep,
    /// It goes.
    Remove,
}

/// What would change, for `--dry-run`, and what has drifted, for `doctor`.
pub fn changes(name: &str, wanted: &[Wanted], world: &World) -> Vec<AppPlan> {
    let mut plans: Vec<AppPlan> = wanted
        .iter()
        .map(|app| {
            let (what, changes) = match world.apps.get(&app.id) {
                None => (What::Create, Vec::new()),
                Some(seen) => {
                    let changes = diff(&app.definition, &seen.definition);
                    let what = match changes.is_empty() {
                        true => What::Keep,
                        false => What::Update,
                    };
                    (what, changes.iter().map(Change::to_string).collect())
                }
            };
            AppPlan {
                app: app.id.clone(),
                what,
                changes,
            }
        })
        .collect();
    plans.extend(surplus(name, wanted, world).map(|app| AppPlan {
        app,
        what: What::Remove,
        changes: Vec::new(),
    }));
    plans
}

/// Apps of the cluster that are wanted no more. Members of etcd are never among them: how many
/// there are is fixed, and their data is not thrown away by a change of options.
fn surplus<'a>(
    name: &'a str,
    wanted: &'a [Wanted],
    world: &'a World,
) -> impl Iterator<Item = String> + 'a {
    world
        .apps
        .keys()
        .filter(move |id| {
            !wanted.iter().any(|w| w.id == **id)
                && Part::of(name, id).is_some_and(|part| part != Part::Etcd)
        })
        .cloned()
}

fn of_part<'a>(
    name: &'a str,
    wanted: &'a [Wanted],
    part: Part,
) -> impl Iterator<Item = String> + 'a {
    wanted
        .iter()
        .filter(move |w| Part::of(name, &w.id) == Some(part))
        .map(|w| w.id.clone())
}

/// The steps of `install`. Members of etcd come up together, since one alone has no quorum; what
/// follows the API server comes up together, too.
pub fn install(name: &str, wanted: &[Wanted], world: &World, nodes: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    let formed = of_part(name, wanted, Part::Etcd)
        .all(|id| Standing::of(world.apps.get(&id)) == Standing::Healthy);
    for app in of_part(name, wanted, Part::Etcd) {
        steps.push(Step::Put { app, wait: formed });
    }
    for app in of_part(name, wanted, Part::Etcd) {
        steps.push(Step::Await { app });
    }
    for app in of_part(name, wanted, Part::ApiServer) {
        steps.push(Step::Put { app, wait: true });
    }
    steps.push(Step::Do(Action::Access));
    let rest = [Part::ControllerManager, Part::Framework, Part::Proxy];
    for part in rest {
        for app in of_part(name, wanted, part) {
            steps.push(Step::Put { app, wait: false });
        }
    }
    for part in rest {
        for app in of_part(name, wanted, part) {
            steps.push(Step::Await { app });
        }
    }
    steps.extend(surplus(name, wanted, world).map(|app| Step::Delete { app }));
    steps.push(Step::Do(Action::Kubeconfig));
    if nodes > 0 {
        steps.push(Step::Do(Action::Nodes(nodes)));
    }
    steps.push(Step::Do(Action::Complete));
    steps
}

/// The steps of `restore`, before those of `install`: etcd with the snapshot's content, and nothing
/// in it about a framework and nodes that are not this cluster's.
pub fn restore(name: &str, wanted: &[Wanted]) -> Vec<Step> {
    let mut steps = Vec::new();
    for app in of_part(name, wanted, Part::Etcd) {
        steps.push(Step::Put { app, wait: false });
    }
    for app in of_part(name, wanted, Part::Etcd) {
        steps.push(Step::Await { app });
    }
    for app in of_part(name, wanted, Part::ApiServer) {
        steps.push(Step::Put { app, wait: true });
    }
    steps.push(Step::Do(Action::Access));
    steps.push(Step::Do(Action::ForgetFramework));
    steps.push(Step::Do(Action::Complete));
    steps
}

/// The steps of `upgrade`: a snapshot, then one app at a time, in the order in which Kubernetes
/// allows versions to differ: etcd, API servers, what follows them, nodes by way of the framework,
/// which is waited for.
pub fn upgrade(name: &str, wanted: &[Wanted], world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    let has_etcd = of_part(name, wanted, Part::Etcd).next().is_some();
    if has_etcd {
        steps.push(Step::Do(Action::Snapshot));
    }
    for app in of_part(name, wanted, Part::Etcd) {
        steps.push(Step::Put { app, wait: true });
        steps.push(Step::Do(Action::Quorum));
    }
    for app in of_part(name, wanted, Part::ApiServer) {
        steps.push(Step::Put { app, wait: true });
    }
    steps.push(Step::Do(Action::Access));
    for part in [Part::ControllerManager, Part::Framework, Part::Proxy] {
        for app in of_part(name, wanted, part) {
            steps.push(Step::Put { app, wait: true });
        }
    }
    steps.extend(surplus(name, wanted, world).map(|app| Step::Delete { app }));
    steps.push(Step::Do(Action::Kubeconfig));
    if of_part(name, wanted, Part::Framework).next().is_some() {
        steps.push(Step::Do(Action::Rollout));
    }
    steps.push(Step::Do(Action::Complete));
    steps
}

/// A member of etcd that is to begin anew because its data is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Its number.
    pub number: u8,
    /// The app that removes what is left of its data; none where nothing can be left.
    pub wipe: Option<String>,
}

/// The steps of `upgrade` for a cluster one of whose members of etcd is replaced first.
pub fn replace(
    name: &str,
    wanted: &[Wanted],
    world: &World,
    replacement: &Replacement,
) -> Vec<Step> {
    let number = replacement.number;
    let app = format!("{}/etcd-{number}", group(name));
    let as_wanted = world.apps.get(&app).is_some_and(|seen| {
        let wanted = wanted.iter().find(|w| w.id == app);
        wanted.is_some_and(|w| diff(&w.definition, &seen.definition).is_empty())
    });
    let mut steps = vec![Step::Do(Action::Snapshot)];
    // Once the new one is there, its data is what has to be kept.
    if !as_wanted {
        steps.push(Step::Delete { app: app.clone() });
        if let Some(wipe) = &replacement.wipe {
            steps.push(Step::Put {
                app: wipe.clone(),
                wait: true,
            });
            steps.push(Step::Delete { app: wipe.clone() });
        }
        steps.push(Step::Do(Action::RemoveMember(number)));
        steps.push(Step::Do(Action::AddMember(number)));
    }
    steps.push(Step::Put { app, wait: true });
    steps.push(Step::Do(Action::Quorum));
    let rest = upgrade(name, wanted, world).into_iter();
    steps.extend(rest.filter(|s| *s != Step::Do(Action::Snapshot)));
    steps
}

/// Ids of the cluster's apps that are there, of a part.
fn there(name: &str, world: &World, part: Part) -> Vec<String> {
    world
        .apps
        .keys()
        .filter(|id| Part::of(name, id) == Some(part))
        .cloned()
        .collect()
}

/// Gives all nodes back: the framework first, which would start them again; then, with the
/// controllers stopped, the pods, so that nobody makes new ones; then the framework is removed
/// from Mesos while none runs that could subscribe again.
fn give_back(name: &str, world: &World, steps: &mut Vec<Step>) {
    let stopped = |app: String| Step::Scale { app, instances: 0 };
    steps.extend(there(name, world, Part::Framework).into_iter().map(stopped));
    let managers = there(name, world, Part::ControllerManager);
    steps.extend(managers.into_iter().map(stopped));
    steps.push(Step::Do(Action::EndPods));
    steps.push(Step::Do(Action::Teardown));
    steps.push(Step::Do(Action::ForgetFramework));
}

/// The steps of `stop`.
pub fn stop(name: &str, world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    give_back(name, world, &mut steps);
    for part in [Part::Proxy, Part::ApiServer, Part::Etcd] {
        for app in there(name, world, part) {
            steps.push(Step::Scale { app, instances: 0 });
        }
    }
    steps.push(Step::Do(Action::Complete));
    steps
}

/// The steps of `uninstall`. With `keep_data` etcd's apps stay, without tasks. `wipes` are apps
/// that remove directories of agents; `sweep` says whether agents keep artifacts.
pub fn uninstall(
    name: &str,
    world: &World,
    keep_data: bool,
    wipes: &[String],
    sweep: bool,
) -> Vec<Step> {
    let mut steps = Vec::new();
    give_back(name, world, &mut steps);
    for part in [
        Part::Probe,
        Part::Keep,
        Part::Sweep,
        Part::Proxy,
        Part::Framework,
        Part::ControllerManager,
        Part::ApiServer,
    ] {
        let apps = there(name, world, part);
        steps.extend(apps.into_iter().map(|app| Step::Delete { app }));
    }
    for app in there(name, world, Part::Etcd) {
        steps.push(match keep_data {
            true => Step::Scale { app, instances: 0 },
            false => Step::Delete { app },
        });
    }
    if !keep_data {
        for app in wipes {
            steps.push(Step::Put {
                app: app.clone(),
                wait: false,
            });
        }
        for app in wipes {
            steps.push(Step::Await { app: app.clone() });
            steps.push(Step::Delete { app: app.clone() });
        }
        if sweep {
            steps.push(Step::Do(Action::Sweep));
        }
        steps.push(Step::Do(Action::RemoveGroup));
    }
    steps.push(Step::Do(Action::VerifyGone));
    steps.push(Step::Do(Action::Complete));
    steps
}

/// Apps that remove a cluster's directories below `host_path` from these agents.
pub fn wipes(name: &str, install_id: &str, host_path: &str, hosts: &[&str]) -> Vec<Wanted> {
    let directory = format!("{}/{name}", host_path.trim_end_matches('/'));
    (0_u8..)
        .zip(hosts)
        .map(|(number, host)| wipe(name, install_id, number, &directory, host))
        .collect()
}

/// An app that removes a directory from an agent: it does it once, says so by its health, and
/// waits to be deleted.
pub fn wipe(name: &str, install_id: &str, number: u8, directory: &str, host: &str) -> Wanted {
    let id = format!("{}/wipe-{number}", group(name));
    let constraints = json!([["hostname", "CLUSTER", host]]);
    let command = format!("rm -rf -- {}", quoted(directory));
    removal(id, install_id, &command, 1, &constraints)
}

/// An app that removes a directory from many agents at once, and the one around it where that has
/// nothing else in it.
pub fn sweep(name: &str, install_id: &str, directory: &str, hosts: &[&str]) -> Wanted {
    let id = format!("{}/sweep", group(name));
    let all: Vec<String> = hosts.iter().map(|host| literal(host)).collect();
    let constraints = json!([["hostname", "UNIQUE"], ["hostname", "LIKE", all.join("|")]]);
    let around = directory.rsplit_once('/').map_or("", |(around, _)| around);
    let command = format!(
        "rm -rf -- {} && {{ rmdir -- {} 2>/dev/null || :; }}",
        quoted(directory),
        quoted(around)
    );
    removal(id, install_id, &command, hosts.len(), &constraints)
}

/// For a shell.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

fn removal(
    id: String,
    install_id: &str,
    command: &str,
    instances: usize,
    constraints: &Value,
) -> Wanted {
    let definition = json!({
        "id": id,
        "cmd": format!("{command} && touch done && while :; do sleep 60; done"),
        "user": "root",
        "instances": instances,
        "cpus": 0.1,
        "mem": 32.0,
        "disk": 0.0,
        "networks": [{"mode": "host"}],
        "portDefinitions": [],
        "constraints": constraints,
        "labels": {INSTALL_LABEL: install_id},
        "healthChecks": [{
            "protocol": "COMMAND",
            "command": {"value": "test -e done"},
            "gracePeriodSeconds": 300,
            // Without it Marathon waits for 15 s.
            "delaySeconds": 1,
            "intervalSeconds": 1,
            "timeoutSeconds": 5,
            "maxConsecutiveFailures": 30,
        }],
    });
    Wanted { id, definition }
}

#[cfg(test)]
mod tests;
