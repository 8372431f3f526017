//! Filling in what a definition leaves out and others depend on.

use super::container::{
    Container, ContainerType, Network, NetworkMode, PortDefinition, PortMapping,
};
use super::health::{HealthCheck, Protocol};
use super::{App, UpgradeStrategy};
use crate::marathon::ids::PathId;

/// What defaults depend on.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The role that apps get.
    pub role: String,
    /// The network that `container` networks without a name mean.
    pub network_name: Option<String>,
}

/// Fills in what is left out. Safe to repeat.
pub fn normalize(app: &mut App, defaults: &Defaults) {
    app.role.get_or_insert_with(|| defaults.role.clone());
    if app.networks.is_empty() {
        app.networks = vec![Network {
            name: None,
            mode: NetworkMode::Host,
            labels: Default::default(),
        }];
    }
    for network in &mut app.networks {
        if network.mode == NetworkMode::Container && network.name.is_none() {
            network.name.clone_from(&defaults.network_name);
        }
    }
    if app.uses_host_network() {
        if let Some(container) = &mut app.container
            && container.port_mappings.as_ref().is_some_and(Vec::is_empty)
        {
            container.port_mappings = None;
        }
        if app.port_definitions.is_none() {
            app.port_definitions = Some(vec![PortDefinition::unnamed()]);
        }
    } else {
        bind_ports(app);
    }
    for check in &mut app.health_checks {
        normalize_check(
            check,
            app.port_definitions.is_some() || app.container.is_some(),
        );
    }
    if app.is_resident() {
        app.residency.get_or_insert_default();
    }
    let UpgradeStrategy {
        maximum_over_capacity,
        minimum_health_capacity,
    } = app.upgrade();
    app.upgrade_strategy = Some(UpgradeStrategy {
        maximum_over_capacity,
        minimum_health_capacity,
    });
    app.unreachable_strategy = Some(app.unreachable());
    let base = app.id.parent();
    for dependency in &mut app.dependencies {
        if let Ok(path) = PathId::parse(dependency, &base) {
            *dependency = path.into();
        }
    }
}

/// Networks of their own have mappings instead of definitions.
fn bind_ports(app: &mut App) {
    app.require_ports = false;
    let wanted = app.port_definitions.take().map_or(0, |d| d.len());
    let bridged = app.networks.iter().any(|n| n.mode == NetworkMode::Bridge);
    let container = app.container.get_or_insert_with(|| Container {
        r#type: ContainerType::Mesos,
        docker: None,
        linux_info: None,
        volumes: Vec::new(),
        port_mappings: None,
    });
    let mappings = container
        .port_mappings
        .get_or_insert_with(|| vec![PortMapping::unnamed()]);
    while mappings.len() < wanted {
        mappings.push(PortMapping {
            name: None,
            ..PortMapping::unnamed()
        });
    }
    if bridged {
        for mapping in mappings {
            mapping.host_port.get_or_insert(0);
        }
    }
}

fn normalize_check(check: &mut HealthCheck, has_ports: bool) {
    if check.command.is_some() {
        check.protocol = Protocol::Command;
    }
    if check.protocol == Protocol::Command {
        return;
    }
    if has_ports && check.port.is_none() {
        check.port_index.get_or_insert(0);
    }
    let http = !matches!(check.protocol, Protocol::Tcp | Protocol::MesosTcp);
    if http && check.path.is_none() {
        check.path = Some("/".to_owned());
    }
}
