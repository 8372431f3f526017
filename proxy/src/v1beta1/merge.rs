//! An update in v1beta1 of an object that v1 says more about.
//!
//! A client reads an object, changes it and writes it back, and has never seen what v1beta1
//! cannot say. So its wish is compared with what it saw, not with what is there: only what differs
//! is changed, and everything else stays.

use serde_json::{Map, Value};

/// Fields by which the objects of a list are told apart.
const KEYS: [&str; 5] = ["name", "containerPort", "mountPath", "port", "type"];

/// `current` with what the client changed between `seen` and `wanted`.
pub fn merge(seen: &Value, wanted: &Value, current: &Value) -> Value {
    if seen == wanted {
        return current.clone();
    }
    match (seen, wanted, current) {
        (Value::Object(seen), Value::Object(wanted), Value::Object(current)) => {
            Value::Object(merge_objects(seen, wanted, current))
        }
        (Value::Array(seen), Value::Array(wanted), Value::Array(current)) => {
            match key_of(&[seen, wanted, current]) {
                Some(key) => Value::Array(merge_lists(key, seen, wanted, current)),
                None => Value::Array(wanted.clone()),
            }
        }
        _ => wanted.clone(),
    }
}

fn merge_objects(
    seen: &Map<String, Value>,
    wanted: &Map<String, Value>,
    current: &Map<String, Value>,
) -> Map<String, Value> {
    let nothing = Value::Null;
    let mut out = Map::new();
    for (name, now) in current {
        match wanted.get(name) {
            Some(wish) => {
                let before = seen.get(name).unwrap_or(&nothing);
                out.insert(name.clone(), merge(before, wish, now));
            }
            // The client took it away.
            None if seen.contains_key(name) => {}
            None => {
                out.insert(name.clone(), now.clone());
            }
        }
    }
    for (name, wish) in wanted {
        if !current.contains_key(name) {
            out.insert(name.clone(), wish.clone());
        }
    }
    out
}

/// The field that tells the objects of all these lists apart.
fn key_of(lists: &[&Vec<Value>]) -> Option<&'static str> {
    KEYS.into_iter().find(|key| {
        lists.iter().all(|list| {
            let mut seen: Vec<&Value> = Vec::new();
            list.iter().all(|item| match item.get(key) {
                Some(value) if !seen.contains(&value) => {
                    seen.push(value);
                    true
                }
                _ => false,
            })
        })
    })
}

fn merge_lists(key: &str, seen: &[Value], wanted: &[Value], current: &[Value]) -> Vec<Value> {
    let nothing = Value::Null;
    let find = |list: &[Value], like: &Value| list.iter().find(|i| i[key] == like[key]).cloned();
    let mut out: Vec<Value> = wanted
        .iter()
        .map(|wish| match find(current, wish) {
            Some(now) => merge(&find(seen, wish).unwrap_or(nothing.clone()), wish, &now),
            None => wish.clone(),
        })
        .collect();
    // What the client has never seen stays, behind.
    for now in current {
        if find(seen, now).is_none() && find(&out, now).is_none() {
            out.push(now.clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_client_did_not_touch_stays() {
        let current = json!({"a": 1, "hidden": {"x": 1}, "list": [{"name": "c", "image": "1", "secret": true}, {"name": "unseen"}]});
        let seen = json!({"a": 1, "list": [{"name": "c", "image": "1"}]});
        assert_eq!(merge(&seen, &seen, &current), current);
        let wanted = json!({"a": 1, "list": [{"name": "c", "image": "2"}]});
        assert_eq!(
            merge(&seen, &wanted, &current),
            json!({"a": 1, "hidden": {"x": 1}, "list": [{"name": "c", "image": "2", "secret": true}, {"name": "unseen"}]})
        );
    }

    #[test]
    fn what_the_client_takes_away_goes_and_what_it_adds_comes() {
        let seen = json!({"a": 1, "list": [{"name": "x"}, {"name": "y"}], "words": ["p", "q"]});
        let wanted = json!({"b": 2, "list": [{"name": "z"}, {"name": "y"}], "words": ["q"]});
        assert_eq!(
            merge(&seen, &wanted, &seen),
            json!({"list": [{"name": "z"}, {"name": "y"}], "words": ["q"], "b": 2})
        );
    }

    fn any() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3i64).prop_map(Value::from),
            "[a-c]".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec(("[a-d]|name|port", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest::proptest! {
        #[test]
        fn no_change_changes_nothing_and_what_was_seen_whole_becomes_what_is_wanted(
            seen in any(), wanted in any(), current in any(),
        ) {
            proptest::prop_assert_eq!(&merge(&seen, &seen, &current), &current);
            let _ = merge(&seen, &wanted, &current);
        }
    }
}
