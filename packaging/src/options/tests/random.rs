//! Any good options survive every way they are written, and any text is options or problems.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::super::format::{ALL, Format};
use super::super::*;

/// A good value of a format.
fn of_format(format: Format) -> BoxedStrategy<String> {
    let word = "[a-z][a-z0-9]{0,8}";
    let port = 1_u16..;
    match format {
        Format::Name => "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".boxed(),
        Format::Domain => "[a-z0-9]{1,8}(\\.[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?){0,3}".boxed(),
        Format::Role => "(\\*|[a-z_][a-z0-9_.-]{0,8}(/[a-z][a-z0-9-]{0,8}){0,2})".boxed(),
        Format::Cidr => (any::<u32>(), 8_u32..=20)
            .prop_map(|(base, prefix)| {
                let base = base >> (32 - prefix) << (32 - prefix);
                format!("{}/{prefix}", std::net::Ipv4Addr::from(base))
            })
            .boxed(),
        Format::Address => any::<u32>()
            .prop_map(|a| std::net::Ipv4Addr::from(a).to_string())
            .boxed(),
        Format::AddressPort => (any::<u32>(), port)
            .prop_map(|(a, p)| format!("{}:{p}", std::net::Ipv4Addr::from(a)))
            .boxed(),
        Format::HostPort => (word, port).prop_map(|(h, p)| format!("{h}:{p}")).boxed(),
        Format::PortRange => (port.clone(), port)
            .prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)))
            .boxed(),
        Format::Path => "(/[a-zA-Z0-9_ ,-]{1,8}){1,4}".boxed(),
        Format::PlainPath => "(/[a-zA-Z0-9_-]{1,8}){1,4}".boxed(),
        Format::HttpUrl => "https?://[a-z]{1,8}\\.example(:80)?(/[a-z,=]{0,8}){0,2}".boxed(),
        Format::HttpsUrl => "https://[a-z]{1,8}(:[1-9][0-9]{0,3})?".boxed(),
        Format::FetchUri => "((https?|hdfs)://[a-z]{1,8}/x|(file://)?/a/[a-z]{1,4})".boxed(),
        Format::MesosMaster => "(zk://[a-z]{1,5}:2181(,[a-z]{1,5}:2181){0,2}/mesos|[a-z]{1,5}:5050|https://[a-z]{1,5}:5050/?|/etc/m)".boxed(),
        Format::Flag => "--[a-z]{1,6}(-[a-z]{1,6}){0,2}(=[ -~]{0,12})?".boxed(),
        Format::Mirror => "(_default|[a-z]{1,8}\\.io(:5000)?)=https?://[a-z]{1,8}(:5000)?".boxed(),
        Format::Certificates => Just(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        )
        .boxed(),
        Format::Pair => "[A-Za-z]{1,8}=[a-z,\\\\]{1,8}".boxed(),
        Format::SecretPath => "[a-z]{1,8}(/[a-z0-9_-]{1,8}){0,2}".boxed(),
    }
}

fn text(key: &Key) -> BoxedStrategy<String> {
    let longest = key.longest;
    let form = match key.format {
        Some(format) => of_format(format),
        None => "[ -~]{1,30}".boxed(),
    };
    form.prop_map(move |mut text| {
        if key_is_short(longest) {
            text.truncate(longest);
        }
        text
    })
    .boxed()
}

/// Only short names are ever cut; what is left of a label is one as long as it does not end in -.
fn key_is_short(longest: usize) -> bool {
    longest < 48
}

/// A good value of an option: its extremes among them.
fn value(key: &'static Key) -> BoxedStrategy<Value> {
    if !key.allowed.is_empty() {
        return select(key.allowed.clone()).boxed();
    }
    let bound = |b: &Option<serde_json::Number>| b.as_ref().and_then(|b| b.as_f64()).unwrap_or(0.0);
    let (from, to) = (bound(&key.minimum), bound(&key.maximum));
    match key.kind {
        Kind::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Kind::Integer => {
            let (from, to) = (from as u64, to as u64);
            prop_oneof![Just(from), Just(to), from..=to]
                .prop_map(Value::from)
                .boxed()
        }
        Kind::Number => prop_oneof![Just(from), Just(to), from..=to]
            .prop_map(Value::from)
            .boxed(),
        Kind::Text if key.optional => prop_oneof![Just(String::new()), text(key)]
            .prop_map(Value::from)
            .boxed(),
        Kind::Text => text(key).prop_map(Value::from).boxed(),
        Kind::List => prop::collection::vec(text(key), 0..4)
            .prop_map(Value::from)
            .boxed(),
        Kind::Table => select(vec![
            json!([]),
            json!([["hostname", "UNIQUE"]]),
            json!([["rack", "LIKE", "r1|r2"], ["zone", "GROUP_BY", "3"]]),
        ])
        .boxed(),
    }
    .prop_filter("good alone", move |value| {
        check::value(key, value).is_none()
    })
    .boxed()
}

/// Some options at good values; they may contradict each other.
pub(crate) fn documents() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let keys: Vec<&'static Key> = schema().keys.iter().collect();
    prop::collection::vec(select(keys), 0..12).prop_flat_map(|keys| {
        keys.into_iter()
            .map(|key| value(key).prop_map(move |v| (key.path.as_str(), v)))
            .collect::<Vec<_>>()
    })
}

/// Options at some such values, if these do not contradict each other.
pub(crate) fn options() -> impl Strategy<Value = Options> {
    documents().prop_filter_map("not contradictory", |values| {
        let mut document = json!({});
        for (path, value) in values {
            layers::put(&mut document, path, value);
        }
        Options::from_value(&document).ok()
    })
}

/// How a value is written after `--set path=`.
fn assigned(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn good_options_survive_json_yaml_and_assignments(values in documents()) {
        let mut document = json!({});
        let mut assignments = Layers::new();
        for (path, value) in &values {
            layers::put(&mut document, path, value.clone());
            prop_assert!(assignments.set(&format!("{path}={}", assigned(value))).is_ok(), "{path}");
        }
        prop_assert_eq!(assignments.said(), &document);
        let mut json_layers = Layers::new();
        json_layers.document(&document.to_string()).unwrap();
        let mut yaml_layers = Layers::new();
        yaml_layers.document(&serde_yaml::to_string(&document).unwrap()).unwrap();
        let read = json_layers.finish();
        prop_assert_eq!(&read, &yaml_layers.finish());
        prop_assert_eq!(&read, &assignments.finish());
        match read {
            Ok(options) => {
                prop_assert_eq!(&Options::from_value(&options.to_value()), &Ok(options.clone()));
                prop_assert_eq!(Options::from_value(&options.changed()), Ok(options));
            }
            // Each is good alone: only contradictions are left.
            Err(Problems(problems)) => prop_assert!(
                problems.iter().all(|p| matches!(p.what, What::Contradiction { .. })),
                "{:?}", problems
            ),
        }
    }

    #[test]
    fn what_we_take_config_json_takes_too(values in documents()) {
        let validator = {
            static VALIDATOR: std::sync::OnceLock<jsonschema::Validator> = std::sync::OnceLock::new();
            VALIDATOR.get_or_init(|| {
                jsonschema::options()
                    .with_draft(jsonschema::Draft::Draft4)
                    .build(&config_json(schema()))
                    .unwrap()
            })
        };
        let mut document = json!({});
        for (path, value) in values {
            layers::put(&mut document, path, value);
        }
        let errors: Vec<String> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
        prop_assert_eq!(errors, Vec::<String>::new());
    }

    #[test]
    fn no_text_is_a_panic(text: String, assignment: String) {
        let mut layers = Layers::new();
        let _ = layers.document(&text);
        let _ = layers.set(&assignment);
        let _ = layers.finish();
        for format in ALL {
            let _ = format.matches(&text);
        }
    }
}

#[test]
fn every_option_is_good_at_its_extremes() {
    for key in &schema().keys {
        for bound in [&key.minimum, &key.maximum].into_iter().flatten() {
            let value = Value::from(bound.clone());
            assert_eq!(check::value(key, &value), None, "{} = {value}", key.path);
        }
        for value in [json!(-1), json!({}), json!([{}]), json!("\u{0}")] {
            assert!(
                check::value(key, &value).is_some(),
                "{} = {value}",
                key.path
            );
        }
    }
}
