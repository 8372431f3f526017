//! kube-proxy's client certificate: asked for with the bootstrap token the first time and with
//! the certificate itself later.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::api::{ApiAccess, ApiError, Backoff, Identity, pause, request};
use super::store::{self, StoreError, Validity};

/// The controller manager's signer of client certificates.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// How long one request may wait for its certificate before a new one is made.
const ISSUE_DEADLINE: Duration = Duration::from_secs(300);
/// How often a request is looked at. Approval takes one watch event of the framework's and
/// signing one of the controller manager's, so the first look seldom succeeds.
const POLL: Duration = Duration::from_millis(250);
/// The longest pause between two looks.
const MAX_POLL: Duration = Duration::from_secs(5);
/// File with kube-proxy's certificate and key.
pub const FILE_NAME: &str = "kube-proxy-client-current.pem";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ProxyCertificateError {
    /// No key or request could be made.
    #[error("making kube-proxy's key and certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The API servers.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody said no.
    #[error("kube-proxy's certificate request {name} was {what}: {message}")]
    Refused {
        /// The request's.
        name: String,
        /// `Denied` or `Failed`.
        what: String,
        /// Why.
        message: String,
    },
    /// Nobody said anything.
    #[error(
        "kube-proxy's certificate request {name} was not {what} within {} s; is the {who} running?",
        ISSUE_DEADLINE.as_secs()
    )]
    Deadline {
        /// The request's.
        name: String,
        /// `approved` or `signed`.
        what: &'static str,
        /// Who should have.
        who: &'static str,
    },
    /// What came back is no certificate.
    #[error("kube-proxy's certificate request {name} was answered by what is no certificate")]
    NoCertificate {
        /// The request's.
        name: String,
    },
}

/// Keeps kube-proxy's certificate.
#[derive(Debug, Clone)]
pub struct ProxyCertificate {
    /// The node's name.
    pub node: String,
    /// Where certificate and key are.
    pub file: PathBuf,
    /// The way to the API servers, with the bootstrap token.
    pub bootstrap: ApiAccess,
}

impl ProxyCertificate {
    /// The way to the API servers as kube-proxy.
    pub fn access(&self) -> ApiAccess {
        let identity = Identity::CertificateFile(self.file.clone());
        self.bootstrap.as_identity(identity)
    }

    /// Whether there is a certificate that may be used now.
    pub fn is_current(&self) -> bool {
        Validity::of_file(&self.file).is_some_and(|v| v.is_current(SystemTime::now()))
    }

    /// Waits until there is one, asking for it if need be. Tries once; the caller decides about
    /// trying again.
    pub async fn ensure(&self) -> Result<(), ProxyCertificateError> {
        if self.is_current() {
            return Ok(());
        }
        self.issue(&self.bootstrap).await
    }

    /// Renews it in time until `stop`. `failed` hears of each attempt that failed.
    pub async fn keep(&self, stop: &CancellationToken, mut failed: impl FnMut(String)) {
        let mut backoff = Backoff::up_to(Duration::from_secs(600));
        loop {
            let jitter = rand::rng().random_range(0.0..1.0);
            let due = Validity::of_file(&self.file)
                .map_or(SystemTime::UNIX_EPOCH, |v| v.renew_at(jitter));
            // A machine's clock may jump or sleep: look again every now and then.
            let wait = due
                .duration_since(SystemTime::now())
                .unwrap_or_default()
                .min(Duration::from_secs(3600));
            if !wait.is_zero() {
                if pause(wait, stop).await.is_break() {
                    return;
                }
                continue;
            }
            let access = if self.is_current() {
                self.access()
            } else {
                self.bootstrap.clone()
            };
            let issued = tokio::select! {
                () = stop.cancelled() => return,
                issued = self.issue(&access) => issued,
            };
            match issued {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    failed(error.to_string());
                    if pause(backoff.pause(), stop).await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    async fn issue(&self, access: &ApiAccess) -> Result<(), ProxyCertificateError> {
        let key = rcgen::KeyPair::generate()?;
        let csr = certificate_request(&self.node, &key)?;
        let requests: Api<CertificateSigningRequest> = Api::all(access.client()?);
        let object = CertificateSigningRequest {
            metadata: ObjectMeta {
                generate_name: Some("k8sm-proxy-".to_owned()),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(csr.into_bytes()),
                signer_name: SIGNER.to_owned(),
                usages: Some(vec![
                    "digital signature".to_owned(),
                    "client auth".to_owned(),
                ]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let made = request(
            "asking for kube-proxy's certificate",
            requests.create(&PostParams::default(), &object),
        )
        .await?;
        let name = made.metadata.name.unwrap_or_default();
        let certificate = wait_for_certificate(&requests, &name).await?;
        if Validity::of_pem(&certificate).is_none() {
            return Err(ProxyCertificateError::NoCertificate { name });
        }
        let mut pair = certificate;
        if !pair.ends_with(b"\n") {
            pair.push(b'\n');
        }
        pair.extend_from_slice(key.serialize_pem().as_bytes());
        store::write_secret(&self.file, &pair)?;
        Ok(())
    }
}

/// The request: kube-proxy of exactly this node.
fn certificate_request(node: &str, key: &rcgen::KeyPair) -> Result<String, rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    let mut name = rcgen::DistinguishedName::new();
    name.push(
        rcgen::DnType::OrganizationName,
        seam::names::PROXY_GROUP.to_owned(),
    );
    name.push(
        rcgen::DnType::CommonName,
        format!("{}{node}", seam::names::PROXY_USER_PREFIX),
    );
    params.distinguished_name = name;
    params.serialize_request(key)?.pem()
}

/// What a look at a request tells.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Waiting { approved: bool },
    Issued(Vec<u8>),
    Refused { what: String, message: String },
}

fn progress(request: &CertificateSigningRequest) -> Progress {
    let Some(status) = &request.status else {
        return Progress::Waiting { approved: false };
    };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if let Some(no) = conditions
        .iter()
        .find(|c| c.type_ == "Denied" || c.type_ == "Failed")
    {
        return Progress::Refused {
            what: no.type_.clone(),
            message: no.message.clone().unwrap_or_default(),
        };
    }
    match &status.certificate {
        Some(certificate) if !certificate.0.is_empty() => Progress::Issued(certificate.0.clone()),
        _ => Progress::Waiting {
            approved: conditions.iter().any(|c| c.type_ == "Approved"),
        },
    }
}

async fn wait_for_certificate(
    requests: &Api<CertificateSigningRequest>,
    name: &str,
) -> Result<Vec<u8>, ProxyCertificateError> {
    let deadline = tokio::time::Instant::now() + ISSUE_DEADLINE;
    let mut poll = POLL;
    loop {
        tokio::time::sleep(poll).await;
        poll = poll.mul_f64(1.3).min(MAX_POLL);
        let action = "looking at kube-proxy's certificate request";
        let approved = match request(action, requests.get(name)).await {
            Ok(now) => match progress(&now) {
                Progress::Issued(certificate) => return Ok(certificate),
                Progress::Refused { what, message } => {
                    let name = name.to_owned();
                    return Err(ProxyCertificateError::Refused {
                        name,
                        what,
                        message,
                    });
                }
                Progress::Waiting { approved } => approved,
            },
            // API servers come and go; the deadline below ends this.
            Err(error) if tokio::time::Instant::now() < deadline => {
                tracing::debug!(%error, "certificate");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if tokio::time::Instant::now() >= deadline {
            let (what, who) = if approved {
                ("signed", "controller manager")
            } else {
                ("approved", "framework")
            };
            return Err(ProxyCertificateError::Deadline {
                name: name.to_owned(),
                what,
                who,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    #[test]
    fn the_request_is_for_this_nodes_kube_proxy() {
        let key = rcgen::KeyPair::generate().unwrap();
        let text = certificate_request("agent-1.example.org", &key).unwrap();
        let der = pem::parse(text).unwrap();
        let (_, csr) = X509CertificationRequest::from_der(der.contents()).unwrap();
        assert_eq!(
            csr.certification_request_info.subject.to_string(),
            "O=system:k8sm:node-proxiers, CN=system:kube-proxy:agent-1.example.org"
        );
        csr.verify_signature().unwrap();
    }

    fn request(status: serde_json::Value) -> CertificateSigningRequest {
        serde_json::from_value(serde_json::json!({
            "metadata": {}, "spec": {"request": "", "signerName": SIGNER}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_request_is_waited_for_until_somebody_decides() {
        let approved = serde_json::json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let denied = serde_json::json!({"conditions": [{"type": "Denied", "status": "True", "message": "not yours"}]});
        let issued = serde_json::json!({"certificate": "YWJj"});
        assert_eq!(
            progress(&request(serde_json::json!({}))),
            Progress::Waiting { approved: false }
        );
        assert_eq!(
            progress(&request(approved)),
            Progress::Waiting { approved: true }
        );
        assert_eq!(
            progress(&request(denied)),
            Progress::Refused {
                what: "Denied".to_owned(),
                message: "not yours".to_owned()
            }
        );
        assert_eq!(
            progress(&request(issued)),
            Progress::Issued(b"abc".to_vec())
        );
    }
}
