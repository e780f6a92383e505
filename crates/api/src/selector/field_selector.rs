//! Selectors on fields: `status.phase=Running,metadata.name!=kubia`.

use super::{SelectorError, Values};
use std::fmt;

/// A field selector: every requirement must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    path: String,
    equal: bool,
    value: String,
}

/// What every kind can be selected by.
const COMMON: [&str; 2] = ["metadata.name", "metadata.namespace"];

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`; in values `\`, `,` and `=` are escaped with a backslash.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
            let (path, equal, value) = split_term(term).ok_or_else(|| {
                SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"))
            })?;
            requirements.push(Requirement { path: path.to_owned(), equal, value: unescape(value)? });
        }
        Ok(Self(requirements))
    }

    /// An error when it asks for a path that is not in `supported` and not one of the common two,
    /// `metadata.name` and `metadata.namespace`.
    pub fn check_supported(&self, supported: &[&str]) -> Result<(), SelectorError> {
        let known = |path: &str| supported.contains(&path) || COMMON.contains(&path);
        let Some(unknown) = self.0.iter().map(|requirement| &requirement.path).find(|path| !known(path))
        else {
            return Ok(());
        };
        // Upstream words it differently for kinds that add no path of their own.
        let own = supported.iter().any(|path| !COMMON.contains(path));
        Err(SelectorError(if own {
            format!("field label not supported: {unknown}")
        } else {
            format!(
                "\"{unknown}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            )
        }))
    }

    /// Whether the values match; a path that is not listed counts as empty.
    pub fn matches(&self, fields: &impl Values) -> bool {
        self.0.iter().all(|requirement| {
            let own = fields.value(&requirement.path).unwrap_or("");
            (own == requirement.value) == requirement.equal
        })
    }

    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The value this path must equal, if there is such a requirement (to look it up directly).
    pub fn required_value(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.path == path).map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let sign = if requirement.equal { "=" } else { "!=" };
            let value = requirement.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{sign}{value}", requirement.path)?;
        }
        Ok(())
    }
}

/// The parts between commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Path, whether it must be equal, value: at the first operator.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    (0..term.len()).filter(|at| term.is_char_boundary(*at)).find_map(|at| {
        let (path, rest) = term.split_at(at);
        [("!=", false), ("==", true), ("=", true)]
            .iter()
            .find_map(|(sign, equal)| rest.strip_prefix(sign).map(|value| (path, *equal, value)))
    })
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    let detail = format!("invalid field selector: invalid escape sequence: {sequence}");
                    return Err(SelectorError(detail));
                }
            },
            ',' | '=' => {
                let detail =
                    format!("invalid field selector: unescaped character in value: {}", u32::from(c));
                return Err(SelectorError(detail));
            }
            other => plain.push(other),
        }
    }
    Ok(plain)
}
