//! Label selectors, as `metav1.LabelSelector` but with bounds, and what they select.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Selects objects by their labels: those that pass all of `matchLabels` and all of `matchExpressions`. An empty
/// selector selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<Requirement>,
}

/// What the value of one label must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = ("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)", "values: needed for In and NotIn, and for no other operator"),
)]
pub struct Requirement {
    /// The label, for example `app.kubernetes.io/name`.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`: one of `values`; `NotIn`: none of them, or no such label; `Exists`: any value; `DoesNotExist`: no such
    /// label.
    pub operator: Operator,
    /// The values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values, or no such label.
    NotIn,
    /// Any value.
    Exists,
    /// No such label.
    DoesNotExist,
}

impl Operator {
    /// Whether it compares with values.
    pub fn takes_values(self) -> bool {
        match self {
            Self::In | Self::NotIn => true,
            Self::Exists | Self::DoesNotExist => false,
        }
    }
}

impl LabelSelector {
    /// Whether an object with these labels is selected; `label` gives the value of a label.
    ///
    /// ```
    /// use gyrfalcon_api::selector::LabelSelector;
    /// let selector: LabelSelector = serde_json::from_str(r#"{"matchLabels": {"app": "web"}}"#).unwrap();
    /// assert!(selector.selects(|key| (key == "app").then_some("web")));
    /// assert!(!selector.selects(|_| None));
    /// ```
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.match_labels.iter().all(|(key, want)| label(key) == Some(want))
            && self.match_expressions.iter().all(|requirement| requirement.holds(label(&requirement.key)))
    }

    /// Whether everything is selected, whatever its labels.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl Requirement {
    /// Whether the label may have this value.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|value| self.values.iter().any(|listed| listed == value));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn selects(selector: Value, labels: &[(&str, &str)], want: bool) {
        let parsed: LabelSelector = serde_json::from_value(selector.clone()).expect("a selector");
        let label = |key: &str| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        assert_eq!(parsed.selects(label), want, "{selector} of {labels:?}");
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        selects(json!({}), &[], true);
        selects(json!({ "matchLabels": {}, "matchExpressions": [] }), &[("a", "b")], true);
    }

    #[test]
    fn all_labels_must_be_as_given() {
        let both = json!({ "matchLabels": { "app": "web", "tier": "" } });
        selects(both.clone(), &[("app", "web"), ("tier", "")], true);
        selects(both.clone(), &[("app", "web")], false);
        selects(both, &[("app", "db"), ("tier", "")], false);
    }

    #[test]
    fn requirements_are_those_of_kubernetes() {
        let one = |operator: &str, values: Value| json!({ "matchExpressions": [{ "key": "k", "operator": operator, "values": values }] });
        for (operator, values, present, other, absent) in [
            ("In", json!(["v", "w"]), true, false, false),
            ("NotIn", json!(["v", "w"]), false, true, true),
            ("Exists", json!([]), true, true, false),
            ("DoesNotExist", json!([]), false, false, true),
        ] {
            selects(one(operator, values.clone()), &[("k", "v")], present);
            selects(one(operator, values.clone()), &[("k", "x")], other);
            selects(one(operator, values), &[], absent);
        }
    }
}
