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
