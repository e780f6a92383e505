//! Runs as many seeds as asked for, on all processors: `soak 100000`, `soak 1000 --from 5000`. Replays one:
//! `soak --replay "3 0x45 7"`, `soak --seed 42`; shrinks one: `soak --story 42`.

use sagong_simulation::choices::{Choices, Record};
use sagong_simulation::{first_failure, run, story};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const USAGE: &str = "usage: soak SEEDS [--from SEED] | --seed SEED | --story SEED | --replay RECORD";
/// Seeds a thread takes at once.
const PORTION: u64 = 50;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--replay", record] => match record.parse::<Record>() {
            Ok(record) => tell(Choices::replayed(record)),
            Err(error) => refuse(&error.to_string()),
        },
        ["--seed", seed] => seed.parse().map_or_else(|_| refuse(USAGE), |seed| tell(Choices::seeded(seed))),
        ["--story", seed] => match seed.parse() {
            Ok(seed) => {
                let failed = run(Choices::seeded(seed), None, false);
                println!("{}", story(seed, &failed, None));
                ExitCode::SUCCESS
            }
            Err(_) => refuse(USAGE),
        },
        [seeds] => seeds.parse().map_or_else(|_| refuse(USAGE), |seeds| soak(0, seeds)),
        [seeds, "--from", from] => match (seeds.parse(), from.parse()) {
            (Ok(seeds), Ok(from)) => soak(from, seeds),
            _ => refuse(USAGE),
        },
        _ => refuse(USAGE),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}

fn tell(choices: Choices) -> ExitCode {
    let run = run(choices, None, true);
    run.history.iter().for_each(|line| println!("{line}"));
    match run.violation {
        Some(violation) => {
            println!("BROKEN: {violation}");
            ExitCode::FAILURE
        }
        None => {
            println!("fine after {} steps", run.steps);
            ExitCode::SUCCESS
        }
    }
}

fn soak(from: u64, seeds: u64) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let end = from.saturating_add(seeds);
    let search = || {
        loop {
            let start = next.fetch_add(PORTION, Ordering::Relaxed);
            if start >= end {
                return None;
            }
            if let Some(failure) = first_failure(start..end.min(start + PORTION), None) {
                next.store(end, Ordering::Relaxed);
                return Some(failure);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<_> = std::thread::scope(|scope| {
        let searching: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        searching.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    });
    match failures.into_iter().min_by_key(|(seed, _)| *seed) {
        Some((seed, failed)) => {
            println!("{}", story(seed, &failed, None));
            ExitCode::FAILURE
        }
        None => {
            let took = began.elapsed().as_secs_f64();
            println!("{seeds} seeds held in {took:.1} s, {:.0} a second", seeds as f64 / took);
            ExitCode::SUCCESS
        }
    }
}
