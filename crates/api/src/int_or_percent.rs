//! `3` or `25%`: a count, or a share of a total.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a share that is not whole goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// 25% of 3 is 0.
    Down,
    /// 25% of 3 is 1.
    Up,
}

/// Why a value is neither a number nor a percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for IntOrString: {0}")]
pub struct NotIntOrPercent(String);

/// The count: an integer as it is, a percentage of `total`.
pub fn resolve(value: &IntOrString, total: i32, round: Round) -> Result<i32, NotIntOrPercent> {
    match value {
        IntOrString::Int(count) => Ok(*count),
        IntOrString::String(text) => {
            let percent = percent(text).map_err(NotIntOrPercent)?;
            let product = i64::from(percent) * i64::from(total);
            let share = match round {
                Round::Down => product.div_euclid(100),
                Round::Up => -(-product).div_euclid(100),
            };
            Ok(i32::try_from(share).unwrap_or(if share < 0 { i32::MIN } else { i32::MAX }))
        }
    }
}

fn percent(text: &str) -> Result<i32, String> {
    let digits = text.strip_suffix('%').ok_or("invalid type: string is not a percentage")?;
    digits
        .parse()
        .map_err(|_| format!("invalid value \"{text}\": strconv.Atoi: parsing \"{digits}\": invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(IntOrString::Int(3), 10, Round::Up, 3)]
    #[case(IntOrString::String("25%".into()), 3, Round::Up, 1)]
    #[case(IntOrString::String("25%".into()), 3, Round::Down, 0)]
    #[case(IntOrString::String("25%".into()), 4, Round::Up, 1)]
    #[case(IntOrString::String("100%".into()), 7, Round::Down, 7)]
    #[case(IntOrString::String("0%".into()), 7, Round::Up, 0)]
    #[case(IntOrString::String("2147483647%".into()), i32::MAX, Round::Up, i32::MAX)]
    fn a_percentage_is_a_share_of_the_total(
        #[case] value: IntOrString,
        #[case] total: i32,
        #[case] round: Round,
        #[case] count: i32,
    ) {
        assert_eq!(resolve(&value, total, round), Ok(count));
    }

    #[rstest]
    #[case("5", "invalid value for IntOrString: invalid type: string is not a percentage")]
    #[case(
        "x%",
        "invalid value for IntOrString: invalid value \"x%\": strconv.Atoi: parsing \"x\": invalid syntax"
    )]
    fn a_string_that_is_no_percentage_is_refused(#[case] text: &str, #[case] message: &str) {
        let error = resolve(&IntOrString::String(text.into()), 1, Round::Up).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
