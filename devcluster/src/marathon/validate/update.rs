//! What may change about apps with persistent volumes: what is reserved stays as it is.

use std::collections::BTreeSet;

use super::Check;
use crate::marathon::error::ApiError;
use crate::marathon::model::App;

const RESOURCES: &str = "Services with persistent volumes configured may not change resource requirements. If you need to make this change, please create a new service.";
const PORTS: &str = "Services with persistent volumes configured may not change host ports. If you need to make this change, please create a new service.";

/// Checks the change of an app that has, or is to have, persistent volumes. `force` allows
/// another role.
pub fn resident_update(from: &App, to: &App, force: bool) -> Result<(), ApiError> {
    if !from.is_resident() && !to.is_resident() {
        return Ok(());
    }
    let mut check = Check::default();
    let volumes = |app: &App| -> Vec<_> { app.persistent_volumes().cloned().collect() };
    check.that(
        volumes(from) == volumes(to),
        "/",
        "Persistent volumes can not be changed!",
    );
    check.that(from.cpus == to.cpus, "/cpus", RESOURCES);
    check.that(from.mem == to.mem, "/mem", RESOURCES);
    check.that(from.disk == to.disk, "/disk", RESOURCES);
    check.that(from.gpus == to.gpus, "/gpus", RESOURCES);
    check.that(
        from.require_ports == to.require_ports,
        "/requirePorts",
        RESOURCES,
    );
    check.that(host_ports(from) == host_ports(to), "/", PORTS);
    let roles = (from.role.as_deref(), to.role.as_deref());
    check.that(
        roles.0 == roles.1 || force,
        "/role",
        format!(
            "It is not possible to change the role for existing reservations. If you proceed with this change, all existing instances will continue to under the previous role, {}. Only new instances will be allocated with the new role, {}. In order to continue, retry your request with ?force=true",
            roles.0.unwrap_or("*"),
            roles.1.unwrap_or("*")
        ),
    );
    check.result()
}

fn host_ports(app: &App) -> BTreeSet<u16> {
    let mappings = app.port_mappings();
    if mappings.is_empty() {
        let definitions = app.port_definitions.iter().flatten();
        definitions.map(|d| d.port).collect()
    } else {
        mappings.iter().filter_map(|m| m.host_port).collect()
    }
}
