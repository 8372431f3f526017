//! Each component gets exactly its own; an operator's authority is checked before it is used.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use time::Duration;

use super::super::CERTIFICATE_LIFE;
use super::*;
use crate::control_plane::ensure_encryption_config;
use crate::pki::component::ENCRYPTION_FILE;
use crate::pki::{Name, Plan};

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn plan() -> Vec<Certificate> {
    Plan {
        api_addresses: vec!["192.0.2.1".parse().unwrap()],
        api_names: vec![],
        api_service_address: "10.96.0.1".parse().unwrap(),
        dns_domain: "cluster.local".to_owned(),
        etcd_addresses: (1..=3).map(|n| [192, 0, 2, n].into()).collect(),
        konnectivity_addresses: vec!["192.0.2.1".parse().unwrap()],
    }
    .certificates()
}

/// A cluster of three members with all its keys.
fn pki() -> (tempfile::TempDir, Pki) {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path().join("pki"));
    pki.ensure(&plan(), now()).unwrap();
    ensure_encryption_config(&pki.dir().join(ENCRYPTION_FILE)).unwrap();
    (dir, pki)
}

#[test]
fn a_component_has_exactly_its_own_files() {
    let (_dir, pki) = pki();
    let mut text = String::new();
    for component in Component::all(1) {
        let bundle = pki.bundle(component).unwrap();
        let names: Vec<&str> = bundle.names().collect();
        text.push_str(&format!("{component}: {}\n", names.join(" ")));
        let json = bundle.to_json();
        assert_eq!(Bundle::parse(&json, "a test", component).unwrap(), bundle);
        assert!(!format!("{bundle:?}").contains("PRIVATE KEY"));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn no_key_is_given_to_two_components_but_the_one_that_must_be_shared() {
    let (_dir, pki) = pki();
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for component in Component::all(3) {
        let bundle = pki.bundle(component).unwrap();
        for name in bundle.names().filter(|n| n.ends_with(".key")) {
            let key = bundle.file(name).unwrap().to_owned();
            seen.entry(key)
                .or_default()
                .push(format!("{component}/{name}"));
        }
    }
    let shared: Vec<Vec<String>> = seen.into_values().filter(|h| h.len() > 1).collect();
    assert_eq!(
        shared,
        [[
            "apiserver/service-account.key",
            "controller-manager/service-account.key"
        ]]
    );
}

#[test]
fn what_is_missing_is_named() {
    let (_dir, pki) = pki();
    fs::remove_file(pki.key(Name::EtcdMemberPeer(1))).unwrap();
    let error = pki.bundle(Component::Etcd(1)).unwrap_err().to_string();
    assert!(error.contains("missing [etcd-peer.key]"), "{error}");
    assert!(pki.bundle(Component::Etcd(0)).is_ok());
}

#[test]
fn a_bundle_that_is_anothers_or_not_exact_is_refused_by_name() {
    let (_dir, pki) = pki();
    let json = pki.bundle(Component::Framework).unwrap().to_json();
    let error = |text: &str, component| {
        Bundle::parse(text, "the variable K8SM_PKI", component)
            .unwrap_err()
            .to_string()
    };
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
    let (dir, pki) = pki();
    let path = dir.path().join("sandbox");
    pki.bundle(Component::ApiServer)
        .unwrap()
        .write(&path)
        .unwrap();
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let public = name.ends_with(".crt") || name.ends_with(".pub");
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if public { 0o644 } else { 0o600 }, "{name}");
    }
}

#[test]
fn certificates_live_as_long_as_wanted_and_never_longer_than_their_authority() {
    let (_dir, pki) = pki();
    let short = pki.clone().with_life(Duration::days(30));
    for certificate in plan() {
        fs::remove_file(pki.certificate(certificate.name)).unwrap();
    }
    short.ensure(&plan(), now()).unwrap();
    let days: Vec<i64> = short
        .expiries(&plan(), now())
        .unwrap()
        .iter()
        .map(|e| e.days)
        .collect();
    assert_eq!(days[0], 30);
    assert_eq!(
        days[days.len() - 3..],
        [3650, 3650, 3650],
        "the authorities"
    );
    let late = now() + Duration::days(3640);
    pki.ensure(&plan(), late).unwrap();
    let first = &pki.expiries(&plan(), late).unwrap()[0];
    assert_eq!(first.days, 10);
    assert!(CERTIFICATE_LIFE > Duration::days(10));
}

#[test]
fn the_operators_authority_is_used_for_what_it_brings() {
    let (_dir, own) = pki();
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("own");
    fs::create_dir(&from).unwrap();
    for file in ["ca.crt", "ca.key", "service-account.key"] {
        fs::copy(own.dir().join(file), from.join(file)).unwrap();
    }
    let pki = Pki::new(dir.path().join("pki"));
    assert_eq!(pki.bring(&from, now()).unwrap(), ["ca", "service-account"]);
    assert_eq!(pki.bring(&from, now()).unwrap(), [""; 0], "once");
    let made = pki.ensure(&plan(), now()).unwrap();
    assert_eq!(made.len(), plan().len() + 2, "two authorities are made");
    let same =
        |file| fs::read(own.dir().join(file)).unwrap() == fs::read(pki.dir().join(file)).unwrap();
    assert!(same("ca.crt") && same("service-account.key") && !same("etcd-ca.crt"));
}

#[test]
fn an_authority_that_is_of_no_use_is_refused_with_its_place() {
    let (_dir, own) = pki();
    let (_other_dir, other) = pki();
    let read = |pki: &Pki, file: &str| fs::read_to_string(pki.dir().join(file)).unwrap();
    let (certificate, key) = (read(&own, "ca.crt"), read(&own, "ca.key"));
    let error = |certificate: Option<&str>, key: Option<&str>, at: OffsetDateTime| {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in [("ca.crt", certificate), ("ca.key", key)] {
            if let Some(content) = content {
                fs::write(dir.path().join(file), content).unwrap();
            }
        }
        let error = Pki::new(dir.path().join("pki"))
            .bring(dir.path(), at)
            .unwrap_err();
        error
            .to_string()
            .replace(dir.path().to_str().unwrap(), "/etc/own")
    };
    let text = [
        error(Some(&certificate), None, now()),
        error(None, Some(&key), now()),
        error(Some(&certificate), Some(&read(&other, "ca.key")), now()),
        error(
            Some(&read(&own, "framework.crt")),
            Some(&read(&own, "framework.key")),
            now(),
        ),
        error(Some("nothing"), Some(&key), now()),
        error(
            Some(&certificate),
            Some(&key.replace("PRIVATE", "ENCRYPTED PRIVATE")),
            now(),
        ),
        error(
            Some(&certificate),
            Some(&key.replace("PRIVATE", "EC PRIVATE")),
            now(),
        ),
        error(Some(&certificate), Some(&key), now() + Duration::days(4000)),
        error(Some(&certificate), Some(&key), now() - Duration::days(1)),
    ]
    .join("\n");
    assert!(!text.contains("PRIVATE KEY-----"), "{text}");
    insta::assert_snapshot!(text);
}
