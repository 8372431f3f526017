//! v1 objects, lists, statuses and their merging: whatever an API server might answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::v1beta1::merge::merge;
use proxy::v1beta1::{Resource, from_v1, list_from_v1, status, with_kind};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    for resource in Resource::ALL {
        if let Ok(said) = from_v1(resource, &value) {
            let _ = with_kind(resource, said);
        }
        let _ = list_from_v1(resource, &value);
    }
    let _ = status::from_v1(&value);
    let (a, b, c) = (&value["a"], &value["b"], &value["c"]);
    assert_eq!(merge(a, a, c), *c);
    let _ = merge(a, b, c);
});
