//! Options files and `--set`: any text is options or problems, never a panic; what is taken
//! survives being written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packaging::options::{Layers, Options};

fuzz_target!(|text: &str| {
    let mut layers = Layers::new();
    let mut lines = text.splitn(2, "\n---\n");
    let _ = layers.document(lines.next().unwrap_or_default());
    for assignment in lines.next().unwrap_or_default().lines() {
        if let Err(problems) = layers.set(assignment) {
            assert!(!problems.to_string().is_empty());
        }
    }
    match layers.finish() {
        Ok(options) => {
            assert_eq!(Options::from_value(&options.to_value()).as_ref(), Ok(&options));
            assert_eq!(Options::from_value(&options.changed()).as_ref(), Ok(&options));
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
});
