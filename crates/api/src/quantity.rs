//! Amounts of resources: `500m` CPU, `1.5Gi` of memory (`k8s.io/apimachinery/pkg/api/resource`).

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// How an amount is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `128Mi`: powers of 1024.
    BinarySi,
    /// `500m`, `2k`: powers of 1000.
    DecimalSi,
    /// `1e3`.
    DecimalExponent,
}

/// Why a text is no quantity; the messages are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not number and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number part is none.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The suffix is not known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A parsed [`Quantity`]. Exact to a billionth; never more than 2^63-1 either way, as upstream.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    nanos: i128,
    format: Format,
}

const NANOS: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;
const MAX: i128 = i64::MAX as i128 * NANOS;

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Whole units: bytes, CPUs, pods.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANOS, format }
    }

    /// Thousandths: millicpus.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * NANOS_PER_MILLI, format: Format::DecimalSi }
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        saturated(ceiling(self.nanos, NANOS))
    }

    /// Thousandths, rounded up; saturates.
    pub fn millis(self) -> i64 {
        saturated(ceiling(self.nanos, NANOS_PER_MILLI))
    }

    /// Less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The sum, written as `self` is; saturates.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format: self.format_with(other) }
    }

    /// The difference, written as `self` is; saturates.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { nanos: (self.nanos - other.nanos).clamp(-MAX, MAX), format: self.format_with(other) }
    }

    /// Zero takes over the other's way of writing.
    fn format_with(self, other: Self) -> Format {
        if self.is_zero() { other.format } else { self.format }
    }
}

fn ceiling(value: i128, unit: i128) -> i128 {
    value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0)
}

fn saturated(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl TryFrom<&Quantity> for Amount {
    type Error = QuantityError;

    fn try_from(quantity: &Quantity) -> Result<Self, QuantityError> {
        quantity.0.parse()
    }
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        Self(amount.to_string())
    }
}

/// The same quantity as upstream writes it: `0.5` becomes `500m`, `1024Mi` becomes `1Gi`.
///
/// # Errors
/// It is no quantity.
pub fn canonical(quantity: &Quantity) -> Result<Quantity, QuantityError> {
    Amount::try_from(quantity).map(Quantity::from)
}

/// Suffix, power of two, power of ten, format.
const SUFFIXES: [(&str, u32, i32, Format); 16] = [
    ("", 0, 0, Format::DecimalSi),
    ("n", 0, -9, Format::DecimalSi),
    ("u", 0, -6, Format::DecimalSi),
    ("m", 0, -3, Format::DecimalSi),
    ("k", 0, 3, Format::DecimalSi),
    ("M", 0, 6, Format::DecimalSi),
    ("G", 0, 9, Format::DecimalSi),
    ("T", 0, 12, Format::DecimalSi),
    ("P", 0, 15, Format::DecimalSi),
    ("E", 0, 18, Format::DecimalSi),
    ("Ki", 10, 0, Format::BinarySi),
    ("Mi", 20, 0, Format::BinarySi),
    ("Gi", 30, 0, Format::BinarySi),
    ("Ti", 40, 0, Format::BinarySi),
    ("Pi", 50, 0, Format::BinarySi),
    ("Ei", 60, 0, Format::BinarySi),
];

/// Digits of the number that count; further ones only round it.
const DIGITS_MAX: usize = 19;

impl FromStr for Amount {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let digits_end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, rest) = unsigned.split_at(digits_end(unsigned));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits_end(rest)),
            None => ("", rest),
        };
        let allowed = |c: char| "eEinumkKMGTP+-0123456789".contains(c);
        if unsigned.is_empty() || !suffix.chars().all(allowed) {
            return Err(QuantityError::Format);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Number);
        }
        let (twos, tens, format) = parse_suffix(suffix).ok_or(QuantityError::Suffix)?;
        let magnitude = nanos(whole, fraction, twos, tens);
        let nanos = if text.starts_with('-') { -magnitude } else { magnitude };
        Ok(Self { nanos, format })
    }
}

fn parse_suffix(suffix: &str) -> Option<(u32, i32, Format)> {
    if let Some((_, twos, tens, format)) = SUFFIXES.iter().find(|(name, ..)| *name == suffix) {
        return Some((*twos, *tens, *format));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    // Beyond these bounds every number is nothing or the largest.
    let exponent: i64 = exponent.parse().ok()?;
    Some((0, i32::try_from(exponent.clamp(-1000, 1000)).ok()?, Format::DecimalExponent))
}

/// `whole.fraction` * 2^twos * 10^tens in billionths, rounded away from nothing, at most [`MAX`].
fn nanos(whole: &str, fraction: &str, twos: u32, tens: i32) -> i128 {
    let digits: String = whole.chars().chain(fraction.chars()).collect();
    let digits = digits.trim_start_matches('0');
    let (kept, dropped) = digits.split_at(digits.len().min(DIGITS_MAX));
    let mut mantissa: i128 = kept.parse().unwrap_or(0);
    if mantissa == 0 {
        return 0;
    }
    mantissa += i128::from(dropped.bytes().any(|digit| digit != b'0'));
    // Nineteen digits are less than 2^64, and 2^60 times that still fits.
    let mut value = mantissa << twos;
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX / 4);
    let power = i64::from(tens) + 9 + length(dropped) - length(fraction);
    for _ in 0..power.clamp(0, 64) {
        value = value.saturating_mul(10);
    }
    let mut inexact = false;
    for _ in 0..(-power).clamp(0, 64) {
        inexact |= value % 10 != 0;
        value /= 10;
    }
    (value + i128::from(inexact)).min(MAX)
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            return binary(self.nanos / NANOS, f);
        }
        decimal(self.nanos, self.format == Format::DecimalExponent, f)
    }
}

fn binary(mut units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let names = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while units % 1024 == 0 && power + 1 < names.len() {
        units /= 1024;
        power += 1;
    }
    write!(f, "{units}{}", names[power])
}

/// The largest power of a thousand that leaves no fraction.
fn decimal(nanos: i128, exponent: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if nanos == 0 {
        return f.write_str("0");
    }
    let names = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let (mut value, mut power) = (nanos, 0);
    while value % 1000 == 0 && power + 1 < names.len() {
        value /= 1000;
        power += 1;
    }
    let tens = power as i32 * 3 - 9;
    match (exponent, tens) {
        (true, 0) => write!(f, "{value}"),
        (true, _) => write!(f, "{value}e{tens}"),
        (false, _) => write!(f, "{value}{}", names[power]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};
    use rstest::rstest;

    #[rstest]
    #[case("0", "0")]
    #[case("0.5", "500m")]
    #[case("500m", "500m")]
    #[case("1000m", "1")]
    #[case("1.5Gi", "1536Mi")]
    #[case("1024Mi", "1Gi")]
    #[case("128974848", "128974848")]
    #[case("129e6", "129e6")]
    #[case("129000e3", "129e6")]
    #[case("129M", "129M")]
    #[case("123Mi", "123Mi")]
    #[case("0.1", "100m")]
    #[case("0.5Ki", "512")]
    #[case("1Ki", "1Ki")]
    #[case("512Ki", "512Ki")]
    #[case("2.5Ki", "2560")]
    #[case("0.0001m", "100n")]
    #[case("0.00000000001", "1n")]
    #[case("-1", "-1")]
    #[case("+1k", "1k")]
    #[case("1E", "1E")]
    #[case("1E3", "1e3")]
    #[case("1e-3", "1e-3")]
    #[case(".5", "500m")]
    #[case("5.", "5")]
    #[case("100E", "9223372036854775807")]
    #[case("1e999999999999", "9223372036854775807")]
    fn a_quantity_is_written_in_its_shortest_exact_form(#[case] text: &str, #[case] canonical: &str) {
        assert_eq!(text.parse::<Amount>().unwrap().to_string(), canonical);
    }

    #[rstest]
    #[case("", QuantityError::Format)]
    #[case("abc", QuantityError::Format)]
    #[case("1x", QuantityError::Format)]
    #[case("1.2.3", QuantityError::Format)]
    #[case("1 Gi", QuantityError::Format)]
    #[case("Mi", QuantityError::Number)]
    #[case(".", QuantityError::Number)]
    #[case("1mm", QuantityError::Suffix)]
    #[case("1e", QuantityError::Suffix)]
    #[case("1KI", QuantityError::Format)]
    fn what_is_no_quantity_is_refused(#[case] text: &str, #[case] error: QuantityError) {
        assert_eq!(text.parse::<Amount>().unwrap_err(), error);
    }

    #[rstest]
    #[case("100m", 100, 1)]
    #[case("1500m", 1500, 2)]
    #[case("2", 2000, 2)]
    #[case("1u", 1, 1)]
    #[case("-1500m", -1500, -1)]
    fn thousandths_and_units_round_up(#[case] text: &str, #[case] millis: i64, #[case] units: i64) {
        let amount: Amount = text.parse().unwrap();
        assert_eq!((amount.millis(), amount.units()), (millis, units));
    }

    #[test]
    fn quantities_compare_by_amount_not_by_text() {
        let amount = |text: &str| text.parse::<Amount>().unwrap();
        assert_eq!(amount("1Gi"), amount("1024Mi"));
        assert!(amount("1G") < amount("1Gi"));
        assert_eq!(amount("100m").plus(amount("0.9")).to_string(), "1");
        assert_eq!(Amount::ZERO.plus(amount("1Gi")).minus(amount("512Mi")).to_string(), "512Mi");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), number in "[+-]?[0-9.]{0,50}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,30}") {
            let _ = text.parse::<Amount>();
            let _ = number.parse::<Amount>();
        }

        #[test]
        fn the_written_form_reads_back_the_same(millis in any::<i32>()) {
            let amount = Amount::from_millis(millis.into());
            assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        }
    }
}
