//! The processes of an instance: control plane, Mesos, framework.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use devcluster::netns::Subnet;

use packaging::control_plane::{ControlPlane, Process, Readiness};
use packaging::install::artifacts::FILE as LIST;
use packaging::pki::{Authority, Name};

use crate::catalog::{Catalog, Own};
use crate::instance::{MarathonPorts, Mesos, Paths, Settings, without_password};
use crate::supervise::ProcessSpec;

/// Name of the Mesos master's process.
pub const MASTER: &str = "mesos-master";
/// Name of the framework's process.
pub const FRAMEWORK: &str = "framework";
/// Name of Marathon's process.
pub const MARATHON: &str = "marathon";
/// Name of the process that serves what agents fetch.
pub const ARTIFACTS: &str = "artifacts";

/// Name of an agent's process.
pub fn agent_name(number: u32) -> String {
    format!("mesos-agent-{number}")
}

/// The control plane's processes.
pub fn control_plane(control_plane: &ControlPlane, catalog: &Catalog) -> Vec<ProcessSpec> {
    control_plane
        .processes()
        .into_iter()
        .map(|p| {
            // Certificates and configuration are read at start: a changed one is a restart.
            let mut inputs: Vec<PathBuf> = p.files.iter().map(|f| f.path.clone()).collect();
            inputs.extend(files_in_arguments(&p));
            spec(p, catalog).seal(&inputs)
        })
        .collect()
}

/// Files that a process names in its arguments.
fn files_in_arguments(process: &Process) -> impl Iterator<Item = PathBuf> + '_ {
    process.args.iter().filter_map(|arg| {
        let (_, value) = arg.split_once('=')?;
        let path = Path::new(value);
        (path.is_absolute() && path.is_file()).then(|| path.to_owned())
    })
}

fn spec(process: Process, catalog: &Catalog) -> ProcessSpec {
    ProcessSpec {
        name: process.name,
        program: catalog.upstream(&process.program),
        args: process.args,
        env: process.env,
        readiness: process.readiness,
        after: process.after,
        stop_seconds: process.stop_seconds,
        fingerprint: String::new(),
    }
}

/// A process of this very program, which is ready when it answers over HTTP.
fn own(
    name: &str,
    program: &Path,
    args: Vec<String>,
    (address, path): (SocketAddr, &str),
    after: Vec<String>,
    inputs: &[PathBuf],
) -> ProcessSpec {
    ProcessSpec {
        name: name.to_owned(),
        program: program.to_owned(),
        args,
        env: Vec::new(),
        readiness: Readiness::Http {
            address,
            path: path.to_owned(),
        },
        after,
        stop_seconds: 10,
        fingerprint: String::new(),
    }
    .seal(inputs)
}

/// Mesos' processes, none for a Mesos that exists.
pub fn mesos(paths: &Paths, settings: &Settings, program: &Path) -> Vec<ProcessSpec> {
    let Mesos::Own {
        agents,
        master_port,
        agent_port,
        subnet,
        ..
    } = &settings.mesos
    else {
        return Vec::new();
    };
    let master = SocketAddr::new(settings.address, *master_port);
    let subnet: Option<Subnet> = subnet.as_ref().and_then(|s| s.parse().ok());
    let process = |name: &str, args, address, after| {
        own(name, program, args, (address, "/health"), after, &[])
    };
    let word = |w: &str| w.to_owned();
    let mut processes = vec![process(
        MASTER,
        vec![
            word("dev"),
            word("mesos"),
            word("master"),
            format!("--listen={master}"),
            format!("--cluster={}", settings.name),
            format!("--work-dir={}", paths.mesos().join("master").display()),
        ],
        master,
        Vec::new(),
    )];
    for number in 0..*agents {
        let address = match subnet {
            // The machine itself has the first address.
            Some(subnet) => subnet
                .address(number + 2)
                .map_or(settings.address, IpAddr::V4),
            None => settings.address,
        };
        let listen = SocketAddr::new(address, *agent_port);
        let mut args = vec![
            word("dev"),
            word("mesos"),
            word("agent"),
            format!("--master={master}"),
            format!("--listen={listen}"),
            format!("--hostname={}", host_name(settings, subnet, number)),
            format!(
                "--work-dir={}",
                paths.mesos().join(format!("agent-{number}")).display()
            ),
            // Each its own: an agent ends what it finds in its root and does not know.
            format!("--cgroups-root={}/{number}", paths.cgroups_root()),
        ];
        if let Some(subnet) = subnet {
            args.extend([
                format!("--netns-prefix={}", paths.link_prefix()),
                format!("--netns-number={number}"),
                format!("--netns-subnet={subnet}"),
            ]);
        }
        if let Some(resources) = super::front_door::agent_resources(settings) {
            args.push(format!("--resources={resources}"));
        }
        processes.push(process(
            &agent_name(number),
            args,
            listen,
            vec![MASTER.to_owned()],
        ));
    }
    processes
}

/// Marathon.
pub fn marathon(
    paths: &Paths,
    settings: &Settings,
    ports: MarathonPorts,
    program: &Path,
) -> ProcessSpec {
    let listen = SocketAddr::new(settings.address, ports.api);
    let args = vec![
        "dev".to_owned(),
        "marathon".to_owned(),
        format!("--mesos={}", master_address(settings)),
        format!("--listen={listen}"),
        format!("--work-dir={}", paths.mesos().join("marathon").display()),
    ];
    let after = vec![MASTER.to_owned()];
    own(MARATHON, program, args, (listen, "/ping"), after, &[])
}

/// Who serves the artifacts, which are there. It reads their list once: another list is another
/// process.
pub fn artifacts(
    paths: &Paths,
    settings: &Settings,
    ports: MarathonPorts,
    program: &Path,
) -> ProcessSpec {
    let listen = SocketAddr::new(settings.address, ports.artifacts);
    let args = vec![
        "artifacts".to_owned(),
        "serve".to_owned(),
        paths.artifacts().display().to_string(),
        format!("--listen={listen}"),
    ];
    let list = paths.artifacts().join(LIST);
    let ready = (listen, &*format!("/{LIST}"));
    own(ARTIFACTS, program, args, ready, Vec::new(), &[list])
}

/// Marathon's address.
pub fn marathon_url(settings: &Settings, ports: MarathonPorts) -> String {
    format!("http://{}", SocketAddr::new(settings.address, ports.api))
}

/// Where agents fetch the artifacts.
pub fn artifacts_url(settings: &Settings, ports: MarathonPorts) -> String {
    format!(
        "http://{}",
        SocketAddr::new(settings.address, ports.artifacts)
    )
}

/// Name of an agent in offers, and so of its node.
fn host_name(settings: &Settings, subnet: Option<Subnet>, number: u32) -> String {
    if subnet.is_some() {
        return format!("agent-{number}");
    }
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty() && name != "localhost")
        .unwrap_or_else(|| settings.address.to_string())
}

/// The framework's process.
pub fn framework(
    paths: &Paths,
    settings: &Settings,
    control_plane: &ControlPlane,
    catalog: &Catalog,
    payload: &Path,
) -> ProcessSpec {
    let mut args = vec![
        format!("--framework-name={}", settings.name),
        format!("--kubeconfig={}", paths.framework_kubeconfig().display()),
        format!("--api-server={}:{}", settings.address, settings.ports.api),
        format!("--executor-uri={}", catalog.own(Own::Executor).display()),
        format!("--payload={}", payload.display()),
        format!("--listen=0.0.0.0:{}", settings.framework_port),
        format!(
            "--advertise={}:{}",
            settings.address, settings.framework_port
        ),
        format!("--cluster-cidr={}", settings.pod_cidr),
        format!("--service-cidr={}", settings.service_cidr),
        format!("--dns-ip={}", control_plane.dns_address()),
        format!("--dns-domain={}", control_plane.dns_domain),
    ];
    args.extend(settings.registry_mirrors.iter().map(|mirror| {
        format!(
            "--registry-mirror={}",
            mirror.replace("{address}", &settings.address.to_string())
        )
    }));
    if let Mesos::Own { agents, .. } = &settings.mesos {
        // Whoever asks for agents here wants to see as many nodes.
        args.push(format!("--nodes-min={agents}"));
    }
    if let Some(ports) = settings
        .front_door
        .filter(|_| shares_host_network(settings))
    {
        // The one that the agent offers for pods that ask for it by name, as people know it.
        args.push(format!("--node-avoid-ports={}", ports.legacy));
    }
    if shares_host_network(settings) {
        // Below the instance's own directories, where `down` finds everything.
        args.extend([
            format!("--executor-arg=--data-dir={}", paths.node_data().display()),
            format!("--executor-arg=--run-dir={}", paths.node_run().display()),
        ]);
    }
    args.extend(
        settings
            .framework_args
            .iter()
            .map(|arg| arg.replace("{address}", &settings.address.to_string())),
    );
    let mut after = vec!["kube-apiserver".to_owned()];
    if matches!(settings.mesos, Mesos::Own { .. }) {
        after.push(MASTER.to_owned());
    }
    let pki = &control_plane.pki;
    ProcessSpec {
        name: FRAMEWORK.to_owned(),
        program: catalog.own(Own::Framework),
        args,
        // Not an argument, which everybody sees: it may hold a password.
        env: vec![("K8SM_MESOS_MASTER".to_owned(), master_address(settings))],
        readiness: Readiness::Http {
            address: ([127, 0, 0, 1], settings.framework_port).into(),
            path: "/healthz".to_owned(),
        },
        after,
        stop_seconds: 10,
        fingerprint: String::new(),
    }
    .seal(&[
        paths.framework_kubeconfig(),
        pki.certificate(Name::Framework),
        pki.authority_certificate(Authority::Cluster),
        // Only its size and time would do, but it is small.
        catalog.own(Own::Executor),
    ])
}

/// The same for people, without a password.
pub fn shown_master_address(settings: &Settings) -> String {
    without_password(&master_address(settings))
}

/// How the framework finds the Mesos master.
pub fn master_address(settings: &Settings) -> String {
    match &settings.mesos {
        Mesos::Own { master_port, .. } => format!("{}:{master_port}", settings.address),
        Mesos::Existing { url } => url.clone(),
    }
}

/// Whether a node lives in the machine's own network and mount namespace.
pub fn shares_host_network(settings: &Settings) -> bool {
    matches!(settings.mesos, Mesos::Own { agents: 1, .. })
}
