//! Every decision of a simulation, drawn from one seed, recorded, and replayed from the record.
//!
//! Zero is the harmless choice everywhere: no fault, whoever's turn it is. A record that ends early goes on with zeros,
//! so that shrinking is cutting and zeroing numbers, and whatever is left is a run like any other.

use std::fmt::Write as _;
use std::str::FromStr;

/// A source of decisions. Own arithmetic and not a library's, so that a seed means the same run for ever.
#[derive(Clone, Debug)]
pub struct Choices {
    source: Source,
    made: Vec<u32>,
    /// Everything is harmless for now, and not worth recording.
    hushed: bool,
}

#[derive(Clone, Debug)]
enum Source {
    Seed(u64),
    Record(Vec<u32>),
}

/// The decisions of a run, in order. Its text form is short: `3 0x45 7` is a 3, 45 zeros and a 7.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(pub Vec<u32>);

impl Choices {
    /// Decisions that follow from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self::from(Source::Seed(seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1)))
    }

    /// Decisions made before.
    pub fn replayed(record: Record) -> Self {
        Self::from(Source::Record(record.0))
    }

    fn from(source: Source) -> Self {
        Self { source, made: Vec::new(), hushed: false }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        if self.hushed {
            return 0;
        }
        let bound = u32::try_from(bound).unwrap_or(u32::MAX).max(1);
        let choice = match &mut self.source {
            Source::Seed(state) => u32::try_from((splitmix(state) >> 33) % u64::from(bound)).unwrap_or(0),
            Source::Record(record) => record.get(self.made.len()).map_or(0, |choice| choice % bound),
        };
        self.made.push(choice);
        choice as usize
    }

    /// True about once in `often` times; never if `often` is 0.
    pub fn once_in(&mut self, often: usize) -> bool {
        often > 0 && (often == 1 || self.below(often) == often - 1)
    }

    /// One of these; the first is the harmless one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Only harmless choices while this is true.
    pub fn hush(&mut self, hushed: bool) {
        self.hushed = hushed;
    }

    /// What was decided so far, without the zeros at its end.
    pub fn record(&self) -> Record {
        let length = self.made.iter().rposition(|choice| *choice != 0).map_or(0, |last| last + 1);
        Record(self.made[..length].to_vec())
    }
}

/// The next number of the splitmix64 sequence.
pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        let mut rest = &self.0[..];
        while let Some(first) = rest.first() {
            let zeros = rest.iter().take_while(|choice| **choice == 0).count();
            match zeros {
                0 => write!(text, "{first} ")?,
                1 => text.push_str("0 "),
                _ => write!(text, "0x{zeros} ")?,
            }
            rest = &rest[zeros.max(1)..];
        }
        f.write_str(text.trim_end())
    }
}

impl FromStr for Record {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut record = Vec::new();
        for word in text.split_whitespace() {
            match word.strip_prefix("0x") {
                Some(zeros) => record.resize(record.len() + zeros.parse::<usize>()?, 0),
                None => record.push(word.parse()?),
            }
        }
        Ok(Self(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_text_form() {
        let record = Record(vec![3, 0, 0, 0, 7, 0, 12]);
        assert_eq!(record.to_string(), "3 0x3 7 0 12");
        assert_eq!(record.to_string().parse(), Ok(record));
    }

    #[test]
    fn a_replay_decides_the_same_and_then_harmlessly() {
        let mut seeded = Choices::seeded(42);
        let first: Vec<usize> = (0..20).map(|_| seeded.below(10)).collect();
        let mut replayed = Choices::replayed(seeded.record());
        assert_eq!((0..20).map(|_| replayed.below(10)).collect::<Vec<_>>(), first);
        assert_eq!((0..5).map(|_| replayed.below(10)).sum::<usize>(), 0);
    }
}
