//! The front door of an instance on one machine: `localhost:8080`, v1beta1 included, with the
//! limited identity. Its TLS side is not used here: there is one API server, at the usual port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use packaging::control_plane::{ControlPlane, Readiness};
use packaging::pki::{Authority, Name};

use super::processes::shares_host_network;
use crate::catalog::{Catalog, Own};
use crate::instance::{Mesos, Settings};
use crate::supervise::ProcessSpec;

/// Name of its process.
pub const NAME: &str = "front-door";
/// The port that Kubernetes had in its first year.
pub const LEGACY_PORT: u16 = 8080;
/// Ports that Mesos agents offer when they are not told.
const MESOS_PORTS: &str = "31000-32000";

/// Its process; none when the instance has no front door.
pub fn process(
    settings: &Settings,
    control_plane: &ControlPlane,
    catalog: &Catalog,
) -> Option<ProcessSpec> {
    let ports = settings.front_door?;
    let pki = &control_plane.pki;
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let authority = pki.authority_certificate(Authority::Cluster);
    let (certificate, key) = (pki.certificate(Name::LegacyApi), pki.key(Name::LegacyApi));
    let args = vec![
        format!("--backend={}", loopback(settings.ports.api)),
        format!("--ca-file={}", authority.display()),
        format!("--legacy-listen={}", loopback(ports.legacy)),
        format!("--legacy-certificate={}", certificate.display()),
        format!("--legacy-key={}", key.display()),
        format!("--status-listen={}", loopback(ports.status)),
        // For the people of one machine.
        "--max-connections=512".to_owned(),
        "--drain-seconds=2".to_owned(),
    ];
    let process = ProcessSpec {
        name: NAME.to_owned(),
        program: catalog.own(Own::Proxy),
        args,
        env: Vec::new(),
        readiness: Readiness::Http {
            address: loopback(ports.status),
            path: "/readyz".to_owned(),
        },
        after: vec!["kube-apiserver".to_owned()],
        stop_seconds: 5,
        fingerprint: String::new(),
    };
    // It reads its certificates again itself: only another program or other arguments restart it.
    Some(process.seal(&[]))
}

/// What the one agent that shares the machine's network offers: the usual ports, and the one that
/// stands beside our own on the machine's other addresses, for pods that ask for it.
pub fn agent_resources(settings: &Settings) -> Option<String> {
    let Mesos::Own { resources, .. } = &settings.mesos else {
        return None;
    };
    match (resources, settings.front_door) {
        (None, Some(ports)) if shares_host_network(settings) => {
            Some(format!("ports:[{0}-{0},{MESOS_PORTS}]", ports.legacy))
        }
        _ => resources.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::FrontDoorPorts;

    fn settings(agents: u32, resources: Option<&str>, front_door: bool) -> Settings {
        Settings {
            mesos: Mesos::Own {
                agents,
                master_port: 5050,
                agent_port: 5051,
                subnet: None,
                resources: resources.map(str::to_owned),
            },
            front_door: front_door.then_some(FrontDoorPorts {
                legacy: 8080,
                status: 10641,
            }),
            ..Settings::sample()
        }
    }

    #[test]
    fn the_one_agent_offers_the_front_doors_port_too_unless_it_is_told_what_to_offer() {
        let offered = |agents, resources, door| agent_resources(&settings(agents, resources, door));
        assert_eq!(
            offered(1, None, true).as_deref(),
            Some("ports:[8080-8080,31000-32000]")
        );
        assert_eq!(offered(1, None, false), None);
        assert_eq!(offered(3, None, true), None);
        assert_eq!(offered(1, Some("cpus:1"), true).as_deref(), Some("cpus:1"));
    }
}
