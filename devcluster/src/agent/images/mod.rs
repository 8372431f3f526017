//! Containers from images: what Mesos' provisioner and the isolators `filesystem/linux`,
//! `docker/runtime` and `volume/host_path` do, and what the Docker containerizer would.
//!
//! | part | module |
//! |---|---|
//! | what an executor asks for, and whether this agent can do it | [`wanted()`] |
//! | where images come from, and those that are unpacked | [`store`] |
//! | command, environment and directory of image and task together | [`runtime`] |
//! | the root file system of one container, and how it is entered | [`rootfs`] |
//! | the process that enters it and becomes the command | [`enter`] |
//!
//! A command task's executor stays on the agent's own file system and only the task enters the
//! image, as with Mesos; any other executor enters it itself. A container has a mount namespace of
//! its own, and shares everything else with its agent, as with Mesos' default isolators: networks
//! are the agent's, processes are seen, users are numbers. Tasks for the Docker containerizer run the same
//! way (there is no daemon), in Docker's manner: the entry point is kept, the image's user counts.
//!
//! | what | here |
//! |---|---|
//! | Appc images | refused by name |
//! | an image's `User` with the Mesos containerizer | ignored, as Mesos does; the task's user counts |
//! | networks other than the agent's, Docker's parameters and volume drivers | refused by name |
//! | volumes | `host_path` (what is missing on the agent is an error, as with Mesos), persistent ones, secrets; others are refused |
//! | image garbage collection | least recently used first, above `--docker-store-bytes`; never what a container uses |

pub mod enter;
pub mod rootfs;
pub mod runtime;
pub mod store;

use std::path::PathBuf;

use mesos::pb;
use oci::Reference;
use oci::credentials::Credentials;
use serde::{Deserialize, Serialize};

use super::secrets::{self, Secrets};
use super::volumes::Mount;

/// Where tasks see their sandbox (Mesos' default of `--sandbox_directory`).
pub const SANDBOX: &str = "/mnt/mesos/sandbox";

/// Where images come from (`--docker_registry`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A directory with an archive `<name of the image>.tar` for each.
    Directory(PathBuf),
    /// A registry, for images whose names say none.
    Registry {
        /// Host and port.
        host: String,
        /// HTTP without TLS.
        plain_http: bool,
    },
}

/// A flag's value that names neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a directory (an absolute path) nor a registry (http:// or https://)")]
pub struct BadOrigin(String);

impl std::str::FromStr for Origin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        if text.starts_with('/') {
            return Ok(Self::Directory(text.into()));
        }
        let (plain_http, host) = match (text.strip_prefix("http://"), text.strip_prefix("https://"))
        {
            (Some(host), _) => (true, host),
            (_, Some(host)) => (false, host),
            _ => return Err(BadOrigin(text.to_owned())),
        };
        let host = host.trim_end_matches('/');
        if host.is_empty() || host.contains('/') {
            return Err(BadOrigin(text.to_owned()));
        }
        let host = match host {
            "registry-1.docker.io" => oci::reference::DOCKER_HUB,
            other => other,
        };
        Ok(Self::Registry {
            host: host.to_owned(),
            plain_http,
        })
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Registry { host, plain_http } => {
                let scheme = if *plain_http { "http" } else { "https" };
                write!(f, "{scheme}://{host}")
            }
        }
    }
}

/// How an agent runs images (`--image_providers=docker`).
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Where they come from.
    pub origin: Origin,
    /// Where they are kept, unpacked (`--docker_store_dir`).
    pub store_dir: PathBuf,
    /// Bytes that are kept at most, those in use aside.
    pub store_bytes: u64,
    /// Who the agent is on registries (`--docker_config`).
    pub credentials: Credentials,
    /// Certificates (PEM) of the authorities that sign the registries' certificates.
    pub authority: Option<Vec<u8>>,
    /// Whether tasks for the Docker containerizer run as well (`--containerizers=mesos,docker`).
    pub docker_containerizer: bool,
}

/// Whose manners a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// The Mesos containerizer's.
    Mesos,
    /// The Docker containerizer's.
    Docker,
}

/// What a container asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The image.
    pub name: Reference,
    /// Whether one that is there by this name is good.
    pub cached: bool,
    /// Whose manners.
    pub manner: Manner,
    /// Whether it may look at everything of the machine.
    pub privileged: bool,
    /// Who to be on the registry, if not who the agent is.
    pub credentials: Option<Credentials>,
    /// Directories and files of the agent that it sees.
    pub binds: Vec<Bind>,
}

/// Something of the agent's that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is on the agent.
    pub source: PathBuf,
    /// Where the container sees it, absolute.
    pub target: PathBuf,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// What an executor's container asks for; none without an image. Errors are said to the framework.
pub fn wanted(
    container: Option<&pb::ContainerInfo>,
    config: Option<&ImagesConfig>,
    secrets: &Secrets,
) -> Result<Option<Wanted>, String> {
    use pb::container_info::Type;
    let Some(container) = container else {
        return Ok(None);
    };
    let found = match container.r#type() {
        Type::Docker => docker_wanted(container, config)?,
        Type::Mesos => mesos_wanted(container, secrets)?,
    };
    let Some(mut wanted) = found else {
        return Ok(None);
    };
    if config.is_none() {
        return Err(
            "Unsupported container image: DOCKER: this agent runs no images; start it with \
             --image-providers=docker"
                .to_owned(),
        );
    }
    if !nix::unistd::geteuid().is_root() {
        return Err("container images need an agent that runs as root".to_owned());
    }
    wanted.binds = binds(&container.volumes)?;
    Ok(Some(wanted))
}

fn mesos_wanted(
    container: &pb::ContainerInfo,
    secrets: &Secrets,
) -> Result<Option<Wanted>, String> {
    let Some(image) = container.mesos.as_ref().and_then(|m| m.image.as_ref()) else {
        return Ok(None);
    };
    let docker = match image.r#type() {
        pb::image::Type::Docker => image.docker.as_ref(),
        pb::image::Type::Appc => {
            return Err(
                "Unsupported container image: APPC: Appc images are not implemented by this \
                 agent; use a Docker image"
                    .to_owned(),
            );
        }
    };
    let docker = docker.ok_or("the image has no name: 'docker' is not set in Image")?;
    let credentials = match &docker.config {
        None => None,
        Some(secret) => {
            let value = secrets.resolve(secret).map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&value);
            let parsed = Credentials::parse(&text, "of the image's pull secret");
            Some(parsed.map_err(|e| e.to_string())?)
        }
    };
    Ok(Some(Wanted {
        name: parse(&docker.name)?,
        cached: image.cached(),
        manner: Manner::Mesos,
        privileged: false,
        credentials,
        binds: Vec::new(),
    }))
}

fn docker_wanted(
    container: &pb::ContainerInfo,
    config: Option<&ImagesConfig>,
) -> Result<Option<Wanted>, String> {
    use pb::container_info::docker_info::Network;
    if config.is_some_and(|c| !c.docker_containerizer) {
        // As Mesos says it, and what to do.
        return Err(
            "None of the enabled containerizers (mesos) could create a container for the \
             provided TaskInfo/ExecutorInfo message; start the agent with \
             --containerizers=mesos,docker"
                .to_owned(),
        );
    }
    let docker = container
        .docker
        .as_ref()
        .ok_or("No docker info found in container info")?;
    if docker.network() != Network::Host {
        return Err(format!(
            "Docker's network {} is not implemented by this agent; use HOST",
            docker.network().as_str_name()
        ));
    }
    if let Some(parameter) = docker.parameters.first() {
        return Err(format!(
            "Docker's parameter `{}` is not implemented by this agent",
            parameter.key
        ));
    }
    #[expect(deprecated, reason = "frameworks may still set it")]
    let driver = docker.volume_driver.is_some();
    if driver {
        return Err("Docker's volume drivers are not implemented by this agent".to_owned());
    }
    Ok(Some(Wanted {
        name: parse(&docker.image)?,
        cached: !docker.force_pull_image(),
        manner: Manner::Docker,
        privileged: docker.privileged(),
        credentials: None,
        binds: Vec::new(),
    }))
}

fn parse(name: &str) -> Result<Reference, String> {
    name.parse()
        .map_err(|e| format!("Failed to parse docker image: {e}"))
}

/// The volumes of a container, those that are secrets aside.
fn binds(volumes: &[pb::Volume]) -> Result<Vec<Bind>, String> {
    let volumes = volumes.iter().filter(|v| !secrets::is_secret(v));
    volumes.map(bind).collect()
}

fn bind(volume: &pb::Volume) -> Result<Bind, String> {
    use pb::volume::source::Type;
    let source = volume.source.as_ref();
    let path = match source {
        Some(s) if s.r#type() == Type::HostPath => s.host_path.as_ref().map(|h| h.path.clone()),
        Some(s) => {
            return Err(format!(
                "volumes of the kind {} are not implemented by this agent",
                s.r#type().as_str_name()
            ));
        }
        None if volume.image.is_some() => {
            return Err("volumes from images are not implemented by this agent".to_owned());
        }
        None => volume.host_path.clone(),
    };
    let path = path.unwrap_or_default();
    if !path.starts_with('/') {
        return Err(format!(
            "the volume at '{}' has the host path '{path}'; only absolute ones are implemented by \
             this agent",
            volume.container_path
        ));
    }
    if std::fs::metadata(&path).is_err() {
        return Err(format!("Path '{path}' in HOST_PATH volume does not exist"));
    }
    let inside = volume.container_path.as_str();
    if inside.is_empty() || inside.split('/').any(|part| part == "..") {
        return Err(format!("'{inside}' is no place for a volume"));
    }
    Ok(Bind {
        source: path.into(),
        // What is relative is in the sandbox.
        target: PathBuf::from(SANDBOX).join(inside),
        read_only: volume.mode() == pb::volume::Mode::Ro,
    })
}

/// Persistent volumes as a container with an image sees them: in its sandbox.
pub fn persistent(layout: &super::paths::Layout, mounts: &[Mount]) -> Result<Vec<Bind>, String> {
    let bind = |mount: &Mount| {
        let name = mount.container_path.as_str();
        if name.is_empty() || name.starts_with('/') || name.split('/').any(|p| p == "..") {
            return Err(format!(
                "the volume {} wants to be seen at '{name}'; only paths below the sandbox are \
                 possible",
                mount.volume.id
            ));
        }
        Ok(Bind {
            source: layout.volume(&mount.volume),
            target: PathBuf::from(SANDBOX).join(name),
            read_only: false,
        })
    };
    mounts.iter().map(bind).collect()
}

#[cfg(test)]
mod tests;
