//! Log files of containers, in the format of CRI: `TIME STREAM TAG TEXT`, the tag `P` on a line that goes on.
//!
//! Compiled into the keeper as well, so that it knows nothing but the standard library.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest text on one line, as with containerd.
const LONGEST: usize = 16 * 1024;
/// A file is put aside when it grew beyond this (KubeletConfiguration.containerLogMaxSize).
const LARGEST: u64 = 10 * 1024 * 1024;
/// Files kept, the current one included (KubeletConfiguration.containerLogMaxFiles).
const FILES: u32 = 5;

/// The log file of one container. Errors while writing lose lines, never stop the container.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    largest: u64,
    /// Lines that were not written yet.
    waiting: Vec<u8>,
}

/// What one stream of a container wrote since the last line ended.
pub(crate) struct Stream {
    name: &'static str,
    pending: Vec<u8>,
}

impl Log {
    /// Opens the file at its end, making it and its directory if need be.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = create(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, largest: LARGEST, waiting: Vec::new() })
    }

    fn line(&mut self, stream: &str, tag: char, text: &[u8]) {
        let _ = write!(self.waiting, "{} {stream} {tag} ", now());
        self.waiting.extend_from_slice(text);
        self.waiting.push(b'\n');
        if self.waiting.len() >= 2 * LONGEST {
            self.flush();
        }
    }

    /// Writes what waits, then starts a new file if this one is large.
    pub(crate) fn flush(&mut self) {
        if self.file.write_all(&self.waiting).is_ok() {
            self.size += self.waiting.len() as u64;
        }
        self.waiting.clear();
        if self.size >= self.largest && self.rotate().is_ok() {
            self.size = 0;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..FILES - 1).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        fs::rename(&self.path, numbered(1))?;
        self.file = create(&self.path)?;
        Ok(())
    }
}

impl Stream {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, pending: Vec::new() }
    }

    /// Takes what the container wrote; whole lines and those that are too long go to the log.
    pub(crate) fn take(&mut self, bytes: &[u8], log: &mut Log) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LONGEST - self.pending.len();
            match rest.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.emit('F', &rest[..end], log);
                    rest = &rest[end + 1..];
                }
                None if rest.len() > room => {
                    self.emit('P', &rest[..room], log);
                    rest = &rest[room..];
                }
                None => {
                    self.pending.extend_from_slice(rest);
                    break;
                }
            }
        }
    }

    /// The stream ended: what it wrote without ending the line goes to the log as a partial line.
    pub(crate) fn end(&mut self, log: &mut Log) {
        if !self.pending.is_empty() {
            self.emit('P', &[], log);
        }
    }

    fn emit(&mut self, tag: char, more: &[u8], log: &mut Log) {
        if self.pending.is_empty() {
            log.line(self.name, tag, more);
        } else {
            self.pending.extend_from_slice(more);
            log.line(self.name, tag, &self.pending);
            self.pending.clear();
        }
    }
}

/// The time as RFC 3339 writes it, with nanoseconds.
pub(crate) fn now() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn rfc3339(since_epoch: Duration) -> String {
    let (days, second) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
    // Years that begin in March end with the leap day; 400 of them are an era of always the same length.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanoseconds = since_epoch.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use rstest::rstest;

    #[rstest]
    #[case(0)]
    #[case(951_782_399)]
    #[case(951_782_400)]
    #[case(951_868_800)]
    #[case(1_709_164_800)]
    #[case(1_735_689_599)]
    #[case(4_107_542_400)]
    fn times_are_written_as_the_library_reads_them(#[case] seconds: u64) {
        let text = rfc3339(Duration::new(seconds, 1_002_003));
        let read: Timestamp = text.parse().expect("a time");
        assert_eq!(read.as_nanosecond(), i128::from(seconds) * 1_000_000_000 + 1_002_003, "{text}");
    }

    #[test]
    fn every_day_of_four_centuries_is_written_as_the_library_writes_it() {
        for day in 0..146_097_u64 {
            let expected = Timestamp::from_second((day * 86_400) as i64).expect("in range");
            assert_eq!(rfc3339(Duration::from_secs(day * 86_400)), format!("{expected:.9}"));
        }
    }

    fn logged(writes: &[&[u8]]) -> Vec<(String, String)> {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("sub/0.log");
        let mut log = Log::open(&path).expect("log");
        let mut stream = Stream::new("stdout");
        for bytes in writes {
            stream.take(bytes, &mut log);
        }
        stream.end(&mut log);
        log.flush();
        let text = fs::read_to_string(path).expect("text");
        text.lines()
            .map(|line| {
                let mut fields = line.splitn(4, ' ');
                fields.next().and_then(|time| time.parse::<Timestamp>().ok()).expect("a time");
                assert_eq!(fields.next(), Some("stdout"));
                (fields.next().expect("tag").to_owned(), fields.next().expect("text").to_owned())
            })
            .collect()
    }

    #[rstest]
    #[case(&["one\ntwo\n"], &[("F", "one"), ("F", "two")])]
    #[case(&["on", "e\n"], &[("F", "one")])]
    #[case(&["one\n", "tw"], &[("F", "one"), ("P", "tw")])]
    #[case(&["\n"], &[("F", "")])]
    #[case(&[], &[])]
    fn lines_are_cut_where_the_container_ended_them(#[case] writes: &[&str], #[case] lines: &[(&str, &str)]) {
        let writes: Vec<&[u8]> = writes.iter().map(|text| text.as_bytes()).collect();
        let found = logged(&writes);
        let found: Vec<(&str, &str)> =
            found.iter().map(|(tag, text)| (tag.as_str(), text.as_str())).collect();
        assert_eq!(found, lines);
    }

    #[rstest]
    #[case(LONGEST, &[("F", LONGEST)])]
    #[case(LONGEST + 1, &[("P", LONGEST), ("F", 1)])]
    #[case(2 * LONGEST + 5, &[("P", LONGEST), ("P", LONGEST), ("F", 5)])]
    fn a_long_line_is_split(#[case] length: usize, #[case] parts: &[(&str, usize)]) {
        for size in [1000, 4096, length] {
            let mut line = vec![b'x'; length];
            line.push(b'\n');
            let writes: Vec<&[u8]> = line.chunks(size).collect();
            let found = logged(&writes);
            let found: Vec<(&str, usize)> =
                found.iter().map(|(tag, text)| (tag.as_str(), text.len())).collect();
            assert_eq!(found, parts, "written {size} at a time");
        }
    }

    #[test]
    fn a_large_file_is_put_aside_and_only_the_newest_are_kept() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("0.log");
        let mut log = Log::open(&path).expect("log");
        log.largest = 1;
        let mut stream = Stream::new("stdout");
        for number in 0..7 {
            stream.take(format!("line {number}\n").as_bytes(), &mut log);
            log.flush();
        }
        let mut names: Vec<String> = fs::read_dir(directory.path())
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.1", "0.log.2", "0.log.3", "0.log.4"]);
        assert!(fs::read_to_string(directory.path().join("0.log.1")).expect("text").contains("line 6"));
    }
}
