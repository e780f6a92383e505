//! Deterministic simulation: the real planning code of the controllers, the scheduler and the kubelet's pods, in a
//! cluster on one thread, with a clock of its own, an API server in memory, and every fault one can think of. One seed is
//! one run, for ever.
//!
//! * [`choices`]: every decision of a run, drawn from a seed, recorded, replayed. [`mod@shrink`]: fewer of them.
//! * `scenario`: what a run begins with, and what the user does. [`faults`]: what goes wrong.
//! * `api`: objects, versions, finalizers, watch events; defaults and validation are the real ones. `feed`: watches.
//! * `manager`: the real controllers, their plans carried out write by write. `scheduler`, `node`: the real decisions,
//!   on a watch and a runtime that the simulation makes up.
//! * `collector`: the real decisions of garbage collection. `data_plane`: a model, as the real one needs a kernel.
//! * [`invariants`]: what must hold after every step. `convergence`: what must be true in the end.
//! * [`mutant`]: planted bugs that must be found.
//!
//! The choices are cut into decisions whose zero is harmless; so a failing run shrinks to a readable story.

mod api;
pub mod choices;
mod collector;
mod convergence;
mod data_plane;
pub mod faults;
mod feed;
mod ground;
pub mod invariants;
mod manager;
pub mod mutant;
mod node;
mod scenario;
mod scheduler;
pub mod shrink;
mod world;

use choices::{Choices, Record};
use invariants::Violation;
use mutant::Mutant;
use std::fmt::Write as _;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The rule that was broken, if any.
    pub violation: Option<Violation>,
    /// All decisions: with [`Choices::replayed`] the same run again.
    pub record: Record,
    /// Steps made.
    pub steps: usize,
    /// What happened, if asked for.
    pub history: Vec<String>,
}

/// Lives through one run.
pub fn run(choices: Choices, mutant: Option<Mutant>, wants_history: bool) -> Run {
    let mut world = world::World::new(choices, mutant, wants_history);
    let violation = world.run().err();
    let ground = world.ground;
    Run { violation, record: ground.choices.record(), steps: ground.step, history: ground.history.lines }
}

/// The first of these seeds that fails, with its run.
pub fn first_failure(seeds: impl IntoIterator<Item = u64>, mutant: Option<Mutant>) -> Option<(u64, Run)> {
    seeds.into_iter().find_map(|seed| {
        let run = run(Choices::seeded(seed), mutant, false);
        run.violation.is_some().then_some((seed, run))
    })
}

/// The story of a failure, shrunk, with what replays it.
pub fn story(seed: u64, failed: &Run, mutant: Option<Mutant>) -> String {
    let record = shrink::shrink(failed, mutant);
    let shrunk = run(Choices::replayed(record.clone()), mutant, true);
    let mut story = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(story, "seed {seed}, {} steps, shrunk to {}:", failed.steps, shrunk.steps);
    for line in &shrunk.history {
        let _ = writeln!(story, "{line}");
    }
    if let Some(violation) = &shrunk.violation {
        let _ = writeln!(story, "BROKEN: {violation}");
    }
    let _ = writeln!(story, "replay: cargo run -p sagong-simulation --example soak -- --replay \"{record}\"");
    story
}
