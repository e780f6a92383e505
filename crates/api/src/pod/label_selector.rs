//! Field by field checks of a `LabelSelector`.

use crate::field::{self, Errors, Path};
use crate::meta;
use crate::name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Everything wrong with a label selector; an empty one is valid here.
pub fn validate(selector: &LabelSelector, path: &Path) -> Errors {
    let mut errors = meta::validate_labels(selector.match_labels.as_ref(), &path.child("matchLabels"));
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        errors.extend(validate_requirement(requirement, &path.child("matchExpressions").index(index)));
    }
    errors
}

fn validate_requirement(requirement: &LabelSelectorRequirement, path: &Path) -> Errors {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    let mut errors = Errors::new();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(field::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(field::forbidden(&at, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(field::invalid(&path.child("operator"), other, "not a valid selector operator"));
        }
    }
    let wrong = name::qualified_name(&requirement.key);
    errors.extend(wrong.iter().map(|w| field::invalid(&path.child("key"), &requirement.key, w)));
    for (index, value) in values.iter().enumerate() {
        let wrong = name::label_value(value);
        errors.extend(wrong.iter().map(|w| field::invalid(&at.index(index), value, w)));
    }
    errors
}

/// Whether a selector says nothing at all.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(|expressions| expressions.is_empty())
}
