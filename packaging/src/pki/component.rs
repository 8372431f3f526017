//! The components that run apart from each other, and which files each of them may have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::plan::{Authority, MOST_MEMBERS, Name};

/// A part of the control plane that runs as an app of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Component {
    /// An etcd member by its number.
    Etcd(u8),
    /// The API servers with their konnectivity servers.
    ApiServer,
    /// The controller managers.
    ControllerManager,
    /// The front doors.
    Proxy,
    /// The framework.
    Framework,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd(number) => write!(f, "etcd-{number}"),
            Self::ApiServer => f.write_str("apiserver"),
            Self::ControllerManager => f.write_str("controller-manager"),
            Self::Proxy => f.write_str("proxy"),
            Self::Framework => f.write_str("framework"),
        }
    }
}

/// What is no component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no component: expected etcd-0 to etcd-4, apiserver, controller-manager, proxy or framework"
)]
pub struct BadComponent(pub String);

impl FromStr for Component {
    type Err = BadComponent;
    fn from_str(text: &str) -> Result<Self, BadComponent> {
        (0..MOST_MEMBERS)
            .map(Self::Etcd)
            .chain([
                Self::ApiServer,
                Self::ControllerManager,
                Self::Proxy,
                Self::Framework,
            ])
            .find(|c| c.to_string() == text)
            .ok_or_else(|| BadComponent(text.to_owned()))
    }
}

impl TryFrom<String> for Component {
    type Error = BadComponent;
    fn try_from(text: String) -> Result<Self, BadComponent> {
        text.parse()
    }
}

impl From<Component> for String {
    fn from(component: Component) -> Self {
        component.to_string()
    }
}

/// Name of the file with the API server's EncryptionConfiguration.
pub const ENCRYPTION_FILE: &str = "encryption.yaml";
/// Name of the file with the key that signs service account tokens.
pub const SERVICE_ACCOUNT_KEY: &str = "service-account.key";
/// Name of the file with the public half of [`SERVICE_ACCOUNT_KEY`].
pub const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "service-account.pub";

impl Component {
    /// All components of a control plane with this many etcd members.
    pub fn all(members: u8) -> Vec<Self> {
        let mut all: Vec<Self> = (0..members.min(MOST_MEMBERS)).map(Self::Etcd).collect();
        all.extend([
            Self::ApiServer,
            Self::ControllerManager,
            Self::Proxy,
            Self::Framework,
        ]);
        all
    }

    /// The certificates that it has keys of.
    pub fn certificates(self) -> &'static [Name] {
        match self {
            Self::Etcd(_) => &[Name::EtcdServer, Name::EtcdPeer],
            Self::ApiServer => &[
                Name::ApiServer,
                Name::ApiServerKubeletClient,
                Name::ApiServerEtcdClient,
                Name::FrontProxyClient,
                Name::KonnectivityServer,
                Name::KonnectivityClient,
            ],
            Self::ControllerManager => &[Name::ControllerManager, Name::ControllerManagerServer],
            Self::Proxy => &[Name::LegacyApi],
            Self::Framework => &[Name::Framework],
        }
    }

    /// The certificate as it is called where all of a cluster's are kept: members of etcd have
    /// theirs under one name in their bundles.
    pub fn kept_as(self, name: Name) -> Name {
        match (self, name) {
            (Self::Etcd(number), Name::EtcdServer) => Name::EtcdMemberServer(number),
            (Self::Etcd(number), Name::EtcdPeer) => Name::EtcdMemberPeer(number),
            (_, name) => name,
        }
    }

    /// The authorities whose certificates it checks others by.
    pub fn authorities(self) -> &'static [Authority] {
        match self {
            Self::Etcd(_) => &[Authority::Etcd],
            Self::ApiServer => &[Authority::Cluster, Authority::Etcd, Authority::FrontProxy],
            Self::ControllerManager => &[Authority::Cluster, Authority::FrontProxy],
            Self::Proxy | Self::Framework => &[Authority::Cluster],
        }
    }

    /// The authorities whose keys it has, since it signs with them.
    pub fn signs_for(self) -> &'static [Authority] {
        match self {
            // It signs kubelets' certificates.
            Self::ControllerManager => &[Authority::Cluster],
            _ => &[],
        }
    }

    /// Names of exactly the files that it may have, in order.
    pub fn files(self) -> Vec<String> {
        let mut files: Vec<String> = Vec::new();
        for authority in self.authorities() {
            files.push(authority.certificate_file());
        }
        for authority in self.signs_for() {
            files.push(authority.key_file());
        }
        for name in self.certificates() {
            files.push(name.certificate_file());
            files.push(name.key_file());
        }
        match self {
            Self::ApiServer => files.extend(
                [
                    SERVICE_ACCOUNT_KEY,
                    SERVICE_ACCOUNT_PUBLIC_KEY,
                    ENCRYPTION_FILE,
                ]
                .map(str::to_owned),
            ),
            // It issues the tokens' secrets of old, with the same key.
            Self::ControllerManager => files.push(SERVICE_ACCOUNT_KEY.to_owned()),
            _ => {}
        }
        files.sort();
        files
    }
}
