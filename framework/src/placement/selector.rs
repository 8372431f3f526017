//! Node selectors and required node affinity, read once per pod and then matched often.
//!
//! As upstream does: terms are alternatives, the requirements of a term all hold; a term that
//! is empty matches nothing, and one that cannot be read matches nothing either.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use super::syntax::{is_label_key, is_label_value};

/// Labels of a node.
pub type Labels = BTreeMap<String, String>;

/// The only field that node selectors know.
const NAME_FIELD: &str = "metadata.name";

/// A pod's `nodeSelector` and required node affinity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRequirement {
    /// `spec.nodeSelector`.
    labels: Vec<(String, String)>,
    /// Alternatives; `None` where the pod has no required node affinity.
    terms: Option<Vec<Term>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    key: String,
    value: String,
    equal: bool,
}

impl NodeRequirement {
    /// Reads what a pod requires of its node.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let selector = spec.node_selector.iter().flatten();
        Self {
            labels: selector.map(|(k, v)| (k.clone(), v.clone())).collect(),
            terms: required.map(|r| {
                r.node_selector_terms
                    .iter()
                    .filter_map(Term::read)
                    .collect()
            }),
        }
    }

    /// Whether a node with this name and these labels will do.
    pub fn matches(&self, node_name: &str, labels: &Labels) -> bool {
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|t| t.matches(node_name, labels)))
    }

    /// The one node that every term names in `matchFields`, as in pods of DaemonSets.
    pub fn only_node(&self) -> Option<&str> {
        let mut only: Option<&str> = None;
        for term in self.terms.as_ref()? {
            let field = term
                .fields
                .iter()
                .find(|f| f.equal && f.key == NAME_FIELD)?;
            if only.is_some_and(|name| name != field.value) {
                return None;
            }
            only = Some(&field.value);
        }
        only
    }
}

impl Term {
    fn read(term: &NodeSelectorTerm) -> Option<Self> {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return None;
        }
        Some(Self {
            labels: expressions
                .iter()
                .map(Requirement::read)
                .collect::<Option<_>>()?,
            fields: fields
                .iter()
                .map(FieldRequirement::read)
                .collect::<Option<_>>()?,
        })
    }

    fn matches(&self, node_name: &str, labels: &Labels) -> bool {
        self.labels.iter().all(|r| r.matches(labels))
            && self.fields.iter().all(|f| f.matches(node_name))
    }
}

impl Requirement {
    fn read(raw: &NodeSelectorRequirement) -> Option<Self> {
        let values = raw.values.as_deref().unwrap_or_default();
        if !is_label_key(&raw.key) || !values.iter().all(|v| is_label_value(v)) {
            return None;
        }
        let number = || match values {
            [one] => one.parse().ok(),
            _ => None,
        };
        let test = match raw.operator.as_str() {
            "In" if !values.is_empty() => Test::In(values.to_vec()),
            "NotIn" if !values.is_empty() => Test::NotIn(values.to_vec()),
            "Exists" if values.is_empty() => Test::Exists,
            "DoesNotExist" if values.is_empty() => Test::DoesNotExist,
            "Gt" => Test::Gt(number()?),
            "Lt" => Test::Lt(number()?),
            _ => return None,
        };
        Some(Self {
            key: raw.key.clone(),
            test,
        })
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|v| values.contains(v)),
            Test::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Gt(bound) => number().is_some_and(|n| n > *bound),
            Test::Lt(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

impl FieldRequirement {
    fn read(raw: &NodeSelectorRequirement) -> Option<Self> {
        let [value] = raw.values.as_deref().unwrap_or_default() else {
            return None;
        };
        let equal = match raw.operator.as_str() {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        Some(Self {
            key: raw.key.clone(),
            value: value.clone(),
            equal,
        })
    }

    fn matches(&self, node_name: &str) -> bool {
        // A field that nodes do not have is empty.
        let actual = if self.key == NAME_FIELD {
            node_name
        } else {
            ""
        };
        (actual == self.value) == self.equal
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labels() -> Labels {
        [("zone", "a"), ("cores", "16"), ("empty", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    fn with_terms(terms: Value) -> NodeRequirement {
        let spec = json!({"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        NodeRequirement::of(&serde_json::from_value(spec).unwrap())
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> NodeRequirement {
        with_terms(
            json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]),
        )
    }

    #[test]
    fn every_operator_matches_as_upstream() {
        for (key, operator, values, expected) in [
            ("zone", "In", &["a", "b"][..], true),
            ("zone", "In", &["b"], false),
            ("none", "In", &["a"], false),
            ("zone", "In", &[], false),
            ("zone", "NotIn", &["b"], true),
            ("zone", "NotIn", &["a"], false),
            ("none", "NotIn", &["a"], true),
            ("none", "NotIn", &[], false),
            ("empty", "Exists", &[], true),
            ("none", "Exists", &[], false),
            ("zone", "Exists", &["a"], false),
            ("none", "DoesNotExist", &[], true),
            ("zone", "DoesNotExist", &[], false),
            ("cores", "Gt", &["15"], true),
            ("cores", "Gt", &["16"], false),
            ("cores", "Lt", &["17"], true),
            ("cores", "Lt", &["1", "2"], false),
            ("zone", "Gt", &["1"], false),
            ("none", "Lt", &["1"], false),
            ("cores", "Gt", &["many"], false),
            ("zone", "Like", &["a"], false),
            ("not a key", "DoesNotExist", &[], false),
            ("zone", "NotIn", &["not a value"], false),
        ] {
            let matches = expression(key, operator, values).matches("n", &labels());
            assert_eq!(matches, expected, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_their_requirements_all_hold() {
        let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let other = json!({"key": "zone", "operator": "In", "values": ["b"]});
        assert!(
            with_terms(json!([{"matchExpressions": [other]}, {"matchExpressions": [zone]}]))
                .matches("n", &labels())
        );
        assert!(!with_terms(json!([{"matchExpressions": [zone, other]}])).matches("n", &labels()));
        assert!(!with_terms(json!([{}])).matches("n", &labels()));
        assert!(!with_terms(json!([])).matches("n", &labels()));
    }

    #[test]
    fn match_fields_name_one_node() {
        let field = |operator: &str, name: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": operator, "values": [name]}]}]);
        let only = with_terms(field("In", "n1"));
        assert!(only.matches("n1", &labels()) && !only.matches("n2", &labels()));
        assert_eq!(only.only_node(), Some("n1"));
        let not = with_terms(field("NotIn", "n1"));
        assert!(!not.matches("n1", &labels()) && not.matches("n2", &labels()));
        assert_eq!(not.only_node(), None);
    }

    #[test]
    fn the_node_selector_holds_besides_the_affinity() {
        let spec = json!({"containers": [], "nodeSelector": {"zone": "a"}});
        let plain = NodeRequirement::of(&serde_json::from_value(spec).unwrap());
        assert!(plain.matches("n", &labels()));
        assert!(!plain.matches("n", &Labels::new()));
    }
}
