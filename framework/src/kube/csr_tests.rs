//! Every way in which a request for a certificate may be wrong.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;

/// What a test asks for; the defaults are a kubelet's first client certificate.
struct Ask {
    signer: &'static str,
    user: &'static str,
    groups: Vec<&'static str>,
    subject: Vec<(DnType, &'static str)>,
    names: Vec<SanType>,
    usages: Vec<&'static str>,
}

fn kubelet_client() -> Ask {
    Ask {
        signer: KUBELET_CLIENT,
        user: "system:bootstrap:abc123",
        groups: vec![
            "system:bootstrappers",
            BOOTSTRAP_GROUP,
            "system:authenticated",
        ],
        subject: vec![
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, "system:node:n1"),
        ],
        names: Vec::new(),
        usages: vec!["digital signature", "client auth"],
    }
}

fn kubelet_serving() -> Ask {
    Ask {
        signer: KUBELET_SERVING,
        user: "system:node:n1",
        groups: vec!["system:nodes", "system:authenticated"],
        names: vec![dns("n1"), ip("10.0.0.1")],
        usages: vec!["digital signature", "key encipherment", "server auth"],
        ..kubelet_client()
    }
}

fn proxy() -> Ask {
    Ask {
        signer: CLIENT,
        subject: vec![
            (DnType::OrganizationName, PROXY_GROUP),
            (DnType::CommonName, "system:kube-proxy:n1"),
        ],
        ..kubelet_client()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(name).unwrap())
}

fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

impl Ask {
    fn csr(&self) -> CertificateSigningRequest {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in &self.subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = self.names.clone();
        let key = KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: self.signer.to_owned(),
                username: Some(self.user.to_owned()),
                groups: Some(list(&self.groups)),
                usages: Some(list(&self.usages)),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        }
    }

    fn decision(&self) -> Decision {
        decide(&self.csr(), &nodes())
    }

    fn denial(&self) -> String {
        match self.decision() {
            Decision::Deny { why } => why,
            other => panic!("{other:?}"),
        }
    }

    fn is_approved(&self) -> bool {
        matches!(self.decision(), Decision::Approve { ref node, .. } if node == "n1")
    }
}

fn nodes() -> KnownNodes {
    let node = |token: &str, address: &str| KnownNode {
        addresses: [address.parse().unwrap()].into(),
        tokens: [TokenId::parse(token).unwrap()].into(),
    };
    [
        ("n1".to_owned(), node("abc123", "10.0.0.1")),
        ("n2".to_owned(), node("xyz789", "10.0.0.2")),
    ]
    .into()
}

#[test]
fn a_node_gets_its_three_certificates() {
    assert!(kubelet_client().is_approved());
    assert!(kubelet_serving().is_approved());
    assert!(proxy().is_approved());
}

#[test]
fn certificates_are_renewed_by_the_identities_that_they_give() {
    let kubelet = ("system:node:n1", vec!["system:nodes"]);
    let own_proxy = ("system:kube-proxy:n1", vec![PROXY_GROUP]);
    assert!(
        Ask {
            user: kubelet.0,
            groups: kubelet.1.clone(),
            ..kubelet_client()
        }
        .is_approved()
    );
    assert!(
        Ask {
            user: kubelet.0,
            groups: kubelet.1,
            ..proxy()
        }
        .is_approved()
    );
    assert!(
        Ask {
            user: own_proxy.0,
            groups: own_proxy.1,
            ..proxy()
        }
        .is_approved()
    );
}

#[test]
fn usages_with_key_encipherment_are_those_of_rsa_keys() {
    let usages = vec!["key encipherment", "client auth", "digital signature"];
    assert!(
        Ask {
            usages,
            ..kubelet_client()
        }
        .is_approved()
    );
}

#[test]
fn requests_of_others_are_left_to_others() {
    let others = [
        Ask {
            user: "admin",
            groups: vec!["system:masters"],
            ..kubelet_client()
        },
        // A token of somebody else's tool, in that tool's group.
        Ask {
            groups: vec!["system:bootstrappers"],
            ..kubelet_client()
        },
        // A token that we do not know (yet).
        Ask {
            user: "system:bootstrap:nobody",
            ..kubelet_client()
        },
        Ask {
            user: "system:bootstrap:unknow",
            ..kubelet_client()
        },
        // A node that is not ours.
        Ask {
            user: "system:node:n9",
            ..kubelet_serving()
        },
        // A user who merely has a node's name.
        Ask {
            groups: vec!["system:authenticated"],
            ..kubelet_serving()
        },
        Ask {
            signer: "example.com/other",
            ..kubelet_client()
        },
    ];
    for ask in others {
        assert_eq!(
            ask.decision(),
            Decision::Ignore,
            "{} {:?}",
            ask.user,
            ask.groups
        );
    }
}

#[test]
fn what_is_decided_is_not_decided_again() {
    for kind in ["Approved", "Denied", "Failed"] {
        let mut csr = kubelet_client().csr();
        csr.status = Some(CertificateSigningRequestStatus {
            conditions: Some(vec![CertificateSigningRequestCondition {
                type_: kind.to_owned(),
                ..CertificateSigningRequestCondition::default()
            }]),
            ..CertificateSigningRequestStatus::default()
        });
        assert_eq!(decide(&csr, &nodes()), Decision::Ignore);
    }
}

#[test]
fn a_token_is_good_for_its_own_node_only() {
    let ask = Ask {
        user: "system:bootstrap:xyz789",
        ..kubelet_client()
    };
    assert_eq!(
        ask.denial(),
        "the common name is `system:node:n1`, expected `system:node:n2`"
    );
    let ask = Ask {
        user: "system:bootstrap:xyz789",
        ..proxy()
    };
    assert!(ask.denial().starts_with("the common name"));
}

#[test]
fn a_token_gets_no_serving_certificate_and_a_proxy_no_kubelets() {
    let ask = Ask {
        user: "system:bootstrap:abc123",
        groups: vec![BOOTSTRAP_GROUP],
        ..kubelet_serving()
    };
    assert_eq!(
        ask.denial(),
        "only system:node:n1 itself may ask for its serving certificate"
    );
    let ask = Ask {
        user: "system:kube-proxy:n1",
        groups: vec![PROXY_GROUP],
        ..kubelet_client()
    };
    assert_eq!(ask.denial(), "a kube-proxy gets no kubelet certificate");
}

#[test]
fn the_subject_is_exact() {
    let subjects = [
        vec![(DnType::CommonName, "system:node:n1")],
        vec![
            (DnType::OrganizationName, "system:masters"),
            (DnType::CommonName, "system:node:n1"),
        ],
        vec![
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, "system:node:n10"),
        ],
        vec![(DnType::OrganizationName, "system:nodes")],
        vec![
            (DnType::OrganizationName, "system:nodes"),
            (DnType::OrganizationalUnitName, "x"),
            (DnType::CommonName, "system:node:n1"),
        ],
    ];
    for subject in subjects {
        let ask = Ask {
            subject: subject.clone(),
            ..kubelet_client()
        };
        assert!(
            matches!(ask.decision(), Decision::Deny { .. }),
            "{subject:?}"
        );
    }
}

#[test]
fn names_and_addresses_are_the_nodes_own() {
    for (names, expected) in [
        (
            vec![],
            "a serving certificate needs a DNS name or an address",
        ),
        (vec![dns("n2")], "the DNS name `n2` is not the node's"),
        (
            vec![dns("n1"), dns("kubernetes.default.svc")],
            "the DNS name `kubernetes.default.svc` is not the node's",
        ),
        (
            vec![ip("10.0.0.2")],
            "the address 10.0.0.2 is not the node's",
        ),
        (
            vec![ip("10.0.0.1"), ip("::1")],
            "the address ::1 is not the node's",
        ),
        (
            vec![
                dns("n1"),
                SanType::URI(Ia5String::try_from("spiffe://a/b").unwrap()),
            ],
            "only DNS names and addresses may be alternative names",
        ),
    ] {
        let ask = Ask {
            names,
            ..kubelet_serving()
        };
        assert_eq!(ask.denial(), expected);
    }
    for ask in [kubelet_client(), proxy()] {
        let ask = Ask {
            names: vec![dns("n1")],
            ..ask
        };
        assert_eq!(
            ask.denial(),
            "a client certificate has no alternative names"
        );
    }
}

#[test]
fn usages_are_exact() {
    for usages in [
        vec!["client auth"],
        vec!["digital signature", "server auth"],
        vec!["digital signature", "client auth", "server auth"],
        vec!["digital signature", "client auth", "cert sign"],
        vec![],
    ] {
        let ask = Ask {
            usages: usages.clone(),
            ..kubelet_client()
        };
        assert!(ask.denial().starts_with("usages are "), "{usages:?}");
    }
}

#[test]
fn a_request_that_cannot_be_read_is_denied_and_says_why() {
    let good = kubelet_client().csr();
    let text = String::from_utf8(good.spec.request.0.clone()).unwrap();
    let twice = format!("{text}{text}");
    let certificate = text.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    let short = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", [0x30, 0x82, 0x01]));
    for (request, expected) in [
        (String::new(), "0 PEM blocks"),
        ("nonsense".to_owned(), "0 PEM blocks"),
        (twice, "2 PEM blocks"),
        (certificate, "expected CERTIFICATE REQUEST"),
        (short, "cannot be read"),
        ("x".repeat(MAX_REQUEST + 1), "more than 16384 bytes"),
    ] {
        let mut csr = good.clone();
        csr.spec.request = ByteString(request.into_bytes());
        match decide(&csr, &nodes()) {
            Decision::Deny { why } => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

/// The DER of a good request.
fn good_der() -> Vec<u8> {
    let csr = kubelet_serving().csr();
    pem::parse(csr.spec.request.0).unwrap().into_contents()
}

fn decide_der(der: Vec<u8>) -> Decision {
    let mut csr = kubelet_serving().csr();
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    csr.spec.request = ByteString(pem.into_bytes());
    decide(&csr, &nodes())
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decision_panic(bytes in proptest::collection::vec(0u8.., 0..400)) {
        let decision = decide_der(bytes);
        proptest::prop_assert!(matches!(decision, Decision::Deny { .. }), "{:?}", decision);
    }

    #[test]
    fn a_request_with_a_changed_byte_is_decided_and_never_for_another_node(at in 0usize..300, byte in 0u8..) {
        let mut der = good_der();
        let at = at % der.len();
        der[at] = byte;
        match decide_der(der) {
            // Changes in the key or in the signature are the signer's to find.
            Decision::Approve { node, .. } => proptest::prop_assert_eq!(node, "n1"),
            Decision::Deny { .. } => {}
            Decision::Ignore => proptest::prop_assert!(false, "ignored"),
        }
    }
}
