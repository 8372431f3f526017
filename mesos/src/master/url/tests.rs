use super::*;

fn hosts(text: &str, scheme: Scheme) -> Vec<String> {
    match MasterUrl::parse(text).expect("masters").0 {
        Kind::Hosts(hosts) => hosts
            .iter()
            .map(|h| h.address(scheme).to_string())
            .collect(),
        Kind::ZooKeeper(_) => panic!("{text} is ZooKeeper"),
    }
}

fn zookeeper(text: &str) -> (String, String, Option<String>) {
    match MasterUrl::parse(text).expect("a URL").0 {
        Kind::ZooKeeper(url) => (
            url.hosts,
            url.path,
            url.digest.map(|digest| digest.expose().to_owned()),
        ),
        Kind::Hosts(_) => panic!("{text} is a list"),
    }
}

#[test]
fn masters_are_named_by_host_and_port_or_by_url() {
    for (text, addresses) in [
        ("m", vec!["http://m:5050"]),
        ("m:80", vec!["http://m"]),
        (
            " m1:5050 , m2:5051,",
            vec!["http://m1:5050", "http://m2:5051"],
        ),
        ("http://m:5050/", vec!["http://m:5050"]),
        (
            "https://dcos.example/mesos/",
            vec!["https://dcos.example/mesos"],
        ),
        ("10.0.0.1:5050/mesos", vec!["http://10.0.0.1:5050/mesos"]),
        ("[::1]", vec!["http://[::1]:5050"]),
        ("[::1]:5051", vec!["http://[::1]:5051"]),
    ] {
        assert_eq!(hosts(text, Scheme::Http), addresses, "{text}");
    }
}

#[test]
fn the_scheme_counts_for_those_that_name_none() {
    assert_eq!(
        hosts("m:5050,http://n:5050,m:80,m:443", Scheme::Https),
        [
            "https://m:5050",
            "http://n:5050",
            "https://m:80",
            "https://m"
        ]
    );
}

#[test]
fn a_zookeeper_url_has_hosts_a_path_and_perhaps_a_password() {
    for (text, hosts, path, digest) in [
        ("zk://a/mesos", "a:2181", "/mesos", None),
        ("zk://a:1,b/m/c/", "a:1,b:2181", "/m/c", None),
        ("zk://u:p@a:1,b:2/m", "a:1,b:2", "/m", Some("u:p")),
        ("zk://u:p@ss@a/m", "a:2181", "/m", Some("u:p@ss")),
        ("zk://u:p/w@a:1/m", "a:1", "/m", Some("u:p/w")),
        ("zk://a:1/m@x", "a:1", "/m@x", None),
    ] {
        let expected = (hosts.to_owned(), path.to_owned(), digest.map(str::to_owned));
        assert_eq!(zookeeper(text), expected, "{text}");
    }
}

#[test]
fn passwords_are_not_shown() {
    let url = MasterUrl::parse("zk://u:s3cret@a/m").expect("a URL");
    assert_eq!(url.to_string(), "zk://a:2181/m");
    assert!(!format!("{url:?}").contains("s3cret"));
    let error = MasterUrl::parse("http://u:s3cret@m:5050").expect_err("credentials");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    let error = MasterUrl::parse("zk://u:s3cret@/m").expect_err("no hosts");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[test]
fn what_names_no_master_is_refused_with_a_reason() {
    for (text, reason) in [
        ("", "no master named"),
        (" , ", "no master named"),
        ("ftp://m", "only http, https and zk"),
        ("m:99999", "invalid port"),
        ("m:5050?x=1", "no query"),
        ("http://", "empty host"),
        ("zk://a:2181", "no path"),
        ("zk://a/", "no path"),
        ("zk:///mesos", "no host"),
        ("zk://a/m//n", "part of the path is empty"),
        ("zk://u@a/m", "user without password"),
        ("zk://a b/m", "`a b:2181` is no host"),
    ] {
        let error = MasterUrl::parse(text).expect_err(text).to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn a_url_can_be_in_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("zk");
    std::fs::write(&file, "zk://u:p@a/m\n").expect("written");
    let named = format!("file://{}", file.display());
    let url = MasterUrl::load(&named).expect("a URL");
    assert_eq!(url, MasterUrl::parse("zk://u:p@a/m").expect("a URL"));
    let error = MasterUrl::load("file:///does/not/exist").expect_err("missing");
    assert!(error.to_string().contains("/does/not/exist"), "{error}");
    assert_eq!(
        MasterUrl::load("m:5050").expect("a host"),
        MasterUrl::parse("m:5050").expect("a host")
    );
}

#[test]
fn a_redirect_of_an_endpoint_leads_to_another_base() {
    let address = |text: &str| MasterAddress::new(Url::parse(text).expect("a URL"));
    let master = address("https://m1:5050");
    for (location, base) in [
        ("//m2:5050/api/v1/scheduler", Some("https://m2:5050")),
        (
            "//m2:5050/master/api/v1/scheduler/",
            Some("https://m2:5050"),
        ),
        (
            "http://m2:5051/p/api/v1/scheduler",
            Some("http://m2:5051/p"),
        ),
        ("//m2:5050", Some("https://m2:5050")),
        ("//m2:5050/", Some("https://m2:5050")),
        (
            "https://login.example/?next=x",
            Some("https://login.example"),
        ),
        ("//m2:5050/login", None),
        ("ftp://m2/api/v1/scheduler", None),
        ("//", None),
    ] {
        let found = master.redirected("/api/v1/scheduler", location);
        assert_eq!(
            found.map(|found| found.to_string()).as_deref(),
            base,
            "{location}"
        );
    }
}
