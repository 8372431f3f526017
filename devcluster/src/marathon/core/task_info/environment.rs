//! The environment that Marathon gives to tasks.

use std::collections::BTreeMap;

use mesos::pb;

use crate::marathon::core::durable::Agent;
use crate::marathon::ids::TaskId;
use crate::marathon::model::App;

/// Labels that are longer do not become variables.
const MAX_LABEL: usize = 512;
const LABEL_PREFIX: &str = "MARATHON_APP_LABEL_";

pub(super) fn variable(name: &str, value: &str) -> pb::environment::Variable {
    pb::environment::Variable {
        name: name.to_owned(),
        r#type: Some(pb::environment::variable::Type::Value as i32),
        value: Some(value.to_owned()),
        secret: None,
    }
}

/// A variable whose value the agent looks up: it never travels.
pub(super) fn secret_variable(name: &str, source: &str) -> pb::environment::Variable {
    pb::environment::Variable {
        name: name.to_owned(),
        r#type: Some(pb::environment::variable::Type::Secret as i32),
        value: None,
        secret: Some(reference(source)),
    }
}

pub(super) fn reference(source: &str) -> pb::Secret {
    pb::Secret {
        r#type: Some(pb::secret::Type::Reference as i32),
        reference: Some(pb::secret::Reference {
            name: source.to_owned(),
            key: None,
        }),
        value: None,
    }
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> pb::Labels {
    let label = |(key, value): (&String, &String)| pb::Label {
        key: key.clone(),
        value: Some(value.clone()),
    };
    pb::Labels {
        labels: labels.iter().map(label).collect(),
    }
}

/// What every task of the app knows of itself; what the app says itself comes on top.
pub(super) fn of_task(
    app: &App,
    task: &TaskId,
    agent: &Agent,
    host_ports: &[Option<u16>],
) -> Vec<pb::environment::Variable> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        out.insert(name.to_owned(), value);
    };
    set("MESOS_TASK_ID", task.to_string());
    set("MARATHON_APP_ID", app.id.to_string());
    set("MARATHON_APP_VERSION", app.version().to_string());
    if let Some(docker) = app.container.as_ref().and_then(|c| c.docker.as_ref()) {
        set("MARATHON_APP_DOCKER_IMAGE", docker.image.clone());
    }
    // With one decimal at least, as Scala writes doubles.
    set("MARATHON_APP_RESOURCE_CPUS", format!("{:?}", app.cpus));
    set("MARATHON_APP_RESOURCE_MEM", format!("{:?}", app.mem));
    set("MARATHON_APP_RESOURCE_DISK", format!("{:?}", app.disk));
    set("MARATHON_APP_RESOURCE_GPUS", app.gpus.to_string());
    set("MARATHON_APP_ENFORCE_GROUP_ROLE", "FALSE".to_owned());
    set("HOST", agent.host.clone());
    let mut names = Vec::new();
    for (key, value) in &app.labels {
        if key.len() < MAX_LABEL - LABEL_PREFIX.len() && value.len() < MAX_LABEL {
            let name = escaped(key);
            set(&format!("{LABEL_PREFIX}{name}"), value.clone());
            names.push(name);
        }
    }
    set("MARATHON_APP_LABELS", names.join(" "));
    for (name, value) in ports(app, host_ports) {
        set(&name, value);
    }
    out.iter()
        .map(|(name, value)| variable(name, value))
        .collect()
}

/// Upper case, and each run of what variables must not have as one underscore.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    let mut replaced = false;
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c.to_ascii_uppercase());
            replaced = false;
        } else if !replaced {
            out.push('_');
            replaced = true;
        }
    }
    out
}

/// `PORT`, `PORTS`, `PORT0`, `PORT_<number>` and `PORT_<NAME>`.
fn ports(app: &App, host_ports: &[Option<u16>]) -> Vec<(String, String)> {
    let requested: Vec<(Option<&str>, u16)> = if app.port_mappings().is_empty() {
        let definitions = app.port_definitions.iter().flatten();
        definitions.map(|d| (d.name.as_deref(), d.port)).collect()
    } else {
        let mappings = app.port_mappings().iter();
        mappings
            .map(|m| (m.name.as_deref(), m.container_port))
            .collect()
    };
    let mut out = Vec::new();
    let mut all = Vec::new();
    for (index, ((name, requested), host)) in requested.into_iter().zip(host_ports).enumerate() {
        let effective = host.unwrap_or(requested);
        out.push((format!("PORT{index}"), effective.to_string()));
        let number = if requested == 0 { effective } else { requested };
        out.push((format!("PORT_{number}"), effective.to_string()));
        if let Some(name) = name {
            out.push((
                format!("PORT_{}", name.to_uppercase()),
                effective.to_string(),
            ));
        }
        if host.is_some() {
            all.push(effective.to_string());
        }
    }
    if let Some(first) = all.first() {
        out.push(("PORT".to_owned(), first.clone()));
    }
    if !out.is_empty() {
        out.push(("PORTS".to_owned(), all.join(",")));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::marathon::ids::{InstanceId, PathId};
    use crate::marathon::model::read;

    #[test]
    fn tasks_know_their_ports_by_place_number_and_name() {
        let app = json!({"id": "/a", "cmd": "x", "portDefinitions": [
            {"port": 10000, "name": "http"}, {"port": 0}]});
        let app = read::app(app, None, &PathId::root()).unwrap();
        let mut ports = ports(&app, &[Some(31005), Some(31009)]);
        ports.sort();
        let text: Vec<_> = ports.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            text,
            [
                "PORT=31005",
                "PORT0=31005",
                "PORT1=31009",
                "PORTS=31005,31009",
                "PORT_10000=31005",
                "PORT_31009=31009",
                "PORT_HTTP=31005",
            ]
        );
    }

    #[test]
    fn long_labels_are_no_variables() {
        let app = json!({"id": "/a", "cmd": "x", "labels": {
            "dcos.service/name": "kubernetes", "long": "x".repeat(600)}});
        let app = read::app(app, None, &PathId::root()).unwrap();
        let agent = Agent {
            id: "S1".into(),
            host: "h".into(),
            attributes: BTreeMap::new(),
            region: None,
            zone: None,
        };
        let task = InstanceId::new(&app.id, uuid::Uuid::nil()).task(1);
        let variables = of_task(&app, &task, &agent, &[]);
        let value = |name: &str| {
            let found = variables.iter().find(|v| v.name == name);
            found.and_then(|v| v.value.clone())
        };
        assert_eq!(
            value("MARATHON_APP_LABEL_DCOS_SERVICE_NAME").as_deref(),
            Some("kubernetes")
        );
        assert_eq!(value("MARATHON_APP_LABEL_LONG"), None);
        assert_eq!(
            value("MARATHON_APP_LABELS").as_deref(),
            Some("DCOS_SERVICE_NAME")
        );
        assert_eq!(value("MARATHON_APP_RESOURCE_CPUS").as_deref(), Some("1.0"));
        assert_eq!(value("PORT0"), None);
    }
}
