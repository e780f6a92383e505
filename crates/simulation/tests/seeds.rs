//! Thousands of histories in which everything holds.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use rstest::rstest;
use sagong_simulation::choices::{Choices, Record};
use sagong_simulation::{first_failure, run, story};

/// Portions, so that all processors have something to do.
#[rstest]
fn everything_holds_in_every_history(#[values(0, 1, 2, 3)] portion: u64) {
    let seeds = portion * 500..(portion + 1) * 500;
    if let Some((seed, failed)) = first_failure(seeds, None) {
        panic!("{}", story(seed, &failed, None));
    }
}

#[test]
fn a_seed_means_the_same_history_every_time_and_so_does_its_record() {
    for seed in 0..5 {
        let first = run(Choices::seeded(seed), None, true);
        let again = run(Choices::seeded(seed), None, true);
        let replayed =
            run(Choices::replayed(first.record.to_string().parse::<Record>().unwrap()), None, true);
        assert_eq!(first.history, again.history);
        assert_eq!(first.history, replayed.history);
    }
}

/// Histories that failed once, shrunk.
#[rstest]
#[case::recreate_beside_an_orphan_that_is_on_its_way_out(
    "0 2 5 0x5 1 0x2 2 2 0x28 11 8 0x346 11 0x8 11 7 1 0x33 2 0x5 5 0x6 2 0x5 1 0x3 1 0x7 5 0x24 6 0x38 2 0x19 11 7 2 1 0x43 8 0x2 11"
)]
fn what_failed_once_holds(#[case] record: &str) {
    let run = run(Choices::replayed(record.parse::<Record>().unwrap()), None, false);
    assert!(run.violation.is_none(), "{:?}", run.violation);
}
