use super::*;

fn args(words: &[&str]) -> Args {
    let mut all = vec!["k8sm-proxy", "--ca-file=/ca.crt"];
    all.extend(words);
    Args::try_parse_from(all).unwrap()
}

const LISTEN: &str = "--listen=0.0.0.0:6443";
const BACKEND: &str = "--backend=192.0.2.1:6443,192.0.2.2:6443";

#[test]
fn one_side_and_one_list_of_api_servers_are_enough() {
    let config = args(&[LISTEN, BACKEND]).check().unwrap();
    assert_eq!(config.listen, Some("0.0.0.0:6443".parse().unwrap()));
    let Source::Fixed(backends) = config.source else {
        panic!("{:?}", config.source);
    };
    assert_eq!(backends.len(), 2);
    assert_eq!(config.limits.per_address, config.limits.connections);
}

#[test]
fn the_last_one_of_a_flag_counts_and_servers_add_up() {
    let config = args(&[
        LISTEN,
        "--backend=a:1",
        "--backend=b:1,c:1",
        "--drain-seconds=1",
        "--drain-seconds=2",
    ])
    .check()
    .unwrap();
    assert_eq!(config.drain, Duration::from_secs(2));
    let Source::Fixed(backends) = config.source else {
        panic!("{:?}", config.source);
    };
    assert_eq!(backends.len(), 3);
}

#[test]
fn what_is_missing_or_contradictory_is_said() {
    let error = |words: &[&str]| args(words).check().unwrap_err();
    assert_eq!(error(&[BACKEND]), ConfigError::NoSide);
    assert_eq!(error(&[LISTEN]), ConfigError::NoBackends);
    assert_eq!(
        error(&[LISTEN, BACKEND, "--backends-file=/list"]),
        ConfigError::TwoSources
    );
    let text = error(&[LISTEN, "--backend=nowhere"]).to_string();
    assert!(
        text.contains("--backend") && text.contains("nowhere"),
        "{text}"
    );
}

#[test]
fn the_local_side_is_for_loopback_and_has_one_whole_identity() {
    let local = "--legacy-listen=127.0.0.1:8080";
    let error = |words: &[&str]| {
        let mut all = vec![BACKEND];
        all.extend(words);
        args(&all).check().unwrap_err()
    };
    assert_eq!(error(&[local]), ConfigError::NoIdentity);
    assert!(matches!(
        error(&[local, "--legacy-certificate=/c"]),
        ConfigError::Half { .. }
    ));
    assert_eq!(
        error(&[
            local,
            "--legacy-certificate=/c",
            "--legacy-key=/k",
            "--legacy-token-file=/t"
        ]),
        ConfigError::TwoIdentities
    );
    let open = error(&["--legacy-listen=0.0.0.0:8080", "--legacy-token-file=/t"]);
    assert!(open.to_string().contains("loopback"), "{open}");
    let fine = args(&[BACKEND, local, "--legacy-token-file=/t"])
        .check()
        .unwrap();
    assert_eq!(
        fine.legacy,
        Some((
            "127.0.0.1:8080".parse().unwrap(),
            Identity::Token("/t".into())
        ))
    );
}

#[test]
fn every_flag_can_be_a_variable() {
    use clap::CommandFactory;
    for arg in Args::command().get_arguments() {
        if ["help", "version"].contains(&arg.get_id().as_str()) {
            continue;
        }
        let name = arg.get_env().unwrap_or_default().to_string_lossy();
        assert!(name.starts_with("K8SM_PROXY_"), "{arg:?}");
    }
}
