//! `make bench`, rendering: from the text of an options file to all Marathon apps as JSON, checked
//! by the linter. The goal is that of a person who waits for a command, so it is absolute.

use std::time::{Duration, Instant};

use packaging::marathon::{Facts, lint, render};
use packaging::options::Layers;

/// Runs, of which the slowest counts too.
const RUNS: usize = 200;
/// What `k8sm render` may take.
const REACH: Duration = Duration::from_millis(50);

fn main() {
    let options = include_str!("../tests/fixtures/everything.yaml");
    let mut facts: Facts = serde_json::from_str(include_str!("../tests/fixtures/facts.json"))
        .expect("the fixture is a document of facts");
    // That set of options wants five members.
    for n in 4..=5 {
        let mut host = facts.etcd_hosts[0].clone();
        host.hostname = format!("a{n}.example.org");
        facts.etcd_hosts.push(host);
    }
    let mut times = Vec::with_capacity(RUNS);
    let mut bytes = 0;
    for _ in 0..RUNS {
        let start = Instant::now();
        let mut layers = Layers::new();
        layers.document(options).expect("the fixture is YAML");
        let options = layers.finish().expect("the fixture's options are good");
        let apps = render(&options, &facts).expect("the fixtures go together");
        let findings = lint(&apps);
        assert!(findings.is_empty(), "{findings:?}");
        bytes = serde_json::to_vec(&apps).map_or(0, |json| json.len());
        times.push(start.elapsed());
    }
    times.sort();
    let (median, slowest) = (times[RUNS / 2], times[RUNS - 1]);
    println!("\n| what | measured | reach | |\n|---|---|---|---|");
    println!(
        "| options file to all Marathon apps, linted ({} KiB of JSON) | p50 {:.1} ms, slowest of {RUNS} {:.1} ms | {} ms | {} |",
        bytes / 1024,
        median.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
        REACH.as_millis(),
        if slowest <= REACH {
            "reached"
        } else {
            "MISSED"
        }
    );
}
