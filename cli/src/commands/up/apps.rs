//! `k8sm up --marathon`: this machine brings Mesos, a Marathon and the artifacts, and everything
//! else is an installation as any other, made by the same code as `k8sm install`. Its record is in
//! the folder `cluster` of the state directory, where all commands of the installer find it.

use std::fs;
use std::os::unix::fs::chown;
use std::time::{Duration, Instant};

use packaging::files::{SECRET, write_atomic};

use super::{Begun, own_program, wait_ready};
use crate::args::{ArtifactsSource, Install, Manner, Said, Which};
use crate::artifacts::{self, build::Sources};
use crate::cluster::api::Cluster;
use crate::cluster::{hello, processes};
use crate::commands::installed::put;
use crate::commands::runtime;
use crate::error::Error;
use crate::install::{Home, Site};
use crate::instance::{MarathonPorts, Mesos, Paths, Settings};
use crate::progress::Progress;
use crate::supervise::{Spec, Supervisor};

/// What one machine gives to the control plane: enough for some hundred pods. CPUs are shares, and
/// the machine may have few; memory is a bound.
const SIZES: [(&str, &str); 14] = [
    ("etcd.cpus", "0.1"),
    ("etcd.mem", "512"),
    ("etcd.disk", "1024"),
    ("apiserver.cpus", "0.3"),
    ("apiserver.mem", "1024"),
    ("apiserver.disk", "256"),
    ("controller_manager.cpus", "0.1"),
    ("controller_manager.mem", "320"),
    ("controller_manager.disk", "128"),
    ("framework.cpus", "0.1"),
    ("framework.mem", "256"),
    ("framework.disk", "1024"),
    ("proxy.cpus", "0.1"),
    ("proxy.mem", "64"),
];

/// From settings to a running cluster, and the example's page.
pub(super) fn bring_up(
    paths: &Paths,
    settings: &Settings,
    ports: MarathonPorts,
    begun: Begun,
    with_hello: bool,
    deadline: Instant,
    progress: &Progress,
) -> Result<Option<(String, String)>, Error> {
    let Mesos::Own { agents, .. } = settings.mesos else {
        return Err(Error::Usage(
            "on a Mesos that exists, `k8sm install --marathon URL` brings the cluster".to_owned(),
        ));
    };
    let program = own_program()?;
    let supervisor = Supervisor::new(paths);
    let before = Spec::read(&paths.spec()).ok().flatten().unwrap_or_default();
    let mut spec = Spec {
        generation: before.generation + 1,
        processes: processes::mesos(paths, settings, &program),
    };
    let marathon = processes::marathon(paths, settings, ports, &program);
    spec.processes.push(marathon);
    let serving = |p: &&crate::supervise::ProcessSpec| p.name == processes::ARTIFACTS;
    spec.processes
        .extend(before.processes.iter().find(serving).cloned());
    supervisor.apply(&spec, &settings.id)?;

    // While Mesos starts.
    let mut step = progress.step("artifacts");
    let sources = Sources {
        programs: Some(settings.programs.clone()),
        upstream: settings.upstream.clone(),
        images: settings.images.clone(),
    };
    let built = artifacts::build(&paths.artifacts(), None, &sources, |file| step.detail(file))
        .map_err(crate::install::Error::from)?;
    step.done(&format!("{} files", built.files.len()));
    spec.processes.retain(|p| p.name != processes::ARTIFACTS);
    let serving = processes::artifacts(paths, settings, ports, &program);
    spec.processes.push(serving);
    spec.generation += 1;
    supervisor.apply(&spec, &settings.id)?;
    for process in &spec.processes {
        let name = process.name.as_str();
        wait_ready(&supervisor, spec.generation, name, name, deadline, progress)?;
    }

    let runtime = runtime()?;
    runtime.block_on(wait_for_agents(settings, ports, agents, deadline, progress))?;
    let home = Home::new(Some(&paths.installed()), &settings.name)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let install = install(paths, settings, ports, agents, left);
    runtime.block_on(put(&home, &install, progress))?;
    hand_out(paths, settings, &home)?;

    runtime.block_on(async {
        let mut cluster = Cluster::connect(&home.super_kubeconfig()).await?;
        if with_hello {
            cluster.apply(&hello::objects()?, deadline).await?;
        }
        // Node objects of a cluster that was stopped go on saying that they are ready.
        super::wait_for_nodes(&cluster, agents, begun, deadline, progress).await?;
        match with_hello {
            true => super::wait_for_hello(&cluster, deadline, progress)
                .await
                .map(Some),
            false => Ok(None),
        }
    })
}

/// Waits until the agents are the master's: an installation looks at them first.
async fn wait_for_agents(
    settings: &Settings,
    ports: MarathonPorts,
    wanted: u32,
    deadline: Instant,
    progress: &Progress,
) -> Result<(), Error> {
    const LOOK: Duration = Duration::from_millis(100);
    let begun = Instant::now();
    let mut step = progress.step("Mesos agents");
    let (marathon, master) = (
        processes::marathon_url(settings, ports),
        processes::master_address(settings),
    );
    let there = async || {
        let site = Site::connect(&marathon, None, Some(&master)).await?;
        site.mesos.agents(None).await
    };
    loop {
        let text = match there().await {
            Ok(agents) if agents.len() >= usize::try_from(wanted).unwrap_or(usize::MAX) => {
                step.done(&agents.len().to_string());
                return Ok(());
            }
            Ok(agents) => format!("{} of {wanted} have registered", agents.len()),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            step.failed();
            return Err(Error::Timeout {
                what: "Mesos' agents".to_owned(),
                waited: begun.elapsed(),
                detail: format!(": {text}; `k8sm logs mesos-agent-0` tells more"),
            });
        }
        step.detail(&text);
        tokio::time::sleep(LOOK).await;
    }
}

/// What an operator would say to `k8sm install`.
fn install(
    paths: &Paths,
    settings: &Settings,
    ports: MarathonPorts,
    agents: u32,
    left: Duration,
) -> Install {
    let quoted = |values: &[String]| serde_json::json!(values).to_string();
    let shared = processes::shares_host_network(settings);
    let here = |text: &String| text.replace("{address}", &settings.address.to_string());
    let mirrors: Vec<String> = settings.registry_mirrors.iter().map(here).collect();
    let mut arguments: Vec<String> = settings.framework_args.iter().map(here).collect();
    let mut sets: Vec<(&str, String)> = SIZES.map(|(key, value)| (key, value.to_owned())).into();
    let control = &settings.ports;
    sets.extend([
        ("etcd.count", "1".to_owned()),
        ("etcd.storage", "host_path".to_owned()),
        ("etcd.host_path", paths.etcd().display().to_string()),
        ("etcd.client_port", control.etcd.to_string()),
        ("etcd.peer_port", control.etcd_peer.to_string()),
        ("etcd.metrics_port", control.etcd_metrics.to_string()),
        ("apiserver.instances", "1".to_owned()),
        ("apiserver.shutdown_delay", "0".to_owned()),
        ("apiserver.port", ports.api_server.to_string()),
        (
            "apiserver.konnectivity_port",
            control.konnectivity_agent.to_string(),
        ),
        (
            "apiserver.konnectivity_admin_port",
            control.konnectivity_admin.to_string(),
        ),
        (
            "apiserver.konnectivity_health_port",
            control.konnectivity_health.to_string(),
        ),
        (
            "controller_manager.port",
            control.controller_manager.to_string(),
        ),
        ("proxy.port", control.api.to_string()),
        ("proxy.http_port", ports.proxy_http.to_string()),
        ("proxy.metrics_port", ports.proxy_metrics.to_string()),
        ("framework.port", settings.framework_port.to_string()),
        ("kubernetes.pod_cidr", settings.pod_cidr.clone()),
        ("kubernetes.service_cidr", settings.service_cidr.clone()),
        // Whoever asks for agents here wants to see as many nodes.
        ("nodes.min", agents.to_string()),
        ("pki.source", "file".to_owned()),
        (
            "pki.file",
            paths.installed().join("bundles").display().to_string(),
        ),
        // The agents are of this machine, and what they offer is for pods.
        ("marathon.require_ports", "false".to_owned()),
        ("registry.mirrors", quoted(&mirrors)),
    ]);
    if let Some(door) = settings.front_door {
        sets.push(("proxy.legacy_port", door.legacy.to_string()));
        if shared {
            // The one that the agent offers for pods that ask for it by name, as people know it.
            arguments.push(format!("--node-avoid-ports={}", door.legacy));
        }
    }
    if shared {
        // Below the instance's own directories, where `down` finds everything.
        sets.extend([
            ("nodes.data_dir", paths.node_data().display().to_string()),
            ("nodes.run_dir", paths.node_run().display().to_string()),
        ]);
    }
    sets.push(("framework.extra_args", quoted(&arguments)));
    Install {
        marathon: Some(processes::marathon_url(settings, ports)),
        marathon_ca: None,
        mesos: Some(processes::master_address(settings)),
        which: Which {
            name: Some(settings.name.clone()),
        },
        said: Said {
            files: Vec::new(),
            sets: sets
                .into_iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        },
        artifacts: ArtifactsSource {
            artifacts: Some(paths.artifacts()),
            artifacts_url: Some(processes::artifacts_url(settings, ports)),
            serve: false,
            serve_listen: ([127, 0, 0, 1], ports.artifacts).into(),
            serve_address: None,
            upstream_dir: Some(settings.upstream.clone()),
            programs_dir: Some(settings.programs.clone()),
        },
        // This machine has been looked at.
        no_probe: true,
        // Nodes are waited for once the example is there, whose pods then start with them.
        wait_nodes: Some(0),
        manner: Manner {
            yes: true,
            timeout: left.as_secs().max(1),
            ..Manner::default()
        },
    }
}

/// The kubeconfigs where those of every instance are; the caller's belongs to the caller.
fn hand_out(paths: &Paths, settings: &Settings, home: &Home) -> Result<(), Error> {
    for (from, to) in [
        (home.kubeconfig(), paths.kubeconfig()),
        (home.super_kubeconfig(), paths.super_kubeconfig()),
    ] {
        let content = fs::read(&from).map_err(Error::io(format!("read {}", from.display())))?;
        write_atomic(&to, &content, SECRET).map_err(crate::cluster::Error::from)?;
    }
    let (uid, gid) = settings.owner;
    let path = paths.kubeconfig();
    chown(&path, Some(uid), Some(gid))
        .map_err(Error::io(format!("give {} to its owner", path.display())))
}

#[cfg(test)]
mod tests {
    use packaging::options::Layers;

    use super::*;
    use crate::instance::FrontDoorPorts;

    #[test]
    fn what_is_said_to_the_installer_is_allowed() {
        let paths = Paths::new(std::path::Path::new("/state")).unwrap();
        let ports = MarathonPorts {
            api: 8081,
            artifacts: 8088,
            api_server: 6444,
            proxy_http: 6480,
            proxy_metrics: 6481,
        };
        let settings = Settings {
            mesos: Mesos::Own {
                agents: 1,
                master_port: 5050,
                agent_port: 5051,
                subnet: None,
                resources: None,
            },
            registry_mirrors: vec!["docker.io=http://{address}:5000".to_owned()],
            framework_args: vec!["--node-max-pods=50".to_owned()],
            front_door: Some(FrontDoorPorts {
                legacy: 8080,
                status: 10641,
            }),
            marathon: Some(ports),
            ..Settings::sample()
        };
        let install = install(&paths, &settings, ports, 1, Duration::from_secs(300));
        let mut layers = Layers::new();
        for set in &install.said.sets {
            layers.set(set).unwrap();
        }
        let options = layers.finish().unwrap();
        assert_eq!(options.proxy.legacy_port, 8080);
        assert_eq!(
            options.registry.mirrors,
            ["docker.io=http://192.0.2.7:5000"]
        );
        let arguments = ["--node-max-pods=50", "--node-avoid-ports=8080"];
        assert_eq!(options.framework.extra_args, arguments);
    }
}
