//! Each component gets exactly its own; an operator's authority is checked; renewal goes one
//! component at a time.

use std::collections::BTreeSet;

use super::*;
use crate::pki::renewal::{expiries, renewals};
use crate::pki::{Name, Plan};

const YEAR: Duration = Duration::days(365);

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn plan(component: Component) -> Vec<Certificate> {
    let etcd = match component {
        Component::Etcd(n) => vec![[192, 0, 2, n].into()],
        _ => vec![],
    };
    Plan {
        api_addresses: vec!["192.0.2.1".parse().unwrap()],
        api_names: vec![],
        api_service_address: "10.96.0.1".parse().unwrap(),
        dns_domain: "cluster.local".to_owned(),
        etcd_addresses: etcd,
        konnectivity_addresses: vec!["192.0.2.1".parse().unwrap()],
    }
    .certificates()
}

fn bundle(
    authorities: &Authorities,
    component: Component,
    old: Option<&Bundle>,
    now: OffsetDateTime,
) -> Bundle {
    let encryption = Encryption::default();
    authorities
        .bundle(component, &plan(component), &encryption, old, (YEAR, now))
        .unwrap()
}

#[test]
fn a_component_has_exactly_its_own_files() {
    let authorities = Authorities::generate(now()).unwrap();
    let mut text = String::new();
    for component in Component::all(1) {
        let bundle = bundle(&authorities, component, None, now());
        let names: Vec<&str> = bundle.names().collect();
        text.push_str(&format!("{component}: {}\n", names.join(" ")));
        let json = bundle.to_json();
        assert_eq!(Bundle::parse(&json, "a test", component).unwrap(), bundle);
        assert!(!format!("{bundle:?}").contains("PRIVATE KEY"));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn no_key_is_given_to_two_components_but_those_that_must_be_shared() {
    let authorities = Authorities::generate(now()).unwrap();
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for component in Component::all(3) {
        let bundle = bundle(&authorities, component, None, now());
        for name in bundle.names().filter(|n| n.ends_with(".key")) {
            let key = bundle.file(name).unwrap().to_owned();
            seen.entry(key)
                .or_default()
                .push(format!("{component}/{name}"));
        }
    }
    let shared: Vec<Vec<String>> = seen
        .into_values()
        .filter(|holders| holders.len() > 1)
        .collect();
    assert_eq!(
        shared,
        [[
            "apiserver/service-account.key",
            "controller-manager/service-account.key"
        ]]
    );
}

#[test]
fn a_member_of_etcd_has_only_its_own_address() {
    let authorities = Authorities::generate(now()).unwrap();
    let one = bundle(&authorities, Component::Etcd(1), None, now());
    let wanted = plan(Component::Etcd(1))
        .into_iter()
        .find(|c| c.name == Name::EtcdPeer)
        .unwrap();
    let other = plan(Component::Etcd(2))
        .into_iter()
        .find(|c| c.name == Name::EtcdPeer)
        .unwrap();
    let pair = Pair {
        certificate: one.file("etcd-peer.crt").unwrap().to_owned(),
        key: one.file("etcd-peer.key").unwrap().to_owned(),
    };
    assert_eq!(authorities.verdict(&wanted, &pair, now()), Ok(()));
    assert!(authorities.verdict(&other, &pair, now()).is_err());
}

#[test]
fn what_is_good_stays_and_what_is_due_is_made_anew() {
    let authorities = Authorities::generate(now()).unwrap();
    let first = bundle(&authorities, Component::ApiServer, None, now());
    let soon = now() + YEAR / 2;
    assert_eq!(
        bundle(&authorities, Component::ApiServer, Some(&first), soon),
        first
    );
    let late = now() + YEAR * 3 / 4;
    let renewed = bundle(&authorities, Component::ApiServer, Some(&first), late);
    let same: BTreeSet<&str> = first
        .names()
        .filter(|n| first.file(n) == renewed.file(n))
        .collect();
    assert_eq!(
        same.into_iter().collect::<Vec<_>>(),
        [
            "ca.crt",
            "encryption.yaml",
            "etcd-ca.crt",
            "front-proxy-ca.crt",
            "service-account.key",
            "service-account.pub"
        ]
    );
}

#[test]
fn renewal_names_components_in_order_with_reasons() {
    let authorities = Authorities::generate(now()).unwrap();
    let late = now() + YEAR * 3 / 4;
    let mut bundles: Vec<Bundle> = Component::all(2)
        .into_iter()
        .map(|component| bundle(&authorities, component, None, now()))
        .collect();
    bundles.reverse();
    assert_eq!(renewals(&authorities, &bundles, plan, false, now()), []);
    bundles[0] = bundle(&authorities, bundles[0].component(), None, late);
    let due = renewals(&authorities, &bundles, plan, false, late);
    insta::assert_snapshot!(serde_json::to_string_pretty(&due).unwrap());
    assert_eq!(
        renewals(&authorities, &bundles, plan, true, now()).len(),
        bundles.len()
    );
    let first = &expiries(&bundles[3], late)[0];
    assert_eq!(
        (first.file.as_str(), first.days),
        ("apiserver-etcd-client.crt", 91)
    );
}

#[test]
fn a_certificate_never_outlives_its_authority() {
    let authorities = Authorities::generate(now()).unwrap();
    let late = now() + issue::AUTHORITY_LIFE - Duration::days(10);
    let bundle = bundle(&authorities, Component::Framework, None, late);
    let ends: BTreeSet<i64> = expiries(&bundle, late).iter().map(|e| e.ends).collect();
    assert_eq!(ends.len(), 1, "all end with the authority");
}

#[test]
fn the_operators_authority_is_used_for_what_it_brings() {
    let own = Authorities::generate(now()).unwrap();
    let brought = Authorities::bring(
        "/etc/own",
        |file| {
            Ok(file
                .starts_with("ca.")
                .then(|| own.file(file).as_bytes().to_vec()))
        },
        now(),
    )
    .unwrap();
    assert_eq!(
        brought.certificate(Authority::Cluster),
        own.certificate(Authority::Cluster)
    );
    assert_ne!(
        brought.certificate(Authority::Etcd),
        own.certificate(Authority::Etcd)
    );
    let read = Authorities::parse(&brought.to_json(), "a file", now()).unwrap();
    assert_eq!(read, brought);
    assert!(!format!("{read:?}").contains("PRIVATE KEY"));
}

#[test]
fn an_authority_that_is_of_no_use_is_refused_with_its_place() {
    let own = Authorities::generate(now()).unwrap();
    let other = Authorities::generate(now()).unwrap();
    let leaf = own
        .issue(&plan(Component::Framework)[0], YEAR, now())
        .unwrap();
    let error = |certificate: Option<&str>, key: Option<&str>, at: OffsetDateTime| {
        Authorities::bring(
            "/etc/own",
            |file| {
                Ok(match file {
                    "ca.crt" => certificate.map(|c| c.as_bytes().to_vec()),
                    "ca.key" => key.map(|k| k.as_bytes().to_vec()),
                    _ => None,
                })
            },
            at,
        )
        .unwrap_err()
        .to_string()
    };
    let (certificate, key) = (own.file("ca.crt"), own.file("ca.key"));
    let text = [
        error(Some(certificate), None, now()),
        error(None, Some(key), now()),
        error(Some(certificate), Some(other.file("ca.key")), now()),
        error(Some(&leaf.certificate), Some(&leaf.key), now()),
        error(Some("nothing"), Some(key), now()),
        error(
            Some(certificate),
            Some(&key.replace("PRIVATE", "ENCRYPTED PRIVATE")),
            now(),
        ),
        error(
            Some(certificate),
            Some(&key.replace("PRIVATE", "EC PRIVATE")),
            now(),
        ),
        error(Some(certificate), Some(key), now() + Duration::days(4000)),
        error(Some(certificate), Some(key), now() - Duration::days(1)),
        error(Some(&"x".repeat(100_000)), Some(key), now()),
        Authorities::parse(
            "{\"version\": 1, \"files\"",
            "/etc/own/authorities.json",
            now(),
        )
        .unwrap_err()
        .to_string(),
        Authorities::parse(
            &own.to_json().replace("\"version\":1", "\"version\":2"),
            "/x",
            now(),
        )
        .unwrap_err()
        .to_string(),
    ]
    .join("\n");
    assert!(!text.contains("PRIVATE KEY-----"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_bundle_that_is_anothers_or_not_exact_is_refused_by_name() {
    let authorities = Authorities::generate(now()).unwrap();
    let framework = bundle(&authorities, Component::Framework, None, now());
    let error = |text: &str, component| {
        Bundle::parse(text, "the variable K8SM_PKI", component)
            .unwrap_err()
            .to_string()
    };
    let json = framework.to_json();
    let text = [
        error(&json, Component::Proxy),
        error(
            &json.replace("framework.key", "admin.key"),
            Component::Framework,
        ),
        error(
            &json.replace("\"version\":1", "\"version\":7"),
            Component::Framework,
        ),
        error("{\"secret-looking\": \"hunter2\"}", Component::Framework),
        error(&"x".repeat(2 << 20), Component::Framework),
    ]
    .join("\n");
    assert!(!text.contains("hunter2"));
    insta::assert_snapshot!(text);
}

#[test]
fn files_of_a_bundle_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let authorities = Authorities::generate(now()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pki");
    bundle(&authorities, Component::ApiServer, None, now())
        .write(&path)
        .unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let public = name.ends_with(".crt") || name.ends_with(".pub");
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if public { 0o644 } else { 0o600 }, "{name}");
    }
}
