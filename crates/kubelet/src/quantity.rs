//! Amounts of resources as the API writes them: `250m`, `64Mi`, `1e3`.

/// Suffixes with their factors, in thousandths.
const SUFFIXES: [(&str, i128); 14] = [
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("Ei", 1000 << 60),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("", 1000),
];

/// An amount in thousandths, rounded up; None if it is none. `1.5Gi` is 1610612736000.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let (number, factor) = match text.find(['e', 'E']).filter(|at| text[at + 1..].parse::<i32>().is_ok()) {
        Some(at) => {
            let exponent: u32 = text[at + 1..].parse::<i32>().ok()?.try_into().ok()?;
            (&text[..at], 10_i128.checked_pow(exponent)?.checked_mul(1000)?)
        }
        None => SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))?,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let digits = whole.trim_start_matches(['+', '-']);
    if digits.len() + fraction.len() == 0 || fraction.len() > 18 {
        return None;
    }
    let all: i128 = format!("{digits}{fraction}").parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = all.checked_mul(factor)?;
    let rounded = scaled / scale + i128::from(scaled % scale != 0);
    Some(if negative { -rounded } else { rounded })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1", Some(1000))]
    #[case("250m", Some(250))]
    #[case("0.1", Some(100))]
    #[case("64Mi", Some(67_108_864_000))]
    #[case("1.5Gi", Some(1_610_612_736_000))]
    #[case("1e3", Some(1_000_000))]
    #[case("2k", Some(2_000_000))]
    #[case("-1", Some(-1000))]
    #[case("", None)]
    #[case("abc", None)]
    #[case("1x", None)]
    fn amounts_are_read_as_the_api_writes_them(#[case] text: &str, #[case] milli_: Option<i128>) {
        assert_eq!(milli(text), milli_);
    }
}
