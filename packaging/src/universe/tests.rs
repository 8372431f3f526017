//! The package as it is published: files as goldens, valid by the Universe's schemas, and the app
//! that Cosmos makes of it equal to the one that our own renderer makes of the same options.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::lint::{lint, made};
use super::repository::{FORMATS, Format, dcos_release, negotiate};
use super::*;
use crate::cosmos::{self, Package, Renderer};
use crate::install::artifacts::{Entry, Manifest};
use crate::marathon::{App, Facts, render};
use crate::options::{Layers, Options};

fn manifest() -> Manifest {
    let files: BTreeMap<String, Entry> = source::artifact_names()
        .into_iter()
        .zip(1..)
        .map(|(name, n)| {
            let sha256 = format!("{n:064x}");
            let size = n * 1000;
            (name.to_owned(), Entry { sha256, size })
        })
        .collect();
    Manifest {
        version: 1,
        base_url: None,
        files,
        components: [("kubelet".to_owned(), "v1.37.1".to_owned())].into(),
    }
}

fn release() -> Release {
    Release {
        version: "0.1.0".to_owned(),
        number: 100,
        url: "https://packages.example.org/k8sm".to_owned(),
        artifacts_url: "https://packages.example.org/k8sm/artifacts".to_owned(),
        images: Some("registry.example.org/k8sm".to_owned()),
        upgrades_from: vec!["0.0.9-1.36.2".to_owned()],
        downgrades_to: Vec::new(),
    }
}

fn files() -> Files {
    source::SOURCES.build(&manifest(), &release()).unwrap()
}

fn package() -> Package {
    files().package(100).unwrap()
}

#[test]
fn the_files_of_a_package_are_as_reviewed() {
    let files = files();
    insta::assert_snapshot!("package.json", files.package);
    insta::assert_snapshot!("resource.json", files.resource);
    insta::assert_snapshot!("marathon.json.mustache", files.template);
}

#[test]
fn config_json_in_the_sources_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../universe/config.json");
    if std::env::var_os("INSTA_UPDATE").is_some_and(|v| v == "always") {
        std::fs::write(path, source::config_text()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap();
    assert!(
        there == source::config_text(),
        "universe/config.json is not what the options say: INSTA_UPDATE=always writes it"
    );
}

fn schema(name: &str) -> Value {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/universe");
    serde_json::from_str(&std::fs::read_to_string(format!("{dir}/{name}")).unwrap()).unwrap()
}

fn errors(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .build(schema)
        .unwrap();
    validator
        .iter_errors(document)
        .map(|e| e.to_string())
        .collect()
}

#[test]
fn the_files_are_valid_by_the_universes_schemas() {
    let files = files();
    for (name, text) in [
        ("package-schema.json", &files.package),
        ("config-schema.json", &files.config),
        ("v3-resource-schema.json", &files.resource),
    ] {
        let document: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            errors(&schema(name), &document),
            Vec::<String>::new(),
            "{name}"
        );
    }
    let mut wrong: Value = serde_json::from_str(&files.package).unwrap();
    wrong["version"] = "1+2".into();
    assert!(
        !errors(&schema("package-schema.json"), &wrong).is_empty(),
        "the schema checks"
    );
}

/// Puts the definitions that a schema of repositories refers to into the schema.
fn joined(format: Format) -> Value {
    let text = schema(&format!("{format}-repo-schema.json")).to_string();
    let mut joined: Value =
        serde_json::from_str(&text.replace("vX-repo-definitions.json#/", "#/definitions/"))
            .unwrap();
    let text = schema("vX-repo-definitions.json").to_string();
    joined["definitions"] =
        serde_json::from_str(&text.replace("\"#/", "\"#/definitions/")).unwrap();
    joined
}

#[test]
fn repositories_are_valid_by_the_universes_schemas() {
    let package = package();
    for format in FORMATS {
        let repository = format.repository([&package]);
        assert_eq!(repository["packages"].as_array().unwrap().len(), 1);
        assert_eq!(
            errors(&joined(format), &repository),
            Vec::<String>::new(),
            "{format}"
        );
    }
    let old = Format::V3.repository([&package]);
    assert_eq!(old["packages"][0]["packagingVersion"], "3.0");
    assert!(old["packages"][0].get("upgradesFrom").is_none());
    assert!(!errors(&joined(Format::V3), &Format::V4.repository([&package])).is_empty());
}

#[test]
fn a_package_without_a_fault_has_no_finding() {
    assert_eq!(lint(&files()), []);
}

#[test]
fn each_fault_is_found() {
    let found = |change: &dyn Fn(&mut Files)| {
        let mut files = files();
        change(&mut files);
        let findings: Vec<String> = lint(&files).iter().map(ToString::to_string).collect();
        let mut text = findings
            .iter()
            .take(3)
            .map(|f| f.chars().take(240).collect::<String>())
            .collect::<Vec<_>>()
            .join("\n");
        text.push_str("\n--\n");
        text
    };
    let replace = |text: &mut String, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        *text = text.replacen(from, to, 1);
    };
    let mut all = String::new();
    let mut case = |change: &dyn Fn(&mut Files)| all.push_str(&found(change));
    case(&|f| replace(&mut f.package, "currently", "curr\u{e9}ntly"));
    case(&|f| replace(&mut f.package, "currently", "curr\\u0065ntly"));
    case(&|f| replace(&mut f.package, "0.1.0-1.37.1", "0.1.0+1.37.1"));
    case(&|f| replace(&mut f.package, "0.0.9-1.36.2", "*"));
    case(&|f| replace(&mut f.package, "\"2.0\"", "\"1.9\""));
    case(&|f| replace(&mut f.package, "\"framework\"", "\"frame-work\""));
    case(&|f| replace(&mut f.package, "\"k8s\"", "\"k 8 s\""));
    case(&|f| {
        replace(
            &mut f.config,
            "\"default\": 2379,",
            "\"default\": \"many\",",
        )
    });
    case(&|f| {
        replace(
            &mut f.config,
            "\"additionalProperties\": false",
            "\"additionalProperties\": true",
        )
    });
    case(&|f| replace(&mut f.resource, "\"etcd\": \"https", "\"etcd.x\": \"ftp"));
    case(&|f| replace(&mut f.resource, "contentHash", "hash"));
    case(&|f| replace(&mut f.template, "{{{service.name}}}", "{{service.name}}"));
    case(&|f| {
        replace(
            &mut f.template,
            "resource.assets.uris.k8sm}",
            "resource.assets.uris.k8sm.x}",
        )
    });
    case(&|f| {
        replace(
            &mut f.template,
            "\"--set=etcd.count={{{etcd.count}}}\",",
            "",
        )
    });
    case(&|f| {
        replace(
            &mut f.template,
            "\"requirePorts\": true,",
            "\"requirePorts\": true",
        )
    });
    case(&|f| replace(&mut f.template, "{{{framework.cpus}}}", "{{{framework}}}"));
    case(&|f| replace(&mut f.template, "{{/service.user}}", "{{/service.use}}"));
    case(&|f| replace(&mut f.template, "\"--set=oidc.ca=", "\"--set=oidc.ca= "));
    insta::assert_snapshot!(all);
}

/// The facts that a package has: programs by the addresses in its `resource.json`.
fn facts() -> Facts {
    let text = include_str!("../../tests/fixtures/facts.json");
    let mut facts: Facts = serde_json::from_str(text).unwrap();
    facts.one_app = true;
    facts.artifacts = source::artifacts_of(&manifest(), &release().artifacts_url).unwrap();
    facts
}

/// The app that our own renderer makes.
fn own(options: &Options) -> App {
    let mut facts = facts();
    // The choices for the other apps, which are not looked at.
    facts.etcd_hosts = (0..options.etcd.count)
        .map(|_| facts.api_hosts[0].clone())
        .collect();
    facts.api_hosts = vec![facts.api_hosts[0].clone(); 8];
    let id = format!("/{}", options.service.name);
    let apps = render(options, &facts).unwrap_or_else(|e| panic!("{e}"));
    apps.into_iter().find(|a| a.id.as_str() == id).unwrap()
}

/// The app that Cosmos makes.
fn of_cosmos(renderer: &Renderer<'_>, options: &Options) -> App {
    let app = renderer.render("https://r.example.org", Some(&options.changed()), None);
    let mut app: App = serde_json::from_value(app.unwrap()).unwrap();
    for label in cosmos::FORCED {
        app.labels.remove(label);
    }
    app
}

#[test]
fn cosmos_posts_what_our_own_renderer_makes() {
    for document in [
        "{}",
        "{service: {name: k8s-prod, user: nobody, principal: k8s, secret_name: prod/k8s, constraints: [[rack, LIKE, r1|r2]]}}",
        "{marathon: {resource_roles: ['*', apps], role: apps}, apiserver: {extra_args: ['--v=2', '--x=a,b']}}",
        "{framework: {cpus: 1.5, port: 9999}, artifacts: {base_url: 'https://own.example.org/k8sm', cache: false}}",
        "{oidc: {issuer_url: 'https://id.example.org', client_id: 'a \"quoted\" one'}, audit: {level: policy, policy: \"a: 'b'\\n\\tc\\\\d\"}}",
    ] {
        let mut layers = Layers::new();
        layers.document(document).unwrap();
        let options = layers.finish().unwrap();
        assert_eq!(of_cosmos(&RENDERER, &options), own(&options), "{document}");
    }
}

static PACKAGE: LazyLock<Package> = LazyLock::new(package);
static RENDERER: LazyLock<Renderer<'static>> = LazyLock::new(|| Renderer::new(&PACKAGE).unwrap());

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_good_options_make_a_good_app_that_is_told_them(
        options in crate::options::tests::random::options(),
    ) {
        let found = made(&PACKAGE, &RENDERER, &options.changed());
        prop_assert_eq!(found, Vec::<String>::new());
        if options.marathon.require_ports {
            prop_assert_eq!(of_cosmos(&RENDERER, &options), own(&options));
        }
    }

    #[test]
    fn no_arguments_are_a_panic(args in prop::collection::vec("(--set=|--list=|--table=|--item|--row|--end|--artifact=)?[a-z.,0-9]{0,8}", 0..8)) {
        let _ = command::Command::parse(&args);
    }
}

#[test]
fn arguments_are_read_back() {
    let artifacts = facts().artifacts;
    // Not good as options, but nothing that an argument could not carry.
    let mut options = Options::default();
    options.service.constraints = vec![
        vec!["a".into(), "UNIQUE".into()],
        vec!["b".into(), "LIKE".into(), "--row".into()],
    ];
    options.apiserver.extra_args = vec!["--end".into(), "--item".into(), "--set=a=b".into()];
    options.audit.level = "policy".into();
    options.audit.policy = "a: =b\n\"c\"".into();
    let args = command::args(&options, "v1.37.1", &artifacts);
    let read = command::Command::parse(&args).unwrap();
    assert_eq!(read.artifacts, artifacts);
    assert_eq!(
        Options::from_value(&read.options).map(|o| o.to_value()),
        Ok(options.to_value())
    );
}

#[test]
fn arguments_that_were_cut_off_or_changed_are_refused() {
    let error = |words: &str| {
        let args: Vec<String> = words.split(' ').map(str::to_owned).collect();
        command::Command::parse(&args).unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        [
            error("--kubernetes=v1"),
            error("--set=etcd.count=2 --end"),
            error("--set=nothing.there=2 --end"),
            error("--list=etcd.agents --item"),
            error("--artifact=etcd,abc,1,http://x --end"),
            error("--else --end"),
            error("--end"),
            error("--kubernetes=v1 --end more"),
        ]
        .join("\n--\n")
    );
}

#[test]
fn cosmos_gets_the_newest_format_that_it_accepts() {
    let cosmos = FORMATS.map(Format::media_type).join(",");
    let v4 = format!("{},{}", Format::V3.media_type(), Format::V4.media_type());
    for (accept, format) in [
        (Some(cosmos.as_str()), Some(Format::V5)),
        (Some(v4.as_str()), Some(Format::V4)),
        (
            Some("application/vnd.dcos.universe.repo+json; charset=utf-8; version=\"v3\""),
            Some(Format::V3),
        ),
        (
            Some("application/vnd.dcos.universe.repo+json;version=v9"),
            None,
        ),
        (Some("text/html"), None),
        (
            Some("application/vnd.dcos.universe.repo+json;version=v4;q=0"),
            None,
        ),
        (Some("*/*"), Some(Format::V5)),
        (None, Some(Format::V5)),
    ] {
        assert_eq!(negotiate(accept), format, "{accept:?}");
    }
    assert_eq!(dcos_release("cosmos/0.6.3 dcos/1.13"), Some("1.13"));
    assert_eq!(dcos_release("curl/8"), None);
}

#[test]
fn artifacts_that_are_missing_are_named() {
    let mut manifest = manifest();
    manifest.files.remove("etcd");
    let error = source::SOURCES.build(&manifest, &release()).unwrap_err();
    assert!(error.to_string().contains("etcd"), "{error}");
    manifest.components.clear();
    assert!(source::SOURCES.build(&manifest, &release()).is_err());
    assert!(source::package_version("0.1.0+dirty", "v1.37.1").is_err());
}

#[test]
fn a_number_may_be_written_with_or_without_a_point() {
    for cpus in [json!(1), json!(1.0)] {
        let options = json!({"framework": {"cpus": cpus}});
        assert_eq!(made(&PACKAGE, &RENDERER, &options), Vec::<String>::new());
    }
}
