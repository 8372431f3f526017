//! The control plane's arguments and files are a contract; a change is a visible diff.

use std::fmt::Write as _;

use super::*;

fn control_plane() -> ControlPlane {
    ControlPlane {
        cluster: "kubernetes".to_owned(),
        pki: Pki::new("/state/pki"),
        config_dir: "/state/config".into(),
        data_dir: "/state/etcd".into(),
        run_dir: "/run/x".into(),
        advertise: "192.0.2.7".parse().unwrap(),
        ports: Ports {
            api: 6443,
            etcd: 2379,
            etcd_peer: 2380,
            etcd_metrics: 2381,
            controller_manager: 10257,
            konnectivity_agent: 8132,
            konnectivity_admin: 8133,
            konnectivity_health: 8134,
        },
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        dns_domain: "cluster.local".to_owned(),
    }
}

#[test]
fn the_control_plane_is_rendered_as_documented() {
    let mut text = String::new();
    for p in control_plane().processes() {
        writeln!(text, "# {} after {:?}, {:?}", p.name, p.after, p.readiness).unwrap();
        for arg in &p.args {
            writeln!(text, "  {arg}").unwrap();
        }
        for file in &p.files {
            writeln!(text, "## {} {:o}", file.path.display(), file.mode).unwrap();
            text.push_str(&file.content);
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn no_process_has_a_key_in_its_arguments_or_files() {
    for p in control_plane().processes() {
        let text = format!("{p:?}");
        assert!(!text.contains("PRIVATE KEY"), "{}", p.name);
        assert!(!text.contains("client-key-data"), "{}", p.name);
    }
}

#[test]
fn every_process_waits_only_for_earlier_ones() {
    let mut seen = Vec::new();
    for p in control_plane().processes() {
        assert!(p.after.iter().all(|a| seen.contains(a)), "{}", p.name);
        seen.push(p.name);
    }
}
