//! What may have been meant by a word that is not known.

/// The words among `known` that are spelled like `typed` (at most two letters differ) or begin with it, in their order.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = typed.to_lowercase();
    known.into_iter().filter(|word| distance(&lower, word) <= 2 || word.starts_with(&lower)).collect()
}

/// The paragraph that names them, a line each behind `prefix`; empty if there are none.
pub(crate) fn did_you_mean(words: &[&str], prefix: &str) -> String {
    if words.is_empty() {
        return String::new();
    }
    let lines: String = words.iter().map(|word| format!("\t{prefix}{word}\n")).collect();
    format!("\n\nDid you mean this?\n{lines}")
}

/// How many letters two words differ by (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
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

    #[rstest]
    #[case("kitten", "sitting", 3)]
    #[case("", "abc", 3)]
    #[case("same", "same", 0)]
    fn letters_that_differ_are_counted(#[case] a: &str, #[case] b: &str, #[case] expected: usize) {
        assert_eq!(distance(a, b), expected);
    }
}
