//! Which certificates nodes get: one pure decision per CertificateSigningRequest.
//!
//! A request is approved only if the requestor is one of our nodes, or the bearer of the
//! bootstrap token made for it, and the certificate is that node's and nothing more: the exact
//! subject, the exact usages, no names but its own. Anything else from such a requestor is
//! denied. Requests of others are left to others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use seam::names::{BOOTSTRAP_GROUP, PROXY_GROUP, PROXY_USER_PREFIX};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::FromDer;

use super::bootstrap::{TokenId, USER_PREFIX};

/// Signer of kubelets' client certificates.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signer of kubelets' serving certificates.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Signer of client certificates, here of kube-proxy's.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

const NODE_USER_PREFIX: &str = "system:node:";
const NODE_GROUP: &str = "system:nodes";
/// Longest request that is looked at. Those of nodes have some 500 to 2,000 bytes.
const MAX_REQUEST: usize = 16 * 1024;

/// A node, as far as certificates are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownNode {
    /// Addresses that its kubelet may serve on.
    pub addresses: BTreeSet<IpAddr>,
    /// Bootstrap tokens that were made for it and may still be used.
    pub tokens: BTreeSet<TokenId>,
}

/// The nodes that may have certificates, by name.
pub type KnownNodes = BTreeMap<String, KnownNode>;

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It gets its certificate.
    Approve {
        /// Name of the node.
        node: String,
        /// Which of its certificates.
        what: &'static str,
    },
    /// It gets none. The sentence says why.
    Deny {
        /// What is wrong.
        why: String,
    },
    /// It is decided already, or not ours to decide, or names a node that we do not know (yet).
    Ignore,
}

/// The requestor, as the API server authenticated it.
enum Requestor<'a> {
    /// Bears a bootstrap token of a node.
    Bootstrap { node: &'a str },
    /// A kubelet.
    Kubelet { node: &'a str },
    /// A kube-proxy.
    Proxy { node: &'a str },
}

impl Requestor<'_> {
    fn node(&self) -> &str {
        match self {
            Self::Bootstrap { node } | Self::Kubelet { node } | Self::Proxy { node } => node,
        }
    }
}

/// Decides about a request.
pub fn decide(csr: &CertificateSigningRequest, nodes: &KnownNodes) -> Decision {
    let decided = csr.status.as_ref().is_some_and(|status| {
        let conditions = status.conditions.iter().flatten();
        let mut final_ones =
            conditions.filter(|c| matches!(c.type_.as_str(), "Approved" | "Denied" | "Failed"));
        status.certificate.is_some() || final_ones.next().is_some()
    });
    let signer = csr.spec.signer_name.as_str();
    if decided || ![KUBELET_CLIENT, KUBELET_SERVING, CLIENT].contains(&signer) {
        return Decision::Ignore;
    }
    let Some(requestor) = requestor(csr, nodes) else {
        return Decision::Ignore;
    };
    match check(csr, &requestor, nodes) {
        Ok(what) => Decision::Approve {
            node: requestor.node().to_owned(),
            what,
        },
        Err(why) => Decision::Deny { why },
    }
}

fn requestor<'a>(
    csr: &'a CertificateSigningRequest,
    nodes: &'a KnownNodes,
) -> Option<Requestor<'a>> {
    let user = csr.spec.username.as_deref()?;
    let in_group = |group: &str| csr.spec.groups.iter().flatten().any(|g| g == group);
    let known = |name: &'a str| nodes.contains_key(name).then_some(name);
    if let Some(id) = user.strip_prefix(USER_PREFIX) {
        let id = TokenId::parse(id).filter(|_| in_group(BOOTSTRAP_GROUP))?;
        let mut owners = nodes.iter().filter(|(_, node)| node.tokens.contains(&id));
        return owners.next().map(|(node, _)| Requestor::Bootstrap { node });
    }
    if let Some(name) = user
        .strip_prefix(NODE_USER_PREFIX)
        .filter(|_| in_group(NODE_GROUP))
    {
        return known(name).map(|node| Requestor::Kubelet { node });
    }
    let name = user
        .strip_prefix(PROXY_USER_PREFIX)
        .filter(|_| in_group(PROXY_GROUP))?;
    known(name).map(|node| Requestor::Proxy { node })
}

fn check(
    csr: &CertificateSigningRequest,
    requestor: &Requestor<'_>,
    nodes: &KnownNodes,
) -> Result<&'static str, String> {
    let node = requestor.node();
    let request = Request::parse(&csr.spec.request.0)?;
    let kubelet = format!("{NODE_USER_PREFIX}{node}");
    match csr.spec.signer_name.as_str() {
        KUBELET_CLIENT => {
            if matches!(requestor, Requestor::Proxy { .. }) {
                return Err("a kube-proxy gets no kubelet certificate".to_owned());
            }
            request.require_subject(&kubelet, NODE_GROUP)?;
            request.require_no_names()?;
            require_usages(csr, "client auth")?;
            Ok("kubelet's client certificate")
        }
        KUBELET_SERVING => {
            if !matches!(requestor, Requestor::Kubelet { .. }) {
                return Err(format!(
                    "only {kubelet} itself may ask for its serving certificate"
                ));
            }
            request.require_subject(&kubelet, NODE_GROUP)?;
            request.require_names_of(node, nodes.get(node).map(|n| &n.addresses))?;
            require_usages(csr, "server auth")?;
            Ok("kubelet's serving certificate")
        }
        _ => {
            request.require_subject(&format!("{PROXY_USER_PREFIX}{node}"), PROXY_GROUP)?;
            request.require_no_names()?;
            require_usages(csr, "client auth")?;
            Ok("kube-proxy's client certificate")
        }
    }
}

fn require_usages(csr: &CertificateSigningRequest, purpose: &str) -> Result<(), String> {
    let usages: BTreeSet<&str> = csr
        .spec
        .usages
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let mut needed = BTreeSet::from(["digital signature", purpose]);
    // Only RSA keys encipher keys; kubelet asks accordingly.
    let plain = usages == needed;
    needed.insert("key encipherment");
    if plain || usages == needed {
        return Ok(());
    }
    let list: Vec<&str> = usages.into_iter().collect();
    Err(format!(
        "usages are {}, expected digital signature, {purpose} and at most key encipherment",
        list.join(", ")
    ))
}

/// What a PKCS #10 request asks for.
#[derive(Debug, Default)]
struct Request {
    common_names: Vec<String>,
    organizations: Vec<String>,
    other_attributes: usize,
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    other_names: usize,
}

impl Request {
    fn parse(pem_bytes: &[u8]) -> Result<Self, String> {
        if pem_bytes.len() > MAX_REQUEST {
            return Err(format!("the request has more than {MAX_REQUEST} bytes"));
        }
        let blocks =
            pem::parse_many(pem_bytes).map_err(|e| format!("the request is no PEM: {e}"))?;
        let [block] = blocks.as_slice() else {
            return Err(format!(
                "the request has {} PEM blocks, expected one",
                blocks.len()
            ));
        };
        if block.tag() != "CERTIFICATE REQUEST" {
            return Err(format!(
                "the request is a PEM {}, expected CERTIFICATE REQUEST",
                block.tag()
            ));
        }
        let (rest, parsed) = X509CertificationRequest::from_der(block.contents())
            .map_err(|e| format!("the request cannot be read: {e}"))?;
        if !rest.is_empty() {
            return Err("the request has bytes behind its end".to_owned());
        }
        let mut request = Self::default();
        for attribute in parsed.certification_request_info.subject.iter_attributes() {
            let text = attribute
                .as_str()
                .map_err(|_| "the subject has a value that is no text".to_owned())?;
            if *attribute.attr_type() == OID_X509_COMMON_NAME {
                request.common_names.push(text.to_owned());
            } else if *attribute.attr_type() == OID_X509_ORGANIZATION_NAME {
                request.organizations.push(text.to_owned());
            } else {
                request.other_attributes += 1;
            }
        }
        // All extension requests, not only the first: the signer reads all of them too.
        for attribute in parsed.certification_request_info.iter_attributes() {
            if let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() {
                for extension in &asked.extensions {
                    request.add_extension(extension.parsed_extension())?;
                }
            }
        }
        Ok(request)
    }

    fn add_extension(&mut self, extension: &ParsedExtension<'_>) -> Result<(), String> {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => names
                .general_names
                .iter()
                .try_for_each(|name| self.add_name(name)),
            ParsedExtension::ParseError { .. } => {
                Err("the request has an extension that cannot be read".to_owned())
            }
            // The signer takes names and subject only; everything else comes from the usages.
            _ => Ok(()),
        }
    }

    fn add_name(&mut self, name: &GeneralName<'_>) -> Result<(), String> {
        match name {
            GeneralName::DNSName(dns) => self.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address = <[u8; 4]>::try_from(*bytes)
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                let address =
                    address.map_err(|_| format!("an address has {} bytes", bytes.len()))?;
                self.addresses.push(address);
            }
            _ => self.other_names += 1,
        }
        Ok(())
    }

    fn require_subject(&self, common_name: &str, organization: &str) -> Result<(), String> {
        if self.common_names != [common_name] {
            let found = self.common_names.join(", ");
            return Err(format!(
                "the common name is `{found}`, expected `{common_name}`"
            ));
        }
        if self.organizations != [organization] {
            let found = self.organizations.join(", ");
            return Err(format!(
                "the organization is `{found}`, expected `{organization}`"
            ));
        }
        if self.other_attributes > 0 {
            return Err("the subject has more than a common name and an organization".to_owned());
        }
        Ok(())
    }

    fn require_no_names(&self) -> Result<(), String> {
        if self.dns.is_empty() && self.addresses.is_empty() && self.other_names == 0 {
            Ok(())
        } else {
            Err("a client certificate has no alternative names".to_owned())
        }
    }

    fn require_names_of(
        &self,
        node: &str,
        addresses: Option<&BTreeSet<IpAddr>>,
    ) -> Result<(), String> {
        if let Some(name) = self.dns.iter().find(|name| *name != node) {
            return Err(format!("the DNS name `{name}` is not the node's"));
        }
        let is_its = |address: &IpAddr| addresses.is_some_and(|list| list.contains(address));
        if let Some(address) = self.addresses.iter().find(|a| !is_its(a)) {
            return Err(format!("the address {address} is not the node's"));
        }
        if self.other_names > 0 {
            return Err("only DNS names and addresses may be alternative names".to_owned());
        }
        if self.dns.is_empty() && self.addresses.is_empty() {
            return Err("a serving certificate needs a DNS name or an address".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "csr_tests.rs"]
mod tests;
