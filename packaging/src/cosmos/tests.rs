use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn package(template: &str) -> Package {
    Package::from_value(json!({
        "packagingVersion": "4.0", "name": "hello", "version": "1.0", "releaseVersion": 3,
        "config": {
            "type": "object",
            "properties": {
                "service": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "name": {"type": "string", "default": "hello"},
                        "cpus": {"type": "number", "default": 0.5, "minimum": 0.1},
                        "roles": {"type": "array", "default": ["*"], "items": {"type": "string"}},
                        "note": {"type": "string"},
                    },
                },
                "whole": {"type": "object", "default": {"a": 1}, "properties": {"a": {"default": 2}}},
                "nothing": {"type": "object", "properties": {"x": {"type": "string"}}},
            },
        },
        "resource": {"assets": {"uris": {"file": "http://f/x"}}},
        "marathon": {"v2AppMustacheTemplate": STANDARD.encode(template)},
    }))
    .unwrap()
}

const TEMPLATE: &str = r#"{
  "id": "/{{{service.name}}}", "cpus": {{{service.cpus}}}, "roles": {{{service.roles}}},
  {{#service.note}}"note": "{{{service.note}}}",{{/service.note}}
  "fetch": "{{{resource.assets.uris.file}}}", "labels": {"OWN": "x", "DCOS_PACKAGE_NAME": "other"}
}"#;

#[test]
fn defaults_are_taken_from_the_schema() {
    assert_eq!(
        defaults(package("").config().unwrap()),
        json!({"service": {"name": "hello", "cpus": 0.5, "roles": ["*"]}, "whole": {"a": 1}})
    );
}

#[test]
fn an_app_is_rendered_with_its_labels() {
    let options = json!({"service": {"cpus": 1.0, "roles": ["a", "b"], "note": "line\n\"two\""}});
    let package = package(TEMPLATE);
    let app = render(&package, "http://repo/", Some(&options), None).unwrap();
    assert_eq!(app["id"], "/hello");
    assert_eq!(app["cpus"], json!(1));
    assert_eq!(app["roles"], json!(["a", "b"]));
    assert_eq!(app["note"], "line\n\"two\"");
    assert_eq!(app["fetch"], "http://f/x");
    let labels = app["labels"].as_object().unwrap();
    assert_eq!(labels["OWN"], "x");
    assert_eq!(labels["DCOS_PACKAGE_NAME"], "hello");
    assert_eq!(labels["DCOS_PACKAGE_VERSION"], "1.0");
    assert_eq!(labels["DCOS_PACKAGE_SOURCE"], "http://repo/");
    assert_eq!(options_of(&app), Some(options));
    assert_eq!(definition_of(&app), Some(package));
}

#[test]
fn without_options_the_label_holds_none_and_an_id_goes_over_the_templates() {
    let app = render(&package(TEMPLATE), "s", None, Some("other/place")).unwrap();
    assert_eq!(app["id"], "/other/place");
    assert_eq!(options_of(&app), Some(json!({})));
    assert!(app.get("note").is_none());
}

#[test]
fn nulls_are_not_kept_in_the_label() {
    let text = r#"{"id": "x"}"#;
    let options = json!({"service": {"cpus": 1, "other": null}});
    let mut document = package(text).document().clone();
    document["config"]["properties"]["service"]["additionalProperties"] = json!(true);
    let package = Package::from_value(document).unwrap();
    let app = render(&package, "s", Some(&options), None).unwrap();
    assert_eq!(options_of(&app), Some(json!({"service": {"cpus": 1}})));
}

#[test]
fn options_that_do_not_fit_are_all_named() {
    let options = json!({"service": {"cpus": 0, "name": 5, "else": 1}});
    let error = render(&package(TEMPLATE), "s", Some(&options), None).unwrap_err();
    assert_eq!(error.kind(), "JsonSchemaMismatch");
    let text = error.to_string();
    for part in ["/service/cpus", "/service/name", "else"] {
        assert!(text.contains(part), "{text}");
    }
    let error = render(&package(TEMPLATE), "s", Some(&json!([])), None).unwrap_err();
    assert_eq!(error, Error::OptionsNoObject);
}

#[test]
fn options_for_a_package_that_takes_none_are_refused() {
    let mut document = package(TEMPLATE).document().clone();
    document.as_object_mut().unwrap().remove("config");
    let package = Package::from_value(document).unwrap();
    let error = render(&package, "s", Some(&json!({"a": 1})), None).unwrap_err();
    assert_eq!(error, Error::OptionsNotAllowed);
}

#[test]
fn what_is_no_app_is_refused_with_the_place() {
    let error = |text: &str| render(&package(text), "s", None, None).unwrap_err();
    assert!(
        matches!(error("{\n \"a\": oops }"), Error::Json { near, .. } if near.contains("oops"))
    );
    assert_eq!(error("[1]"), Error::NoObject);
    assert_eq!(
        error(r#"{"labels": {"a": 1}}"#),
        Error::Label("a".to_owned())
    );
    assert!(matches!(error("{{#x}}"), Error::Template(_)));
}

#[test]
fn a_package_is_for_newer_releases_of_dcos_too() {
    let mut document = package("").document().clone();
    document["minDcosReleaseVersion"] = "1.10".into();
    let package = Package::from_value(document).unwrap();
    for (release, runs) in [
        ("1.9", false),
        ("1.10", true),
        ("1.10-dev", true),
        ("2.0", true),
        ("1.9.11", false),
    ] {
        assert_eq!(package.runs_on(release), runs, "{release}");
    }
}
