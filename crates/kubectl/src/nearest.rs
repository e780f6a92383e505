//! What may have been meant by a word that is not known.

/// The words among `known` that are spelled like `typed` (at most two letters differ) or begin with it, in their order.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = typed.to_lowercase();
    let is_near =
        |word: &str| strsim::levenshtein(&lower, &word.to_lowercase()) <= 2 || word.starts_with(&lower);
    known.into_iter().filter(|word| is_near(word)).collect()
}

/// The paragraph that names them, a line each behind `prefix`; empty if there are none.
pub(crate) fn did_you_mean(words: &[&str], prefix: &str) -> String {
    if words.is_empty() {
        return String::new();
    }
    let lines: String = words.iter().map(|word| format!("\t{prefix}{word}\n")).collect();
    format!("\n\nDid you mean this?\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("outpt", &["output"])]
    #[case("namespce", &["namespace"])]
    #[case("Watch", &["watch", "watch-only"])]
    #[case("nosuch", &[])]
    fn words_spelled_alike_are_offered(#[case] typed: &str, #[case] expected: &[&str]) {
        let known = ["output", "namespace", "watch", "watch-only", "selector"];
        assert_eq!(nearest(typed, known), expected);
    }
}
