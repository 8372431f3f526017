//! Rendered apps are a contract: each change of them is a visible diff.

mod cases;
mod lints;

use serde_json::Value;

use super::*;
use crate::pki::Component;

use cases::{CASES, case, facts};

/// Apps as a person compares them: what a task is told is a document, not a text.
fn readable(apps: &[App]) -> String {
    let apps: Vec<Value> = apps
        .iter()
        .map(|app| {
            let mut app = serde_json::to_value(app.redacted()).unwrap();
            // The one app of a package is told by its arguments.
            if let Some(run) = app["env"]["K8SM_RUN"].as_str().map(str::to_owned) {
                app["env"]["K8SM_RUN"] = serde_json::from_str(&run).unwrap();
            }
            app
        })
        .collect();
    serde_json::to_string_pretty(&apps).unwrap()
}

#[test]
fn every_set_of_options_is_rendered_as_documented() {
    for name in CASES {
        let (options, facts) = case(name);
        let apps = render(&options, &facts).unwrap_or_else(|e| panic!("{name}: {e}"));
        insta::assert_snapshot!(*name, readable(&apps));
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    for name in CASES {
        let (options, facts) = case(name);
        let once = serde_json::to_vec(&render(&options, &facts).unwrap()).unwrap();
        let read: Facts = serde_json::from_value(serde_json::to_value(&facts).unwrap()).unwrap();
        let again = serde_json::to_vec(&render(&options, &read).unwrap()).unwrap();
        assert_eq!(once, again, "{name}");
    }
}

#[test]
fn nothing_rendered_has_a_finding() {
    for name in CASES {
        let (options, facts) = case(name);
        let findings = lint(&render(&options, &facts).unwrap());
        assert_eq!(findings, [], "{name}");
    }
}

#[test]
fn apps_are_valid_against_marathons_published_schemas() {
    let old = schema(include_str!(
        "../../../tests/fixtures/marathon/AppDefinition-v1.6.567.json"
    ));
    let old = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .build(&old)
        .unwrap();
    let mut new = schema(include_str!(
        "../../../tests/fixtures/marathon/app.schema.json"
    ));
    close(&mut new);
    let new = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft7)
        .build(&new)
        .unwrap();
    let mut broken =
        serde_json::to_value(&render(&case("default").0, &facts()).unwrap()[0]).unwrap();
    broken["cpuz"] = serde_json::json!(1);
    assert!(
        !old.is_valid(&broken) && !new.is_valid(&broken),
        "the schemas check"
    );
    for name in CASES {
        let (options, facts) = case(name);
        for app in render(&options, &facts).unwrap() {
            let value = serde_json::to_value(&app).unwrap();
            let errors: Vec<String> = new.iter_errors(&value).map(|e| e.to_string()).collect();
            assert_eq!(errors, Vec::<String>::new(), "{name} {}", app.id);
            // 1.6 knows no role.
            if app.role.is_none() {
                let errors: Vec<String> = old.iter_errors(&value).map(|e| e.to_string()).collect();
                assert_eq!(errors, Vec::<String>::new(), "{name} {}", app.id);
            }
        }
    }
}

fn schema(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The conversion from RAML leaves every object open: with it nothing unknown would be found.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") && object.get("type") == Some(&"object".into()) {
                object.insert("additionalProperties".to_owned(), false.into());
            }
            object.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn an_app_survives_marathon() {
    for name in CASES {
        let (options, facts) = case(name);
        for app in render(&options, &facts).unwrap() {
            let mut answer = serde_json::to_value(&app).unwrap();
            // What an answer has besides.
            answer["version"] = "2026-11-21T11:00:00.000Z".into();
            answer["tasksRunning"] = 1.into();
            answer["deployments"] = serde_json::json!([{"id": "x"}]);
            assert_eq!(
                serde_json::from_value::<App>(answer).unwrap(),
                app,
                "{name}"
            );
        }
    }
}

#[test]
fn no_key_is_outside_the_one_variable_that_carries_it() {
    let (options, facts) = case("keys_in_environment");
    for app in render(&options, &facts).unwrap() {
        assert!(
            serde_json::to_string(&app).unwrap().contains("PRIVATE KEY"),
            "the keys are there"
        );
        let without = serde_json::to_string(&app.redacted()).unwrap();
        assert!(!without.contains("PRIVATE KEY"), "{without}");
        assert!(!format!("{app:?}").contains("PRIVATE KEY"));
        assert!(!format!("{facts:?}").contains("PRIVATE KEY"));
    }
}

#[test]
fn a_task_understands_what_it_is_told() {
    for name in CASES {
        let (options, facts) = case(name);
        for app in render(&options, &facts).unwrap() {
            if facts.one_app && app.id.as_str() == format!("/{}", options.service.name) {
                let args = app.args.as_deref().unwrap();
                let told = crate::universe::command::Command::parse(&args[3..]).unwrap();
                assert_eq!(
                    crate::options::Options::from_value(&told.options).as_ref(),
                    Ok(&options)
                );
                continue;
            }
            let app::EnvValue::Plain(text) = &app.env[crate::run::RUN_ENV] else {
                panic!("{name}: no secret");
            };
            let words = app
                .cmd
                .clone()
                .unwrap_or_else(|| app.args.clone().unwrap().join(" "));
            let component = words.rsplit(' ').next().unwrap();
            let spec = crate::run::RunSpec::parse(text, component).unwrap();
            assert_eq!(spec.install, facts.install_id);
        }
    }
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let (options, facts) = case("default");
    let error = |change: &dyn Fn(&mut crate::options::Options, &mut Facts)| {
        let (mut options, mut facts) = (options.clone(), facts.clone());
        change(&mut options, &mut facts);
        render(&options, &facts).unwrap_err().to_string()
    };
    let text = [
        error(&|_, f| f.etcd_hosts.truncate(1)),
        error(&|_, f| f.api_hosts.truncate(1)),
        error(&|_, f| f.marathon_version = (1, 4)),
        error(&|o, f| {
            o.marathon.role = "kubernetes".to_owned();
            f.marathon_version = (1, 8);
        }),
        error(&|_, f| drop(f.artifacts.remove("etcd"))),
        error(&|_, f| f.pki = PkiDelivery::Env { bundles: [].into() }),
        error(&|_, f| f.install_id = "A B".to_owned()),
        error(&|_, f| f.mesos_master = "zk://user:word@h:2181/mesos".to_owned()),
        error(&|o, _| o.kubernetes.pod_cidr = "10.96.0.0/12".to_owned()),
    ]
    .join("\n");
    insta::assert_snapshot!("what_is_missing", text);
}

#[test]
fn an_upgrade_replaces_one_task_at_a_time_whatever_the_number() {
    for instances in 1..=9_u32 {
        let share = super::render::one_at_a_time(instances).minimum_health_capacity;
        let stay = (f64::from(instances) * share).ceil();
        assert_eq!(stay, f64::from(instances - 1), "{instances}");
    }
}

#[test]
fn every_component_has_its_own_keys_in_the_secret_store_where_dcos_lets_its_app_use_them() {
    let (options, facts) = case("secrets");
    let sources: Vec<String> = render(&options, &facts)
        .unwrap()
        .iter()
        .map(|app| app.secrets["pki"].source.clone())
        .collect();
    assert_eq!(
        sources,
        [
            "kubernetes-cp/pki-etcd-0",
            "kubernetes-cp/pki-etcd-1",
            "kubernetes-cp/pki-etcd-2",
            "kubernetes-cp/pki-apiserver",
            "kubernetes-cp/pki-controller-manager",
            "kubernetes/pki-framework",
            "kubernetes-cp/pki-proxy"
        ]
    );
    assert_eq!(
        image(&case("mesos_image").0, "0.1.0", Component::Proxy),
        "registry.example.org/k8sm/k8sm-proxy:0.1.0"
    );
}

proptest::proptest! {
    #[test]
    fn any_good_options_are_rendered_without_a_finding(
        options in crate::options::tests::random::options(),
        one_app: bool,
    ) {
        let mut facts = facts();
        facts.one_app = one_app;
        facts.etcd_storage = match options.etcd.storage.as_str() {
            "external" => EtcdStorage::External,
            "persistent" => EtcdStorage::Persistent,
            _ => EtcdStorage::HostPath,
        };
        let members = match facts.etcd_storage {
            EtcdStorage::External => 0,
            _ => options.etcd.count as usize,
        };
        facts.etcd_hosts = (1..=members as u8).map(cases::host).collect();
        // A one-app package without ports has no way in; that is refused.
        let refused = one_app && !options.marathon.require_ports;
        match render(&options, &facts) {
            Ok(apps) => {
                proptest::prop_assert!(!refused);
                proptest::prop_assert_eq!(lint(&apps), []);
                for app in apps {
                    let text = serde_json::to_string(&app).unwrap();
                    proptest::prop_assert_eq!(serde_json::from_str::<App>(&text).unwrap(), app);
                }
            }
            Err(error) => proptest::prop_assert!(refused, "{}", error),
        }
    }
}
