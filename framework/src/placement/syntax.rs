//! Syntax of Kubernetes names, label keys and label values.

/// Longest label value, and longest name part of a label key.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

/// Whether it is a label value: empty, or up to 63 letters, digits, `-`, `_`, `.`, with a letter
/// or digit at both ends.
pub fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified_part(text)
}

/// Whether it is a label key: `[<DNS subdomain>/]<name>`.
pub fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified_part(name),
        None => is_qualified_part(text),
    }
}

/// Whether it is a DNS subdomain: labels of lower-case letters, digits and `-`, separated by dots.
pub fn is_dns_subdomain(text: &str) -> bool {
    let part_ok = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= SUBDOMAIN_MAX && text.split('.').all(part_ok)
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= LABEL_MAX && bytes.iter().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_keys_and_names_follow_kubernetes() {
        for ok in ["", "a", "A.b_c-1", &"x".repeat(63)] {
            assert!(is_label_value(ok), "{ok}");
        }
        for bad in ["-a", "a-", "a b", "ä", "a/b", &"x".repeat(64)] {
            assert!(!is_label_value(bad), "{bad}");
        }
        for ok in ["a", "example.com/Role", "k8s.mesosphere.io/attribute-rack"] {
            assert!(is_label_key(ok), "{ok}");
        }
        for bad in ["", "/a", "a/", "A.com/a", "a/b/c", "example..com/a"] {
            assert!(!is_label_key(bad), "{bad}");
        }
        for ok in ["a", "a-1.example.org"] {
            assert!(is_dns_subdomain(ok), "{ok}");
        }
        for bad in ["", "A", "a_b", ".a", "a.", "-a", &"x".repeat(254)] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
    }
}
