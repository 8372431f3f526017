//! Rules of placement constraints.

use regex::Regex;

/// What is wrong with one, `[field, operator, value]`.
pub(super) fn why_invalid(constraint: &[String]) -> Option<String> {
    let [field, operator, rest @ ..] = constraint else {
        return Some("Each constraint must have either 2 or 3 fields".to_owned());
    };
    if rest.len() > 1 {
        return Some("Each constraint must have either 2 or 3 fields".to_owned());
    }
    if field.is_empty() {
        return Some("Missing field and operator".to_owned());
    }
    let value = rest.first().map(String::as_str);
    let given = value.unwrap_or("");
    let number = || given.parse::<u32>().is_ok();
    match operator.as_str() {
        "UNIQUE" => value
            .is_some_and(|v| !v.is_empty())
            .then(|| "UNIQUE does not accept a value".to_owned()),
        "CLUSTER" => None,
        "GROUP_BY" => (value.is_some() && given != "inf" && !number()).then(|| {
            "GROUP BY must define an integer value or else no value at all".to_owned()
        }),
        "MAX_PER" => (!number()).then(|| "MAX_PER requires an integer value".to_owned()),
        "LIKE" | "UNLIKE" => {
            if given.is_empty() {
                Some("LIKE and UNLIKE require a non-empty, regular expression value".to_owned())
            } else {
                Regex::new(given)
                    .is_err()
                    .then(|| format!("'{given}' is not a valid regular expression"))
            }
        }
        "IS" => {
            let literal = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
            (value.is_none() || !given.chars().all(literal)).then(|| {
                "IS only supports Mesos text and float values (see http://mesos.apache.org/documentation/latest/attributes-resources/)"
                    .to_owned()
            })
        }
        _ => Some(
            "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_refused_with_what_is_wrong() {
        let refused = |parts: &[&str]| {
            let list: Vec<_> = parts.iter().map(|p| (*p).to_owned()).collect();
            why_invalid(&list).unwrap_or_default()
        };
        for good in [
            &["hostname", "UNIQUE"][..],
            &["rack", "GROUP_BY"],
            &["rack", "GROUP_BY", "3"],
            &["rack", "CLUSTER", "a"],
            &["rack", "LIKE", "a-[1-3]"],
            &["rack", "MAX_PER", "2"],
            &["cores", "IS", "4"],
        ] {
            assert_eq!(refused(good), "", "{good:?}");
        }
        assert!(refused(&["hostname"]).contains("2 or 3 fields"));
        assert!(refused(&["hostname", "UNIQUE", "x"]).contains("UNIQUE does not"));
        assert!(refused(&["rack", "LIKE", "("]).contains("regular expression"));
        assert!(refused(&["rack", "MAX_PER", "x"]).contains("integer"));
        assert!(refused(&["rack", "NEAR", "x"]).contains("operator must be"));
    }
}
