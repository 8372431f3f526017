use super::*;

fn backend(name: &str) -> Backend {
    Backend::parse(&format!("{name}:6443")).unwrap()
}

fn list(names: &[&str]) -> Vec<Backend> {
    names.iter().map(|n| backend(n)).collect()
}

fn pool(names: &[&str]) -> Pool {
    let mut pool = Pool::default();
    pool.update(&list(names));
    for name in names {
        pool.probed(&backend(name), Probe::Ready);
    }
    pool
}

fn silence() -> Probe {
    Probe::Unreachable("timed out".to_owned())
}

#[test]
fn addresses_are_host_and_port() {
    for good in [
        "a:1",
        "192.0.2.1:6443",
        "[2001:db8::1]:6443",
        "api.example.org:65535",
        " a:1\n",
    ] {
        assert!(Backend::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:+1",
        "2001:db8::1:6443",
        "[x]:1",
        "a b:1",
        "http://a:1",
    ] {
        assert!(Backend::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn connections_go_to_the_server_with_the_fewest_and_spread_among_equals() {
    let mut pool = pool(&["a", "b", "c"]);
    for _ in 0..9 {
        let first = pool.candidates().remove(0);
        pool.opened(&first);
    }
    assert!(
        pool.report()
            .iter()
            .all(|(.., connections)| *connections == 3)
    );
    let idle: std::collections::BTreeSet<Backend> =
        (0..3).map(|_| pool.candidates().remove(0)).collect();
    assert_eq!(idle.len(), 3);
}

#[test]
fn a_new_server_gets_connections_with_its_first_good_probe() {
    let mut pool = pool(&["a"]);
    pool.opened(&backend("a"));
    let change = pool.update(&list(&["a", "b"]));
    assert_eq!(change.added, list(&["b"]));
    assert_eq!(pool.candidates()[0], backend("a"));
    assert_eq!(
        pool.probed(&backend("b"), Probe::Ready),
        Some(Health::Ready)
    );
    assert_eq!(pool.candidates()[0], backend("b"));
}

#[test]
fn a_server_that_says_it_is_not_ready_is_out_at_once_and_keeps_its_connections() {
    let mut pool = pool(&["a", "b"]);
    pool.opened(&backend("a"));
    pool.opened(&backend("b"));
    pool.opened(&backend("b"));
    let health = pool.probed(&backend("a"), Probe::NotReady("shutdown".to_owned()));
    assert!(matches!(health, Some(Health::NotReady(_))));
    assert_eq!(pool.candidates(), list(&["b", "a"]));
    let connections: usize = pool.report().iter().map(|(.., n)| n).sum();
    assert_eq!(connections, 3);
}

#[test]
fn silence_is_forgiven_once_and_a_refused_connection_never() {
    let mut pool = pool(&["a", "b"]);
    assert_eq!(pool.probed(&backend("a"), silence()), None);
    assert!(pool.is_ready(&backend("a")));
    assert!(pool.probed(&backend("a"), silence()).is_some());
    assert_eq!(pool.candidates()[0], backend("b"));
    assert!(pool.probed(&backend("a"), Probe::Ready).is_some());
    assert_eq!(pool.probed(&backend("a"), silence()), None);
    assert!(pool.refused(&backend("b"), "refused".to_owned()).is_some());
    assert_eq!(pool.refused(&backend("b"), "refused".to_owned()), None);
    assert_eq!(pool.candidates()[0], backend("a"));
}

#[test]
fn when_none_is_ready_the_others_are_tried_and_a_stranger_never() {
    let mut pool = pool(&["a", "b", "c", "d"]);
    pool.refused(&backend("a"), "refused".to_owned());
    pool.probed(&backend("b"), Probe::NotReady("503".to_owned()));
    pool.probed(&backend("c"), Probe::Untrusted("unknown issuer".to_owned()));
    pool.update(&list(&["a", "b", "c", "e"]));
    assert_eq!(pool.candidates(), list(&["e", "b", "a"]));
    assert_eq!(pool.ready(), 0);
}

#[test]
fn a_server_that_leaves_the_list_is_forgotten_with_its_last_connection() {
    let mut pool = pool(&["a", "b"]);
    pool.opened(&backend("a"));
    let change = pool.update(&list(&["b"]));
    assert_eq!(change.removed, list(&["a"]));
    assert_eq!(pool.candidates(), list(&["b"]));
    assert_eq!(pool.entries.len(), 2);
    assert!(pool.closed(&backend("a")));
    assert_eq!(pool.entries.len(), 1);
    assert_eq!(pool.probed(&backend("a"), Probe::Ready), None);
}

#[test]
fn a_list_is_bounded() {
    let names: Vec<Backend> = (0..MAX_BACKENDS + 10)
        .map(|n| backend(&format!("h{n}")))
        .collect();
    let mut pool = Pool::default();
    assert_eq!(pool.update(&names).added.len(), MAX_BACKENDS);
    assert!(pool.update(&names).is_empty());
}

#[derive(Debug, Clone)]
enum Event {
    List(Vec<String>),
    Probe(String, u8),
    Refused(String),
    Open,
    Close(usize),
}

fn events() -> impl proptest::strategy::Strategy<Value = Vec<Event>> {
    use proptest::prelude::*;
    let event = prop_oneof![
        prop::collection::vec("[a-e]", 0..5).prop_map(Event::List),
        ("[a-e]", 0..4u8).prop_map(|(name, probe)| Event::Probe(name, probe)),
        "[a-e]".prop_map(Event::Refused),
        Just(Event::Open),
        any::<usize>().prop_map(Event::Close),
    ];
    prop::collection::vec(event, 0..60)
}

proptest::proptest! {
    #[test]
    fn whatever_happens_a_ready_server_comes_first_and_no_stranger_at_all(events in events()) {
        let mut pool = Pool::default();
        let mut open: Vec<Backend> = Vec::new();
        for event in events {
            match event {
                Event::List(names) => {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    pool.update(&list(&names));
                }
                Event::Probe(name, probe) => {
                    let probe = match probe {
                        0 => Probe::Ready,
                        1 => Probe::NotReady(String::new()),
                        2 => silence(),
                        _ => Probe::Untrusted(String::new()),
                    };
                    pool.probed(&backend(&name), probe);
                }
                Event::Refused(name) => {
                    pool.refused(&backend(&name), String::new());
                }
                Event::Open => {
                    if let Some(first) = pool.candidates().first() {
                        pool.opened(first);
                        open.push(first.clone());
                    }
                }
                Event::Close(at) if !open.is_empty() => {
                    let closed = open.swap_remove(at % open.len());
                    pool.closed(&closed);
                }
                Event::Close(_) => {}
            }
            let candidates = pool.candidates();
            let report = pool.report();
            for (name, health, _) in &report {
                let stranger = matches!(health, Health::Untrusted(_));
                proptest::prop_assert_eq!(candidates.contains(name), !stranger);
            }
            proptest::prop_assert_eq!(
                pool.ready() > 0,
                candidates.first().is_some_and(|c| pool.is_ready(c))
            );
            let counted: usize = pool.entries.iter().map(|e| e.connections).sum();
            proptest::prop_assert_eq!(counted, open.len());
        }
    }
}
