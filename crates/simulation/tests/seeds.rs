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
#[case::an_orphan_that_goes_before_it_is_adopted(
    "0x2 3 2 0x4 2 1 0 3 2 1 0 1 1 2 1 0 1 2 0 2 1 2 0x29 4 11 1 3 0x41 2 0 14 6 9 1 6 9 5 3 16 4 14 0 1 10 9 8 1 18 9 12 3 0x4 2 16 1 8 4 3 2 14 0x4 4 2 0 17 0x12 4 0 12 11 5 7 0x2 10 9 7 1 0x2 3 6 1 0 8 4 0 1 0 11 8 2 3 4 1 1 4 18 8 16 1 3 2 1 6 3 10 3 8 0 2 8 3 0 3 10 11 1 0x68 4 7 3 10 7 3 0 19 2811 11 2 2 2 0 3 2 0x10 19 2481 0x38 7 9 0x12 6 0x2 11 2 7 0x2 6 1 4 0 16 1 6 2 10 3 13 4 3 9 3 1 0 5 3 16 3 7 11 1 4 7 1 1 17 7 15 0 1 2 5 6 0x4 3 11 0x30 1 2 16 3 0x10 13 11 13 2 6 0x37 11 12 1 8 0x84 7 0x2 7 10 1 3 3 5 3 2 4 3 0 10 11 5 16 0x2 9 9 15 4 0x2 1 14 0x4 12 0x11 5 10 0x2 10 11 0x8 7 3 0x4 11 3 0x2 7 0x27 8 2 0x2 8 1 0x8 5 1 0x6 3 0x3 6 5 0x2 10 1 0 19 1063 8 0x6 10 1 0x2 12 0x18 1 0x2 11 12 1 4 0x2 2 14 1 2 0x2 7 1 0x2 8 3 0x2 5 3 0x2 15 0x2 19 0x2 12 3 0x2 7 1 0x2 7 14 0x2 8 0x3 6 11 0x2 1 13 0x22 11 9 0 1 2 2 0x2 10 14 0x2 19 2268 7 12 0x2 18 11 11 2 10 0x3 7 16 2 0x3 5 3 0x2 12 1 0x2 10 0x3 8 2 0x2 2 13 0x2 4 7 0x4 3 1 0x2 3 0 1 0x3 10 1 0x2 15 3 0x2 8 3 0x8 2 0x3 15 0x3 1 9 1 1 0x2 3 5 0x2 10 15 1 0 6 11 11 0 16 0x3 7 1 0x2 9 10 0x4 10 3 0x2 16 0x3 16 3 0x6 9 8 1 6 0x4 11 0x3 7 12 9 9 0x2 2 8 0x10 3 2 0x8 19 2893 8 15 0x8 2 1 2 12 1 3 1 11 3 16 2 2 0x22 2 4 0x4 3 0x3 7 1 0x2 10 1 0x10 4 2 0x2 2 1 0x8 2 1 0x40 11 10 1 1"
)]
fn what_failed_once_holds(#[case] record: &str) {
    let run = run(Choices::replayed(record.parse::<Record>().unwrap()), None, false);
    assert!(run.violation.is_none(), "{:?}", run.violation);
}
