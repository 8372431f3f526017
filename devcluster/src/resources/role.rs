//! Role names and their hierarchy: `eng/web` is below `eng`.

use std::fmt;

/// The role that resources have which nobody reserved.
pub const DEFAULT_ROLE: &str = "*";

/// Why a role name is refused. The texts are Mesos' own: clients show them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRole {
    /// No name at all.
    #[error("Empty role name is invalid")]
    Empty,
    /// A slash at an end.
    #[error("Role '{0}' cannot {1} with a slash")]
    Slash(String, &'static str),
    /// Two slashes.
    #[error("Role '{0}' cannot contain two adjacent slashes")]
    AdjacentSlashes(String),
    /// `.`, `..` or `*` as a component.
    #[error("Role '{0}' cannot include '{1}' as a component")]
    Component(String, String),
    /// A leading dash.
    #[error("Role component '{0}' is invalid because it begins with a dash")]
    Dash(String),
    /// White space, a control character or a backspace.
    #[error("Role component '{0}' is invalid because it contains backspace or whitespace")]
    Whitespace(String),
}

/// Checks a role name as Mesos does.
pub fn validate(role: &str) -> Result<(), InvalidRole> {
    if role == DEFAULT_ROLE {
        return Ok(());
    }
    if role.is_empty() {
        return Err(InvalidRole::Empty);
    }
    if role.starts_with('/') {
        return Err(InvalidRole::Slash(role.to_owned(), "start"));
    }
    if role.ends_with('/') {
        return Err(InvalidRole::Slash(role.to_owned(), "end"));
    }
    if role.contains("//") {
        return Err(InvalidRole::AdjacentSlashes(role.to_owned()));
    }
    for part in role.split('/') {
        if matches!(part, "." | ".." | "*") {
            return Err(InvalidRole::Component(role.to_owned(), part.to_owned()));
        }
        if part.starts_with('-') {
            return Err(InvalidRole::Dash(part.to_owned()));
        }
        if part
            .chars()
            .any(|c| matches!(c, '\u{8}' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' '))
        {
            return Err(InvalidRole::Whitespace(part.to_owned()));
        }
    }
    Ok(())
}

/// Whether `role` is below `parent`, and not the same.
pub fn is_strict_subrole(role: &str, parent: &str) -> bool {
    role.len() > parent.len()
        && role.starts_with(parent)
        && role.as_bytes().get(parent.len()) == Some(&b'/')
}

/// The topmost role above this one, or the role itself: what quota and fair sharing look at.
pub fn top(role: &str) -> &str {
    role.split('/').next().unwrap_or(role)
}

/// Writes names the way Mesos prints a collection: `{ a, b }`.
pub(crate) struct Braced<'a, T>(pub &'a [T]);

impl<T: fmt::Display> fmt::Display for Braced<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ ")?;
        for (i, item) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{item}")?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_names_are_refused_in_mesos_words() {
        for good in ["*", "a", "eng/web", "a-b", "a.b"] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        let text = |role| validate(role).unwrap_err().to_string();
        assert_eq!(
            text("a b"),
            "Role component 'a b' is invalid because it contains backspace or whitespace"
        );
        assert_eq!(text(".."), "Role '..' cannot include '..' as a component");
        assert_eq!(text("a/*"), "Role 'a/*' cannot include '*' as a component");
        for bad in ["", "/a", "a/", "a//b", "-a", "a/-b", "a/."] {
            assert!(validate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_role_below_another_is_its_strict_subrole() {
        assert!(is_strict_subrole("eng/web", "eng"));
        assert!(!is_strict_subrole("eng", "eng"));
        assert!(!is_strict_subrole("english", "eng"));
        assert_eq!(top("eng/web/x"), "eng");
    }
}
