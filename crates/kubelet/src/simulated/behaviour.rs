//! How a pod is asked to behave: the annotation `sagong.dev/simulate`. Pure.

use std::time::Duration;

/// What the annotation asks for. Without one: containers run for ever and become ready after the default delay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behaviour {
    /// `crash` or `crash=30s`, `complete` or `complete=30s`: containers end this long after each start, with
    /// this exit code.
    pub(crate) exits: Option<(Duration, i32)>,
    /// `never-ready`.
    pub(crate) never_ready: bool,
    /// `slow=5s`: time from start to ready.
    pub(crate) ready_delay: Option<Duration>,
    /// `flap=10s`: ready and not ready in turn, this long each.
    pub(crate) flap: Option<Duration>,
    /// `image-missing`.
    pub(crate) image_missing: bool,
    /// `slow-stop=5s`: time from deletion to the end, at most the grace period.
    pub(crate) stop_delay: Duration,
}

/// What can be asked for, as messages list it.
const KNOWN: &str = "crash[=DURATION], complete[=DURATION], never-ready, slow=DURATION, flap=DURATION, image-missing, slow-stop=DURATION";

impl Behaviour {
    /// Reads the annotation: behaviours separated by commas, durations as `500ms`, `5s`, `2m` or `1h`.
    ///
    /// # Errors
    /// A sentence that names what is wrong and what is known.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut behaviour = Behaviour::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let given = value.map(|value| duration(value).ok_or_else(|| bad_duration(word))).transpose()?;
            match (name, given) {
                ("crash", after) => behaviour.exits = Some((after.unwrap_or_default(), 1)),
                ("complete", after) => behaviour.exits = Some((after.unwrap_or_default(), 0)),
                ("never-ready", None) => behaviour.never_ready = true,
                ("slow", Some(delay)) => behaviour.ready_delay = Some(delay),
                ("flap", Some(period)) if !period.is_zero() => behaviour.flap = Some(period),
                ("image-missing", None) => behaviour.image_missing = true,
                ("slow-stop", Some(delay)) => behaviour.stop_delay = delay,
                _ => return Err(format!("unknown behaviour {word:?}; known are {KNOWN}")),
            }
        }
        Ok(behaviour)
    }
}

fn bad_duration(word: &str) -> String {
    format!("{word:?} has no duration such as 500ms, 5s, 2m or 1h")
}

/// `500ms`, `5s`, `2m`, `1h`; None if it is nothing like that.
pub fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SECOND: Duration = Duration::from_secs(1);

    #[rstest]
    #[case("", Behaviour::default())]
    #[case("crash", Behaviour { exits: Some((Duration::ZERO, 1)), ..Default::default() })]
    #[case("crash=2m", Behaviour { exits: Some((120 * SECOND, 1)), ..Default::default() })]
    #[case("complete=500ms", Behaviour { exits: Some((SECOND / 2, 0)), ..Default::default() })]
    #[case("slow=5s, slow-stop=1h", Behaviour { ready_delay: Some(5 * SECOND), stop_delay: 3600 * SECOND, ..Default::default() })]
    #[case("never-ready,image-missing", Behaviour { never_ready: true, image_missing: true, ..Default::default() })]
    #[case("flap=10s", Behaviour { flap: Some(10 * SECOND), ..Default::default() })]
    fn the_annotation_names_what_happens(#[case] text: &str, #[case] expected: Behaviour) {
        assert_eq!(Behaviour::parse(text), Ok(expected));
    }

    #[rstest]
    #[case("explode", "unknown behaviour \"explode\"")]
    #[case("slow", "unknown behaviour \"slow\"")]
    #[case("slow=", "\"slow=\" has no duration")]
    #[case("slow=5", "\"slow=5\" has no duration")]
    #[case("slow=-5s", "\"slow=-5s\" has no duration")]
    #[case("slow=5é", "\"slow=5é\" has no duration")]
    #[case("crash=99999999999999999999s", "has no duration")]
    #[case("flap=0s", "unknown behaviour \"flap=0s\"")]
    fn what_cannot_be_understood_is_named(#[case] text: &str, #[case] expected: &str) {
        let error = Behaviour::parse(text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
