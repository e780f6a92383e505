//! Whether to ask a registry once more, and when. Pure.

use reqwest::StatusCode;
use std::time::{Duration, SystemTime};

/// How often it is asked at most.
const TRIES: u32 = 4;
/// Between the first two times, if it does not say; then twice that, and so on.
const FIRST: Duration = Duration::from_millis(500);
/// Whoever wants more is told no: the kubelet's own back-off is for that, and says so in the pod's status.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait before asking again after an answer, the `tries`th before it counted from 0. None: give up.
pub(super) fn wait(status: StatusCode, retry_after: Option<Duration>, tries: u32) -> Option<Duration> {
    let passes = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
    if !passes || tries + 1 >= TRIES {
        return None;
    }
    Some(retry_after.unwrap_or(FIRST * 2_u32.pow(tries))).filter(|wait| *wait <= PATIENCE)
}

/// What the header `Retry-After` says (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(header).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const MS: Duration = Duration::from_millis(1);

    #[rstest]
    #[case::at_first(503, None, 0, Some(500 * MS))]
    #[case::then_later(503, None, 2, Some(2000 * MS))]
    #[case::not_for_ever(503, None, 3, None)]
    #[case::as_it_says(429, Some(3000 * MS), 0, Some(3000 * MS))]
    #[case::at_once_if_it_says_so(429, Some(Duration::ZERO), 2, Some(Duration::ZERO))]
    #[case::too_long(429, Some(3_600_000 * MS), 0, None)]
    #[case::no_is_no(404, None, 0, None)]
    #[case::nor_does_a_date_change_that(403, Some(1000 * MS), 0, None)]
    fn a_busy_registry_is_asked_again(
        #[case] status: u16,
        #[case] retry_after: Option<Duration>,
        #[case] tries: u32,
        #[case] expected: Option<Duration>,
    ) {
        assert_eq!(wait(StatusCode::from_u16(status).unwrap(), retry_after, tries), expected);
    }

    #[rstest]
    #[case("7", Some(7))]
    #[case(" 0 ", Some(0))]
    #[case("Thu, 01 Jan 1970 00:01:40 GMT", Some(40))]
    #[case("Thu, 01 Jan 1970 00:00:01 GMT", Some(0))]
    #[case("soon", None)]
    #[case("-1", None)]
    fn seconds_and_dates_are_understood(#[case] header: &str, #[case] seconds: Option<u64>) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        assert_eq!(after(header, now), seconds.map(Duration::from_secs));
    }
}
