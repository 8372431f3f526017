//! Our accounting and filters against what upstream's own code says about the same input
//! (`resources_upstream_golden/README.md`).

use std::collections::BTreeMap;

use framework::placement::selector::NodeRequirement;
use framework::placement::toleration::first_untolerated;
use framework::resources::{Accounting, PodDemand, Quantity};
use k8s_openapi::api::core::v1::{PodSpec, Taint, Toleration};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Case {
    Quantity(QuantityCase),
    Pod(Box<PodCase>),
    Selection(Box<SelectionCase>),
    Toleration(TolerationCase),
}

#[derive(Deserialize)]
struct QuantityCase {
    text: String,
    ok: bool,
    #[serde(default)]
    millis: i64,
    #[serde(default)]
    units: i64,
}

#[derive(Deserialize)]
struct PodCase {
    spec: PodSpec,
    requests: BTreeMap<String, u64>,
    limits: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct SelectionCase {
    spec: PodSpec,
    node: String,
    labels: BTreeMap<String, String>,
    r#match: bool,
}

#[derive(Deserialize)]
struct TolerationCase {
    taints: Vec<Taint>,
    tolerations: Vec<Toleration>,
    #[serde(default)]
    untolerated: String,
}

fn cases() -> impl Iterator<Item = Case> {
    let text = include_str!("resources_upstream_golden/golden.jsonl");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
}

#[test]
fn quantities_are_read_as_upstream_reads_them() {
    let mut count = 0;
    for case in cases() {
        let Case::Quantity(case) = case else { continue };
        count += 1;
        let read = Quantity::parse(&case.text);
        // Upstream also takes a suffix without any digits for zero; the API server never
        // writes such, and we name it an error.
        let digits = case
            .text
            .bytes()
            .take_while(|b| b"+-.0123456789".contains(b))
            .any(|b| b.is_ascii_digit());
        assert_eq!(read.is_ok(), case.ok && digits, "`{}`", case.text);
        let Ok(read) = read else { continue };
        // Beyond 2^63-1 thousandths upstream's numbers overflow; ours are cut.
        if read.units() < i64::MAX as u64 / 1_000 {
            assert_eq!(
                i64::try_from(read.millis()),
                Ok(case.millis),
                "`{}`",
                case.text
            );
            assert_eq!(
                i64::try_from(read.units()),
                Ok(case.units),
                "`{}`",
                case.text
            );
        }
    }
    assert!(count > 300);
}

#[test]
fn pods_are_added_up_as_upstream_adds_them_up() {
    let nothing_added = Accounting {
        default_cpu_millis: 0,
        default_memory_bytes: 0,
        pod_overhead_bytes: 0,
    };
    let mut count = 0;
    for case in cases() {
        let Case::Pod(case) = case else { continue };
        count += 1;
        let demand = PodDemand::of_spec(&case.spec, &nothing_added).unwrap();
        let of = |map: &BTreeMap<String, u64>, name: &str| map.get(name).copied().unwrap_or(0);
        let spec = serde_json::to_string(&case.spec).unwrap();
        assert_eq!(demand.cpu_millis, of(&case.requests, "cpu"), "{spec}");
        assert_eq!(demand.memory_bytes, of(&case.requests, "memory"), "{spec}");
        assert_eq!(
            demand.disk_bytes,
            of(&case.requests, "ephemeral-storage"),
            "{spec}"
        );
        let foo = demand.other.get("example.com/foo").copied().unwrap_or(0);
        assert_eq!(foo, of(&case.requests, "example.com/foo"), "{spec}");
        if let Some(limit) = demand.limits.cpu_millis {
            assert_eq!(
                limit,
                of(&case.limits, "cpu").max(demand.cpu_millis),
                "{spec}"
            );
        }
        if let Some(limit) = demand.limits.memory_bytes {
            assert_eq!(
                limit,
                of(&case.limits, "memory").max(demand.memory_bytes),
                "{spec}"
            );
        }
    }
    assert!(count > 100);
}

#[test]
fn nodes_are_selected_as_upstream_selects_them() {
    let mut count = 0;
    for case in cases() {
        let Case::Selection(case) = case else {
            continue;
        };
        count += 1;
        let matches = NodeRequirement::of(&case.spec).matches(&case.node, &case.labels);
        let spec = serde_json::to_string(&case.spec).unwrap();
        assert_eq!(
            matches, case.r#match,
            "{spec} on {} with {:?}",
            case.node, case.labels
        );
    }
    assert!(count > 200);
}

#[test]
fn taints_are_tolerated_as_upstream_tolerates_them() {
    let mut count = 0;
    for case in cases() {
        let Case::Toleration(case) = case else {
            continue;
        };
        count += 1;
        let found = first_untolerated(&case.taints, &case.tolerations);
        let text = found.map_or(String::new(), |t| {
            format!(
                "{}={}:{}",
                t.key,
                t.value.as_deref().unwrap_or(""),
                t.effect
            )
        });
        assert_eq!(
            text, case.untolerated,
            "{:?} and {:?}",
            case.taints, case.tolerations
        );
    }
    assert!(count > 100);
}
