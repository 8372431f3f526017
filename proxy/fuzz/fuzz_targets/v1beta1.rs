//! v1beta1 objects: what is read becomes a v1 object that v1beta1 can say again, and saying it
//! again means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::v1beta1::{Resource, from_v1, to_v1};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, text)) = bytes.split_first() else {
        return;
    };
    let resource = Resource::ALL[usize::from(*first) % Resource::ALL.len()];
    let Ok(object) = to_v1(resource, text, Some("default")) else {
        return;
    };
    let said = from_v1(resource, &object).expect("what we wrote can be read");
    let again = to_v1(resource, said.to_string().as_bytes(), Some("default"));
    // What cannot be said again was left out, and then there is less of it, never something else.
    if let Ok(again) = again {
        let said_again = from_v1(resource, &again).expect("what we wrote can be read");
        assert_eq!(said, said_again);
    }
});
