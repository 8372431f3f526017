//! The allocator on its own: filters, fairness, and that nothing is lost or doubled.

use proptest::prelude::*;

use super::*;

const T0: Time = Time::from_secs(1_000);

fn after(millis: u64) -> Time {
    T0 + Duration::from_millis(millis)
}

fn resources(text: &str) -> Resources {
    Resources::parse(text).unwrap()
}

fn in_roles(roles: &[&str]) -> FrameworkOptions {
    FrameworkOptions {
        roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        ..FrameworkOptions::default()
    }
}

fn roles(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|r| (*r).to_owned()).collect()
}

fn allocator(frameworks: &[(&str, &[&str])], agents: &[(&str, &str)]) -> Allocator {
    let mut a = Allocator::new(AllocatorConfig::default());
    for (id, roles) in frameworks {
        a.add_framework(&(*id).into(), in_roles(roles), true);
    }
    for (id, text) in agents {
        a.add_agent(&(*id).into(), resources(text), false);
    }
    a
}

#[test]
fn an_agent_goes_whole_to_one_framework_and_only_once() {
    let mut a = allocator(&[("f", &["r"])], &[("s", "cpus:2;mem:64")]);
    let got = a.allocate(T0, None);
    assert_eq!(got.len(), 1);
    assert_eq!(
        got[0].resources.to_string(),
        "cpus(allocated: r):2; mem(allocated: r):64"
    );
    assert!(a.allocate(T0, None).is_empty());
}

#[test]
fn declined_resources_come_back_when_the_filter_ends_and_at_once_after_revive() {
    let mut a = allocator(&[("f", &["r"])], &[("s", "cpus:2;mem:64")]);
    let (f, s) = ("f".into(), "s".into());
    let given = a.allocate(T0, None)[0].resources.clone();
    a.recover(T0, &f, &s, &given, Some(2.5));
    assert!(a.allocate(after(2_000), None).is_empty());
    let given = a.allocate(after(3_000), None)[0].resources.clone();
    a.recover(after(3_000), &f, &s, &given, Some(3600.0));
    assert!(a.allocate(after(60_000), None).is_empty());
    a.revive(&f, &roles(&["r"]));
    assert_eq!(a.allocate(after(60_000), None).len(), 1);
}

#[test]
fn a_filter_lets_more_pass_than_was_refused() {
    let mut a = allocator(&[("f", &["r"])], &[("s", "cpus:4;mem:64")]);
    let (f, s) = ("f".into(), "s".into());
    let all = a.allocate(T0, None)[0].resources.clone();
    let half = resources("cpus:2").allocated_to("r");
    a.recover(T0, &f, &s, &half, Some(3600.0));
    assert!(a.allocate(after(1_000), None).is_empty());
    let mut rest = all;
    rest.subtract(&half).unwrap();
    a.recover(after(1_000), &f, &s, &rest, Some(0.0));
    assert_eq!(a.allocate(after(2_000), None).len(), 1);
}

#[test]
fn senseless_filters_mean_what_they_mean_in_mesos() {
    assert_eq!(refuse_duration(0.0), None);
    assert_eq!(refuse_duration(-1.0), Some(DEFAULT_REFUSE));
    assert_eq!(refuse_duration(f64::NAN), Some(DEFAULT_REFUSE));
    assert_eq!(refuse_duration(f64::INFINITY), Some(MAX_REFUSE));
    assert_eq!(refuse_duration(1e300), Some(MAX_REFUSE));
}

#[test]
fn a_suppressed_framework_leaves_everything_to_others() {
    let mut a = allocator(
        &[("f", &["r"]), ("g", &["q"])],
        &[("s1", "cpus:2;mem:64"), ("s2", "cpus:2;mem:64")],
    );
    a.suppress(&"f".into(), &roles(&["r"]));
    let got = a.allocate(T0, None);
    assert!(got.iter().all(|x| x.framework.as_str() == "g"));
    assert_eq!(got.len(), 2);
}

#[test]
fn two_roles_share_two_agents() {
    let mut a = allocator(
        &[("f", &["r1", "r2"])],
        &[("s1", "cpus:2;mem:64"), ("s2", "cpus:2;mem:64")],
    );
    let got: BTreeSet<_> = a.allocate(T0, None).into_iter().map(|x| x.role).collect();
    assert_eq!(got, roles(&["r1", "r2"]));
}

#[test]
fn reserved_resources_go_to_their_role_only() {
    let mut a = allocator(
        &[("f", &["eng/web"]), ("g", &["ops"])],
        &[("s", "cpus(eng):2;mem(eng):64")],
    );
    let got = a.allocate(T0, None);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].framework.as_str(), "f");
}

#[test]
fn gpus_far_regions_and_crumbs_are_kept_from_who_cannot_use_them() {
    let mut a = allocator(&[("f", &["r"])], &[("gpu", "cpus:2;mem:64;gpus:1")]);
    assert!(a.allocate(T0, None).is_empty());
    a.add_agent(
        &"crumb".into(),
        resources("cpus:0.001;mem:1;ports:[1-9]"),
        false,
    );
    a.add_agent(&"far".into(), resources("cpus:2"), true);
    assert!(a.allocate(T0, None).is_empty());
    let mut options = in_roles(&["r"]);
    options.gpu_aware = true;
    options.region_aware = true;
    options.min_allocatable.insert("r".to_owned(), Vec::new());
    a.update_framework(&"f".into(), options);
    assert_eq!(a.allocate(T0, None).len(), 3);
}

/// One step of a random life.
#[derive(Debug, Clone)]
enum Step {
    Allocate,
    Decline(usize, u8),
    Keep(usize),
    Finish(usize),
    RemoveAgent(usize),
    AddAgent(usize),
    Suppress(usize),
    Revive(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0..64_usize;
    prop::collection::vec(
        prop_oneof![
            4 => Just(Step::Allocate),
            3 => (n.clone(), 0..9_u8).prop_map(|(i, s)| Step::Decline(i, s)),
            3 => n.clone().prop_map(Step::Keep),
            2 => n.clone().prop_map(Step::Finish),
            1 => n.clone().prop_map(Step::RemoveAgent),
            1 => n.clone().prop_map(Step::AddAgent),
            1 => n.clone().prop_map(Step::Suppress),
            1 => n.prop_map(Step::Revive),
        ],
        0..80,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_or_given_twice(steps in steps()) {
        let each = "cpus:4;mem:256;ports:[1000-1009]";
        let frameworks: [(&str, &[&str]); 3] = [("f0", &["a"]), ("f1", &["a", "b/c"]), ("f2", &["b"])];
        let mut a = allocator(&frameworks, &[]);
        let mut agents = BTreeSet::new();
        let (mut offered, mut used): (Vec<Allocation>, Vec<Allocation>) = (Vec::new(), Vec::new());
        let mut now = T0;
        for step in steps {
            now += Duration::from_millis(700);
            match step {
                Step::Allocate => offered.extend(a.allocate(now, None)),
                Step::Decline(i, secs) if !offered.is_empty() => {
                    let x = offered.swap_remove(i % offered.len());
                    a.recover(now, &x.framework, &x.agent, &x.resources, Some(f64::from(secs)));
                }
                Step::Keep(i) if !offered.is_empty() => {
                    let mut x = offered.swap_remove(i % offered.len());
                    let taken = resources("cpus:1;ports:[1001-1003]").allocated_to(&x.role);
                    let mut rest = x.resources.clone();
                    if rest.subtract(&taken).is_ok() {
                        a.recover(now, &x.framework, &x.agent, &rest, None);
                        x.resources = taken;
                    }
                    used.push(x);
                }
                Step::Finish(i) if !used.is_empty() => {
                    let x = used.swap_remove(i % used.len());
                    a.recover(now, &x.framework, &x.agent, &x.resources, None);
                }
                Step::RemoveAgent(i) => {
                    let id: AgentId = format!("s{}", i % 4).into();
                    for list in [&mut offered, &mut used] {
                        for x in list.extract_if(.., |x| x.agent == id) {
                            a.recover(now, &x.framework, &x.agent, &x.resources, None);
                        }
                    }
                    a.remove_agent(&id);
                    agents.remove(&id);
                }
                Step::AddAgent(i) => {
                    let id: AgentId = format!("s{}", i % 4).into();
                    a.add_agent(&id, resources(each), false);
                    agents.insert(id);
                }
                Step::Suppress(i) => a.suppress(&format!("f{}", i % 3).into(), &roles(&["a", "b"])),
                Step::Revive(i) => a.revive(&format!("f{}", i % 3).into(), &roles(&["a", "b"])),
                _ => {}
            }
            for id in &agents {
                let mut sum = a.available(id).unwrap();
                for x in offered.iter().chain(&used).filter(|x| x.agent == *id) {
                    let plain = x.resources.unallocated();
                    // Numbers that are there twice would vanish in the sum of ranges.
                    prop_assert!(sum.ranges("ports").difference(&plain.ranges("ports")) == sum.ranges("ports"));
                    sum.add_all(&plain);
                }
                prop_assert!(sum.contains(&resources(each)) && resources(each).contains(&sum), "{sum}");
            }
        }
        // Everything comes back in the end, and then can be had in one round.
        for x in offered.into_iter().chain(used) {
            a.recover(now, &x.framework, &x.agent, &x.resources, None);
        }
        for role in a.roles.values() {
            prop_assert!(role.quantities.is_empty());
        }
        for f in ["f0", "f1", "f2"] {
            a.revive(&f.into(), &roles(&["a", "b", "b/c"]));
        }
        prop_assert_eq!(a.allocate(now, None).len(), agents.len());
    }

    #[test]
    fn shares_follow_weights_within_one_agent(n in 4..40_usize, weight in 1..5_u32) {
        let mut config = AllocatorConfig::default();
        config.weights.insert("a".to_owned(), f64::from(weight));
        let mut a = Allocator::new(config);
        a.add_framework(&"f".into(), in_roles(&["a"]), true);
        a.add_framework(&"g".into(), in_roles(&["b"]), true);
        for i in 0..n {
            a.add_agent(&format!("s{i}").into(), resources("cpus:1;mem:64"), false);
        }
        let got = a.allocate(T0, None);
        let mine = got.iter().filter(|x| x.role == "a").count() as f64;
        let fair = n as f64 * f64::from(weight) / (f64::from(weight) + 1.0);
        prop_assert!((mine - fair).abs() <= 1.0, "{mine} of {n} at weight {weight}");
    }
}

fn amounts(text: &str) -> BTreeMap<std::sync::Arc<str>, Scalar> {
    resources(text).scalars()
}

/// What each role has been given, and nothing is given twice.
fn given(allocations: &[Allocation]) -> BTreeMap<String, String> {
    let mut sums: BTreeMap<String, Resources> = BTreeMap::new();
    for it in allocations {
        let sum = sums.entry(it.role.clone()).or_default();
        sum.add_all(&it.resources.unallocated());
    }
    sums.into_iter()
        .map(|(role, sum)| (role, sum.to_string()))
        .collect()
}

#[test]
fn a_limit_cuts_what_a_role_gets_and_leaves_the_rest_to_others() {
    let mut a = allocator(
        &[("f", &["eng"]), ("g", &["web"])],
        &[("s", "cpus:4;mem:1000;ports:[1-2]")],
    );
    let quota = Quota {
        guarantees: BTreeMap::new(),
        limits: amounts("cpus:1;mem:100"),
    };
    a.set_quota("eng", quota);
    let got = given(&a.allocate(T0, None));
    let both: Vec<&String> = got.values().collect();
    // Whoever comes first takes the ports; eng never gets more than its limit.
    assert!(
        got["eng"].contains("cpus:1") && got["eng"].contains("mem:100"),
        "{both:?}"
    );
    assert!(
        got["web"].contains("cpus:3") && got["web"].contains("mem:900"),
        "{both:?}"
    );
    assert!(
        a.allocate(after(1_000), None).is_empty(),
        "the limit is reached"
    );
}

#[test]
fn a_limit_of_nothing_forbids() {
    let mut a = allocator(&[("f", &["eng"])], &[("s", "cpus:4;mem:1000")]);
    let quota = Quota {
        guarantees: BTreeMap::new(),
        limits: amounts("cpus:1;mem:1"),
    };
    let none = Quota {
        limits: quota
            .limits
            .keys()
            .map(|k| (k.clone(), Scalar::ZERO))
            .collect(),
        ..quota
    };
    a.set_quota("eng", none);
    assert!(a.allocate(T0, None).is_empty());
    a.set_quota("eng", Quota::default());
    assert_eq!(a.allocate(after(1_000), None).len(), 1);
}

#[test]
fn what_a_role_is_guaranteed_is_kept_from_others_until_it_comes() {
    let mut a = allocator(&[("g", &["web"])], &[("s", "cpus:4;mem:1000")]);
    let quota = Quota {
        guarantees: amounts("cpus:3;mem:600"),
        limits: BTreeMap::new(),
    };
    a.set_quota("eng/prod", quota);
    let got = given(&a.allocate(T0, None));
    assert_eq!(got["web"], "cpus:1; mem:400");
    a.add_framework(&"f".into(), in_roles(&["eng/prod/a"]), true);
    let got = given(&a.allocate(after(1_000), None));
    assert_eq!(got["eng/prod/a"], "cpus:3; mem:600");
}

#[test]
fn guarantees_go_before_fairness() {
    // web has nothing, so fairness alone would serve it first.
    let mut a = allocator(
        &[("f", &["eng"]), ("g", &["web"])],
        &[("s1", "cpus:2;mem:100"), ("s2", "cpus:2;mem:100")],
    );
    let quota = Quota {
        guarantees: amounts("cpus:4;mem:200"),
        limits: BTreeMap::new(),
    };
    a.set_quota("eng", quota);
    let got = given(&a.allocate(T0, None));
    assert_eq!(got.keys().collect::<Vec<_>>(), ["eng"]);
}

#[test]
fn what_is_reserved_for_a_role_counts_as_its_own() {
    let mut a = allocator(
        &[("f", &["eng"]), ("g", &["web"])],
        &[("s", "cpus(eng):2;mem(eng):100;cpus:2;mem:100")],
    );
    let quota = Quota {
        guarantees: amounts("cpus:2"),
        limits: amounts("cpus:2"),
    };
    a.set_quota("eng", quota);
    assert_eq!(a.consumed("eng"), amounts("cpus:2;mem:100"));
    let got = given(&a.allocate(T0, None));
    assert!(got["web"].contains("cpus:2"), "{got:?}");
}
