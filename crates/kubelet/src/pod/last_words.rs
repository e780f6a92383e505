//! `status.containerStatuses[].state.terminated.message`: what a container left behind when it ended.

use k8s_openapi::api::core::v1::Container;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Most bytes of a message, as upstream cuts it.
const FILE_LIMIT: u64 = 4096;
/// Most bytes of a message made from the log.
const LOG_LIMIT: usize = 2048;
/// Bytes at the end of a log that hold them, whatever the lines are like: a line has at most 16 KiB and a head.
const LOG_TAIL: u64 = 64 * 1024;
/// Most lines of a message made from the log.
const LOG_LINES: usize = 80;

/// The message in the file, or with `FallbackToLogsOnError` the end of the log of a container that failed;
/// None if there is none.
pub(crate) fn read(spec: &Container, exit_code: i32, file: &Path, log: &Path) -> Option<String> {
    let text = tail(file, FILE_LIMIT).unwrap_or_default();
    if !text.is_empty() {
        return Some(text);
    }
    let fall_back =
        spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError") && exit_code != 0;
    fall_back.then(|| log_end(&last_lines(log)?)).flatten()
}

fn tail(path: &Path, limit: u64) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit))).ok()?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a CRI log, without times and streams. What was written in pieces is one line again.
fn log_end(log: &str) -> Option<String> {
    let mut text = String::new();
    for line in log.lines() {
        let mut parts = line.splitn(4, ' ');
        let (Some(tag), Some(said)) = (parts.nth(2), parts.next()) else { continue };
        text.push_str(said);
        if !tag.starts_with('P') {
            text.push('\n');
        }
    }
    // The end of the line before them is the beginning of the last lines.
    let before = text.trim_end_matches('\n').rmatch_indices('\n').nth(LOG_LINES - 1);
    if let Some((at, _)) = before {
        text.drain(..=at);
    }
    if text.len() > LOG_LIMIT {
        let cut = (text.len() - LOG_LIMIT..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        text.drain(..cut);
    }
    Some(text).filter(|text| !text.is_empty())
}

/// The end of a file of whole lines: a line that is cut is left out.
fn last_lines(path: &Path) -> Option<String> {
    let text = tail(path, LOG_TAIL)?;
    let is_cut = std::fs::metadata(path).is_ok_and(|found| found.len() > LOG_TAIL);
    match text.split_once('\n').filter(|_| is_cut) {
        Some((_, whole)) => Some(whole.to_owned()),
        None => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_from_the_log_ends_as_the_log_does() {
        let of = |log: &str| log_end(log).unwrap();
        assert_eq!(of("t stdout F one\nt stdout P DONE\n"), "one\nDONE");
        assert_eq!(of("t stdout P a long \nt stdout F line\n"), "a long line\n");
    }

    #[test]
    fn the_log_is_used_only_by_policy_and_after_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("message"), dir.path().join("0.log"));
        std::fs::write(&file, "").unwrap();
        std::fs::write(&log, "2025-01-01T00:00:00Z stderr F boom\n").unwrap();
        let mut spec = Container::default();
        assert_eq!(read(&spec, 1, &file, &log), None);
        spec.termination_message_policy = Some("FallbackToLogsOnError".into());
        assert_eq!(read(&spec, 0, &file, &log), None);
        assert_eq!(read(&spec, 1, &file, &log).as_deref(), Some("boom\n"));
        std::fs::write(&file, "own words").unwrap();
        assert_eq!(read(&spec, 1, &file, &log).as_deref(), Some("own words"));
    }

    #[test]
    fn pieces_of_a_line_are_one_line_and_eighty_lines_are_all() {
        let log = "t stdout P ab\nt stdout P cd\nt stdout F ef\nt stderr F \nt stdout F end\n";
        assert_eq!(log_end(log).as_deref(), Some("abcdef\n\nend\n"));
        let many: String = (0..200).map(|line| format!("t stdout F {line}\n")).collect();
        let end = log_end(&many).unwrap();
        assert_eq!((end.lines().next(), end.lines().count()), (Some("120"), 80));
    }

    #[test]
    fn a_line_longer_than_the_message_is_cut_at_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let piece = "x".repeat(16 * 1024);
        let text: String = (0..10).map(|_| format!("2025-01-01T00:00:00Z stdout P {piece}\n")).collect();
        std::fs::write(&log, text + "2025-01-01T00:00:00Z stdout F y\n").unwrap();
        let end = log_end(&last_lines(&log).unwrap()).unwrap();
        assert_eq!(end, "x".repeat(2046) + "y\n");
    }
}
