//! `/v2/info`, `/v2/leader`, `/v2/plugins`, `/v2/pods`, `/metrics`.

use serde_json::{Map, Value, json};

use super::{Answered, Request, Response};
use crate::marathon::core::{Condition, Core, Effect};
use crate::marathon::error::ApiError;

pub(super) fn route(core: &mut Core, request: &Request, head: &str, rest: &str) -> Answered {
    match (head, request.method.as_str(), rest) {
        ("info", "GET", "") => Ok(Response::ok(info(core))),
        ("leader", "GET", "") => Ok(Response::ok(json!({"leader": core.settings.address}))),
        ("leader", "DELETE", "") => {
            core.effect(Effect::Abdicate);
            Ok(Response::ok(json!({"message": "Leadership abdicated"})))
        }
        ("plugins", "GET", "") => Ok(Response::ok(json!({"plugins": []}))),
        ("pods", "GET", "" | "::status") => Ok(Response::ok(json!([]))),
        ("pods", "GET", id) => Err(ApiError::NotFound(format!(
            "Pod '/{}' does not exist",
            id.trim_end_matches("::status")
        ))),
        ("pods", "POST" | "PUT", _) => Err(ApiError::Unprocessable(
            "This Marathon runs apps only: pods are not implemented. Use an app, or a real Marathon."
                .to_owned(),
        )),
        _ => Err(ApiError::Method),
    }
}

fn info(core: &Core) -> Value {
    let settings = &core.settings;
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let port = settings.address.rsplit(':').next().unwrap_or("");
    let port: u16 = port.parse().unwrap_or(0);
    let host = settings
        .address
        .rsplit_once(':')
        .map_or("", |(host, _)| host);
    let ui = core
        .master
        .as_ref()
        .map(|m| format!("{}/", m.trim_end_matches('/')));
    json!({
        "name": settings.framework_name,
        "version": crate::marathon::VERSION,
        "buildref": concat!("devcluster ", env!("CARGO_PKG_VERSION")),
        "elected": true,
        "leader": settings.address,
        "frameworkId": core.durable.framework_id,
        "marathon_config": {
            "access_control_allow_origin": null,
            "checkpoint": true,
            "decline_offer_duration": millis(settings.decline),
            "default_network_name": settings.network_name,
            "env_vars_prefix": null,
            "executor": "//cmd",
            "failover_timeout": settings.failover_timeout.as_secs(),
            "features": settings.features,
            "framework_name": settings.framework_name,
            "ha": false,
            "hostname": host,
            "local_port_max": settings.service_ports.1,
            "local_port_min": settings.service_ports.0,
            "master": settings.master,
            "max_instances_per_offer": settings.max_instances_per_offer,
            "mesos_bridge_name": "mesos-bridge",
            "mesos_leader_ui_url": ui,
            "mesos_role": settings.role,
            "mesos_user": settings.user,
            "new_group_enforce_role": "off",
            "min_revive_offers_interval": millis(settings.revive_interval),
            "reconciliation_interval": millis(settings.reconcile),
            "task_launch_timeout": millis(settings.launch_timeout),
            "task_reservation_timeout": millis(settings.reservation_timeout),
            "webui_url": null,
        },
        "zookeeper_config": {
            "zk": null,
            "zk_max_node_size": settings.max_definition,
            "zk_max_versions": settings.max_versions,
        },
        "http_config": {"http_port": port, "https_port": null},
    })
}

/// Counters and gauges, as Marathon's metrics are laid out.
pub(super) fn metrics(core: &Core) -> Response {
    let mut counters = Map::new();
    for (name, value) in &core.counters {
        counters.insert(format!("marathon.{name}.counter"), json!({"count": value}));
    }
    let instances = |which: &dyn Fn(Condition) -> bool| {
        core.durable
            .all_instances()
            .filter(|i| which(i.condition))
            .count()
    };
    let root = &core.durable.root;
    let gauges = [
        ("marathon.apps.active.gauge", root.apps.len()),
        ("marathon.groups.active.gauge", root.groups.len()),
        (
            "marathon.deployments.active.gauge",
            core.durable.deployments.len(),
        ),
        (
            "marathon.instances.running.gauge",
            instances(&|c| c == Condition::Running),
        ),
        (
            "marathon.instances.staged.gauge",
            instances(&|c| {
                matches!(
                    c,
                    Condition::Provisioned | Condition::Staging | Condition::Starting
                )
            }),
        ),
        (
            "marathon.instances.scheduled.gauge",
            instances(&|c| c == Condition::Scheduled),
        ),
        (
            "marathon.mesos.subscribed.gauge",
            usize::from(core.subscribed),
        ),
    ];
    let gauges: Map<String, Value> = gauges
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!({"value": value})))
        .collect();
    Response::ok(json!({
        "version": "4.0.0",
        "gauges": gauges,
        "counters": counters,
        "histograms": {},
        "meters": {},
        "timers": {},
    }))
}
