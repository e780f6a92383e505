//! Quoted text of Go, as templates and paths write it.

/// The text between the quotes at both ends; `None` if it is not well quoted. Never knows raw strings.
pub(crate) fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escaped(&mut chars, quote, &mut bytes)?,
            c if c == quote || c == '\n' => return None,
            c => push(&mut bytes, c),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// What follows a backslash.
fn escaped(chars: &mut std::str::Chars<'_>, quote: char, bytes: &mut Vec<u8>) -> Option<()> {
    let c = chars.next()?;
    match c {
        'a' => bytes.push(7),
        'b' => bytes.push(8),
        'f' => bytes.push(12),
        'n' => bytes.push(b'\n'),
        'r' => bytes.push(b'\r'),
        't' => bytes.push(b'\t'),
        'v' => bytes.push(11),
        '\\' => bytes.push(b'\\'),
        c if c == quote => push(bytes, c),
        'x' => bytes.push(u8::try_from(digits(chars, 2, 16, 0)?).ok()?),
        'u' => push(bytes, char::from_u32(digits(chars, 4, 16, 0)?)?),
        'U' => push(bytes, char::from_u32(digits(chars, 8, 16, 0)?)?),
        '0'..='7' => bytes.push(u8::try_from(digits(chars, 2, 8, c.to_digit(8)?)?).ok()?),
        _ => return None,
    }
    Some(())
}

/// A number of exactly so many digits, after what was read of it before.
fn digits(chars: &mut std::str::Chars<'_>, count: usize, radix: u32, before: u32) -> Option<u32> {
    (0..count)
        .try_fold(before, |number, _| number.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r#""a\tb""#, Some("a\tb"))]
    #[case(r#""é\u00e9\xc3\xa9\351""#, Some("ééé\u{fffd}"))]
    #[case(r#"'it\'s'"#, Some("it's"))]
    #[case(r#""it\'s""#, None)]
    #[case(r#""a"b""#, None)]
    #[case(r#""\q""#, None)]
    #[case(r#""\777""#, None)]
    #[case(r#"""#, None)]
    #[case("\"\\\"", None)]
    fn quoted_text_is_read_as_go_reads_it(#[case] text: &str, #[case] inner: Option<&str>) {
        assert_eq!(unquote(text).as_deref(), inner);
    }
}
