//! Every rule of the linter finds what it is for.

use super::super::app::*;
use super::super::*;
use super::cases::case;

/// Findings after a change of one app of a good set, that app's only.
fn findings(name: &str, id: &str, change: impl Fn(&mut App)) -> String {
    let (options, facts) = case(name);
    let mut apps = render(&options, &facts).unwrap();
    let app = apps.iter_mut().find(|a| a.id.as_str() == id).unwrap();
    change(app);
    let found: Vec<String> = lint(&apps)
        .iter()
        .filter(|f| f.app.as_str() == id)
        .map(ToString::to_string)
        .collect();
    found.join("\n")
}

const ETCD: &str = "/kubernetes-cp/etcd-0";
const API: &str = "/kubernetes-cp/apiserver";
const FRAMEWORK: &str = "/kubernetes";

#[test]
fn every_rule_finds_what_it_is_for() {
    let resident = |change: &dyn Fn(&mut App)| findings("persistent_volumes", ETCD, change);
    let api = |change: &dyn Fn(&mut App)| findings("default", API, change);
    let framework = |change: &dyn Fn(&mut App)| findings("default", FRAMEWORK, change);
    let found = [
        api(&|a| a.args = Some(vec!["x".to_owned()])),
        api(&|a| a.cmd = None),
        api(&|a| a.cpus = 0.0),
        api(&|a| a.mem = 1.0),
        api(&|a| drop(a.env.insert("BIG".to_owned(), "x".repeat(800_000).into()))),
        api(&|a| a.networks[0].mode = NetworkMode::Container),
        api(&|a| a.networks.push(a.networks[0].clone())),
        api(&|a| a.port_definitions.as_mut().unwrap()[1].port = 6444),
        api(&|a| a.port_definitions.as_mut().unwrap()[1].name = None),
        api(&|a| a.port_definitions.as_mut().unwrap()[1].name = Some("Not_A_Name".to_owned())),
        api(&|a| a.port_definitions.as_mut().unwrap()[1].port = 0),
        api(&|a| {
            let port = &mut a.port_definitions.as_mut().unwrap()[0];
            port.labels
                .insert("VIP_0".to_owned(), "api:6443".to_owned());
        }),
        api(&|a| a.health_checks.clear()),
        api(&|a| a.health_checks.push(a.health_checks[0].clone())),
        api(&|a| {
            let mut check = a.health_checks[0].clone();
            check.protocol = CheckProtocol::Http;
            a.health_checks.push(check);
        }),
        api(&|a| a.health_checks[0].port = Some(1)),
        api(&|a| a.health_checks[0].port_index = Some(9)),
        api(&|a| a.health_checks[0].path = None),
        api(&|a| a.health_checks[0].max_consecutive_failures = 0),
        api(&|a| {
            a.health_checks[0].protocol = CheckProtocol::Command;
            a.health_checks[0].command = Some(Command {
                value: "echo \"x\"".to_owned(),
            });
        }),
        api(&|a| a.readiness_checks[0].port_name = "none".to_owned()),
        api(&|a| a.readiness_checks[0].timeout_seconds = 3),
        api(&|a| a.readiness_checks.push(a.readiness_checks[0].clone())),
        api(&|a| a.unreachable_strategy = Some(UnreachableStrategy::Word(Disabled::Disabled))),
        api(&|a| a.upgrade_strategy = None),
        api(&|a| a.upgrade_strategy.as_mut().unwrap().minimum_health_capacity = 1.0),
        api(&|a| a.upgrade_strategy.as_mut().unwrap().maximum_over_capacity = 0.5),
        api(&|a| a.task_kill_grace_period_seconds = None),
        api(&|a| {
            a.constraints.push(vec![
                "hostname".to_owned(),
                "UNIQUE".to_owned(),
                "x".to_owned(),
            ])
        }),
        api(&|a| {
            drop(a.env.insert(
                "S".to_owned(),
                EnvValue::Secret {
                    secret: "none".to_owned(),
                },
            ))
        }),
        api(&|a| {
            drop(a.secrets.insert(
                "s".to_owned(),
                SecretSource {
                    source: "a/b".to_owned(),
                },
            ))
        }),
        api(&|a| drop(a.env.insert("A-B".to_owned(), "x".to_owned().into()))),
        api(&|a| {
            drop(
                a.labels
                    .insert("KEY".to_owned(), "-----BEGIN PRIVATE KEY".to_owned()),
            )
        }),
        api(&|a| drop(a.labels.insert("LONG".to_owned(), "x".repeat(513)))),
        api(&|a| {
            drop(
                a.labels
                    .insert("DCOS_SERVICE_NAME".to_owned(), "x".to_owned()),
            )
        }),
        api(&|a| a.fetch[0].uri = "https://user:word@example.org/k8sm".to_owned()),
        api(&|a| a.fetch[1].dest_path = Some("k8sm".to_owned())),
        api(&|a| a.fetch[0].extract = true),
        api(&|a| a.dependencies.push(AppId::new("/nothing").unwrap())),
        api(&|a| {
            a.dependencies
                .push(AppId::new("/kubernetes-cp/proxy").unwrap())
        }),
        api(&|a| a.port_definitions.as_mut().unwrap()[0].port = 2379),
        framework(&|a| a.instances = 2),
        framework(&|a| {
            drop(
                a.labels
                    .insert("DCOS_SERVICE_PORT_INDEX".to_owned(), "1".to_owned()),
            )
        }),
        framework(&|a| {
            a.labels
                .insert("DCOS_COMMONS_UNINSTALL".to_owned(), "true".to_owned());
            a.labels
                .insert("DCOS_SERVICE_NAME".to_owned(), "other".to_owned());
        }),
        resident(&|a| a.residency = None),
        resident(&|a| a.unreachable_strategy = None),
        resident(&|a| a.role = Some("*".to_owned())),
        resident(&|a| a.accepted_resource_roles = Some(vec!["k8s".to_owned()])),
        resident(&|a| a.container.as_mut().unwrap().volumes[0].container_path = "/data".to_owned()),
        resident(&|a| a.upgrade_strategy.as_mut().unwrap().maximum_over_capacity = 1.0),
    ];
    for (n, text) in found.iter().enumerate() {
        assert!(!text.is_empty(), "the change number {n} is not noticed");
    }
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn ids_are_not_shared_between_an_app_and_a_group() {
    let (options, facts) = case("default");
    let mut apps = render(&options, &facts).unwrap();
    apps[0].id = AppId::new("/kubernetes/etcd-0").unwrap();
    apps[1].id = AppId::new("/kubernetes-cp/a.b").unwrap();
    let text: Vec<String> = lint(&apps).iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    assert!(
        text.contains("/kubernetes id: is also the group of /kubernetes/etcd-0"),
        "{text}"
    );
    assert!(
        text.contains("/kubernetes-cp/a.b id: a dot in a name"),
        "{text}"
    );
}

#[test]
fn an_id_is_what_marathon_takes() {
    for good in ["/a", "/a-b/c.d", "/0"] {
        assert!(AppId::new(good).is_ok(), "{good}");
    }
    for bad in [
        "", "/", "a", "/A", "/a//b", "/a/", "/-a", "/a-", "/a b", "/ä", "/a..b",
    ] {
        assert!(AppId::new(bad).is_err(), "{bad}");
    }
    assert_eq!(AppId::new("/k-cp/etcd-0").unwrap().name(), "etcd-0");
}
