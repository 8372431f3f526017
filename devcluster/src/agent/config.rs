//! How an agent is set up, each with Mesos' flag and default.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesos::master::MasterUrl;
use mesos::pb;

use super::duration;
use super::images::ImagesConfig;
use super::paths::Layout;
use super::sandbox::MAX_LOG_BYTES;
use crate::resources::Resources;

/// How processes are kept track of (`--launcher`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Launcher {
    /// By cgroups (the freezer on version 1). Needs root.
    #[default]
    Linux,
    /// By session.
    Posix,
}

impl Launcher {
    /// As in the flag.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Posix => "posix",
        }
    }
}

/// How resources are enforced (`--isolation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    /// `cgroups/cpu` rather than `posix/cpu`.
    pub cpu: bool,
    /// `cgroups/mem` rather than `posix/mem`.
    pub memory: bool,
    /// `filesystem/linux`, `docker/runtime` and `volume/host_path`: what containers from images
    /// need.
    pub images: bool,
}

/// The isolators that containers from images need, which come together here.
const IMAGE_ISOLATORS: [&str; 3] = ["filesystem/linux", "docker/runtime", "volume/host_path"];

/// A flag whose value this agent does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}={value}: {why}")]
pub struct BadFlag {
    /// The flag without dashes.
    pub flag: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong and what would be right.
    pub why: String,
}

impl Isolation {
    /// Everything by cgroups.
    pub const CGROUPS: Self = Self {
        cpu: true,
        memory: true,
        images: false,
    };
    /// Nothing enforced; Mesos' own default.
    pub const POSIX: Self = Self {
        cpu: false,
        memory: false,
        images: false,
    };

    /// Reads a list such as `cgroups/cpu,cgroups/mem`.
    pub fn parse(text: &str) -> Result<Self, BadFlag> {
        let mut isolation = Self::POSIX;
        for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            match name {
                "posix/cpu" | "posix/mem" => {}
                "cgroups/cpu" => isolation.cpu = true,
                "cgroups/mem" => isolation.memory = true,
                name if IMAGE_ISOLATORS.contains(&name) => isolation.images = true,
                other => {
                    return Err(BadFlag {
                        flag: "isolation",
                        value: text.to_owned(),
                        why: format!(
                            "isolator `{other}` is not implemented; posix/cpu, posix/mem, \
                             cgroups/cpu, cgroups/mem, filesystem/linux, docker/runtime and \
                             volume/host_path are"
                        ),
                    });
                }
            }
        }
        Ok(isolation)
    }

    /// As in the flag.
    pub fn name(self) -> String {
        let kind = |cgroups| if cgroups { "cgroups" } else { "posix" };
        let mut name = format!("{}/cpu,{}/mem", kind(self.cpu), kind(self.memory));
        for isolator in IMAGE_ISOLATORS.iter().filter(|_| self.images) {
            name.push(',');
            name.push_str(isolator);
        }
        name
    }
}

/// Everything an agent needs to know at its start.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where the agent listens. Its address is also the one it is reached at, unless
    /// `advertise` says otherwise.
    pub listen: SocketAddr,
    /// Address at which others reach it, when it listens on all.
    pub advertise: Option<std::net::IpAddr>,
    /// The masters, or where in ZooKeeper they are.
    pub master: MasterUrl,
    /// Its name in offers.
    pub hostname: String,
    /// What it offers.
    pub resources: Resources,
    /// `--attributes`.
    pub attributes: Vec<pb::Attribute>,
    /// `--domain`.
    pub domain: Option<pb::DomainInfo>,
    /// Its directories.
    pub layout: Layout,
    /// `--launcher`.
    pub launcher: Launcher,
    /// `--isolation`.
    pub isolation: Isolation,
    /// `--cgroups_root`.
    pub cgroups_root: String,
    /// `--cgroups_enable_cfs`.
    pub cgroups_enable_cfs: bool,
    /// `--cgroups_destroy_timeout`.
    pub cgroups_destroy_timeout: Duration,
    /// `--executor_registration_timeout`.
    pub executor_registration_timeout: Duration,
    /// `--executor_reregistration_timeout`, at most 15 s.
    pub executor_reregistration_timeout: Duration,
    /// `--executor_shutdown_grace_period`.
    pub executor_shutdown_grace_period: Duration,
    /// `--recovery_timeout`: how long executors wait for the agent to come back.
    pub recovery_timeout: Duration,
    /// `--gc_delay`: how long sandboxes are kept after the end of their executors.
    pub gc_delay: Duration,
    /// `--gc_disk_headroom`: how much of the disk shall be free, 0 to 1; the less there is, the
    /// earlier sandboxes are removed.
    pub gc_disk_headroom: f64,
    /// Directory of the secrets that tasks may refer to.
    pub secrets_dir: Option<PathBuf>,
    /// What signs executors' tokens, with `--authenticate_http_executors`; without it nobody asks
    /// executors who they are.
    pub executor_key: Option<crate::jwt::Key>,
    /// `--frameworks_home`: where relative file URIs start.
    pub frameworks_home: Option<PathBuf>,
    /// Longest log of a sandbox in bytes.
    pub max_log_bytes: u64,
    /// How containers from images are run; none: they are refused.
    pub images: Option<ImagesConfig>,
    /// Program and arguments with which this program becomes the one that enters an image
    /// ([`super::images::enter::main`]).
    pub enter_helper: Vec<String>,
    /// Program and first arguments with which this very program becomes a container's init
    /// process ([`super::container::init::main`]).
    pub init_helper: Vec<OsString>,
    /// Program and arguments with which it becomes the executor of command tasks
    /// ([`super::command_executor::main`]).
    pub command_executor: Vec<String>,
}

/// Mesos' version that the agent claims to be.
pub const VERSION: &str = "1.12.0";

impl AgentConfig {
    /// Mesos' defaults, with everything of the agent's own below `work_dir`. `program` is this
    /// program with the arguments under which it knows `init` and `command-executor`.
    pub fn new(
        listen: SocketAddr,
        master: MasterUrl,
        work_dir: &std::path::Path,
        program: &[OsString],
    ) -> Self {
        let with = |name: &str| {
            let mut line = program.to_vec();
            line.push(name.into());
            line
        };
        let text = |line: Vec<OsString>| -> Vec<String> {
            let parts = line.iter().map(|part| part.to_string_lossy());
            parts.map(|part| part.into_owned()).collect()
        };
        Self {
            listen,
            advertise: None,
            master,
            hostname: listen.ip().to_string(),
            resources: Resources::default(),
            attributes: Vec::new(),
            domain: None,
            layout: Layout::below(work_dir),
            launcher: Launcher::default(),
            isolation: Isolation::CGROUPS,
            cgroups_root: "mesos".to_owned(),
            cgroups_enable_cfs: false,
            cgroups_destroy_timeout: Duration::from_secs(60),
            executor_registration_timeout: Duration::from_secs(60),
            executor_reregistration_timeout: Duration::from_secs(2),
            executor_shutdown_grace_period: Duration::from_secs(5),
            recovery_timeout: Duration::from_secs(15 * 60),
            gc_delay: Duration::from_secs(7 * 24 * 3600),
            gc_disk_headroom: 0.1,
            secrets_dir: None,
            executor_key: None,
            frameworks_home: None,
            max_log_bytes: MAX_LOG_BYTES,
            images: None,
            enter_helper: text(with("enter")),
            init_helper: with("init"),
            command_executor: text(with("command-executor")),
        }
    }

    /// The flags as Mesos shows them.
    pub fn flags(&self, port: u16) -> Vec<(&'static str, String)> {
        let path = |p: &std::path::Path| p.display().to_string();
        let yes = |b: bool| b.to_string();
        let images = self.images.as_ref();
        let containerizers = match images.is_some_and(|i| i.docker_containerizer) {
            true => "mesos,docker",
            false => "mesos",
        };
        let of_images = images.map(|images| {
            [
                ("docker_registry", images.origin.to_string()),
                ("docker_store_dir", path(&images.store_dir)),
                ("image_providers", "docker".to_owned()),
            ]
        });
        let mut flags = vec![
            (
                "cgroups_destroy_timeout",
                duration::format(self.cgroups_destroy_timeout),
            ),
            ("cgroups_enable_cfs", yes(self.cgroups_enable_cfs)),
            ("cgroups_hierarchy", "/sys/fs/cgroup".to_owned()),
            ("cgroups_limit_swap", yes(false)),
            ("cgroups_root", self.cgroups_root.clone()),
            ("containerizers", containerizers.to_owned()),
            (
                "executor_registration_timeout",
                duration::format(self.executor_registration_timeout),
            ),
            (
                "executor_reregistration_timeout",
                duration::format(self.executor_reregistration_timeout),
            ),
            (
                "executor_shutdown_grace_period",
                duration::format(self.executor_shutdown_grace_period),
            ),
            ("fetcher_cache_dir", path(&self.layout.cache_dir)),
            (
                "frameworks_home",
                self.frameworks_home
                    .as_deref()
                    .map(path)
                    .unwrap_or_default(),
            ),
            ("gc_delay", duration::format(self.gc_delay)),
            ("gc_disk_headroom", self.gc_disk_headroom.to_string()),
            ("hostname", self.hostname.clone()),
            ("http_command_executor", yes(false)),
            ("ip", self.listen.ip().to_string()),
            ("isolation", self.isolation.name()),
            ("launcher", self.launcher.name().to_owned()),
            ("master", self.master.to_string()),
            ("port", port.to_string()),
            ("recover", "reconnect".to_owned()),
            ("recovery_timeout", duration::format(self.recovery_timeout)),
            ("resources", self.resources.to_string()),
            ("runtime_dir", path(&self.layout.runtime_dir)),
            ("sandbox_directory", "/mnt/mesos/sandbox".to_owned()),
            ("strict", yes(true)),
            ("switch_user", yes(true)),
            ("systemd_enable_support", yes(false)),
            ("work_dir", path(&self.layout.work_dir)),
        ];
        flags.extend(of_images.into_iter().flatten());
        flags
    }

    /// What the agent tells the master about itself, without an id.
    pub fn info(&self, port: u16) -> pb::AgentInfo {
        pb::AgentInfo {
            hostname: self.hostname.clone(),
            port: Some(i32::from(port)),
            resources: self
                .resources
                .to_pb(crate::resources::Format::PostRefinement),
            attributes: self.attributes.clone(),
            id: None,
            domain: self.domain.clone(),
            checkpoint: None,
        }
    }

    /// Address at which others reach the agent.
    pub fn ip(&self) -> std::net::IpAddr {
        self.advertise.unwrap_or_else(|| self.listen.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolators_that_are_not_implemented_are_refused_by_name() {
        assert_eq!(
            Isolation::parse("cgroups/cpu,cgroups/mem"),
            Ok(Isolation::CGROUPS)
        );
        assert_eq!(
            Isolation::parse("posix/cpu,posix/mem"),
            Ok(Isolation::POSIX)
        );
        let error = Isolation::parse("gpu/nvidia").unwrap_err().to_string();
        assert!(
            error.starts_with("--isolation=gpu/nvidia: isolator `gpu/nvidia`"),
            "{error}"
        );
        assert_eq!(Isolation::CGROUPS.name(), "cgroups/cpu,cgroups/mem");
        let images = Isolation::parse("cgroups/cpu,filesystem/linux,docker/runtime").unwrap();
        assert_eq!(
            images.name(),
            "cgroups/cpu,posix/mem,filesystem/linux,docker/runtime,volume/host_path"
        );
    }
}
