use super::*;

/// What the agent of recording 04a set, ids shortened.
const RECORDED: &[(&str, &str)] = &[
    ("LIBPROCESS_IP", "127.0.4.1"),
    ("LIBPROCESS_PORT", "0"),
    ("MESOS_AGENT_ENDPOINT", "127.0.4.1:5051"),
    ("MESOS_CHECKPOINT", "1"),
    ("MESOS_DIRECTORY", "/sandbox"),
    ("MESOS_EXECUTOR_ID", "e1"),
    ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5secs"),
    ("MESOS_FRAMEWORK_ID", "f-0000"),
    ("MESOS_HTTP_COMMAND_EXECUTOR", "0"),
    ("MESOS_RECOVERY_TIMEOUT", "15mins"),
    ("MESOS_SANDBOX", "/sandbox"),
    ("MESOS_SLAVE_ID", "s-S0"),
    ("MESOS_SLAVE_PID", "slave(1)@127.0.4.1:5051"),
    ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
];

fn read(change: &[(&str, Option<&str>)]) -> Result<ExecutorConfig, ConfigError> {
    ExecutorConfig::from_variables(ClientConfig::default(), |name| {
        let changed = change.iter().find(|(key, _)| *key == name);
        match changed {
            Some((_, value)) => value.map(str::to_owned),
            None => {
                let found = RECORDED.iter().find(|(key, _)| *key == name)?;
                Some(found.1.to_owned())
            }
        }
    })
}

#[test]
fn the_environment_of_a_real_agent_is_understood() {
    let config = read(&[]).expect("what an agent gives");
    assert_eq!(config.agent.to_string(), "http://127.0.4.1:5051");
    assert_eq!(config.executor_id.value, "e1");
    assert_eq!(config.framework_id.value, "f-0000");
    assert!(config.checkpoint);
    assert_eq!(config.recovery_timeout, Duration::from_secs(900));
    assert_eq!(config.shutdown_grace_period, Duration::from_secs(5));
    assert!(config.retry_interval <= Duration::from_millis(250));
}

#[test]
fn the_agents_address_may_come_from_its_pid_and_may_want_tls() {
    let config = read(&[
        ("MESOS_AGENT_ENDPOINT", None),
        ("LIBPROCESS_SSL_ENABLED", Some("true")),
    ])
    .expect("what an agent gives");
    assert_eq!(config.agent.to_string(), "https://127.0.4.1:5051");
    let config = read(&[("MESOS_AGENT_ENDPOINT", Some("[::1]:5051"))]).expect("IPv6");
    assert_eq!(config.agent.to_string(), "http://[::1]:5051");
}

#[test]
fn tls_follows_what_libprocess_was_told() {
    let files = [
        ("LIBPROCESS_SSL_CA_FILE", Some("/ca.pem")),
        ("SSL_CERT_FILE", Some("/cert.pem")),
        ("LIBPROCESS_SSL_KEY_FILE", Some("/key.pem")),
    ];
    let path = |source: &PemSource| match source {
        PemSource::File(path) => path.to_string_lossy().into_owned(),
        PemSource::Pem(_) => panic!("it is a file"),
    };
    let without = read(&files).expect("what an agent gives");
    assert!(without.client.ca.is_none(), "TLS is off");
    let enabled = [&files[..], &[("LIBPROCESS_SSL_ENABLED", Some("1"))]].concat();
    let config = read(&enabled).expect("what an agent gives");
    assert_eq!(
        config.client.ca.as_ref().map(path).as_deref(),
        Some("/ca.pem")
    );
    assert!(config.client.identity.is_none(), "nobody asked for it");
    let required = [&enabled[..], &[("SSL_REQUIRE_CERT", Some("true"))]].concat();
    let identity = read(&required)
        .expect("what an agent gives")
        .client
        .identity
        .expect("the agent asks for it");
    assert_eq!(path(&identity.certificates), "/cert.pem");
    assert_eq!(path(&identity.key), "/key.pem");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let both = [("MESOS_AGENT_ENDPOINT", None), ("MESOS_SLAVE_PID", None)];
    for (change, name) in [
        (&both[..], "MESOS_AGENT_ENDPOINT"),
        (&[("MESOS_EXECUTOR_ID", None)], "MESOS_EXECUTOR_ID"),
        (&[("MESOS_FRAMEWORK_ID", Some(""))], "MESOS_FRAMEWORK_ID"),
        (
            &[("MESOS_RECOVERY_TIMEOUT", None)],
            "MESOS_RECOVERY_TIMEOUT",
        ),
        (
            &[("MESOS_RECOVERY_TIMEOUT", Some("soon"))],
            "MESOS_RECOVERY_TIMEOUT",
        ),
        (
            &[("MESOS_AGENT_ENDPOINT", Some("a b"))],
            "MESOS_AGENT_ENDPOINT",
        ),
    ] {
        let error = read(change).expect_err(name).to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn durations_are_those_of_mesos() {
    for (text, seconds) in [
        ("15mins", Some(900.0)),
        ("2secs", Some(2.0)),
        ("1.5hrs", Some(5400.0)),
        ("250ms", Some(0.25)),
        ("1days", Some(86_400.0)),
        ("1weeks", Some(604_800.0)),
        ("10us", Some(1e-5)),
        ("5ns", Some(5e-9)),
        ("2", None),
        ("secs", None),
        ("-1secs", None),
        ("1e400secs", None),
        ("2 fortnights", None),
        ("", None),
    ] {
        let expected = seconds.map(Duration::from_secs_f64);
        assert_eq!(parse_duration(text), expected, "{text}");
    }
}
