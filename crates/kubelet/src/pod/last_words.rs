//! `status.containerStatuses[].state.terminated.message`: what a container left behind when it ended.

use k8s_openapi::api::core::v1::Container;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Most bytes of a message, as upstream cuts it.
const FILE_LIMIT: u64 = 4096;
/// Most bytes of a message made from the log.
const LOG_LIMIT: usize = 2048;
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
    fall_back.then(|| log_end(&tail(log, 4 * FILE_LIMIT)?)).flatten()
}

fn tail(path: &Path, limit: u64) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit))).ok()?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a CRI log, without times and streams. What the program did not end with a newline has none.
fn log_end(log: &str) -> Option<String> {
    let parts = |line| {
        let mut parts = str::splitn(line, 4, ' ').skip(2);
        let end = if parts.next()?.starts_with('P') { "" } else { "\n" };
        Some([parts.next()?, end])
    };
    let lines: Vec<[&str; 2]> = log.lines().filter_map(parts).collect();
    let mut text: String = lines[lines.len().saturating_sub(LOG_LINES)..].iter().flatten().copied().collect();
    if text.len() > LOG_LIMIT {
        let cut = (text.len() - LOG_LIMIT..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        text.drain(..cut);
    }
    Some(text).filter(|text| !text.is_empty())
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
}
