//! Makes a failing run smaller: the same rule is broken by fewer and simpler decisions.

use crate::choices::{Choices, Record};
use crate::mutant::Mutant;
use crate::{Run, run};

/// Runs made at most.
const EFFORT: usize = 600;

struct Shrinker {
    mutant: Option<Mutant>,
    invariant: &'static str,
    best: Record,
    left: usize,
}

/// A smaller record of decisions that breaks the same rule as this run did. The run itself if it broke none.
pub fn shrink(failed: &Run, mutant: Option<Mutant>) -> Record {
    let Some(violation) = &failed.violation else { return failed.record.clone() };
    let invariant = violation.invariant;
    let mut shrinker = Shrinker { mutant, invariant, best: failed.record.clone(), left: EFFORT };
    loop {
        let before = shrinker.best.clone();
        shrinker.cut_tail();
        shrinker.pass(Shrinker::zeroed);
        shrinker.pass(Shrinker::without);
        if shrinker.best == before || shrinker.left == 0 {
            return shrinker.best;
        }
    }
}

impl Shrinker {
    /// Takes the candidate if it still fails. What it actually drew may be shorter still.
    fn try_out(&mut self, candidate: Vec<u32>) -> bool {
        if self.left == 0 || candidate == self.best.0 {
            return false;
        }
        self.left -= 1;
        let run = run(Choices::replayed(Record(candidate)), self.mutant, false);
        let is_same = run.violation.is_some_and(|violation| violation.invariant == self.invariant);
        let is_simpler = is_same && weight(&run.record) < weight(&self.best);
        if is_simpler {
            self.best = run.record;
        }
        is_simpler
    }

    fn cut_tail(&mut self) {
        let (mut low, mut high) = (0, self.best.0.len());
        while low < high && self.left > 0 {
            let middle = (low + high) / 2;
            if self.try_out(self.best.0[..middle.min(self.best.0.len())].to_vec()) {
                high = middle.min(self.best.0.len());
            } else {
                low = middle + 1;
            }
        }
    }

    /// Tries a change on ever smaller parts, from the end, where faults matter least.
    fn pass(&mut self, change: fn(&[u32], usize, usize) -> Option<Vec<u32>>) {
        let mut size = (self.best.0.len() / 2).max(1);
        loop {
            let mut end = self.best.0.len();
            while end > 0 && self.left > 0 {
                let start = end.saturating_sub(size);
                if let Some(candidate) = change(&self.best.0, start, end) {
                    self.try_out(candidate);
                }
                end = start.min(self.best.0.len());
            }
            if size == 1 {
                return;
            }
            size /= 2;
        }
    }

    fn zeroed(record: &[u32], start: usize, end: usize) -> Option<Vec<u32>> {
        let part = record.get(start..end)?;
        if part.iter().all(|choice| *choice == 0) {
            return None;
        }
        let mut record = record.to_vec();
        record[start..end].fill(0);
        Some(record)
    }

    fn without(record: &[u32], start: usize, end: usize) -> Option<Vec<u32>> {
        record.get(start..end)?;
        let mut record = record.to_vec();
        record.drain(start..end);
        Some(record)
    }
}

/// Fewer decisions other than the harmless one, then fewer decisions.
fn weight(record: &Record) -> (usize, usize) {
    (record.0.iter().filter(|choice| **choice != 0).count(), record.0.len())
}
