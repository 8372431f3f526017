//! What a task sees on an agent: one short probe per agent, before anything is installed. The app
//! runs `k8sm run probe` on every agent at once; each answers over HTTP with a [`Report`], which
//! is judged here, and the app is deleted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::helper::Helper;
use super::preflight::{Finding, Level, finding, version};
use crate::marathon::app::{App, BadAppId, Container, Image};
use crate::marathon::{Artifact, containerizer, image};
use crate::options::Options;
use crate::pki::Component;

/// Environment variable with the [`Probe`].
pub const PROBE_ENV: &str = "K8SM_PROBE";
/// Path under which a probe answers with its [`Report`].
pub const PROBE_PATH: &str = "/probe";
/// Where nodes keep their data unless `nodes.data_dir` says otherwise.
const DATA_DIR: &str = "/var/lib/k8sm";
/// A probe that nobody ends does so itself, seconds.
const LIFE_SECONDS: u64 = 600;
/// kube-proxy's nftables mode refuses older kernels.
const NFTABLES_KERNEL: (u32, u32) = (5, 13);
/// Room that a node wants for its payload, images and pods: bytes.
const NODE_SPACE: u64 = 3 << 30;
/// A clock that is off by more than this makes fresh certificates look as if they were not valid
/// yet, and leases as if they had ended: seconds.
const CLOCK_OFF: f64 = 5.0;

/// What a probe looks at: the variable [`PROBE_ENV`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Below this directory nodes keep their data.
    pub data_dir: String,
    /// What tasks have to reach: URLs, or `host:port`.
    pub reach: Vec<String>,
    /// When it ends by itself, seconds.
    pub life_seconds: u64,
}

impl Probe {
    /// What to look at for an installation whose artifacts are at `artifacts`. `api_servers` are
    /// the places of API servers, where these are chosen already.
    pub fn new(options: &Options, artifacts: &str, api_servers: &[String]) -> Self {
        let mut reach = vec![format!(
            "{}/{}",
            artifacts.trim_end_matches('/'),
            super::artifacts::FILE
        )];
        // `docker.io=https://mirror.example.org`.
        let mirrors = options.registry.mirrors.iter();
        for (_, mirror) in mirrors.filter_map(|m| m.split_once('=')) {
            reach.push(format!("{}/v2/", mirror.trim_end_matches('/')));
        }
        reach.extend(api_servers.iter().cloned());
        Self {
            data_dir: match options.nodes.data_dir.as_str() {
                "" => DATA_DIR.to_owned(),
                given => given.to_owned(),
            },
            reach,
            life_seconds: LIFE_SECONDS,
        }
    }
}

/// Which cgroups an agent has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupVersion {
    /// None are mounted.
    #[default]
    None,
    /// One hierarchy per controller.
    V1,
    /// The unified one.
    V2,
}

/// What a probe saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Whether it ran as root.
    pub root: bool,
    /// The kernel, as it calls itself.
    pub kernel: String,
    /// Which cgroups.
    pub cgroups: CgroupVersion,
    /// Controllers that kubelet needs and that are missing.
    pub missing_controllers: Vec<String>,
    /// Whether overlayfs is there.
    pub overlay: bool,
    /// Programs that nodes call and that are missing, with Debian's packages.
    pub missing_tools: BTreeMap<String, String>,
    /// Free bytes where nodes keep their data.
    pub space_free: u64,
    /// Its machine's processors; none where it could not tell.
    pub cpus: Option<u64>,
    /// Its machine's memory, huge pages aside, MiB; likewise.
    pub mem: Option<u64>,
    /// Its clock when it answered, seconds since 1970.
    pub clock: f64,
    /// What it could not reach, and why.
    pub unreachable: BTreeMap<String, String>,
    /// Flags of its Mesos agent, those that matter; none where the agent did not say.
    pub flags: Option<BTreeMap<String, String>>,
}

/// Flags of a Mesos agent that a report has.
pub const FLAGS: [&str; 6] = [
    "isolation",
    "launcher",
    "containerizers",
    "image_providers",
    "switch_user",
    "cgroups_enable_cfs",
];

/// What is known of one agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probed {
    /// Its host name.
    pub agent: String,
    /// What its probe said.
    pub report: Option<Report>,
    /// CPUs that it offers to tasks.
    pub cpus: f64,
    /// Memory that it offers to tasks, MiB.
    pub mem: f64,
    /// How far its clock is ahead of this machine's, seconds.
    pub clock_off: f64,
    /// Why there is no report.
    pub why: String,
}

/// The app that runs a probe on each of `agents` agents. `program` is `k8sm` where apps run as
/// plain artifacts.
pub fn app(
    options: &Options,
    probe: &Probe,
    install_id: &str,
    version: &str,
    program: Option<&Artifact>,
    agents: u32,
) -> Result<App, BadAppId> {
    let helper = Helper {
        name: "probe",
        variable: PROBE_ENV,
        spec: json!(probe).to_string(),
        install_id,
        version,
        agents,
    };
    let mut app = helper.app(options)?;
    match containerizer(options) {
        Some(kind) => {
            app.args = Some(vec!["run".to_owned(), "probe".to_owned()]);
            app.container = Some(Container {
                kind,
                docker: Some(Image {
                    image: image(options, version, Component::Framework),
                    force_pull_image: options.images.force_pull,
                }),
                volumes: Vec::new(),
            });
        }
        None => helper.plain(options, program, &mut app),
    }
    Ok(app)
}

/// Something that is wrong with an agent.
struct Objection {
    /// Nothing of ours can run there.
    bars_apps: bool,
    /// No node can run there.
    bars_nodes: bool,
    what: String,
    remedy: &'static str,
}

impl Objection {
    fn apps(what: String, remedy: &'static str) -> Self {
        Self {
            bars_apps: true,
            bars_nodes: true,
            what,
            remedy,
        }
    }

    fn nodes(what: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            bars_apps: false,
            bars_nodes: true,
            what: what.into(),
            remedy,
        }
    }

    fn nothing(what: String, remedy: &'static str) -> Self {
        Self {
            bars_apps: false,
            bars_nodes: false,
            what,
            remedy,
        }
    }
}

fn objections(probed: &Probed) -> Vec<Objection> {
    let Some(report) = &probed.report else {
        return vec![Objection::apps(
            format!("its probe did not answer: {}", probed.why),
            "see that tasks of Marathon run there, and that this machine reaches the agent's ports",
        )];
    };
    let mut found = Vec::new();
    machine(report, &mut found);
    for (what, offered, has) in [
        ("CPUs", probed.cpus, report.cpus),
        ("MiB of memory", probed.mem, report.mem),
    ] {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        if let Some(has) = has.filter(|has| offered > *has as f64) {
            found.push(Objection::nodes(
                format!("it offers {offered} {what}, and its machine has {has}"),
                "set --resources of the Mesos agent to what the machine has",
            ));
        }
    }
    if report.space_free < NODE_SPACE {
        found.push(Objection::nothing(
            format!(
                "{} are free for a node, {} are comfortable",
                gib(report.space_free),
                gib(NODE_SPACE)
            ),
            "free some, or set nodes.data_dir to a directory on a larger disk",
        ));
    }
    if probed.clock_off.abs() > CLOCK_OFF {
        found.push(Objection::nothing(
            format!("its clock is off by {:.0} s", probed.clock_off),
            "let NTP set the clocks: certificates and leases depend on them",
        ));
    }
    for (what, why) in &report.unreachable {
        found.push(Objection::nothing(
            format!("it cannot reach {what}: {why}"),
            "open the way, or name another address",
        ));
    }
    if let Some(flags) = &report.flags {
        let isolation = flags.get("isolation").map_or("", String::as_str);
        if !isolation.contains("cgroups/") {
            found.push(Objection::nothing(
                format!(
                    "Mesos does not hold tasks to their resources there (--isolation={isolation})"
                ),
                "nodes hold their pods all the same; add cgroups/cpu,cgroups/mem for other tasks",
            ));
        }
    }
    found
}

fn machine(report: &Report, found: &mut Vec<Objection>) {
    if !report.root {
        found.push(Objection::nodes(
            "tasks do not run as root, which nodes need",
            "run the Mesos agent as root, and set service.user to root",
        ));
    }
    let kernel = version(&report.kernel);
    if kernel != (0, 0) && kernel < NFTABLES_KERNEL {
        found.push(Objection::nothing(
            format!(
                "its kernel {} is older than {}.{}: kube-proxy uses iptables there",
                report.kernel, NFTABLES_KERNEL.0, NFTABLES_KERNEL.1
            ),
            "",
        ));
    }
    if report.cgroups == CgroupVersion::None {
        found.push(Objection::nodes(
            "it has no cgroups",
            "mount them: mount -t cgroup2 none /sys/fs/cgroup",
        ));
    } else if !report.missing_controllers.is_empty() {
        found.push(Objection::nodes(
            format!(
                "it lacks the cgroup controllers {}",
                report.missing_controllers.join(", ")
            ),
            "mount them (v1), or delegate them from the root (v2)",
        ));
    }
    if !report.overlay {
        found.push(Objection::nodes(
            "it has no overlayfs, on which containers' file systems stand",
            "load the kernel module: modprobe overlay",
        ));
    }
    for (tool, package) in &report.missing_tools {
        found.push(Objection::nodes(
            format!("the program `{tool}` is missing (Debian's package {package})"),
            "install it on the agent",
        ));
    }
}

/// What is wrong with the agents. An agent on which nothing can run is a warning as long as it is
/// none of `chosen`, where etcd and the API servers will be, and as long as nodes can run elsewhere.
pub fn judge(probed: &[Probed], chosen: &[&str]) -> Vec<Finding> {
    let all: Vec<(&str, Vec<Objection>)> = probed
        .iter()
        .map(|p| (p.agent.as_str(), objections(p)))
        .collect();
    let nowhere = all.iter().all(|(_, o)| o.iter().any(|o| o.bars_nodes));
    let mut findings = Vec::new();
    for (agent, objections) in all {
        for objection in objections {
            let fatal = (objection.bars_apps && chosen.contains(&agent))
                || (objection.bars_nodes && nowhere);
            let level = if fatal { Level::Fatal } else { Level::Warning };
            let no_node = match objection.bars_nodes {
                true => "; no node can run there",
                false => "",
            };
            let what = format!("agent {agent}: {}{no_node}", objection.what);
            findings.push(finding(level, what, objection.remedy));
        }
    }
    findings
}

/// Head of [`rows`].
pub const HEAD: [&str; 8] = [
    "AGENT",
    "KERNEL",
    "CGROUPS",
    "OVERLAY",
    "FREE",
    "CLOCK",
    "REACHES",
    "ISOLATION",
];

/// One line per agent, for people.
pub fn rows(probed: &[Probed]) -> Vec<Vec<String>> {
    probed
        .iter()
        .map(|agent| {
            let Some(report) = &agent.report else {
                let mut row = vec![agent.agent.clone()];
                row.resize(HEAD.len() - 1, "-".to_owned());
                row.push(agent.why.clone());
                return row;
            };
            let cgroups = match report.cgroups {
                CgroupVersion::None => "none",
                CgroupVersion::V1 => "v1",
                CgroupVersion::V2 => "v2",
            };
            let isolation = report.flags.as_ref().and_then(|f| f.get("isolation"));
            vec![
                agent.agent.clone(),
                report.kernel.clone(),
                cgroups.to_owned(),
                if report.overlay { "yes" } else { "no" }.to_owned(),
                gib(report.space_free),
                format!("{:+.1} s", agent.clock_off),
                match report.unreachable.len() {
                    0 => "all".to_owned(),
                    n => format!("not {n}"),
                },
                isolation.cloned().unwrap_or_else(|| "unknown".to_owned()),
            ]
        })
        .collect()
}

fn gib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let gib = bytes as f64 / f64::from(1 << 30);
    format!("{gib:.1} GiB")
}

#[cfg(test)]
mod tests;
