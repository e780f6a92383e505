//! Ages and durations as `kubectl get` shows them (upstream's `duration.HumanDuration`).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How long ago `from` was: `17s`, `2m30s`, `10m`, `3h12m`, `2d3h`, `5y`. `<invalid>` when `from` is more than
/// a second in the future (clocks differ), as upstream.
pub fn human_duration(from: Timestamp, now: Timestamp) -> String {
    of_seconds(now.duration_since(from).as_secs())
}

/// The AGE cell: [`human_duration`], or `<unknown>` without a time.
pub fn age(from: Option<&Time>, now: Timestamp) -> String {
    from.map_or_else(|| "<unknown>".to_owned(), |time| human_duration(time.0, now))
}

/// The same for a duration in whole seconds.
pub fn of_seconds(seconds: i64) -> String {
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..=119 => format!("{seconds}s"),
        120..=599 => with_rest(seconds / 60, "m", seconds % 60, "s"),
        600..=10_799 => format!("{}m", seconds / 60),
        10_800..=28_799 => with_rest(seconds / 3600, "h", seconds / 60 % 60, "m"),
        28_800..=172_799 => format!("{}h", seconds / 3600),
        172_800..=691_199 => with_rest(seconds / DAY, "d", seconds / 3600 % 24, "h"),
        _ => of_days(seconds / DAY),
    }
}

const DAY: i64 = 24 * 3600;

fn of_days(days: i64) -> String {
    match days {
        ..=729 => format!("{days}d"),
        730..=2919 => with_rest(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn with_rest(big: i64, big_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(-2, "<invalid>")]
    #[case(-1, "0s")]
    #[case(0, "0s")]
    #[case(119, "119s")]
    #[case(120, "2m")]
    #[case(121, "2m1s")]
    #[case(599, "9m59s")]
    #[case(600, "10m")]
    #[case(601, "10m")]
    #[case(3 * 3600 - 1, "179m")]
    #[case(3 * 3600, "3h")]
    #[case(3 * 3600 + 60, "3h1m")]
    #[case(8 * 3600 - 1, "7h59m")]
    #[case(8 * 3600, "8h")]
    #[case(48 * 3600 - 1, "47h")]
    #[case(48 * 3600, "2d")]
    #[case(49 * 3600, "2d1h")]
    #[case(8 * DAY - 1, "7d23h")]
    #[case(8 * DAY, "8d")]
    #[case(2 * 365 * DAY - 1, "729d")]
    #[case(2 * 365 * DAY, "2y")]
    #[case(2 * 365 * DAY + DAY, "2y1d")]
    #[case(8 * 365 * DAY - 1, "7y364d")]
    #[case(8 * 365 * DAY, "8y")]
    fn an_age_shows_at_most_two_units_and_fewer_digits_as_it_grows(#[case] seconds: i64, #[case] text: &str) {
        assert_eq!(of_seconds(seconds), text);
    }

    #[test]
    fn an_object_without_a_creation_time_has_an_unknown_age() {
        assert_eq!(age(None, Timestamp::UNIX_EPOCH), "<unknown>");
    }
}
