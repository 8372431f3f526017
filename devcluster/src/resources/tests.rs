//! Resource arithmetic against what Mesos prints and refuses, and its laws on random input.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Resources {
    Resources::parse(text).unwrap()
}

#[test]
fn resources_print_as_mesos_prints_them() {
    let r = parse("ports:[31000-31999];cpus:0.9;mem:1600;disk:10240;things:{b,a}");
    assert_eq!(
        r.allocated_to("r1").to_string(),
        "ports(allocated: r1):[31000-31999]; cpus(allocated: r1):0.9; mem(allocated: r1):1600; \
         disk(allocated: r1):10240; things(allocated: r1):{a, b}"
    );
    assert_eq!(
        parse("cpus(eng):0.5").to_string(),
        "cpus(reservations: [(STATIC,eng)]):0.5"
    );
    assert_eq!(Resources::default().to_string(), "{}");
}

#[test]
fn scalars_keep_three_digits_so_tenths_come_out_even() {
    let mut r = parse("cpus:1");
    for _ in 0..10 {
        r.subtract(&parse("cpus:0.1")).unwrap();
    }
    assert!(r.is_empty(), "{r}");
}

#[test]
fn taking_away_what_is_not_there_changes_nothing() {
    let mut r = parse("cpus:1;ports:[1-5]");
    let before = r.clone();
    assert!(r.subtract(&parse("cpus:0.5;ports:[5-6]")).is_err());
    assert_eq!(r, before);
    r.subtract(&parse("cpus:0.5;ports:[2-3]")).unwrap();
    assert_eq!(r.to_string(), "cpus:0.5; ports:[1-1, 4-5]");
}

#[test]
fn texts_that_are_no_resources_are_refused_with_the_place() {
    for bad in [
        "cpus",
        "cpus:x",
        "cpus:1:2",
        "ports:[5-1]",
        "ports:[1-",
        "cpus(a:1",
        "cpus:-1",
        "cpus(..):1",
        "cpus:nan",
        "cpus:inf",
        "things:{a",
        ":1",
        "[{}]x",
        "[1]",
    ] {
        assert!(Resources::parse(bad).is_err(), "{bad}");
    }
    assert!(parse("").is_empty());
    assert_eq!(
        parse(r#"[{"name":"cpus","type":"SCALAR","scalar":{"value":2}}]"#),
        parse("cpus:2")
    );
}

#[test]
fn both_formats_of_a_reservation_mean_the_same() {
    let r = parse("cpus(eng):1;mem:64");
    for format in [
        Format::PostRefinement,
        Format::PreRefinement,
        Format::Endpoint,
    ] {
        assert_eq!(Resources::from_pb(&r.to_pb(format)).unwrap(), r);
    }
    assert_eq!(r.allocatable_to("eng/web"), r);
    assert_eq!(r.allocatable_to("ops"), parse("mem:64"));
}

#[test]
fn broken_resources_in_messages_are_refused() {
    let scalar = |value| pb::Resource {
        name: "cpus".to_owned(),
        r#type: pb::value::Type::Scalar as i32,
        scalar: Some(pb::value::Scalar { value }),
        ..Default::default()
    };
    let text = |r: &pb::Resource| Resource::from_pb(r).unwrap_err().to_string();
    assert_eq!(text(&scalar(-1.0)), "Invalid scalar resource: value <= 0");
    assert_eq!(text(&scalar(0.0001)), "Invalid scalar resource: value <= 0");
    assert!(Resource::from_pb(&scalar(f64::NAN)).is_err());
    assert!(Resource::from_pb(&scalar(f64::INFINITY)).is_err());
    let ranges = |list: &[(u64, u64)]| pb::Resource {
        name: "ports".to_owned(),
        r#type: pb::value::Type::Ranges as i32,
        ranges: Some(pb::value::Ranges {
            range: list
                .iter()
                .map(|&(begin, end)| pb::value::Range { begin, end })
                .collect(),
        }),
        ..Default::default()
    };
    assert_eq!(
        text(&ranges(&[(5, 1)])),
        "Invalid ranges resource: begin > end"
    );
    assert_eq!(
        text(&ranges(&[(1, 5), (5, 6)])),
        "Invalid ranges resource: overlapping ranges"
    );
    assert!(Resource::from_pb(&ranges(&[(0, u64::MAX)])).is_ok());
}

#[test]
fn attributes_are_text_scalars_and_ranges() {
    let list = parse_attributes("rack:r1;os:linux;slots:3.5;gen:[1-5];url:http://x").unwrap();
    let kinds: Vec<_> = list.iter().map(|a| (a.name.as_str(), a.r#type)).collect();
    assert_eq!(
        kinds,
        [("rack", 3), ("os", 3), ("slots", 0), ("gen", 1), ("url", 3)]
    );
    assert!(parse_attributes("rack").is_err());
    assert!(parse_attributes("s:{a}").is_err());
}

fn any_ranges() -> impl Strategy<Value = Ranges> {
    prop::collection::vec((0u64..60, 0u64..8), 0..6)
        .prop_map(|v| Ranges::new(v.into_iter().map(|(b, n)| (b, b + n))))
}

fn any_resources() -> impl Strategy<Value = Resources> {
    (0i64..5000, 0i64..5000, any_ranges(), any_ranges()).prop_map(|(a, b, p, q)| {
        let mut out = Resources::default();
        out.add(&Resource::new(
            "cpus",
            Value::Scalar(Scalar::from_millis(a)),
        ));
        out.add(&Resource::new("mem", Value::Scalar(Scalar::from_millis(b))));
        out.add(&Resource::new("ports", Value::Ranges(p)));
        let mut reserved = Resource::new("ports", Value::Ranges(q));
        reserved
            .meta
            .reservations
            .push(parse::static_reservation("eng"));
        out.add(&reserved);
        out
    })
}

fn numbers(r: &Ranges) -> std::collections::BTreeSet<u64> {
    r.as_slice().iter().flat_map(|&(b, e)| b..=e).collect()
}

proptest! {
    #[test]
    fn ranges_behave_as_sets_of_numbers(a in any_ranges(), b in any_ranges()) {
        let (x, y) = (numbers(&a), numbers(&b));
        prop_assert_eq!(numbers(&a.union(&b)), &x | &y);
        prop_assert_eq!(numbers(&a.difference(&b)), &x - &y);
        prop_assert_eq!(a.contains(&b), y.is_subset(&x));
        prop_assert_eq!(a.count(), x.len() as u64);
        let normal = Ranges::new(a.difference(&b).as_slice().iter().copied());
        prop_assert_eq!(normal, a.difference(&b));
    }

    #[test]
    fn what_is_added_can_be_taken_away_again(a in any_resources(), b in any_resources()) {
        // Numbers and names are there once or not at all, so only disjoint ones add up.
        let b = {
            let mut b = b;
            for resource in &mut b.0 {
                if let Value::Ranges(r) = &mut resource.value {
                    *r = Ranges::new(r.as_slice().iter().map(|(b, e)| (b + 1000, e + 1000)));
                }
            }
            b
        };
        let sum = a.plus(&b);
        prop_assert!(sum.contains(&a) && sum.contains(&b));
        let mut rest = sum.clone();
        rest.subtract(&b).unwrap();
        prop_assert!(rest.contains(&a) && a.contains(&rest));
    }

    #[test]
    fn messages_keep_resources_as_they_are(a in any_resources()) {
        prop_assert_eq!(Resources::from_pb(&a.to_pb(Format::PostRefinement)).unwrap(), a);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = Resources::parse(&text);
        let _ = parse_attributes(&text);
    }
}
