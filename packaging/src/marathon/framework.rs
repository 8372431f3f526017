//! The framework's app. In a DC/OS package it is the only app that Cosmos posts: it brings up the
//! others before it subscribes, and follows the uninstall protocol of DC/OS' SDK services.

use super::app::{App, CheckProtocol, Volume, VolumeMode};
use super::parts::check;
use super::render::{Cluster, RenderError, Size, image_called, one_at_a_time, programs, some};
use crate::install::artifacts::PAYLOAD;
use crate::options::Options;
use crate::pki::Component;
use crate::run::{FrameworkRun, MESOS_SECRET_ENV, Run};
use crate::universe::command;

/// The program that nodes' executors are.
const EXECUTOR: &str = "k8sm-executor";
/// Time in which it may be unhealthy after its start, seconds: the API must answer first.
const GRACE: u32 = 300;
/// The same where it brings up the rest of the control plane first, which fetches images too.
const GRACE_OF_ALL: u32 = 900;

/// What the framework's task does.
pub(super) fn run(cluster: &Cluster<'_>) -> Result<FrameworkRun, RenderError> {
    Ok(FrameworkRun {
        api_servers: cluster.api_servers(),
        port: cluster.options.framework.port,
        args: arguments(cluster, served(cluster))?,
    })
}

/// Whether the framework serves what nodes fetch. As a package's app it does not: Mesos fetches
/// these from where `resource.json` says. What only some agents keep it does serve: nodes run on
/// all.
fn served(cluster: &Cluster<'_>) -> bool {
    let elsewhere = !cluster.options.artifacts.base_url.is_empty() && cluster.facts.kept.is_none();
    !elsewhere && !cluster.facts.one_app
}

pub(super) fn app(cluster: &Cluster<'_>) -> Result<App, RenderError> {
    let (options, facts) = (cluster.options, cluster.facts);
    let framework = &options.framework;
    let size = Size {
        cpus: framework.cpus,
        mem: framework.mem,
        disk: framework.disk,
    };
    let mut app = match facts.one_app {
        true => package_app(cluster, size)?,
        false => cluster.app(Component::Framework, Run::Framework(run(cluster)?), size)?,
    };
    if let Some(kept) = facts.kept.as_ref().filter(|_| served(cluster)) {
        // It serves them from there.
        if let Some(container) = &mut app.container {
            container.volumes.push(Volume {
                container_path: kept.dir.clone(),
                host_path: Some(kept.dir.clone()),
                persistent: None,
                mode: VolumeMode::Ro,
            });
        }
    } else if served(cluster) {
        // Nodes get these from the framework, which therefore has them in its sandbox.
        cluster.fetch(&mut app, EXECUTOR, true)?;
        cluster.fetch(&mut app, PAYLOAD, false)?;
    }
    if let Some(source) = some(&options.service.secret_name) {
        cluster.secret(&mut app, MESOS_SECRET_ENV, "mesos", &source);
    }
    cluster.ports(&mut app, &[("http", framework.port)]);
    app.constraints = cluster.constraints(Vec::new(), &options.service.constraints);
    if !facts.one_app {
        app.dependencies = vec![cluster.id(Component::ApiServer)?];
    }
    let grace = if facts.one_app { GRACE_OF_ALL } else { GRACE };
    app.health_checks = vec![check(
        CheckProtocol::MesosHttp,
        "/v1/health",
        framework.port,
        grace,
    )];
    app.upgrade_strategy = Some(one_at_a_time(1));
    app.task_kill_grace_period_seconds = Some(30);
    let mut label = |name: &str, value: &str| {
        app.labels.insert(name.to_owned(), value.to_owned());
    };
    label("MARATHON_SINGLE_INSTANCE_APP", "true");
    label("DCOS_PACKAGE_FRAMEWORK_NAME", &options.service.name);
    if facts.one_app {
        label("DCOS_COMMONS_API_VERSION", "v1");
        label("DCOS_COMMONS_UNINSTALL", "true");
    }
    if options.marathon.require_ports {
        label("DCOS_SERVICE_NAME", &options.service.name);
        label("DCOS_SERVICE_SCHEME", "http");
        label("DCOS_SERVICE_PORT_INDEX", "0");
    }
    Ok(app)
}

/// The app of a DC/OS package. It gets the options as arguments, knows nothing of the choices that
/// are made when it runs, and has no keys: these it makes, or has made before.
fn package_app(cluster: &Cluster<'_>, size: Size) -> Result<App, RenderError> {
    let (options, facts) = (cluster.options, cluster.facts);
    let mut app = cluster.frame(Component::Framework, size)?;
    let words = ["./k8sm", "run", "framework"].map(str::to_owned);
    let args = command::args(options, &facts.kubernetes_version, &facts.artifacts);
    app.args = Some(words.into_iter().chain(args).collect());
    cluster.fetch(&mut app, "k8sm", true)?;
    for program in programs(Component::Framework) {
        cluster.fetch(&mut app, program, true)?;
    }
    // Mustache does not compare: whatever is said counts.
    app.max_launch_delay_seconds = Some(options.marathon.max_launch_delay);
    Ok(app)
}

/// Arguments of `k8sm-framework`, those aside that are known in the task only.
fn arguments(cluster: &Cluster<'_>, served: bool) -> Result<Vec<String>, RenderError> {
    let (o, facts) = (cluster.options, cluster.facts);
    let mut args = Vec::new();
    let mut flag = |name: &str, value: String| args.push(format!("--{name}={value}"));
    flag("framework-name", o.service.name.clone());
    flag(
        "mesos-master",
        some(&o.mesos.master).unwrap_or_else(|| facts.mesos_master.clone()),
    );
    let payload = cluster.artifact(PAYLOAD)?;
    if let Some(kept) = facts.kept.as_ref().filter(|_| served) {
        let path = |name: &str| -> Result<String, RenderError> {
            let digest = &cluster.artifact(name)?.sha256;
            Ok(format!("{}/{digest}/{name}", kept.dir))
        };
        flag("executor-uri", path(EXECUTOR)?);
        flag("payload", path(PAYLOAD)?);
        flag("artifacts-dir", kept.dir.clone());
    } else if served {
        flag("executor-uri", EXECUTOR.to_owned());
        flag("payload", PAYLOAD.to_owned());
    } else {
        flag("executor-uri", cluster.artifact(EXECUTOR)?.uri.clone());
        flag("payload", payload.uri.clone());
        flag("payload-sha256", payload.sha256.clone());
        flag("payload-size", payload.size.to_string());
    }
    if o.images.executor == "image" {
        flag("executor-image", image_called(o, &facts.version, EXECUTOR));
    }
    for role in roles(o) {
        flag("role", role.clone());
    }
    for (name, value) in [
        ("principal", &o.service.principal),
        ("secret-file", &o.service.secret_file),
        ("mesos-ca", &o.mesos.ca_file),
        ("web-uri", &o.mesos.web_uri),
        ("dns-ip", &o.kubernetes.dns.service_ip),
    ] {
        if !value.is_empty() {
            flag(name, value.clone());
        }
    }
    flag("failover-timeout", o.mesos.failover_timeout.to_string());
    flag("refuse-seconds", o.mesos.refuse_seconds.to_string());
    flag("cluster-cidr", o.kubernetes.pod_cidr.clone());
    flag("service-cidr", o.kubernetes.service_cidr.clone());
    flag("dns-domain", o.kubernetes.dns.domain.clone());
    if o.kubernetes.vxlan_id != 0 {
        flag("vxlan-id", o.kubernetes.vxlan_id.to_string());
    }
    flag("vxlan-port", o.kubernetes.vxlan_port.to_string());
    nodes(o, &mut flag);
    // The program refuses a flag that is there twice; the operator's goes over ours.
    let extra = &o.framework.extra_args;
    args.retain(|arg| !extra.iter().any(|e| flag_name(e) == flag_name(arg)));
    args.extend(extra.iter().cloned());
    Ok(args)
}

/// `--name` of `--name=value`.
fn flag_name(arg: &str) -> &str {
    arg.split('=').next().unwrap_or_default()
}

fn nodes(o: &Options, flag: &mut impl FnMut(&str, String)) {
    let mebibytes = |n: u32| format!("{n}Mi");
    flag("nodes-min", o.nodes.min.to_string());
    flag("nodes-idle-timeout", o.nodes.idle_timeout.to_string());
    flag("nodes-start-timeout", o.nodes.start_timeout.to_string());
    flag("executor-grace", o.nodes.stop_timeout.to_string());
    flag("node-cpu", millis(o.nodes.cpus));
    flag("node-mem", mebibytes(o.nodes.mem));
    flag("node-disk", mebibytes(o.nodes.disk));
    flag("pods-per-node", o.nodes.max_pods.to_string());
    flag("scheduler-name", o.framework.scheduler_name.clone());
    flag("default-cpu", millis(o.pods.default_cpus));
    flag("default-mem", mebibytes(o.pods.default_mem));
    flag("pod-overhead", mebibytes(o.pods.overhead_mem));
    flag("overcommit", o.pods.overcommit.to_string());
    for (name, value) in [
        ("data-dir", &o.nodes.data_dir),
        ("run-dir", &o.nodes.run_dir),
    ] {
        if !value.is_empty() {
            flag("executor-arg", format!("--{name}={value}"));
        }
    }
    if o.nodes.verbosity != 0 {
        flag("node-verbosity", o.nodes.verbosity.to_string());
    }
    let gates = o.kubernetes.feature_gates.join(",");
    if !gates.is_empty() {
        flag("kubelet-arg", format!("--feature-gates={gates}"));
        flag("kube-proxy-arg", format!("--feature-gates={gates}"));
    }
    for arg in &o.nodes.kubelet_args {
        flag("kubelet-arg", arg.clone());
    }
    for arg in &o.nodes.kube_proxy_args {
        flag("kube-proxy-arg", arg.clone());
    }
    for mirror in &o.registry.mirrors {
        flag("registry-mirror", mirror.clone());
    }
    for certificates in &o.registry.cas {
        flag("registry-ca", certificates.clone());
    }
    for (name, value) in [
        ("node-http-proxy", &o.http_proxy.http),
        ("node-https-proxy", &o.http_proxy.https),
    ] {
        if !value.is_empty() {
            flag(name, value.clone());
        }
    }
    for host in &o.http_proxy.no_proxy {
        flag("node-no-proxy", host.clone());
    }
}

/// The roles, each once, the service's first.
fn roles(options: &Options) -> Vec<&String> {
    let mut roles = vec![&options.service.role];
    for role in &options.framework.roles {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    roles
}

/// CPUs as a Kubernetes quantity of thousandths, rounded up: nothing is given away.
fn millis(cpus: f64) -> String {
    format!("{}m", (cpus * 1000.0 - 1e-6).ceil())
}
