//! Label selectors ([`Selector`]) and field selectors ([`FieldSelector`]), as `kubectl get -l … --field-selector …`
//! sends them and as specs hold them.

mod field_selector;
mod parse;

pub use field_selector::FieldSelector;

use crate::field::{self, Errors, Path};
use crate::meta::validate_labels;
use crate::name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Why a selector could not be understood, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `a=b`
    Equals,
    /// `a==b`
    DoubleEquals,
    /// `a!=b`; a missing label matches.
    NotEquals,
    /// `a in (b,c)`
    In,
    /// `a notin (b,c)`; a missing label matches.
    NotIn,
    /// `a`
    Exists,
    /// `!a`
    DoesNotExist,
    /// `a>1`
    GreaterThan,
    /// `a<1`
    LessThan,
}

impl Operator {
    /// The operator of a `matchExpressions` entry.
    fn of_expression(text: &str) -> Result<Self, SelectorError> {
        match text {
            "In" => Ok(Self::In),
            "NotIn" => Ok(Self::NotIn),
            "Exists" => Ok(Self::Exists),
            "DoesNotExist" => Ok(Self::DoesNotExist),
            other => Err(SelectorError(format!("\"{other}\" is not a valid label selector operator"))),
        }
    }
}

/// What selectors look at: labels by key, or fields by path.
pub trait Values {
    /// The value, if there is one.
    fn value(&self, name: &str) -> Option<&str>;
}

impl Values for BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// One condition of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

impl Requirement {
    /// A requirement, checked: key and values are well-formed and as many as the operator takes.
    pub fn new(key: &str, operator: Operator, values: BTreeSet<String>) -> Result<Self, SelectorError> {
        let mut wrong = name::qualified_name(key);
        if !wrong.is_empty() {
            wrong = vec![field::invalid(&Path::new("key"), key, &wrong.join("; ")).to_string()];
        }
        let at = Path::new("values");
        if let Some(detail) = wrong_count(operator, values.len()) {
            wrong.push(field::invalid(&at, &values, detail).to_string());
        }
        for (index, value) in values.iter().enumerate() {
            let at = at.index(index);
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                wrong.push(field::invalid(&at, value, detail).to_string());
            }
            let malformed = name::label_value(value);
            if !malformed.is_empty() {
                wrong.push(field::invalid(&at.key(key), value, &malformed.join("; ")).to_string());
            }
        }
        match wrong.as_slice() {
            [] => Ok(Self { key: key.to_owned(), operator, values }),
            [one] => Err(SelectorError(one.clone())),
            several => Err(SelectorError(format!("[{}]", several.join(", ")))),
        }
    }

    /// Whether the labels satisfy it.
    pub fn matches(&self, labels: &impl Values) -> bool {
        let value = labels.value(&self.key);
        let listed = || value.is_some_and(|value| self.values.contains(value));
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        let bound = || self.values.first().and_then(|bound| bound.parse::<i64>().ok());
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => listed(),
            Operator::NotEquals | Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
            Operator::LessThan => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
        }
    }
}

fn wrong_count(operator: Operator, count: usize) -> Option<&'static str> {
    match operator {
        Operator::In | Operator::NotIn if count == 0 => {
            Some("for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if count != 1 => {
            Some("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist if count != 0 => {
            Some("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan if count != 1 => {
            Some("for 'Gt', 'Lt' operators, exactly one value is required")
        }
        _ => None,
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A label selector: every requirement must hold. Shown sorted by key, as upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { nothing: true, ..Self::default() }
    }

    /// The conjunction of requirements.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Reads `a=b,c!=d,e in (x,y),!f,g,h>1`. The empty text matches everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text).map(Self::new)
    }

    /// From the struct in specs. An empty one matches everything.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = equalities(selector.match_labels.iter().flatten());
        for expression in selector.match_expressions.iter().flatten() {
            let operator = Operator::of_expression(&expression.operator)?;
            let values = expression.values.iter().flatten().cloned().collect();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Self::new(requirements))
    }

    /// All of these labels (`spec.selector` of services and replication controllers). None: everything.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        Self::new(equalities(labels.iter()))
    }

    /// Whether the labels match.
    pub fn matches(&self, labels: &impl Values) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

/// Labels as requirements. They are not checked: validation of the object that holds them has done it.
fn equalities<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<Requirement> {
    let equals = |(key, value): (&String, &String)| Requirement {
        key: key.clone(),
        operator: Operator::Equals,
        values: BTreeSet::from([value.clone()]),
    };
    labels.map(equals).collect()
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

/// A selector in a spec as `kubectl get -o wide` shows it: `<none>` when it is empty, `<error>` when it is
/// not understood.
pub fn shown(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "<none>".to_owned() };
    match Selector::from_label_selector(selector) {
        Ok(all) if all.is_everything() => "<none>".to_owned(),
        Ok(some) => some.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// Everything wrong with a selector in a spec.
pub fn validate_label_selector(selector: &LabelSelector, path: &Path) -> Errors {
    let mut errors = validate_labels(selector.match_labels.as_ref(), &path.child("matchLabels"));
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        errors.extend(validate_expression(expression, &path.child("matchExpressions").index(index)));
    }
    errors
}

fn validate_expression(expression: &LabelSelectorRequirement, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let values = expression.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    match expression.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(field::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(field::forbidden(&at, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(field::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    let wrong = name::qualified_name(&expression.key);
    errors.extend(wrong.iter().map(|wrong| field::invalid(&path.child("key"), &expression.key, wrong)));
    for (index, value) in values.iter().enumerate() {
        let wrong = name::label_value(value);
        errors.extend(wrong.iter().map(|wrong| field::invalid(&at.index(index), value, wrong)));
    }
    errors
}

#[cfg(test)]
mod tests;
