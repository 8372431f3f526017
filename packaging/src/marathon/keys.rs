//! Which certificates the components need, from options and facts.

use std::net::IpAddr;

use time::Duration;

use super::Facts;
use crate::cidr::Cidr;
use crate::options::Options;
use crate::pki::{Certificate, Component, Plan};

/// How long certificates live.
pub fn certificate_life(options: &Options) -> Duration {
    Duration::days(options.pki.certificate_days.into())
}

/// The certificates of a component: exactly those that it may have keys of. A member of etcd is
/// told apart from the others by its address; API servers share one certificate, since each of
/// them may run on any of the agents chosen.
pub fn certificates(options: &Options, facts: &Facts, component: Component) -> Vec<Certificate> {
    let api_hosts = facts.api_hosts.iter().map(|host| IpAddr::V4(host.address));
    let given = options.apiserver.names.iter();
    let (addresses, names): (Vec<&String>, Vec<&String>) =
        given.partition(|name| name.parse::<IpAddr>().is_ok());
    let addresses = addresses.into_iter().filter_map(|name| name.parse().ok());
    let clients = facts.client_addresses.iter().copied().map(IpAddr::V4);
    let etcd_addresses = match component {
        Component::Etcd(number) => facts
            .etcd_hosts
            .get(usize::from(number))
            .map(|host| IpAddr::V4(host.address))
            .into_iter()
            .collect(),
        _ => Vec::new(),
    };
    let service = options.kubernetes.service_cidr.parse::<Cidr>().ok();
    let plan = Plan {
        api_addresses: api_hosts.clone().chain(addresses).chain(clients).collect(),
        api_names: names.into_iter().cloned().collect(),
        // The options' checks have seen a range with ten addresses.
        api_service_address: service
            .and_then(|range| range.nth(1))
            .map_or(IpAddr::from([127, 0, 0, 1]), IpAddr::V4),
        dns_domain: options.kubernetes.dns.domain.clone(),
        etcd_addresses,
        konnectivity_addresses: api_hosts.collect(),
    };
    let mut certificates = plan.certificates();
    certificates.retain(|c| component.certificates().contains(&c.name));
    certificates
}
