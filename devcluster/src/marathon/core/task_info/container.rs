//! ContainerInfo of an app's tasks.

use mesos::pb;

use super::environment;
use crate::marathon::model::container::{Container, ContainerType, Docker, Mode, Volume};
use crate::marathon::model::{App, NetworkMode, PortMapping};

/// Name of the network that `container/bridge` means for Mesos' containerizer.
const BRIDGE: &str = "mesos-bridge";

pub(super) fn container(app: &App, host_ports: &[Option<u16>]) -> Option<pb::ContainerInfo> {
    if app.container.is_none() && app.uses_host_network() && app.tty != Some(true) {
        return None;
    }
    let mut info = pb::ContainerInfo {
        r#type: pb::container_info::Type::Mesos as i32,
        ..Default::default()
    };
    let mappings: Vec<(&PortMapping, u16)> = app
        .port_mappings()
        .iter()
        .zip(host_ports)
        .filter_map(|(mapping, port)| port.map(|p| (mapping, p)))
        .collect();
    let container_port = |mapping: &PortMapping, host: u16| match mapping.container_port {
        0 => u32::from(host),
        port => port.into(),
    };
    let docker_type = app
        .container
        .as_ref()
        .is_some_and(|c| c.r#type == ContainerType::Docker);
    if docker_type {
        info.r#type = pb::container_info::Type::Docker as i32;
        let docker = app.container.as_ref().and_then(|c| c.docker.as_ref());
        info.docker = docker.map(|d| docker_info(app, d, &mappings));
    } else {
        let image = app.container.as_ref().and_then(|c| mesos_image(app, c));
        info.mesos = Some(pb::container_info::MesosInfo { image });
    }
    for network in &app.networks {
        let name = match network.mode {
            NetworkMode::Host => continue,
            NetworkMode::Bridge if docker_type => continue,
            NetworkMode::Bridge => Some(BRIDGE.to_owned()),
            NetworkMode::Container => network.name.clone(),
        };
        let on_this = mappings.iter().filter(|(m, _)| {
            m.network_names.is_empty() || name.as_ref().is_some_and(|n| m.network_names.contains(n))
        });
        let port_mappings = on_this.flat_map(|(m, host)| {
            m.protocol
                .names()
                .iter()
                .map(|protocol| pb::network_info::PortMapping {
                    host_port: (*host).into(),
                    container_port: container_port(m, *host),
                    protocol: Some((*protocol).to_owned()),
                })
        });
        info.network_infos.push(pb::NetworkInfo {
            port_mappings: if docker_type {
                Vec::new()
            } else {
                port_mappings.collect()
            },
            name,
            labels: (!network.labels.is_empty()).then(|| environment::labels(&network.labels)),
            ..Default::default()
        });
    }
    let volumes = app.container.iter().flat_map(|c| &c.volumes);
    info.volumes = volumes.filter_map(|v| volume(app, v)).collect();
    if app.tty == Some(true) {
        info.tty_info = Some(pb::TtyInfo::default());
    }
    Some(info)
}

fn docker_info(
    app: &App,
    docker: &Docker,
    mappings: &[(&PortMapping, u16)],
) -> pb::container_info::DockerInfo {
    use pb::container_info::docker_info::{Network, PortMapping as DockerPort};
    let network = match app.networks.first().map(|n| n.mode) {
        Some(NetworkMode::Bridge) => Network::Bridge,
        Some(NetworkMode::Container) => Network::User,
        Some(NetworkMode::Host) | None => Network::Host,
    };
    let ports = mappings.iter().flat_map(|(m, host)| {
        let container_port = match m.container_port {
            0 => u32::from(*host),
            port => port.into(),
        };
        m.protocol.names().iter().map(move |protocol| DockerPort {
            host_port: (*host).into(),
            container_port,
            protocol: Some((*protocol).to_owned()),
        })
    });
    pb::container_info::DockerInfo {
        image: docker.image.clone(),
        network: Some(network as i32),
        port_mappings: ports.collect(),
        privileged: Some(docker.privileged),
        parameters: docker
            .parameters
            .iter()
            .map(|p| pb::Parameter {
                key: p.key.clone(),
                value: p.value.clone(),
            })
            .collect(),
        force_pull_image: Some(docker.force_pull_image),
        ..Default::default()
    }
}

fn mesos_image(app: &App, container: &Container) -> Option<pb::Image> {
    let docker = container.docker.as_ref()?;
    let pull = docker.pull_config.as_ref();
    let secret = pull.and_then(|p| app.secrets.get(&p.secret));
    Some(pb::Image {
        r#type: pb::image::Type::Docker as i32,
        docker: Some(pb::image::Docker {
            name: docker.image.clone(),
            config: secret.map(|s| environment::reference(&s.source)),
            ..Default::default()
        }),
        cached: Some(!docker.force_pull_image),
        ..Default::default()
    })
}

/// Volumes that Marathon itself describes; persistent ones are resources.
fn volume(app: &App, volume: &Volume) -> Option<pb::Volume> {
    let mode = match volume.mode {
        Some(Mode::Ro) => pb::volume::Mode::Ro,
        _ => pb::volume::Mode::Rw,
    };
    let base = pb::Volume {
        mode: mode as i32,
        container_path: volume.container_path.clone(),
        ..Default::default()
    };
    if let Some(path) = &volume.host_path {
        return Some(pb::Volume {
            host_path: Some(path.clone()),
            ..base
        });
    }
    let secret = volume.secret.as_ref()?;
    let source = app.secrets.get(secret)?;
    Some(pb::Volume {
        mode: pb::volume::Mode::Ro as i32,
        source: Some(pb::volume::Source {
            r#type: Some(pb::volume::source::Type::Secret as i32),
            secret: Some(environment::reference(&source.source)),
            ..Default::default()
        }),
        ..base
    })
}
