//! One line of a log file in CRI format: `TIME STREAM TAG TEXT`. The tag is `F`, or `P` if the program's line
//! goes on in the next line of the file.

use jiff::Timestamp;

/// A parsed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// When it was written, as text.
    time: &'a [u8],
    /// What was written.
    text: &'a [u8],
    /// Whether the program's line ends here.
    pub(super) is_whole: bool,
}

/// Parses a line without its newline; None if it is none of a log.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Line { time, text: parts.next().unwrap_or_default(), is_whole: !tag.starts_with(b"P") })
}

impl Line<'_> {
    /// Whether it was written at `since` or after; lines without a time were.
    pub(super) fn is_since(&self, since: Option<Timestamp>) -> bool {
        let Some(since) = since else { return true };
        let time = std::str::from_utf8(self.time).ok().and_then(|text| text.parse::<Timestamp>().ok());
        time.is_none_or(|time| time >= since)
    }

    /// Appends it as the user sees it. `begins`: it is the first part of the program's line.
    pub(super) fn print(&self, begins: bool, timestamps: bool, out: &mut Vec<u8>) {
        if timestamps && begins {
            out.extend_from_slice(self.time);
            out.push(b' ');
        }
        out.extend_from_slice(self.text);
        if self.is_whole {
            out.push(b'\n');
        }
    }
}

/// Where the last `count` lines of a file begin. Parts of a line count as one.
pub(super) fn tail_start(text: &[u8], count: u64) -> usize {
    if count == 0 {
        return text.len();
    }
    let mut begins = Vec::new();
    let mut continues = false;
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if !continues {
            begins.push(at);
        }
        continues = parse(line).is_some_and(|line| !line.is_whole);
        at += line.len();
    }
    let skip = begins.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    begins.get(skip).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const LOG: &[u8] = b"t1 stdout F one\nt2 stdout P tw\nt3 stdout F o\nt4 stderr F three\n";

    #[rstest]
    #[case(0, "")]
    #[case(1, "t4")]
    #[case(2, "t2")]
    #[case(3, "t1")]
    #[case(9, "t1")]
    fn parts_of_a_line_count_as_one(#[case] count: u64, #[case] begins: &str) {
        let rest = &LOG[tail_start(LOG, count)..];
        assert!(rest.starts_with(begins.as_bytes()) && (count > 0 || rest.is_empty()));
    }

    #[test]
    fn a_line_split_in_the_file_is_one_again() {
        let mut out = Vec::new();
        let mut begins = true;
        for line in LOG.split(|byte| *byte == b'\n').filter_map(parse) {
            line.print(begins, true, &mut out);
            begins = line.is_whole;
        }
        assert_eq!(out, b"t1 one\nt2 two\nt4 three\n");
    }

    #[test]
    fn lines_are_chosen_by_time() {
        let line = parse(b"2025-01-01T00:00:01.5Z stdout F x").unwrap();
        assert!(line.is_since(Some("2025-01-01T00:00:01Z".parse().unwrap())));
        assert!(!line.is_since(Some("2025-01-01T00:00:02Z".parse().unwrap())));
    }
}
