//! v1beta1's objects as they were in 2014 and 2015, field by field: what Kubernetes v0.2 to v0.20
//! wrote and read. A field that is not here was never one, and is refused.
//!
//! Everything is optional and null counts as not said, as it did then. Numbers that did not fit
//! are refused when they are read.

mod container;
mod controller;
mod minion;
mod pod;
mod service;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use container::{
    Capabilities, Container, Empty, Enabled, EnvSource, EnvVar, ExecAction, FieldSelector, Handler,
    HttpGetAction, Lifecycle, LivenessProbe, Number, Port, Resources, SeLinux, SecurityContext,
    TcpSocketAction, VolumeMount,
};
pub use controller::{ControllerState, PodTemplate, ReplicationController};
pub use minion::{Minion, MinionStatus, NodeAddress, NodeCondition, NodeInfo, NodeResources};
pub use pod::{
    Claim, ContainerState, ContainerStatus, EbsDisk, EmptyDir, GcePersistentDisk, GitRepo, HostDir,
    LocalReference, Manifest, Nfs, Pod, PodCondition, PodState, Reference, RestartPolicy, Running,
    SecretTarget, Terminated, Volume, VolumeSource, Waiting,
};
pub use service::{Service, ServicePort};

/// Labels, selectors, annotations.
pub type Words = BTreeMap<String, String>;

/// An object with v1beta1's inline metadata before its own fields.
macro_rules! object {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$attribute:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name {
            /// Kind, in camel case.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub kind: Option<String>,
            /// Name of the object.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub id: Option<String>,
            /// Unique in space and time.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub uid: Option<String>,
            /// RFC 3339.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub creation_timestamp: Option<String>,
            /// Path of the object, with its namespace as query.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub self_link: Option<String>,
            /// Version of the object.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub resource_version: Option<u64>,
            /// `v1beta1`.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub api_version: Option<String>,
            /// Namespace, `default` when not said.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub namespace: Option<String>,
            /// RFC 3339; set once the object is being deleted.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub deletion_timestamp: Option<String>,
            /// Beginning of a name that the server completes.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub generate_name: Option<String>,
            /// Words for tools.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub annotations: Option<crate::v1beta1::types::Words>,
            /// Words for selectors.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub labels: Option<crate::v1beta1::types::Words>,
            $($(#[$attribute])* pub $field: $type,)*
        }

        impl crate::v1beta1::meta::Meta for $name {
            fn meta(&self) -> crate::v1beta1::meta::Inline<'_> {
                crate::v1beta1::meta::Inline {
                    kind: self.kind.as_deref(),
                    api_version: self.api_version.as_deref(),
                    id: self.id.as_deref(),
                    uid: self.uid.as_deref(),
                    resource_version: self.resource_version,
                    namespace: self.namespace.as_deref(),
                    generate_name: self.generate_name.as_deref(),
                    annotations: self.annotations.as_ref(),
                    labels: self.labels.as_ref(),
                }
            }

            fn set_meta(&mut self, from: crate::v1beta1::meta::Written) {
                self.id = from.id;
                self.uid = from.uid;
                self.creation_timestamp = from.creation_timestamp;
                self.self_link = from.self_link;
                self.resource_version = from.resource_version;
                self.namespace = from.namespace;
                self.deletion_timestamp = from.deletion_timestamp;
                self.generate_name = from.generate_name;
                self.annotations = from.annotations;
                self.labels = from.labels;
            }
        }
    };
}
pub(crate) use object;

/// A part of an object.
macro_rules! part {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$attribute:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$attribute])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }
    };
}
pub(crate) use part;

/// A body of DELETE.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeleteOptions {
    /// `DeleteOptions`.
    pub kind: Option<String>,
    /// `v1beta1`.
    pub api_version: Option<String>,
    /// Seconds that the object may take to end.
    pub grace_period_seconds: Option<i64>,
}
