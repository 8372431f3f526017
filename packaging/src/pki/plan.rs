//! Which certificates a control plane needs, as values.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// A certificate authority of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Authority {
    /// Clients and servers of the Kubernetes API, kubelets included.
    Cluster,
    /// Members and clients of etcd.
    Etcd,
    /// The API servers towards aggregated API servers.
    FrontProxy,
}

impl Authority {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Etcd, Self::FrontProxy];

    /// Name of its files, without `.crt` and `.key`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd-ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }

    /// Name of its certificate's file.
    pub fn certificate_file(self) -> String {
        format!("{}.crt", self.file_name())
    }

    /// Name of its key's file.
    pub fn key_file(self) -> String {
        format!("{}.key", self.file_name())
    }

    /// Its common name.
    pub fn common_name(self) -> &'static str {
        match self {
            Self::Cluster => "k8sm cluster CA",
            Self::Etcd => "k8sm etcd CA",
            Self::FrontProxy => "k8sm front proxy CA",
        }
    }
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Usage {
    /// A TLS client's.
    Client,
    /// A TLS server's.
    Server,
    /// Both: members of etcd are each other's clients and servers.
    Both,
}

impl Usage {
    /// Whether it contains a client's.
    pub fn client(self) -> bool {
        self != Self::Server
    }
    /// Whether it contains a server's.
    pub fn server(self) -> bool {
        self != Self::Client
    }
}

/// A certificate of the control plane; also the name of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// The API server as a server.
    ApiServer,
    /// The API server as a client of kubelets.
    ApiServerKubeletClient,
    /// The API server as a client of etcd.
    ApiServerEtcdClient,
    /// The API server as a client of aggregated API servers.
    FrontProxyClient,
    /// etcd as a server of clients: the only member, or the one that a bundle is for.
    EtcdServer,
    /// etcd towards its other members, likewise.
    EtcdPeer,
    /// A member of etcd, by its number, as a server of clients.
    EtcdMemberServer(u8),
    /// A member of etcd, by its number, towards the others.
    EtcdMemberPeer(u8),
    /// The controller manager as a client.
    ControllerManager,
    /// The controller manager's health and metrics port.
    ControllerManagerServer,
    /// The Mesos framework.
    Framework,
    /// konnectivity's server towards its agents.
    KonnectivityServer,
    /// konnectivity's server as a client of the API server (it has tokens reviewed).
    KonnectivityClient,
    /// Whoever uses the front door's port on loopback without credentials.
    LegacyApi,
    /// The administrator, bound to `cluster-admin` by RBAC.
    Admin,
    /// Member of `system:masters`: applies the first RBAC objects. Never leaves the machine.
    SuperAdmin,
}

impl Name {
    /// Name of its files, without `.crt` and `.key`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::ApiServer => "apiserver",
            Self::ApiServerKubeletClient => "apiserver-kubelet-client",
            Self::ApiServerEtcdClient => "apiserver-etcd-client",
            Self::FrontProxyClient => "front-proxy-client",
            Self::EtcdServer => "etcd-server",
            Self::EtcdPeer => "etcd-peer",
            Self::EtcdMemberServer(number) => member(&MEMBER_SERVERS, number),
            Self::EtcdMemberPeer(number) => member(&MEMBER_PEERS, number),
            Self::ControllerManager => "controller-manager",
            Self::ControllerManagerServer => "controller-manager-server",
            Self::Framework => "framework",
            Self::KonnectivityServer => "konnectivity-server",
            Self::KonnectivityClient => "konnectivity-client",
            Self::LegacyApi => "legacy-api",
            Self::Admin => "admin",
            Self::SuperAdmin => "super-admin",
        }
    }
}

impl Name {
    /// Name of its certificate's file.
    pub fn certificate_file(self) -> String {
        format!("{}.crt", self.file_name())
    }

    /// Name of its key's file.
    pub fn key_file(self) -> String {
        format!("{}.key", self.file_name())
    }
}

/// Most members of etcd.
pub const MOST_MEMBERS: u8 = 5;
const MEMBER_SERVERS: [&str; MOST_MEMBERS as usize] = [
    "etcd-0-server",
    "etcd-1-server",
    "etcd-2-server",
    "etcd-3-server",
    "etcd-4-server",
];
const MEMBER_PEERS: [&str; MOST_MEMBERS as usize] = [
    "etcd-0-peer",
    "etcd-1-peer",
    "etcd-2-peer",
    "etcd-3-peer",
    "etcd-4-peer",
];

/// A member's file name; a number that there cannot be has one that nothing else has.
fn member(names: &[&'static str], number: u8) -> &'static str {
    names
        .get(usize::from(number))
        .copied()
        .unwrap_or("etcd-none")
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file_name())
    }
}

/// One certificate as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Which it is.
    pub name: Name,
    /// Who signs it.
    pub authority: Authority,
    /// Common name: the user, for clients.
    pub common_name: String,
    /// Organisation: the group, for clients.
    pub organisation: Option<String>,
    /// What it is for.
    pub usage: Usage,
    /// DNS names of a server.
    pub dns_names: BTreeSet<String>,
    /// Addresses of a server.
    pub addresses: BTreeSet<IpAddr>,
}

/// User that API servers are to kubelets, bound to `system:kubelet-api-admin`
/// ([`crate::addons::access`]).
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";
/// Group of [`KUBELET_CLIENT_USER`].
pub const API_SERVER_GROUP: &str = "system:k8sm:apiservers";
/// Group of administrators, bound to `cluster-admin`.
pub const ADMIN_GROUP: &str = "k8sm:cluster-admins";
/// User that konnectivity's server is to the API server, bound to `system:auth-delegator`.
pub const KONNECTIVITY_USER: &str = "system:konnectivity-server";
/// Name by which konnectivity's agents can reach its servers, whatever their addresses.
pub const KONNECTIVITY_NAME: &str = "konnectivity-server.kube-system.svc";
/// Common name of the front proxy's client certificate.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";
/// User that the framework is to the API server.
pub const FRAMEWORK_USER: &str = "system:k8sm:framework";
/// User that the front door is for requests to its port on loopback: limited to the namespace
/// `default` ([`crate::rbac`]).
pub const LEGACY_API_USER: &str = "system:k8sm:legacy-api";

/// What certificates depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Addresses under which clients reach the API server, loopback and the service's aside.
    pub api_addresses: Vec<IpAddr>,
    /// Names under which clients reach the API server, the service's aside.
    pub api_names: Vec<String>,
    /// Address of the service `default/kubernetes`: the first of the service range.
    pub api_service_address: IpAddr,
    /// Domain of the cluster, `cluster.local`.
    pub dns_domain: String,
    /// Addresses of etcd's members, by their numbers, each with certificates of its own. None: one
    /// member on loopback.
    pub etcd_addresses: Vec<IpAddr>,
    /// Addresses at which konnectivity's agents reach its server.
    pub konnectivity_addresses: Vec<IpAddr>,
}

impl Plan {
    /// The certificates.
    pub fn certificates(&self) -> Vec<Certificate> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client = |name, authority, common_name: &str, organisation: Option<&str>| Certificate {
            name,
            authority,
            common_name: common_name.to_owned(),
            organisation: organisation.map(str::to_owned),
            usage: Usage::Client,
            dns_names: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        let server = |name, authority, common_name: &str, usage, more: &[IpAddr]| Certificate {
            name,
            authority,
            common_name: common_name.to_owned(),
            organisation: None,
            usage,
            dns_names: BTreeSet::from(["localhost".to_owned()]),
            addresses: more.iter().copied().chain([loopback]).collect(),
        };
        let mut api = server(
            Name::ApiServer,
            Authority::Cluster,
            "kube-apiserver",
            Usage::Server,
            &self.api_addresses,
        );
        api.addresses.insert(self.api_service_address);
        api.dns_names.extend(self.api_names.iter().cloned());
        api.dns_names.extend([
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            format!("kubernetes.default.svc.{}", self.dns_domain),
        ]);
        let mut konnectivity = server(
            Name::KonnectivityServer,
            Authority::Cluster,
            "konnectivity-server",
            Usage::Server,
            &self.konnectivity_addresses,
        );
        konnectivity.dns_names.insert(KONNECTIVITY_NAME.to_owned());
        // etcd's own gRPC gateway is a client of the port for clients and uses its certificate.
        let member = |server_name, peer_name, address: &[IpAddr]| {
            [(server_name, "etcd"), (peer_name, "etcd-peer")]
                .map(|(name, cn)| server(name, Authority::Etcd, cn, Usage::Both, address))
        };
        let mut etcd = Vec::new();
        if self.etcd_addresses.is_empty() {
            etcd.extend(member(Name::EtcdServer, Name::EtcdPeer, &[]));
        }
        for (number, address) in (0..MOST_MEMBERS).zip(&self.etcd_addresses) {
            etcd.extend(member(
                Name::EtcdMemberServer(number),
                Name::EtcdMemberPeer(number),
                std::slice::from_ref(address),
            ));
        }
        let mut certificates = vec![
            api,
            client(
                Name::ApiServerKubeletClient,
                Authority::Cluster,
                KUBELET_CLIENT_USER,
                Some(API_SERVER_GROUP),
            ),
            client(
                Name::ApiServerEtcdClient,
                Authority::Etcd,
                "kube-apiserver",
                None,
            ),
            client(
                Name::FrontProxyClient,
                Authority::FrontProxy,
                FRONT_PROXY_CLIENT,
                None,
            ),
            client(
                Name::ControllerManager,
                Authority::Cluster,
                "system:kube-controller-manager",
                None,
            ),
            server(
                Name::ControllerManagerServer,
                Authority::Cluster,
                "kube-controller-manager",
                Usage::Server,
                &[],
            ),
            client(Name::Framework, Authority::Cluster, FRAMEWORK_USER, None),
            konnectivity,
            client(
                Name::KonnectivityClient,
                Authority::Cluster,
                KONNECTIVITY_USER,
                None,
            ),
            client(Name::LegacyApi, Authority::Cluster, LEGACY_API_USER, None),
            client(
                Name::Admin,
                Authority::Cluster,
                "kubernetes-admin",
                Some(ADMIN_GROUP),
            ),
            client(
                Name::SuperAdmin,
                Authority::Cluster,
                "k8sm-super-admin",
                Some("system:masters"),
            ),
        ];
        certificates.extend(etcd);
        certificates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            api_addresses: vec!["192.0.2.7".parse().unwrap()],
            api_names: vec!["api.example.org".to_owned()],
            api_service_address: "10.96.0.1".parse().unwrap(),
            dns_domain: "cluster.local".to_owned(),
            etcd_addresses: vec![],
            konnectivity_addresses: vec!["192.0.2.7".parse().unwrap()],
        }
    }

    #[test]
    fn only_the_super_admin_is_beyond_rbac() {
        let masters: Vec<_> = plan()
            .certificates()
            .into_iter()
            .filter(|c| c.organisation.as_deref() == Some("system:masters"))
            .map(|c| c.name)
            .collect();
        assert_eq!(masters, [Name::SuperAdmin]);
    }

    #[test]
    fn clients_have_no_addresses_and_servers_have_loopback() {
        for c in plan().certificates() {
            if c.usage.server() {
                assert!(c.addresses.contains(&"127.0.0.1".parse().unwrap()));
            } else {
                assert!(c.addresses.is_empty() && c.dns_names.is_empty(), "{c:?}");
            }
        }
    }

    #[test]
    fn each_member_of_etcd_has_only_its_own_address() {
        let members = Plan {
            etcd_addresses: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
            ..plan()
        };
        let found: Vec<String> = members
            .certificates()
            .into_iter()
            .filter(|c| c.authority == Authority::Etcd && c.usage == Usage::Both)
            .map(|c| format!("{} {:?}", c.name, c.addresses))
            .collect();
        assert_eq!(
            found,
            [
                "etcd-0-server {127.0.0.1, 192.0.2.1}",
                "etcd-0-peer {127.0.0.1, 192.0.2.1}",
                "etcd-1-server {127.0.0.1, 192.0.2.2}",
                "etcd-1-peer {127.0.0.1, 192.0.2.2}",
            ]
        );
    }

    #[test]
    fn the_plan_is_as_documented() {
        let lines: Vec<String> = plan()
            .certificates()
            .into_iter()
            .map(|c| {
                format!(
                    "{}: {:?} CA, CN={}{} {:?} {:?} {:?}",
                    c.name,
                    c.authority,
                    c.common_name,
                    c.organisation
                        .map(|o| format!(" O={o}"))
                        .unwrap_or_default(),
                    c.usage,
                    c.dns_names,
                    c.addresses
                )
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
