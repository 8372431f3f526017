//! What was chosen for an instance: made at its first `up`, kept for its life.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use packaging::cidr::Cidr;
use packaging::control_plane::Ports;
use packaging::files::{PUBLIC, SECRET, read_optional, write_atomic};
use serde::{Deserialize, Serialize};

use super::{Error, Paths};

/// The API server's default port, as everywhere.
pub const DEFAULT_API_PORT: u16 = 6443;
/// The Mesos master's default port, as everywhere.
pub const DEFAULT_MESOS_PORT: u16 = 5050;
/// The settings file's version.
const VERSION: u32 = 1;
/// How many ports after the preferred one are tried.
const PORT_TRIES: u16 = 200;

/// Which Mesos the cluster runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mesos {
    /// A devcluster of this instance.
    Own {
        /// How many agents. One shares the machine's network; more have a namespace each.
        agents: u32,
        /// Port of the master.
        master_port: u16,
        /// Port of each agent, at its own address.
        agent_port: u16,
        /// Subnet of the agents' namespaces; none for a single agent.
        subnet: Option<String>,
        /// What each agent offers; none for what the machine has.
        resources: Option<String>,
    },
    /// A Mesos that exists: `zk://...`, `http://...` or `host:port`.
    Existing {
        /// Its address.
        url: String,
    },
}

/// The settings of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Version of this file.
    pub version: u32,
    /// Names the instance in the environment of its processes.
    pub id: String,
    /// Name of the cluster and of the framework.
    pub name: String,
    /// Address at which nodes reach the control plane.
    pub address: IpAddr,
    /// Ports of the control plane.
    pub ports: Ports,
    /// The framework's HTTP port.
    pub framework_port: u16,
    /// Which Mesos.
    pub mesos: Mesos,
    /// Range of pods.
    pub pod_cidr: String,
    /// Range of services.
    pub service_cidr: String,
    /// Image archives that every node gets beside those that a cluster needs.
    #[serde(default)]
    pub images: Vec<PathBuf>,
    /// Mirrors of registries, `HOST=URL`, as the framework's flag takes them.
    #[serde(default)]
    pub registry_mirrors: Vec<String>,
    /// Folder of our own programs.
    pub programs: PathBuf,
    /// Folder of the upstream programs.
    pub upstream: PathBuf,
    /// Further arguments of the framework.
    #[serde(default)]
    pub framework_args: Vec<String>,
    /// Directories of the system that did not exist before: nodes mount over them, and `down`
    /// removes them when they are empty.
    #[serde(default)]
    pub absent_before: Vec<PathBuf>,
    /// Whether this machine forwarded IPv4 packets before: nodes need that, and `down` turns it off
    /// again where it was off.
    #[serde(default)]
    pub forwarding_before: Option<bool>,
    /// Ports of the front door; none without one.
    #[serde(default)]
    pub front_door: Option<FrontDoorPorts>,
    /// Ports of what a control plane of Marathon apps needs besides; none where the supervisor
    /// runs the control plane itself.
    #[serde(default)]
    pub marathon: Option<MarathonPorts>,
    /// User and group that the kubeconfig belongs to.
    pub owner: (u32, u32),
}

/// Ports of the front door on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontDoorPorts {
    /// The API with the limited identity, v1beta1 included.
    pub legacy: u16,
    /// Health and metrics.
    pub status: u16,
}

/// Ports of a cluster that is installed by way of Marathon, besides those that it has anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarathonPorts {
    /// Marathon's API.
    pub api: u16,
    /// Where agents fetch the artifacts.
    pub artifacts: u16,
    /// The API server itself; the front door has the cluster's port.
    pub api_server: u16,
    /// The front door's HTTP side.
    pub proxy_http: u16,
    /// The front door's health and metrics.
    pub proxy_metrics: u16,
}

impl Settings {
    /// Reads the settings; `None` when there is no instance.
    pub fn read(paths: &Paths) -> Result<Option<Self>, Error> {
        let path = paths.settings();
        let Some(bytes) = read_optional(&path)? else {
            return Ok(None);
        };
        let damaged = |reason: String| Error::Damaged {
            path: path.clone(),
            reason,
        };
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let version = value["version"].as_u64().unwrap_or_default();
        if version > u64::from(VERSION) {
            return Err(Error::Newer {
                path,
                found: u32::try_from(version).unwrap_or(u32::MAX),
            });
        }
        let mut settings: Self =
            serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        settings.cidrs().map_err(|e| damaged(e.to_string()))?;
        settings.read_secret(paths);
        Ok(Some(settings))
    }

    /// Fills in the whole address of a Mesos that exists. Others than root do without.
    fn read_secret(&mut self, paths: &Paths) {
        if let Mesos::Existing { url } = &mut self.mesos
            && let Ok(Some(bytes)) = read_optional(&paths.mesos_url())
            && let Ok(whole) = String::from_utf8(bytes)
        {
            *url = whole;
        }
    }

    /// Writes the settings. Everybody may read them, so a password in the address of Mesos goes
    /// into a file of its own.
    pub fn write(&self, paths: &Paths) -> Result<(), Error> {
        let mut public = self.clone();
        if let Mesos::Existing { url } = &mut public.mesos {
            packaging::files::make_dir(&paths.pki(), 0o700)?;
            write_atomic(&paths.mesos_url(), url.as_bytes(), SECRET)?;
            *url = without_password(url);
        }
        let bytes = serde_json::to_vec_pretty(&public).map_err(|e| Error::Damaged {
            path: paths.settings(),
            reason: e.to_string(),
        })?;
        Ok(write_atomic(&paths.settings(), &bytes, PUBLIC)?)
    }

    /// The ranges of pods and services.
    pub fn cidrs(&self) -> Result<(Cidr, Cidr), packaging::cidr::BadCidr> {
        Ok((self.pod_cidr.parse()?, self.service_cidr.parse()?))
    }

    /// The version that this program writes.
    pub fn current_version() -> u32 {
        VERSION
    }
}

/// An address with what stands before an `@` left out.
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}")
}

/// Ports that are being handed out.
#[derive(Debug, Default)]
pub struct PortChooser {
    given: Vec<u16>,
}

impl PortChooser {
    /// The first free port from `near` on, not given to anybody else.
    pub fn near(&mut self, near: u16, what: &'static str) -> Result<u16, Error> {
        (near..near.saturating_add(PORT_TRIES))
            .find(|port| !self.given.contains(port) && is_free(*port))
            .inspect(|port| self.given.push(*port))
            .ok_or(Error::NoPort { what, near })
    }

    /// Keeps a port from being given to anybody else.
    pub fn reserve(&mut self, port: u16) {
        self.given.push(port);
    }

    /// The ports of a control plane whose API server has this port.
    pub fn control_plane(&mut self, api: u16) -> Result<Ports, Error> {
        Ok(Ports {
            api,
            etcd: self.near(2379, "etcd")?,
            etcd_peer: self.near(2380, "etcd's members")?,
            etcd_metrics: self.near(2381, "etcd's health")?,
            controller_manager: self.near(10257, "the controller manager")?,
            konnectivity_agent: self.near(8132, "konnectivity's agents")?,
            konnectivity_admin: self.near(8133, "konnectivity's metrics")?,
            konnectivity_health: self.near(8134, "konnectivity's health")?,
        })
    }
}

/// Whether nothing listens on a port, on any address.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).is_ok()
}

/// Settings for tests.
#[cfg(test)]
impl Settings {
    /// Of a cluster on a Mesos that exists, at its defaults.
    pub(crate) fn sample() -> Self {
        Self {
            version: VERSION,
            id: "0b6a8d3c".to_owned(),
            name: "kubernetes".to_owned(),
            address: "192.0.2.7".parse().unwrap(),
            ports: PortChooser::default().control_plane(6443).unwrap(),
            framework_port: 10640,
            mesos: Mesos::Existing {
                url: "zk://a:2181/mesos".to_owned(),
            },
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            images: Vec::new(),
            registry_mirrors: Vec::new(),
            programs: "/usr/lib/k8sm".into(),
            upstream: "/usr/lib/k8sm/upstream".into(),
            framework_args: vec![],
            absent_before: vec![],
            forwarding_before: None,
            front_door: None,
            marathon: None,
            owner: (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path()).unwrap();
        (dir, paths)
    }

    #[test]
    fn settings_survive_being_written() {
        let (_dir, paths) = instance();
        assert_eq!(Settings::read(&paths).unwrap(), None);
        Settings::sample().write(&paths).unwrap();
        assert_eq!(Settings::read(&paths).unwrap(), Some(Settings::sample()));
    }

    #[test]
    fn damaged_or_newer_settings_are_named_with_the_remedy() {
        let (_dir, paths) = instance();
        std::fs::write(paths.settings(), "{\"version\": 1").unwrap();
        let error = Settings::read(&paths).unwrap_err().to_string();
        assert!(error.contains("settings.json is damaged"), "{error}");
        assert!(error.contains("k8sm down"), "{error}");
        std::fs::write(paths.settings(), "{\"version\": 99}").unwrap();
        let error = Settings::read(&paths).unwrap_err().to_string();
        assert!(error.contains("newer k8sm"), "{error}");
        let mut bad = Settings::sample();
        bad.pod_cidr = "10.0.0.1/8".to_owned();
        bad.write(&paths).unwrap();
        let error = Settings::read(&paths).unwrap_err().to_string();
        assert!(error.contains("10.0.0.1/8"), "{error}");
    }

    #[test]
    fn a_password_is_not_for_everybody() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, paths) = instance();
        let mut with = Settings::sample();
        let url = "zk://user:secret@a:2181,b:2181/mesos".to_owned();
        with.mesos = Mesos::Existing { url: url.clone() };
        with.write(&paths).unwrap();
        let public = std::fs::read_to_string(paths.settings()).unwrap();
        assert!(!public.contains("secret"), "{public}");
        assert!(public.contains("zk://a:2181,b:2181/mesos"), "{public}");
        let mode = std::fs::metadata(paths.mesos_url()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(Settings::read(&paths).unwrap(), Some(with));
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut chooser = PortChooser::default();
        let first = chooser.near(port, "a test").unwrap();
        let second = chooser.near(port, "a test").unwrap();
        assert!(first > port && second > first);
    }
}
