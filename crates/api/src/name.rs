//! What names, label keys and label values look like, with upstream's messages
//! (`k8s.io/apimachinery/pkg/util/validation`).
//!
//! Each check returns what is wrong, in upstream's words; an empty list means nothing is.

/// The longest DNS-1123 or DNS-1035 label (RFC 1123 2.1).
pub const LABEL_MAX: usize = 63;
/// The longest DNS-1123 subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

/// What `metadata.name` of a kind must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// `kubia-7f9c.example`: most kinds.
    Subdomain,
    /// `kube-system`: namespaces.
    Label,
    /// `kubia`, beginning with a letter: services.
    Dns1035Label,
    /// Anything that fits one segment of a URL path: events.
    PathSegment,
}

impl NameRule {
    /// What is wrong with a name.
    pub fn check(self, name: &str) -> Vec<String> {
        match self {
            Self::Subdomain => dns1123_subdomain(name),
            Self::Label => dns1123_label(name),
            Self::Dns1035Label => dns1035_label(name),
            Self::PathSegment => path_segment(name),
        }
    }

    /// What is wrong with a `generateName`, which may end in a dash.
    pub fn check_prefix(self, prefix: &str) -> Vec<String> {
        match self {
            Self::PathSegment => path_segment_prefix(prefix),
            _ => self.check(&mask_trailing_dash(prefix)),
        }
    }
}

/// A prefix that ends in a dash as the name it will become part of.
fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(head) if !head.is_empty() => format!("{head}a"),
        _ => prefix.to_owned(),
    }
}

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/// RFC 1123 label: `kubia`, `123-abc`.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, LABEL_MAX);
    if !is_dns1123_label(value) {
        if is_dns1123_subdomain(value) {
            wrong.push("must not contain dots".to_owned());
        } else {
            let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
                        must start and end with an alphanumeric character";
            wrong.push(with_regex(rule, DNS1123_LABEL, &["my-name", "123-abc"]));
        }
    }
    wrong
}

/// RFC 1123 subdomain: `kubia.example.com`.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, SUBDOMAIN_MAX);
    if !is_dns1123_subdomain(value) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                    and must start and end with an alphanumeric character";
        let regex = format!("{DNS1123_LABEL}(\\.{DNS1123_LABEL})*");
        wrong.push(with_regex(rule, &regex, &["example.com"]));
    }
    wrong
}

/// RFC 1035 label: as [`dns1123_label`], beginning with a letter.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, LABEL_MAX);
    if !(is_dns1123_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                    alphabetic character, and end with an alphanumeric character";
        wrong.push(with_regex(rule, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    wrong
}

/// A segment of a URL path.
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    path_segment_prefix(value)
}

fn path_segment_prefix(value: &str) -> Vec<String> {
    ["/", "%"]
        .iter()
        .filter(|part| value.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A label key, annotation key or finalizer: `app`, `kubernetes.io/metadata.name`.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut parts = value.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(dns1123_subdomain(prefix).iter().map(|w| format!("prefix part {w}")));
            }
            name
        }
        _ => {
            let rule = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start \
                        and end with an alphanumeric character";
            let described = with_regex(rule, QUALIFIED, &["MyName", "my.name", "123-abc"]);
            return vec![format!(
                "{described} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else {
        wrong.extend(too_long(name, LABEL_MAX).iter().map(|w| format!("name part {w}")));
    }
    if !is_qualified(name) {
        let rule = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                    alphanumeric character";
        wrong.push(format!("name part {}", with_regex(rule, QUALIFIED, &["MyName", "my.name", "123-abc"])));
    }
    wrong
}

const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A label value; the empty one is allowed.
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, LABEL_MAX);
    if !value.is_empty() && !is_qualified(value) {
        let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                    and must start and end with an alphanumeric character";
        let regex = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
        wrong.push(with_regex(rule, regex, &["MyValue", "my_value", "12345"]));
    }
    wrong
}

/// A key of a ConfigMap or Secret, which becomes a file name.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut wrong = too_long(value, SUBDOMAIN_MAX);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.is_empty() || !value.chars().all(fits) {
        let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        wrong.push(with_regex(rule, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    if value == "." || value == ".." {
        wrong.push(format!("must not be '{value}'"));
    } else if value.starts_with("..") {
        wrong.push("must not start with '..'".to_owned());
    }
    wrong
}

/// Whether it is a DNS-1123 label, length aside.
fn is_dns1123_label(value: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !value.is_empty() && value.bytes().all(fits) && !value.starts_with('-') && !value.ends_with('-')
}

/// Whether it is a DNS-1123 subdomain, length aside.
fn is_dns1123_subdomain(value: &str) -> bool {
    value.split('.').all(is_dns1123_label)
}

fn is_qualified(value: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    edge(value.bytes().next()) && edge(value.bytes().last()) && value.bytes().all(fits)
}

fn too_long(value: &str, max: usize) -> Vec<String> {
    if value.len() > max { vec![max_len_message(max)] } else { Vec::new() }
}

/// `must be no more than 63 characters`.
pub fn max_len_message(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// A rule with examples and the regular expression it stands for.
fn with_regex(rule: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    let examples = examples.join(" or ");
    format!("{rule} (e.g. {examples}regex used for validation is '{regex}')")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(NameRule::Subdomain, "kubia-7f9c.example", true)]
    #[case(NameRule::Subdomain, "Kubia", false)]
    #[case(NameRule::Subdomain, "a..b", false)]
    #[case(NameRule::Subdomain, "-a", false)]
    #[case(NameRule::Subdomain, "", false)]
    #[case(NameRule::Label, "kube-system", true)]
    #[case(NameRule::Label, "1a", true)]
    #[case(NameRule::Label, "a.b", false)]
    #[case(NameRule::Dns1035Label, "kubia", true)]
    #[case(NameRule::Dns1035Label, "1kubia", false)]
    #[case(NameRule::Dns1035Label, "a.b", false)]
    #[case(NameRule::PathSegment, "Kubia.17a:b", true)]
    #[case(NameRule::PathSegment, "a/b", false)]
    #[case(NameRule::PathSegment, "..", false)]
    #[case(NameRule::PathSegment, "a%b", false)]
    fn each_kind_of_name_has_its_rule(#[case] rule: NameRule, #[case] name: &str, #[case] valid: bool) {
        assert_eq!(rule.check(name).is_empty(), valid);
    }

    #[rstest]
    #[case("kubia-", true)]
    #[case("kubia", true)]
    #[case("Kubia-", false)]
    #[case("-", false)]
    fn a_prefix_may_end_in_a_dash(#[case] prefix: &str, #[case] valid: bool) {
        assert_eq!(NameRule::Subdomain.check_prefix(prefix).is_empty(), valid);
    }

    #[test]
    fn the_messages_are_upstreams() {
        assert_eq!(
            dns1123_subdomain("Kubia"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
              must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            dns1035_label("1"),
            [
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
              character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
              validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    }

    #[rstest]
    #[case("app", &[])]
    #[case("example.com/My_name.1", &[])]
    #[case("/a", &["prefix part must be non-empty"])]
    #[case("a/", &["name part must be non-empty", "name part must consist of"])]
    #[case("A/b", &["prefix part a lowercase RFC 1123 subdomain"])]
    #[case("a/b/c", &["a qualified name must consist of"])]
    #[case("-a", &["name part must consist of"])]
    fn a_label_key_is_a_name_with_an_optional_domain(#[case] key: &str, #[case] wrong: &[&str]) {
        let messages = qualified_name(key);
        assert_eq!(messages.len(), wrong.len(), "{messages:?}");
        for (message, start) in messages.iter().zip(wrong) {
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[rstest]
    #[case("", true)]
    #[case("v1.2_3-x", true)]
    #[case("a b", false)]
    #[case("-", false)]
    fn a_label_value_may_be_empty(#[case] value: &str, #[case] valid: bool) {
        assert_eq!(label_value(value).is_empty(), valid);
    }
}
