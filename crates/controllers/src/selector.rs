//! Label selectors, parsed once per plan.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;

/// A selector that matches nothing when it is empty or malformed: what would match everything must not be adopted
/// or counted by accident.
#[derive(Clone, Debug)]
pub struct Matcher(Option<Selector>);

impl Matcher {
    /// For `spec.selector` of a Deployment or ReplicaSet.
    pub fn of(selector: &LabelSelector) -> Self {
        let parsed = Selector::try_from(selector.clone()).ok();
        Self(parsed.filter(|selector| !selector.selects_all()))
    }

    /// For the plain map of a ReplicationController or Service.
    pub fn of_map(labels: &BTreeMap<String, String>) -> Self {
        let parsed: Selector = labels.clone().into_iter().collect();
        Self(Some(parsed).filter(|selector| !selector.selects_all()))
    }

    /// Whether it can match anything at all.
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Whether these labels match.
    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether the object's labels match.
    pub fn matches(&self, meta: &ObjectMeta) -> bool {
        match &meta.labels {
            Some(labels) => self.matches_labels(labels),
            None => self.matches_labels(&BTreeMap::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::equal(json!({"matchLabels": {"app": "kubia"}}), json!({"app": "kubia", "x": "y"}), true)]
    #[case::different(json!({"matchLabels": {"app": "kubia"}}), json!({"app": "other"}), false)]
    #[case::in_set(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}), json!({"app": "b"}), true)]
    #[case::not_in_matches_absent(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}), json!({}), true)]
    #[case::exists(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), json!({}), false)]
    #[case::absent(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), json!({}), true)]
    #[case::empty_matches_nothing(json!({}), json!({"app": "kubia"}), false)]
    #[case::malformed_matches_nothing(json!({"matchExpressions": [{"key": "app", "operator": "Near"}]}), json!({"app": "a"}), false)]
    fn a_selector_matches(#[case] selector: Value, #[case] labels: Value, #[case] expected: bool) {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
        assert_eq!(Matcher::of(&selector).matches_labels(&labels), expected);
    }
}
