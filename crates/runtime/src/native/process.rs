//! Processes that outlive the one that started them: named so that a recycled process id is never mistaken for them.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// One process among all there ever were on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    /// Id in the host's namespace.
    pub(crate) pid: u32,
    /// When it began, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    start_time: u64,
    /// Which boot.
    boot: String,
}

impl ProcessIdentity {
    /// Names a process that exists.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_time: start_time(pid)?, boot: boot_id()?.to_owned() })
    }

    /// A handle of the process; None if it is gone. A zombie is not gone, but its handle is readable at once.
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        if self.boot != boot_id()? {
            return Ok(None);
        }
        let Some(handle) = open(self.pid)? else { return Ok(None) };
        // Read after the handle was opened: if the times agree the handle is of the process meant.
        match start_time(self.pid) {
            Ok(time) if time == self.start_time => Ok(Some(handle)),
            _ => Ok(None),
        }
    }
}

/// A handle of whichever process has this id now; None if none has.
pub(crate) fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Ok(Some(handle)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal; no error if the process is gone.
pub(crate) fn signal(handle: impl AsFd, number: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(number)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no signal {number}")))?;
    match pidfd_send_signal(handle, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the process has ended; false if it has not within the time allowed.
pub(crate) fn wait_ended(handle: impl AsFd, allowed: Duration) -> bool {
    let deadline = Instant::now() + allowed;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Waits until the process has ended, however long it takes.
pub(crate) fn wait_end(handle: impl AsFd) {
    while !wait_ended(&handle, Duration::from_secs(3600)) {}
}

/// Takes the exit status of a child of ours off the process table; nothing if it is not a child.
pub(crate) fn reap(handle: impl AsFd) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let _ = waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    start_time_in(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: no start time")))
}

/// The name in parentheses may itself hold spaces and parentheses; what follows the last one is regular.
fn start_time_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> io::Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(BOOT.get_or_init(|| boot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_start_time() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(start_time_in(stat), Some(4242));
    }

    #[test]
    fn a_process_of_another_boot_is_gone() {
        let mut own = ProcessIdentity::of(std::process::id()).expect("own identity");
        assert!(own.open().expect("open").is_some());
        own.boot = "another".to_owned();
        assert!(own.open().expect("open").is_none());
    }

    #[test]
    fn another_process_with_the_same_id_is_not_mistaken() {
        let mut own = ProcessIdentity::of(std::process::id()).expect("own identity");
        own.start_time += 1;
        assert!(own.open().expect("open").is_none());
    }
}
