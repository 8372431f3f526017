//! Key bundles and run documents: any text is one or an error that shows none of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packaging::pki::{Bundle, Component};
use packaging::run::RunSpec;

fuzz_target!(|text: &str| {
    for component in Component::all(5) {
        if let Ok(bundle) = Bundle::parse(text, "the fuzzer", component) {
            let again = Bundle::parse(&bundle.to_json(), "the fuzzer", component);
            assert!(again.is_ok_and(|again| again == bundle));
        }
    }
    for component in ["etcd", "apiserver", "controller-manager", "proxy", "framework"] {
        if let Ok(spec) = RunSpec::parse(text, component) {
            assert!(RunSpec::parse(&spec.to_json(), component).is_ok_and(|again| again == spec));
        }
    }
});
