//! The rules that definitions obey beyond their form, with the words of Marathon.

mod app;
mod constraints;
mod container;
mod group;
mod update;

pub use app::app;
pub use group::root;
pub use update::resident_update;

use std::collections::BTreeSet;

use super::error::{ApiError, Violation};

/// What rules depend on.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Enabled features: `secrets`, `gpu_resources`, `external_volumes`, ...
    pub features: BTreeSet<String>,
    /// Roles that apps may have.
    pub roles: BTreeSet<String>,
}

/// Collects what is wrong.
#[derive(Debug, Default)]
struct Check {
    violations: Vec<Violation>,
}

impl Check {
    /// Says what is wrong with a part unless it holds.
    fn that(&mut self, holds: bool, path: &str, error: impl Into<String>) {
        if !holds {
            self.violations.push(Violation::new(path, error));
        }
    }

    fn feature(&mut self, rules: &Rules, feature: &str, path: &str) {
        self.that(
            rules.features.contains(feature),
            path,
            format!("Feature {feature} is not enabled. Enable with --enable_features {feature})"),
        );
    }

    fn result(self) -> Result<(), ApiError> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Invalid(self.violations))
        }
    }
}
