//! Paths and queries: none leads out of the objects that v1beta1 has.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::v1beta1::request::{Request, parse};

fuzz_target!(|text: &str| {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let path = format!("/api/v1beta1/{path}");
    if let Ok(Request::Objects(asked)) = parse(&path, Some(query)) {
        let target = asked.v1_target();
        let path = target.split('?').next().unwrap_or_default();
        assert!(path.starts_with("/api/v1/"));
        assert!(!path.contains('%') && path.split('/').all(|word| word != ".."));
    }
});
