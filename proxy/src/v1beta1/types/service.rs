//! Services.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Words, object, part};

object! {
    /// A service.
    pub struct Service {
        /// Port.
        pub port: i32,
        /// Name of that port.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub port_name: Option<String>,
        /// `TCP` or `UDP`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub protocol: Option<String>,
        /// Number or name of the containers' port; the first one when not said, which is refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub container_port: Option<IntOrString>,
        /// Pods that serve it. Null: none, somebody else writes the endpoints.
        pub selector: Option<Words>,
        /// With a balancer of the cloud.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub create_external_load_balancer: Option<bool>,
        /// Addresses from outside.
        #[serde(rename = "publicIPs", skip_serializing_if = "Option::is_none")]
        pub public_ips: Option<Vec<String>>,
        /// Its address; `None` for none.
        #[serde(rename = "portalIP", skip_serializing_if = "Option::is_none")]
        pub portal_ip: Option<String>,
        /// Was the server's, and is nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub proxy_port: Option<i32>,
        /// `ClientIP` or `None`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub session_affinity: Option<String>,
        /// All ports; the fields above are the first of them.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ports: Option<Vec<ServicePort>>,
    }
}

part! {
    /// A port of a service.
    pub struct ServicePort {
        /// Its name.
        pub name: String,
        /// `TCP` or `UDP`.
        pub protocol: String,
        /// Port.
        pub port: i32,
        /// Number or name of the containers' port; the same number when not said.
        pub container_port: IntOrString,
    }
}
