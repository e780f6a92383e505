use super::*;
use rstest::rstest;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[rstest]
#[case("", "", true)]
#[case("app=kubia", "app=kubia", true)]
#[case("app==kubia", "app=kubia,x=y", true)]
#[case("app=kubia", "app=other", false)]
#[case("app=kubia", "", false)]
#[case("app!=kubia", "", true)]
#[case("app!=kubia", "app=kubia", false)]
#[case("app in (a, b)", "app=b", true)]
#[case("app in (a,b)", "app=c", false)]
#[case("app notin (a,b)", "app=c", true)]
#[case("app notin (a,b)", "", true)]
#[case("app notin (a,b)", "app=a", false)]
#[case("app", "app=", true)]
#[case("app", "", false)]
#[case("!app", "", true)]
#[case("!app", "app=x", false)]
#[case("n>1", "n=2", true)]
#[case("n>1", "n=1", false)]
#[case("n<1", "n=x", false)]
#[case("a=b,c!=d,e in (x,y),!f,g", "a=b,e=x,g=1", true)]
#[case("a=b,c!=d,e in (x,y),!f,g", "a=b,e=x,g=1,f=1", false)]
#[case("app=", "app=", true)]
#[case("app in (,)", "app=", true)]
#[case("in in (in)", "in=in", true)]
fn labels_match_when_every_requirement_holds(
    #[case] selector: &str,
    #[case] own: &str,
    #[case] matches: bool,
) {
    let selector = Selector::parse(selector).unwrap();
    assert_eq!(selector.matches(&labels(own)), matches);
}

#[rstest]
#[case("b=1,a=2", "a=2,b=1")]
#[case(" x  in (b,a) ", "x in (a,b)")]
#[case("x notin (a)", "x notin (a)")]
#[case("!x,y,z>3", "!x,y,z>3")]
#[case("x==1", "x==1")]
#[case("x!=", "x!=")]
#[case("", "")]
fn a_selector_is_shown_sorted(#[case] text: &str, #[case] shown: &str) {
    assert_eq!(Selector::parse(text).unwrap().to_string(), shown);
}

#[rstest]
#[case("=x", "found '=', expected: !, identifier, or 'end of string'")]
#[case("a=b,", "found '', expected: identifier after ','")]
#[case("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt")]
#[case("a=b c", "found 'c', expected: ',' or 'end of string'")]
#[case("a in b", "unable to parse requirement: found 'b' expected: '('")]
#[case("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'")]
#[case(
    "a in ()",
    "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
)]
#[case("a=(", "unable to parse requirement: found '(', expected: identifier")]
#[case("!=a", "found '!=', expected: !, identifier, or 'end of string'")]
fn a_selector_that_is_not_understood_says_where(#[case] text: &str, #[case] message: &str) {
    assert_eq!(Selector::parse(text).unwrap_err().to_string(), message);
}

#[test]
fn a_malformed_label_value_in_a_selector_names_its_label() {
    let message = Selector::parse("app=-x").unwrap_err().to_string();
    let start = "unable to parse requirement: values[0][app]: Invalid value: \"-x\": a valid label must be";
    assert!(message.starts_with(start), "{message}");
}

#[test]
fn nothing_matches_nothing_and_everything_matches_everything() {
    assert!(!Selector::nothing().matches(&labels("a=b")));
    assert!(Selector::everything().matches(&labels("")));
    assert!(!Selector::nothing().is_everything());
}

fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
    }
}

#[test]
fn the_struct_in_a_spec_becomes_the_text_kubectl_shows() {
    let selector = LabelSelector {
        match_labels: Some(labels("app=kubia")),
        match_expressions: Some(vec![
            expression("tier", "NotIn", &["b", "a"]),
            expression("x", "Exists", &[]),
        ]),
    };
    assert_eq!(shown(Some(&selector)), "app=kubia,tier notin (a,b),x");
    assert_eq!(shown(Some(&LabelSelector::default())), "<none>");
}

#[rstest]
#[case(
    expression("a", "In", &[]),
    "s.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
)]
#[case(
    expression("a", "Exists", &["x"]),
    "s.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
)]
#[case(
    expression("a", "Is", &["x"]),
    "s.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"
)]
fn a_wrong_expression_in_a_spec_is_reported_at_its_path(
    #[case] expression: LabelSelectorRequirement,
    #[case] message: &str,
) {
    let selector = LabelSelector { match_expressions: Some(vec![expression]), match_labels: None };
    let errors: Vec<String> =
        validate_label_selector(&selector, &Path::new("s")).iter().map(ToString::to_string).collect();
    assert_eq!(errors, [message]);
}

#[rstest]
#[case("status.phase=Running", true)]
#[case("status.phase==Running,metadata.name=kubia", true)]
#[case("status.phase!=Running", false)]
#[case("spec.nodeName=", true)]
#[case("", true)]
#[case(",", true)]
fn fields_match_when_every_requirement_holds(#[case] text: &str, #[case] matches: bool) {
    let fields = labels("status.phase=Running,metadata.name=kubia");
    assert_eq!(FieldSelector::parse(text).unwrap().matches(&fields), matches);
}

#[rstest]
#[case("abc", "invalid selector: 'abc'; can't understand 'abc'")]
#[case("a=b=c", "invalid field selector: unescaped character in value: 61")]
#[case("a=b\\x", "invalid field selector: invalid escape sequence: \\x")]
fn a_field_selector_that_is_not_understood_says_so(#[case] text: &str, #[case] message: &str) {
    assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), message);
}

#[test]
fn escapes_in_field_values_survive_a_round_trip() {
    let selector = FieldSelector::parse("a=x\\,y\\=z\\\\").unwrap();
    assert_eq!(selector.required_value("a"), Some("x,y=z\\"));
    assert_eq!(selector.to_string(), "a=x\\,y\\=z\\\\");
}

#[test]
fn a_path_that_cannot_be_selected_by_is_refused_in_upstreams_words() {
    let selector = FieldSelector::parse("spec.foo=1").unwrap();
    let refusal = |supported: &[&str]| selector.check_supported(supported).unwrap_err().to_string();
    assert_eq!(refusal(&["status.phase"]), "field label not supported: spec.foo");
    assert_eq!(
        refusal(&[]),
        "\"spec.foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
    assert!(FieldSelector::parse("metadata.name=a").unwrap().check_supported(&[]).is_ok());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_selector_panic(
        text in proptest::prelude::any::<String>(),
        likely in "[a-z!=<>(), \\\\/é\0]{0,24}",
    ) {
        for text in [text, likely] {
            let _ = Selector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }

    #[test]
    fn a_shown_selector_reads_back_the_same(text in "[a-c](=[a-c]|!=[a-c]| in \\([a-c],[a-c]\\)|)(,![d-f])?") {
        let selector = Selector::parse(&text).unwrap();
        proptest::prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    }
}
