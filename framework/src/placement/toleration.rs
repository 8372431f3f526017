//! Taints and tolerations.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a taint of this effect keeps a new pod away.
pub fn keeps_away(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

/// The first taint that keeps the pod away.
pub fn first_untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let mut relevant = taints.iter().filter(|taint| keeps_away(taint));
    relevant.find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// Whether the toleration covers the taint. `Lt` and `Gt` (since v1.35) compare whole numbers:
/// `Gt` tolerates a taint whose value is greater than the toleration's. The API server lets them
/// in only where the operator has switched them on, so they need no switch here.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let own = toleration.value.as_deref().unwrap_or("");
    let theirs = taint.value.as_deref().unwrap_or("");
    let numbers = || Some((decimal(theirs)?, decimal(own)?));
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => own == theirs,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(theirs, own)| theirs < own),
        "Gt" => numbers().is_some_and(|(theirs, own)| theirs > own),
        _ => false,
    }
}

/// A whole number written the one way that upstream takes: no plus sign, no leading zero.
fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = text == "0" || (!digits.starts_with('0') && !digits.starts_with('+'));
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(text: &str) -> Taint {
        let (pair, effect) = text.split_once(':').unwrap();
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            effect: effect.to_owned(),
            time_added: None,
        }
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations_cover_what_upstream_says_they_cover() {
        let dedicated = taint("dedicated=db:NoSchedule");
        for (t, expected) in [
            (toleration("dedicated", "", "db", ""), true),
            (toleration("dedicated", "Equal", "web", ""), false),
            (toleration("dedicated", "Exists", "", "NoSchedule"), true),
            (toleration("dedicated", "Exists", "", "NoExecute"), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("other", "Exists", "", ""), false),
            (toleration("dedicated", "Sometimes", "db", ""), false),
        ] {
            assert_eq!(tolerates(&t, &dedicated), expected, "{t:?}");
        }
        let sla = taint("sla=950:NoSchedule");
        for (operator, value, expected) in [
            ("Gt", "900", true),
            ("Gt", "950", false),
            ("Lt", "1000", true),
            ("Lt", "950", false),
            ("Gt", "0900", false),
            ("Gt", "x", false),
        ] {
            let t = toleration("sla", operator, value, "");
            assert_eq!(tolerates(&t, &sla), expected, "{t:?}");
        }
    }

    #[test]
    fn only_taints_that_stop_scheduling_count() {
        let taints = [taint("a=1:PreferNoSchedule"), taint("b=1:NoExecute")];
        assert_eq!(first_untolerated(&taints, &[]), Some(&taints[1]));
        let all = [toleration("b", "Exists", "", "")];
        assert_eq!(first_untolerated(&taints, &all), None);
    }
}
