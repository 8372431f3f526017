//! What a registry wants to know about us, read from `WWW-Authenticate`.

use std::collections::BTreeMap;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token that another server gives out.
    Bearer {
        /// Where.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// For what; the registry's own words.
        scope: Option<String>,
    },
}

/// Reads a header. Of several challenges the first that is known counts.
pub(super) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut values = parameters(rest);
    Some(Challenge::Bearer {
        realm: values.remove("realm")?,
        service: values.remove("service"),
        scope: values.remove("scope"),
    })
}

/// `name="value",name=value`; commas and escaped quotes may be in quoted values.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '\\' => value.extend(chars.next().map(|(_, c)| c)),
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        c => value.push(c),
                    }
                }
                (value, quoted.get(end..).unwrap_or_default())
            }
            None => {
                let (value, after) = after.split_once(',').unwrap_or((after, ""));
                (value.trim().to_owned(), after)
            }
        };
        found.insert(name, value);
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            challenge(
                r#"Bearer realm="https://auth.example.org/token",service="a \"b\"",scope="repository:k8sm/x:pull,push""#
            ),
            Some(Challenge::Bearer {
                realm: "https://auth.example.org/token".to_owned(),
                service: Some("a \"b\"".to_owned()),
                scope: Some("repository:k8sm/x:pull,push".to_owned()),
            })
        );
        assert_eq!(challenge("Negotiate abc"), None);
        assert_eq!(challenge("Bearer service=x"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_fall(text in ".{0,80}") {
            let _ = challenge(&text);
            let _ = challenge(&format!("Bearer realm=\"{text}"));
        }
    }
}
