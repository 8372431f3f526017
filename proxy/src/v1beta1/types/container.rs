//! Containers and what they hold.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use super::part;

part! {
    /// A container of a pod.
    pub struct Container {
        /// A DNS label.
        pub name: String,
        /// Image.
        pub image: String,
        /// Entrypoint; the image's when not said.
        pub entrypoint: Vec<String>,
        /// Arguments to the entrypoint; the image's when not said.
        pub command: Vec<String>,
        /// Working directory.
        pub working_dir: String,
        /// Ports.
        pub ports: Vec<Port>,
        /// Environment.
        pub env: Vec<EnvVar>,
        /// Limits and requests.
        pub resources: Resources,
        /// Limit in thousandths of a core.
        pub cpu: i64,
        /// Limit in bytes.
        pub memory: i64,
        /// Where volumes appear.
        pub volume_mounts: Vec<VolumeMount>,
        /// Restarted when it fails.
        pub liveness_probe: LivenessProbe,
        /// Not served to when it fails.
        pub readiness_probe: LivenessProbe,
        /// Hooks.
        pub lifecycle: Lifecycle,
        /// File whose content is the last message.
        pub termination_message_path: String,
        /// May do everything; the security context's is the same thing.
        pub privileged: bool,
        /// `PullAlways`, `PullNever`, `PullIfNotPresent`.
        pub image_pull_policy: String,
        /// The security context's is the same thing.
        pub capabilities: Capabilities,
        /// Rights.
        pub security_context: SecurityContext,
    }
}

part! {
    /// A port of a container.
    pub struct Port {
        /// A DNS label.
        pub name: String,
        /// Port of the host.
        pub host_port: i32,
        /// Port of the container.
        pub container_port: i32,
        /// `TCP` or `UDP`.
        pub protocol: String,
        /// Address of the host.
        #[serde(rename = "hostIP")]
        pub host_ip: String,
    }
}

part! {
    /// An environment variable.
    pub struct EnvVar {
        /// Name.
        pub name: String,
        /// Name, as it was called first.
        pub key: String,
        /// Value.
        pub value: String,
        /// Or where it comes from.
        pub value_from: EnvSource,
    }
}

part! {
    /// Where a variable's value comes from.
    pub struct EnvSource {
        /// A field of the pod.
        pub field_ref: FieldSelector,
    }
}

part! {
    /// A field of the pod.
    pub struct FieldSelector {
        /// The version that the path is written in.
        pub api_version: String,
        /// The path.
        pub field_path: String,
    }
}

part! {
    /// Limits and requests. Values are plain numbers: cores, bytes.
    pub struct Resources {
        /// At most.
        pub limits: BTreeMap<String, Number>,
        /// At least.
        pub requests: BTreeMap<String, Number>,
    }
}

/// A number, or its decimal text: v1beta1 wrote cores as text and bytes as numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// A number.
    Number(serde_json::Number),
    /// Its text.
    Text(String),
}

part! {
    /// Where a volume appears in a container.
    pub struct VolumeMount {
        /// The volume.
        pub name: String,
        /// Whether it is read-only.
        pub read_only: bool,
        /// Path in the container.
        pub mount_path: String,
        /// The same, as it was called first.
        pub path: String,
        /// Ignored since v0.5: `LOCAL` or `HOST`.
        pub mount_type: String,
    }
}

part! {
    /// A probe.
    pub struct LivenessProbe {
        /// `false` leaves the probe out; true or its text otherwise.
        pub enabled: Enabled,
        /// `http`, `tcp` or `exec`; what the probe holds says the same.
        #[serde(rename = "type")]
        pub kind: String,
        /// Asks over HTTP.
        pub http_get: HttpGetAction,
        /// Connects.
        pub tcp_socket: TcpSocketAction,
        /// Runs a command in the container.
        pub exec: ExecAction,
        /// Seconds from the container's start to the first question.
        pub initial_delay_seconds: i32,
        /// Seconds that an answer may take; 1 when not said.
        pub timeout_seconds: i32,
    }
}

/// A truth, or its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Enabled {
    /// A truth.
    Truth(bool),
    /// Its text.
    Text(String),
}

part! {
    /// A question over HTTP.
    pub struct HttpGetAction {
        /// Path.
        pub path: String,
        /// Number or name of a port.
        pub port: IntOrString,
        /// The pod's address when not said.
        pub host: String,
    }
}

part! {
    /// A connection.
    pub struct TcpSocketAction {
        /// Number or name of a port.
        pub port: IntOrString,
    }
}

part! {
    /// A command in the container.
    pub struct ExecAction {
        /// Program and arguments.
        pub command: Vec<String>,
    }
}

part! {
    /// Hooks of a container.
    pub struct Lifecycle {
        /// After the start.
        pub post_start: Handler,
        /// Before the end.
        pub pre_stop: Handler,
    }
}

part! {
    /// A hook.
    pub struct Handler {
        /// A command.
        pub exec: ExecAction,
        /// A question.
        pub http_get: HttpGetAction,
        /// A connection; was never carried out.
        pub tcp_socket: TcpSocketAction,
    }
}

part! {
    /// Linux capabilities.
    pub struct Capabilities {
        /// Given.
        pub add: Vec<String>,
        /// Taken.
        pub drop: Vec<String>,
    }
}

part! {
    /// Rights of a container.
    pub struct SecurityContext {
        /// Linux capabilities.
        pub capabilities: Capabilities,
        /// May do everything.
        pub privileged: bool,
        /// SELinux' labels.
        pub se_linux_options: SeLinux,
        /// User id.
        pub run_as_user: i64,
    }
}

part! {
    /// SELinux' labels.
    pub struct SeLinux {
        /// User.
        pub user: String,
        /// Role.
        pub role: String,
        /// Type.
        #[serde(rename = "type")]
        pub kind: String,
        /// Level.
        pub level: String,
    }
}

/// `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}
