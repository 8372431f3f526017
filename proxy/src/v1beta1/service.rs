//! Services.

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta::{self, Meta};
use super::types::{Service, ServicePort};
use super::{Refused, Resource, said, some};

/// A service as v1.
pub fn to_v1(service: &Service, namespace: Option<&str>) -> Result<v1::Service, Refused> {
    let metadata = meta::to_v1(Resource::Services, service, namespace)?;
    if service.selector.as_ref().is_some_and(|s| s.is_empty()) {
        return Err(Refused::at(
            "selector",
            "{} meant all pods, which v1 cannot say; name a label, or write null for none",
        ));
    }
    let external = service.create_external_load_balancer == Some(true);
    Ok(v1::Service {
        metadata,
        spec: Some(v1::ServiceSpec {
            ports: Some(ports_to_v1(service)?),
            selector: service.selector.clone(),
            type_: external.then(|| "LoadBalancer".to_owned()),
            external_ips: service.public_ips.clone().and_then(some),
            cluster_ip: said(service.portal_ip.as_ref()),
            session_affinity: said(service.session_affinity.as_ref()),
            ..v1::ServiceSpec::default()
        }),
        status: None,
    })
}

/// Number 0 and empty text meant nothing said.
fn said_port(port: Option<&IntOrString>) -> Option<IntOrString> {
    match port? {
        IntOrString::Int(0) => None,
        IntOrString::String(text) if text.is_empty() => None,
        IntOrString::String(text) => Some(
            text.parse()
                .map_or_else(|_| IntOrString::String(text.clone()), IntOrString::Int),
        ),
        number => Some(number.clone()),
    }
}

fn ports_to_v1(service: &Service) -> Result<Vec<v1::ServicePort>, Refused> {
    let protocol = |p: Option<&String>| Some(said(p).unwrap_or_else(|| "TCP".to_owned()));
    // A list of ports rules; the fields beside it are its first one.
    if let Some(ports) = service.ports.clone().and_then(some) {
        return Ok(ports
            .iter()
            .map(|p| {
                let port = p.port.unwrap_or_default();
                v1::ServicePort {
                    name: said(p.name.as_ref()),
                    protocol: protocol(p.protocol.as_ref()),
                    port,
                    target_port: Some(
                        said_port(p.container_port.as_ref()).unwrap_or(IntOrString::Int(port)),
                    ),
                    ..v1::ServicePort::default()
                }
            })
            .collect());
    }
    let target = match said_port(service.container_port.as_ref()) {
        Some(target) => target,
        // Nobody selects pods, so no port of theirs is meant.
        None if service.selector.is_none() => IntOrString::Int(service.port),
        None => {
            return Err(Refused::at(
                "containerPort",
                "it is missing: it meant the pods' first port, which v1 cannot say; write the port's number or name",
            ));
        }
    };
    Ok(vec![v1::ServicePort {
        name: said(service.port_name.as_ref()),
        protocol: protocol(service.protocol.as_ref()),
        port: service.port,
        target_port: Some(target),
        ..v1::ServicePort::default()
    }])
}

/// A service as v1beta1.
pub fn from_v1(service: &v1::Service) -> Service {
    let spec = service.spec.clone().unwrap_or_default();
    let ports: Vec<ServicePort> = spec
        .ports
        .iter()
        .flatten()
        .map(|p| ServicePort {
            name: Some(p.name.clone().unwrap_or_default()),
            protocol: p.protocol.clone(),
            port: Some(p.port),
            container_port: p.target_port.clone(),
        })
        .collect();
    let first = ports.first().cloned().unwrap_or_default();
    let mut out = Service {
        port: first.port.unwrap_or_default(),
        port_name: said(first.name.as_ref()),
        protocol: first.protocol,
        container_port: first.container_port,
        selector: spec.selector.filter(|s| !s.is_empty()),
        create_external_load_balancer: (spec.type_.as_deref() == Some("LoadBalancer"))
            .then_some(true),
        public_ips: spec.external_ips.and_then(some),
        portal_ip: spec.cluster_ip,
        proxy_port: None,
        session_affinity: spec.session_affinity,
        ports: some(ports),
        ..Service::default()
    };
    out.set_meta(meta::from_v1(Resource::Services, &service.metadata));
    out
}
