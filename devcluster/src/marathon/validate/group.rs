//! Rules of all groups and apps together.

use super::Check;
use crate::marathon::error::ApiError;
use crate::marathon::model::Root;

/// Checks names and dependencies of all that there is to be.
pub fn root(root: &Root) -> Result<(), ApiError> {
    let mut check = Check::default();
    for id in root.apps.keys() {
        check.that(
            !root.groups.contains_key(id),
            "/apps",
            format!("Groups and Applications may not have the same identifier: {id}"),
        );
    }
    check.that(
        root.layers().is_some(),
        "/",
        "Dependency graph has cyclic dependencies.",
    );
    check.result()
}
