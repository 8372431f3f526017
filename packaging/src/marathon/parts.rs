//! The apps of the control plane, the framework's aside.

use super::EtcdStorage;
use super::app::Disabled;
use super::app::{
    App, CheckProtocol, Container, Containerizer, DiskType, Fetch, HealthCheck, PersistentVolume,
    ReadinessCheck, ReadinessProtocol, Residency, TaskLostBehavior, UnreachableStrategy, Volume,
    VolumeMode,
};
use super::render::{APPS_WITH_ROLES, Cluster, RenderError, Size, constraints, one_at_a_time};
use crate::pki::Component;
use crate::run::{
    ApiServerRun, ControllerManagerRun, EtcdRun, KonnectivityPorts, Member, MemberState, ProxyRun,
    Run, SNAPSHOT_FILE,
};

/// Sandbox of a member whose data are elsewhere: logs and programs, MiB.
const ETCD_SANDBOX: u32 = 256;
/// Largest store that etcd suggests, MiB.
const LARGEST_STORE: u32 = 8192;
/// Role of DC/OS' public agents.
const PUBLIC_ROLE: &str = "slave_public";
/// Name of the persistent volume.
const ETCD_VOLUME: &str = "etcd-data";

/// A member of etcd.
pub(super) fn etcd(cluster: &Cluster<'_>, number: u8) -> Result<App, RenderError> {
    let (options, facts) = (cluster.options, cluster.facts);
    let etcd = &options.etcd;
    let component = Component::Etcd(number);
    let host_path = format!(
        "{}/{}/{component}",
        etcd.host_path.trim_end_matches('/'),
        options.service.name
    );
    let persistent = facts.etcd_storage == EtcdStorage::Persistent;
    let quota = match etcd.quota {
        // The log and a snapshot in the making need the rest.
        0 => (etcd.disk / 3 * 2).min(LARGEST_STORE),
        given => given,
    };
    let state = facts.etcd_states.get(&number).copied();
    let state = state.unwrap_or(MemberState::New);
    let run = Run::Etcd(EtcdRun {
        number,
        members: facts
            .etcd_hosts
            .iter()
            .zip(0..)
            .map(|(host, n)| Member {
                name: Component::Etcd(n).to_string(),
                address: host.address,
            })
            .collect(),
        token: format!("{}-{}", options.service.name, facts.install_id),
        state,
        form_until: facts.etcd_form_until,
        data_dir: match persistent {
            true => ETCD_VOLUME.to_owned(),
            false => host_path.clone(),
        },
        client_port: etcd.client_port,
        peer_port: etcd.peer_port,
        metrics_port: etcd.metrics_port,
        quota_bytes: u64::from(quota) << 20,
        extra_args: etcd.extra_args.clone(),
    });
    // A directory of the agent counts as the task's disk too, so that its room is not given away.
    let disk = if persistent { ETCD_SANDBOX } else { etcd.disk };
    let size = Size {
        cpus: etcd.cpus,
        mem: etcd.mem,
        disk,
    };
    let mut app = cluster.app(component, run, size)?;
    if state == MemberState::Restore {
        let snapshot = facts.etcd_snapshot.as_ref();
        let snapshot = snapshot.ok_or_else(|| RenderError::Artifact(SNAPSHOT_FILE.to_owned()))?;
        app.fetch.push(Fetch {
            uri: snapshot.uri.clone(),
            extract: false,
            executable: false,
            // It holds the cluster's whole state.
            cache: false,
            dest_path: Some(SNAPSHOT_FILE.to_owned()),
        });
    }
    cluster.ports(
        &mut app,
        &[
            ("client", etcd.client_port),
            ("peer", etcd.peer_port),
            ("metrics", etcd.metrics_port),
        ],
    );
    if let Some(host) = facts.etcd_hosts.get(usize::from(number)) {
        app.constraints = vec![constraint("CLUSTER", &host.hostname)];
    }
    if persistent {
        reside(&mut app, etcd);
    } else if let Some(container) = &mut app.container {
        container.volumes.push(Volume {
            container_path: host_path.clone(),
            host_path: Some(host_path),
            persistent: None,
            mode: VolumeMode::Rw,
        });
    }
    // Its own health, not the quorum's: to kill members that live because others are gone helps
    // nobody. A member that joins may have to fetch the whole store first.
    app.health_checks = vec![check(
        CheckProtocol::MesosHttp,
        "/livez",
        etcd.metrics_port,
        300,
    )];
    app.upgrade_strategy = Some(one_at_a_time(1));
    app.task_kill_grace_period_seconds = Some(30);
    Ok(app)
}

/// Gives an app a volume that outlives its tasks.
fn reside(app: &mut App, etcd: &crate::options::Etcd) {
    let kind = match etcd.disk_type.as_str() {
        "mount" => DiskType::Mount,
        _ => DiskType::Root,
    };
    let container = app.container.get_or_insert_with(|| Container {
        kind: Containerizer::Mesos,
        docker: None,
        volumes: Vec::new(),
    });
    container.volumes.push(Volume {
        container_path: ETCD_VOLUME.to_owned(),
        host_path: None,
        persistent: Some(PersistentVolume {
            kind,
            size: etcd.disk.into(),
        }),
        mode: VolumeMode::Rw,
    });
    app.residency = Some(Residency {
        relaunch_escalation_timeout_seconds: 3600,
        task_lost_behavior: TaskLostBehavior::WaitForever,
    });
    app.unreachable_strategy = Some(UnreachableStrategy::Word(Disabled::Disabled));
    // Marathon before 1.9 takes `*` only, later ones anything but `*` only: nothing suits both.
    app.accepted_resource_roles = None;
}

/// The API servers.
pub(super) fn api_server(cluster: &Cluster<'_>) -> Result<App, RenderError> {
    let (options, facts) = (cluster.options, cluster.facts);
    let api = &options.apiserver;
    let etcd = match facts.etcd_storage {
        EtcdStorage::External => options.etcd.external_endpoints.clone(),
        _ => facts
            .etcd_hosts
            .iter()
            .map(|host| format!("https://{}:{}", host.address, options.etcd.client_port))
            .collect(),
    };
    let run = Run::Apiserver(ApiServerRun {
        etcd,
        port: api.port,
        konnectivity: KonnectivityPorts {
            agent: api.konnectivity_port,
            admin: api.konnectivity_admin_port,
            health: api.konnectivity_health_port,
        },
        instances: api.instances,
        service_cidr: options.kubernetes.service_cidr.clone(),
        node_port_range: options.kubernetes.node_port_range.clone(),
        dns_domain: options.kubernetes.dns.domain.clone(),
        shutdown_delay: api.shutdown_delay,
        admission_plugins: api.admission_plugins.clone(),
        feature_gates: options.kubernetes.feature_gates.clone(),
        oidc: (!options.oidc.issuer_url.is_empty()).then(|| options.oidc.clone()),
        audit: options.audit.enabled.then(|| options.audit.clone()),
        extra_args: api.extra_args.clone(),
        konnectivity_extra_args: api.konnectivity_extra_args.clone(),
    });
    let size = Size {
        cpus: api.cpus,
        mem: api.mem,
        disk: api.disk,
    };
    let mut app = cluster.app(Component::ApiServer, run, size)?;
    app.instances = api.instances;
    cluster.ports(
        &mut app,
        &[
            ("api", api.port),
            ("konnectivity", api.konnectivity_port),
            ("konn-admin", api.konnectivity_admin_port),
            ("konn-health", api.konnectivity_health_port),
        ],
    );
    let kept = facts.kept.as_ref();
    let hosts: Vec<String> = facts
        .api_hosts
        .iter()
        .filter(|host| kept.is_none_or(|kept| kept.agents.contains(&host.hostname)))
        .map(|host| literal(&host.hostname))
        .collect();
    let own = vec![unique(), constraint("LIKE", &hosts.join("|"))];
    app.constraints = constraints(own, &api.constraints);
    for number in 0..cluster.members() {
        app.dependencies.push(cluster.id(Component::Etcd(number))?);
    }
    // Without etcd it cannot serve, but a new one could not either.
    app.health_checks = vec![check(
        CheckProtocol::MesosHttps,
        "/livez?exclude=etcd",
        api.port,
        120,
    )];
    if options.marathon.require_ports {
        app.readiness_checks = vec![ReadinessCheck {
            name: "ready".to_owned(),
            protocol: ReadinessProtocol::Https,
            path: "/readyz".to_owned(),
            port_name: "api".to_owned(),
            interval_seconds: 3,
            timeout_seconds: 2,
            http_status_codes_for_ready: vec![200],
            preserve_last_response: false,
        }];
    }
    app.upgrade_strategy = Some(one_at_a_time(api.instances));
    // It serves on for a while, then lets requests end.
    app.task_kill_grace_period_seconds = Some(api.shutdown_delay + 20);
    Ok(app)
}

/// The controller managers.
pub(super) fn controller_manager(cluster: &Cluster<'_>) -> Result<App, RenderError> {
    let options = cluster.options;
    let manager = &options.controller_manager;
    let run = Run::ControllerManager(ControllerManagerRun {
        api_servers: cluster.api_servers(),
        port: manager.port,
        instances: manager.instances,
        pod_cidr: options.kubernetes.pod_cidr.clone(),
        service_cidr: options.kubernetes.service_cidr.clone(),
        feature_gates: options.kubernetes.feature_gates.clone(),
        extra_args: manager.extra_args.clone(),
    });
    let size = Size {
        cpus: manager.cpus,
        mem: manager.mem,
        disk: manager.disk,
    };
    let mut app = cluster.app(Component::ControllerManager, run, size)?;
    app.instances = manager.instances;
    cluster.ports(&mut app, &[("health", manager.port)]);
    app.constraints = cluster.constraints(vec![unique()], &manager.constraints);
    app.dependencies = vec![cluster.id(Component::ApiServer)?];
    app.health_checks = vec![check(
        CheckProtocol::MesosHttps,
        "/healthz",
        manager.port,
        300,
    )];
    app.upgrade_strategy = Some(one_at_a_time(manager.instances));
    app.task_kill_grace_period_seconds = Some(15);
    Ok(app)
}

/// The front doors.
pub(super) fn proxy(cluster: &Cluster<'_>) -> Result<App, RenderError> {
    let (options, facts) = (cluster.options, cluster.facts);
    let proxy = &options.proxy;
    let run = Run::Proxy(ProxyRun {
        api_servers: cluster.api_servers(),
        port: proxy.port,
        http_port: proxy.http_port,
        metrics_port: proxy.metrics_port,
        legacy_port: (proxy.legacy_port != 0).then_some(proxy.legacy_port),
        max_connections: proxy.max_connections,
        extra_args: proxy.extra_args.clone(),
    });
    let size = Size {
        cpus: proxy.cpus,
        mem: proxy.mem,
        disk: proxy.disk,
    };
    let mut app = cluster.app(Component::Proxy, run, size)?;
    app.instances = proxy.instances;
    // The port on loopback is not taken: a pod may have the same one on the agent's address.
    cluster.ports(
        &mut app,
        &[
            ("api", proxy.port),
            ("http", proxy.http_port),
            ("metrics", proxy.metrics_port),
        ],
    );
    if proxy.public {
        app.accepted_resource_roles = Some(vec![PUBLIC_ROLE.to_owned()]);
        // Since apps have roles, the ones that they accept are `*` and their own.
        if facts.marathon_version >= APPS_WITH_ROLES {
            app.role = Some(PUBLIC_ROLE.to_owned());
        }
    }
    app.constraints = cluster.constraints(vec![unique()], &proxy.constraints);
    app.dependencies = vec![cluster.id(Component::ApiServer)?];
    app.health_checks = vec![check(
        CheckProtocol::MesosHttp,
        "/healthz",
        proxy.metrics_port,
        60,
    )];
    app.upgrade_strategy = Some(one_at_a_time(proxy.instances));
    // Connections get 20 s to end.
    app.task_kill_grace_period_seconds = Some(30);
    if options.marathon.require_ports {
        ways_in(&mut app, options);
    }
    Ok(app)
}

/// Labels by which DC/OS' admin router, its virtual addresses and marathon-lb find the front door.
fn ways_in(app: &mut App, options: &crate::options::Options) {
    let proxy = &options.proxy;
    let mut label = |name: &str, value: String| {
        app.labels.insert(name.to_owned(), value);
    };
    label("DCOS_SERVICE_NAME", format!("{}-api", options.service.name));
    label("DCOS_SERVICE_SCHEME", "http".to_owned());
    label("DCOS_SERVICE_PORT_INDEX", "1".to_owned());
    if !proxy.haproxy_group.is_empty() {
        label("HAPROXY_GROUP", proxy.haproxy_group.clone());
        label("HAPROXY_0_MODE", "tcp".to_owned());
        label("HAPROXY_0_PORT", proxy.haproxy_port.to_string());
        // Only the port where TLS passes through.
        label("HAPROXY_1_ENABLED", "false".to_owned());
        label("HAPROXY_2_ENABLED", "false".to_owned());
    }
    if !proxy.vip.is_empty()
        && let Some(port) = app.port_definitions.iter_mut().flatten().next()
    {
        port.labels
            .insert("VIP_0".to_owned(), format!("/{}", proxy.vip));
    }
}

/// A health check by the agent. A start is noticed within two seconds; after it, half a minute
/// without an answer is the end.
pub(super) fn check(protocol: CheckProtocol, path: &str, port: u16, grace: u32) -> HealthCheck {
    HealthCheck {
        protocol,
        path: Some(path.to_owned()),
        port: Some(port),
        port_index: None,
        command: None,
        grace_period_seconds: grace,
        interval_seconds: 2,
        timeout_seconds: 5,
        max_consecutive_failures: 15,
        delay_seconds: Some(1),
    }
}

fn unique() -> Vec<String> {
    vec!["hostname".to_owned(), "UNIQUE".to_owned()]
}

fn constraint(operator: &str, value: &str) -> Vec<String> {
    vec!["hostname".to_owned(), operator.to_owned(), value.to_owned()]
}

/// A host name as a regular expression of Java's that matches it alone.
pub(crate) fn literal(hostname: &str) -> String {
    let mut pattern = String::new();
    for c in hostname.chars() {
        if !c.is_ascii_alphanumeric() && c != '-' && c != '_' {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
