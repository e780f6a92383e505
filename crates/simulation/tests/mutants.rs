//! The simulation can fail: every planted bug is found by some seed, and its story is shorter than the run.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use rstest::rstest;
use sagong_simulation::choices::Choices;
use sagong_simulation::mutant::Mutant;
use sagong_simulation::{first_failure, run, story};

/// Seeds that one of which must find a bug.
const SEEDS: u64 = 2000;

#[rstest]
#[case(Mutant::SurgeOffByOne, "no more pods than replicas and maxSurge")]
#[case(Mutant::UnavailableOffByOne, "no fewer available pods than replicas less maxUnavailable")]
#[case(Mutant::IgnoresMinReadySeconds, "no fewer available pods than replicas less maxUnavailable")]
#[case(Mutant::NeverWakesForMinReadySeconds, "every history converges")]
#[case(Mutant::StaleCacheBelieved, "no more pods than replicas and maxSurge")]
#[case(Mutant::BelievesOldStatus, "no more pods than replicas and maxSurge")]
#[case(Mutant::SigtermBeforeWithdrawal, "no pod that a service still routes to gets SIGTERM")]
#[case(Mutant::RecreateOverlaps, "Recreate never overlaps")]
#[case(Mutant::AdoptsForeignPods, "foreign objects are left alone")]
#[case(Mutant::AdoptsForTheDead, "nothing is adopted for the dead")]
#[case(Mutant::NeverReleases, "no more pods than replicas and maxSurge")]
#[case(Mutant::RetriesLostCreates, "no more pods than replicas and maxSurge")]
#[case(Mutant::IgnoresPause, "a paused Deployment changes no template")]
#[case(Mutant::WritesStatusEveryTime, "nothing is written any more in the end")]
#[case(Mutant::ForgetsDeletions, "nothing is written any more in the end")]
#[case(Mutant::ForgetsAssumedPods, "no node takes more than it has")]
#[case(Mutant::DeletesSetsInUse, "no ReplicaSet in use is deleted")]
#[case(Mutant::CreatesOnlyOnePod, "every history converges")]
#[case(Mutant::DeletesOnOldNews, "nobody else's pod is deleted")]
#[case(Mutant::RanksByReadiness, "no fewer available pods than replicas less maxUnavailable")]
fn every_planted_bug_is_found(#[case] mutant: Mutant, #[case] invariant: &str) {
    // Another rule may be broken before this one: that is a find too, but not the one to be shown here.
    let finds = (0..SEEDS)
        .filter_map(|seed| Some((seed, run(Choices::seeded(seed), Some(mutant), false).violation?)));
    let found = finds.into_iter().find(|(_, violation)| violation.invariant == invariant);
    let (seed, violation) = found.unwrap();
    println!("{mutant:?}: seed {seed}: {violation}");
}

#[test]
fn a_failure_is_told_as_a_short_story_that_can_be_replayed() {
    let mutant = Some(Mutant::SigtermBeforeWithdrawal);
    let (seed, failed) = first_failure(0..SEEDS, mutant).unwrap();
    let story = story(seed, &failed, mutant);
    assert!(story.contains("BROKEN: no pod that a service still routes to gets SIGTERM"), "{story}");
    assert!(story.contains("--replay"), "{story}");
    assert!(story.lines().count() <= failed.steps, "{story}");
}
