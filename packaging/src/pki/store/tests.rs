//! Certificates on a disk are made, kept, renewed and never silently replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use time::Duration;

use super::*;
use crate::pki::Plan;

const NOW: i64 = 1_800_000_000;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW).unwrap()
}

fn plan(address: &str) -> Vec<Certificate> {
    Plan {
        api_addresses: vec![address.parse().unwrap()],
        api_names: vec![],
        api_service_address: "10.96.0.1".parse().unwrap(),
        dns_domain: "cluster.local".to_owned(),
        etcd_addresses: vec![],
        konnectivity_addresses: vec![],
    }
    .certificates()
}

fn pki() -> (tempfile::TempDir, Pki) {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path().join("pki"));
    (dir, pki)
}

#[test]
fn a_second_run_changes_nothing() {
    let (_dir, pki) = pki();
    let plan = plan("192.0.2.1");
    let made = pki.ensure(&plan, now()).unwrap();
    assert_eq!(made.len(), plan.len() + 4, "three authorities and a key");
    assert!(made.iter().all(|c| matches!(c, Change::Created(_))));
    assert_eq!(pki.ensure(&plan, now()).unwrap(), []);
}

#[test]
fn keys_are_readable_by_their_owner_only() {
    let (_dir, pki) = pki();
    pki.ensure(&plan("192.0.2.1"), now()).unwrap();
    fs::set_permissions(pki.key(Name::Admin), std::fs::Permissions::from_mode(0o644)).unwrap();
    pki.ensure(&plan("192.0.2.1"), now()).unwrap();
    for entry in fs::read_dir(pki.dir()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let expected = if name.ends_with(".key") {
            SECRET
        } else {
            PUBLIC
        };
        assert_eq!(mode, expected, "{name}");
    }
}

#[test]
fn a_changed_address_renews_that_certificate_alone() {
    let (_dir, pki) = pki();
    pki.ensure(&plan("192.0.2.1"), now()).unwrap();
    let changes = pki.ensure(&plan("192.0.2.2"), now()).unwrap();
    assert_eq!(
        changes,
        [Change::Renewed {
            name: "apiserver".to_owned(),
            reason: "its names or addresses have changed".to_owned()
        }]
    );
}

#[test]
fn certificates_are_renewed_in_the_last_third_of_their_life() {
    let (_dir, pki) = pki();
    let plan = plan("192.0.2.1");
    pki.ensure(&plan, now()).unwrap();
    let fresh = now() + CERTIFICATE_LIFE / 2;
    assert_eq!(pki.ensure(&plan, fresh).unwrap(), []);
    let late = now() + CERTIFICATE_LIFE * 3 / 4;
    assert!(pki.due(&plan[0], late).unwrap().is_some());
    let changes = pki.ensure(&plan, late).unwrap();
    assert_eq!(changes.len(), plan.len(), "no authority among them");
    assert_eq!(pki.ensure(&plan, late).unwrap(), []);
}

#[test]
fn a_kill_between_key_and_certificate_is_mended() {
    let (_dir, pki) = pki();
    let plan = plan("192.0.2.1");
    pki.ensure(&plan, now()).unwrap();
    let other = KeyPair::generate().unwrap();
    fs::write(pki.key(Name::Admin), other.serialize_pem()).unwrap();
    fs::remove_file(pki.certificate(Name::Framework)).unwrap();
    let changes: Vec<String> = pki
        .ensure(&plan, now())
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        changes,
        [
            "framework: renewed, half of it was missing",
            "admin: renewed, its key was another's"
        ]
    );
}

#[test]
fn a_damaged_authority_is_named_and_never_replaced() {
    let (_dir, pki) = pki();
    let plan = plan("192.0.2.1");
    pki.ensure(&plan, now()).unwrap();
    let path = pki.authority_certificate(Authority::Cluster);
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let error = pki.ensure(&plan, now()).unwrap_err().to_string();
    assert!(error.contains("ca.crt is damaged"), "{error}");
    assert!(error.contains("restore it from a backup"), "{error}");
    fs::write(&path, &good).unwrap();
    fs::remove_file(pki.authority_key(Authority::Cluster)).unwrap();
    let error = pki.ensure(&plan, now()).unwrap_err().to_string();
    assert!(error.contains("exists without"), "{error}");
}

#[test]
fn an_expired_authority_is_an_error() {
    let (_dir, pki) = pki();
    let plan = plan("192.0.2.1");
    pki.ensure(&plan, now()).unwrap();
    let late = now() + AUTHORITY_LIFE + Duration::days(1);
    let error = pki.ensure(&plan, late).unwrap_err();
    assert!(matches!(error, Error::AuthorityExpired { .. }), "{error}");
}
