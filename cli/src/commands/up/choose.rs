//! Settings for a run of `k8sm up`: those that the instance has, with what the arguments change,
//! or new ones.

use std::path::{Path, PathBuf};

use super::check_machine;
use crate::args::Up;
use crate::catalog;
use crate::clean;
use crate::cluster::front_door::LEGACY_PORT;
use crate::error::Error;
use crate::instance::{self, FrontDoorPorts, MarathonPorts, Mesos, Paths, PortChooser, Settings};
use crate::preflight::facts;
use crate::progress::Progress;
use crate::upstream;

/// The framework's preferred HTTP port.
const FRAMEWORK_PORT: u16 = 10640;
/// The front door's preferred port for health and metrics.
const FRONT_DOOR_STATUS_PORT: u16 = 10641;
/// Marathon's preferred port: its own, 8080, is the front door's here.
const MARATHON_PORT: u16 = 8081;
/// Where the artifacts are served, if that is free.
const ARTIFACTS_PORT: u16 = 8088;
/// The default of the option `apiserver.port`.
const API_SERVER_PORT: u16 = 6444;
/// The default of the option `proxy.http_port`.
const PROXY_HTTP_PORT: u16 = 6480;
/// The default of the option `proxy.metrics_port`.
const PROXY_METRICS_PORT: u16 = 6481;
/// Mesos agents' default port.
const AGENT_PORT: u16 = 5051;

/// Settings for this run: those that the instance has, with what the arguments change, or new
/// ones.
pub(super) fn choose(
    paths: &Paths,
    args: &Up,
    previous: Option<&Settings>,
    progress: &Progress,
) -> Result<Settings, Error> {
    let address = args.address.or_else(facts::own_address);
    let mut settings = match previous {
        Some(previous) => previous.clone(),
        None => fresh(args)?,
    };
    settings.mesos = mesos(paths, args, previous)?;
    if !args.images.is_empty() {
        settings.images = args
            .images
            .iter()
            .map(|path| absolute(path))
            .collect::<Result<_, _>>()?;
    }
    if !args.registry_mirrors.is_empty() {
        settings.registry_mirrors.clone_from(&args.registry_mirrors);
    }
    if let Some(address) = address {
        settings.address = address;
    }
    if let (Some(previous), Some(port)) = (previous, args.legacy_port)
        && previous.front_door.map_or(0, |ports| ports.legacy) != port
    {
        return Err(Error::Usage(
            "the port of --legacy-port is among what the cluster's agent offers since it was made: `k8sm down` first"
                .to_owned(),
        ));
    }
    if let Some(previous) = previous
        && args.marathon
        && previous.marathon.is_none()
    {
        return Err(Error::Usage(
            "this cluster's control plane runs beside Mesos, not in Marathon: `k8sm down` first"
                .to_owned(),
        ));
    }
    if previous.is_none() {
        check_ranges(&settings)?;
    }
    let mut checked = settings.clone();
    if address.is_none() {
        checked.address = std::net::Ipv4Addr::LOCALHOST.into();
    }
    check_machine(paths, &checked, previous.is_some(), progress)?;
    // Only now: building takes minutes.
    settings.programs = match &args.programs_dir {
        Some(dir) => absolute(dir)?,
        None => catalog::own_dir()?,
    };
    settings.upstream = match (&args.upstream_dir, previous) {
        (Some(dir), _) => absolute(dir)?,
        // What it was made with, while that is there.
        (None, Some(previous)) if previous.upstream.join("kubelet").is_file() => {
            previous.upstream.clone()
        }
        (None, _) => {
            let wanted = upstream::build::select(upstream::Set::Cluster, &[])?;
            upstream::build(&upstream::Cache::new(None), &wanted)?.bin
        }
    };
    if !args.framework_args.is_empty() {
        settings.framework_args.clone_from(&args.framework_args);
    }
    Ok(settings)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io(format!("find {}", path.display())))
}

/// Settings of an instance that does not exist yet.
fn fresh(args: &Up) -> Result<Settings, Error> {
    let mut chooser = PortChooser::default();
    // Where the user named one it is taken or refused, never replaced.
    let mut chosen = |port: u16, near: u16, what| -> Result<u16, Error> {
        if port == 0 {
            return Ok(chooser.near(near, what)?);
        }
        chooser.reserve(port);
        Ok(port)
    };
    let api = chosen(args.api_port, instance::DEFAULT_API_PORT, "the API server")?;
    let ports = chooser.control_plane(api)?;
    let framework_port = chooser.near(FRAMEWORK_PORT, "the framework")?;
    let variable = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    Ok(Settings {
        version: Settings::current_version(),
        id: uuid::Uuid::new_v4().to_string(),
        name: args.name.clone(),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
        ports,
        framework_port,
        mesos: Mesos::Existing { url: String::new() },
        pod_cidr: args.pod_cidr.clone(),
        service_cidr: args.service_cidr.clone(),
        images: Vec::new(),
        framework_args: Vec::new(),
        absent_before: clean::directories::absent(),
        front_door: front_door(args, &mut chooser)?,
        marathon: match args.marathon {
            true => Some(marathon(&mut chooser)?),
            false => None,
        },
        forwarding_before: clean::forwarding::is_on(),
        registry_mirrors: Vec::new(),
        programs: Default::default(),
        upstream: Default::default(),
        // Whoever called sudo.
        owner: (
            variable("SUDO_UID").unwrap_or(0),
            variable("SUDO_GID").unwrap_or(0),
        ),
    })
}

/// Ports of the front door: where we bring the whole cluster the usual port when it is free, else
/// only the one that is asked for.
fn front_door(args: &Up, chooser: &mut PortChooser) -> Result<Option<FrontDoorPorts>, Error> {
    // As an app it runs on an agent, and several agents have loopback interfaces of their own.
    let elsewhere = args.marathon && args.agents.is_some_and(|agents| agents > 1);
    let legacy = match args.legacy_port {
        Some(0) => return Ok(None),
        Some(_) if elsewhere => {
            return Err(Error::Usage(
                "--legacy-port is on this machine's loopback interface: with --marathon it needs --agents 1"
                    .to_owned(),
            ));
        }
        None if elsewhere => return Ok(None),
        Some(port) => port,
        None if args.mesos.is_none() && instance::is_free(LEGACY_PORT) => LEGACY_PORT,
        None => return Ok(None),
    };
    chooser.reserve(legacy);
    let status = chooser.near(FRONT_DOOR_STATUS_PORT, "the front door's health")?;
    Ok(Some(FrontDoorPorts { legacy, status }))
}

/// Ports of a cluster of Marathon apps.
fn marathon(chooser: &mut PortChooser) -> Result<MarathonPorts, Error> {
    Ok(MarathonPorts {
        api: chooser.near(MARATHON_PORT, "Marathon")?,
        artifacts: chooser.near(ARTIFACTS_PORT, "the artifacts")?,
        api_server: chooser.near(API_SERVER_PORT, "the API server")?,
        proxy_http: chooser.near(PROXY_HTTP_PORT, "the front door's HTTP side")?,
        proxy_metrics: chooser.near(PROXY_METRICS_PORT, "the front door's health")?,
    })
}

/// Which Mesos: as the arguments say, else as the instance has it.
fn mesos(paths: &Paths, args: &Up, previous: Option<&Settings>) -> Result<Mesos, Error> {
    let had = previous.map(|p| &p.mesos);
    if let Some(url) = &args.mesos {
        if matches!(had, Some(Mesos::Own { .. })) {
            return Err(Error::Usage(
                "this cluster has a Mesos of its own, and its nodes live there: `k8sm down` first"
                    .to_owned(),
            ));
        }
        return Ok(Mesos::Existing { url: url.clone() });
    }
    match had {
        Some(Mesos::Existing { url }) => {
            if args.agents.is_some() {
                return Err(Error::Usage(format!(
                    "this cluster uses the Mesos at {url}, which has agents of its own: `k8sm down` first"
                )));
            }
            Ok(Mesos::Existing { url: url.clone() })
        }
        Some(Mesos::Own {
            agents,
            master_port,
            agent_port,
            subnet,
            resources,
        }) => {
            let wanted = args.agents.unwrap_or(*agents);
            if (wanted == 1) != (*agents == 1) {
                return Err(Error::Usage(format!(
                    "this cluster has {agents} agent(s); one shares the machine's network and several do not, so changing to {wanted} needs `k8sm down` first"
                )));
            }
            if wanted < *agents {
                return Err(Error::Usage(format!(
                    "this cluster has {agents} agents; taking some away needs `k8sm down` first"
                )));
            }
            Ok(Mesos::Own {
                agents: wanted,
                master_port: *master_port,
                agent_port: *agent_port,
                subnet: subnet.clone(),
                resources: args.resources.clone().or_else(|| resources.clone()),
            })
        }
        None => {
            let mut chooser = PortChooser::default();
            let master_port = match args.mesos_port {
                0 => chooser.near(instance::DEFAULT_MESOS_PORT, "the Mesos master")?,
                port => {
                    chooser.reserve(port);
                    port
                }
            };
            let agents = args.agents.unwrap_or(1);
            let subnet = if agents > 1 {
                let seed = u32::from_str_radix(paths.short(), 16).unwrap_or(0);
                let subnet = devcluster::netns::free_subnet(seed)
                    .map_err(|e| Error::Mesos(crate::error::chain(&e)))?;
                Some(subnet.to_string())
            } else {
                None
            };
            Ok(Mesos::Own {
                agents,
                subnet,
                master_port,
                agent_port: chooser.near(AGENT_PORT, "the Mesos agent")?,
                resources: args.resources.clone(),
            })
        }
    }
}

fn check_ranges(settings: &Settings) -> Result<(), Error> {
    let usage = |text: String| Error::Usage(text);
    let (pods, services) = settings.cidrs().map_err(|e| usage(e.to_string()))?;
    if pods.overlaps(services) {
        return Err(usage(format!(
            "the ranges of pods, {pods}, and of services, {services}, overlap"
        )));
    }
    // Each node gets 256 addresses; the service range holds the DNS service's tenth address.
    if pods.prefix() > 24 || services.prefix() > 28 {
        return Err(usage(format!(
            "the ranges are too small: {pods} must hold a /24 per node, {services} at least 16 addresses"
        )));
    }
    Ok(())
}
