//! Waiting for somebody who does not take what a client says, without forgetting the client: while nothing is read
//! from it, only what is sent to it tells that it is gone.

use std::time::Duration;
use tokio::time::Instant;

/// How long somebody may take nothing before the client is asked whether it is still there, and from question to
/// question.
const ASKING: Duration = Duration::from_secs(1);

/// How long a forwarded connection may take nothing, with all its room full, before it is given up: the others of the
/// same client wait for it. SPDY's windows, which would let it wait alone, are not spoken by Kubernetes clients.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Waits until something is taken, and asks again and again whether the client is there. None if it took longer than
/// the limit; without one it may take as long as the client is there.
pub(super) async fn wait<F: Future>(
    taking: F,
    limit: Option<Duration>,
    mut ask: impl FnMut(),
) -> Option<F::Output> {
    tokio::pin!(taking);
    let began = Instant::now();
    loop {
        match tokio::time::timeout(ASKING, &mut taking).await {
            Ok(taken) => return Some(taken),
            Err(_) if limit.is_some_and(|limit| began.elapsed() >= limit) => return None,
            Err(_) => ask(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::taken_at_once(0, None, Some(()), 0)]
    #[case::taken_at_last(60, None, Some(()), 59)]
    #[case::within_the_limit(4, Some(LIMIT), Some(()), 3)]
    #[case::too_late(6, Some(LIMIT), None, 4)]
    #[tokio::test(start_paused = true)]
    async fn the_client_is_asked_each_second_until_something_is_taken(
        #[case] seconds: u64,
        #[case] limit: Option<Duration>,
        #[case] expected: Option<()>,
        #[case] questions: u32,
    ) {
        let mut asked = 0;
        let taking = tokio::time::sleep(Duration::from_secs(seconds));
        assert_eq!(wait(taking, limit, || asked += 1).await, expected);
        assert_eq!(asked, questions);
    }
}
