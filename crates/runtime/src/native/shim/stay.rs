//! Beside a container that runs: copying what it writes into its log, and recording how it ends.
//!
//! Compiled into the keeper as well, so that it knows nothing but the standard library.

#![allow(unsafe_code)]

use super::attach::{ERRORS, OUTPUT, Sessions};
use super::log::{Log, Stream, now};
use std::ffi::{OsString, c_int, c_short, c_ulong, c_void};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long sessions may take for the last of the output once the container has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often a stream is read before the others have their turn: more than pipes and terminals hold, and not for ever
/// if others than the container's own program write on.
const TURN: u32 = 256;

/// Bytes that are taken for the record of the end at the beginning: the disk may be full by then. Blanks behind a record
/// mean nothing.
const RECORD: usize = 512;

/// A container that runs. What it holds open has to be passed on when another program takes over.
pub(crate) struct Kept {
    /// The container's directory.
    pub(crate) directory: PathBuf,
    /// Its log.
    pub(crate) log: PathBuf,
    /// When it was started (RFC 3339).
    pub(crate) started: String,
    /// Its process, a child of this one.
    pub(crate) pid: i32,
    /// The same, as a descriptor that can be waited for.
    pub(crate) handle: OwnedFd,
    /// What it writes: standard output, or a terminal, and standard error.
    pub(crate) outputs: Vec<OwnedFd>,
    /// Descriptors that only have to stay open.
    pub(crate) held: Vec<OwnedFd>,
    /// What it reads, if that is kept open: a pipe or its terminal.
    pub(crate) input: Option<OwnedFd>,
    /// Its terminal, if it has one.
    pub(crate) terminal: Option<OwnedFd>,
    /// Where sessions attach to it.
    pub(crate) listener: Option<OwnedFd>,
    /// Whether its input ends with the session that gave it.
    pub(crate) stdin_once: bool,
    /// Files of its cgroup that count processes killed for want of memory.
    pub(crate) counters: Vec<PathBuf>,
}

impl Kept {
    /// For another program's [`Kept::from_arguments`]; without the program's own name.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let number = |descriptor: &OwnedFd| OsString::from(descriptor.as_raw_fd().to_string());
        let list = |descriptors: &[OwnedFd]| {
            let numbers: Vec<String> = descriptors.iter().map(|one| one.as_raw_fd().to_string()).collect();
            OsString::from(numbers.join(","))
        };
        let mut arguments = vec![
            self.directory.clone().into_os_string(),
            self.log.clone().into_os_string(),
            self.started.clone().into(),
            self.pid.to_string().into(),
            number(&self.handle),
            list(&self.outputs),
            list(&self.held),
            self.input.as_ref().map(number).unwrap_or_default(),
            self.terminal.as_ref().map(number).unwrap_or_default(),
            self.listener.as_ref().map(number).unwrap_or_default(),
            if self.stdin_once { "once" } else { "" }.into(),
        ];
        arguments.extend(self.counters.iter().map(|path| path.clone().into_os_string()));
        arguments
    }

    /// Takes over; None if these are not the arguments of a container.
    #[allow(dead_code, reason = "only the keeper takes over")]
    pub(crate) fn from_arguments(arguments: &[OsString]) -> Option<Self> {
        let [directory, log, started, pid, handle, outputs, held, more @ ..] = arguments else {
            return None;
        };
        let [input, terminal, listener, once, counters @ ..] = more else { return None };
        let own = |number: &str| {
            let number: RawFd = number.parse().ok().filter(|number| *number > 2)?;
            // SAFETY: the shim passed it on open, and names it once.
            Some(unsafe { OwnedFd::from_raw_fd(number) })
        };
        let list = |numbers: &OsString| -> Option<Vec<OwnedFd>> {
            numbers.to_str()?.split(',').filter(|number| !number.is_empty()).map(own).collect()
        };
        let optional = |number: &OsString| number.to_str().and_then(own);
        Some(Self {
            directory: directory.into(),
            log: log.into(),
            started: started.to_str()?.to_owned(),
            pid: pid.to_str()?.parse().ok()?,
            handle: own(handle.to_str()?)?,
            outputs: list(outputs)?,
            held: list(held)?,
            input: optional(input),
            terminal: optional(terminal),
            listener: optional(listener),
            stdin_once: once == "once",
            counters: counters.iter().map(PathBuf::from).collect(),
        })
    }

    /// Stays until the container has ended, and records that.
    pub(crate) fn stay(self) -> ExitCode {
        // Nothing may keep a directory in use.
        let _ = std::env::set_current_dir("/");
        let record_file = self.directory.join(".exit.json.new");
        let _ = fs::write(&record_file, [b' '; RECORD]);
        let names = [("stdout", OUTPUT), ("stderr", ERRORS)];
        let mut outputs: Vec<Written> = Vec::new();
        for (output, (name, number)) in self.outputs.into_iter().zip(names) {
            set_nonblocking(&output);
            outputs.push(Written { file: File::from(output), stream: Stream::new(name), number });
        }
        self.input.iter().for_each(set_nonblocking);
        let (input, terminal) = (self.input.map(File::from), self.terminal.map(File::from));
        let mut sessions = Sessions::new(self.listener.map(Into::into), input, terminal, self.stdin_once);
        let mut log = Log::open(&self.log).ok();
        let mut buffer = vec![0; 16 * 1024];
        while !wait(Some(&self.handle), &outputs, &sessions, None) {
            sessions.serve();
            copy(&mut outputs, &mut buffer, &mut log, &mut sessions);
        }
        let status = reap(self.pid);
        let finished = now();
        let deadline = Instant::now() + LAST_WORDS;
        // The log gets all of it, whoever takes nothing.
        sessions.hurry();
        copy(&mut outputs, &mut buffer, &mut log, &mut sessions);
        while !sessions.is_drained() && Instant::now() < deadline {
            wait(None, &outputs, &sessions, Some(deadline));
            sessions.serve();
            copy(&mut outputs, &mut buffer, &mut log, &mut sessions);
        }
        if let Some(log) = &mut log {
            outputs.iter_mut().for_each(|output| output.stream.end(log));
            log.flush();
        }
        let (code, signal) = match status & 0x7f {
            0 => ((status >> 8) & 0xff, 0),
            signal => (128 + signal, signal),
        };
        let oom_kills: u64 = self.counters.iter().filter_map(oom_kills).sum();
        let reason = match (code, oom_kills) {
            (0, _) => "Completed",
            (_, 1..) => "OOMKilled",
            _ => "Error",
        };
        // As `ExitRecord` is read; none of these values needs escaping.
        let record = format!(
            r#"{{"started":"{}","finished":"{finished}","exit_code":{code},"signal":{signal},"reason":"{reason}","message":""}}"#,
            self.started,
        );
        let written = overwrite(&record_file, &record);
        match written.and_then(|()| fs::rename(&record_file, self.directory.join("exit.json"))) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("recording the exit: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Writes the record where room for it was taken.
fn overwrite(file: &PathBuf, record: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)?
        .write_all(format!("{record:RECORD$}").as_bytes())
}

/// Number of processes killed for want of memory, from `memory.events` (version 2) or `memory.oom_control` (1).
pub(crate) fn oom_kills(counter: &PathBuf) -> Option<u64> {
    let text = fs::read_to_string(counter).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Something the container writes to.
struct Written {
    file: File,
    stream: Stream,
    /// As sessions know it.
    number: u8,
}

/// Copies what there is to read, unless a session has to take what it has first; streams that ended are dropped.
fn copy(outputs: &mut Vec<Written>, buffer: &mut [u8], log: &mut Option<Log>, sessions: &mut Sessions) {
    outputs.retain_mut(|output| {
        for _ in 0..TURN {
            if sessions.congested().is_some() {
                break;
            }
            match output.file.read(buffer) {
                Ok(length) if length > 0 => {
                    if let Some(log) = log {
                        output.stream.take(&buffer[..length], log);
                    }
                    sessions.output(output.number, &buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // Its end; an error if it is a terminal whose other side was closed.
                _ => {
                    if let Some(log) = log {
                        output.stream.end(log);
                    }
                    return false;
                }
            }
        }
        true
    });
    if let Some(log) = log {
        log.flush();
    }
}

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

// Of the C library, which every program is linked with; the same on every architecture of Linux.
unsafe extern "C" {
    fn poll(descriptors: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn wait4(pid: c_int, status: *mut c_int, options: c_int, usage: *mut c_void) -> c_int;
    fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
}

/// Waits until there is something to do: true when the container has ended.
fn wait(
    handle: Option<&OwnedFd>,
    outputs: &[Written],
    sessions: &Sessions,
    deadline: Option<Instant>,
) -> bool {
    const IN: c_short = 1;
    const OUT: c_short = 4;
    // A negative descriptor is one not to wait for.
    let handle = handle.map_or(-1, |handle| handle.as_raw_fd());
    let mut entries = vec![PollFd { fd: handle, events: IN, revents: 0 }];
    let congested = sessions.congested();
    if congested.is_none() {
        let read = |output: &Written| PollFd { fd: output.file.as_raw_fd(), events: IN, revents: 0 };
        entries.extend(outputs.iter().map(read));
    }
    entries.extend(sessions.interests().into_iter().map(|(fd, read, write)| {
        let events = if read { IN } else { 0 } | if write { OUT } else { 0 };
        PollFd { fd, events, revents: 0 }
    }));
    let until = congested.into_iter().chain(deadline).min();
    let left = until.map(|until| until.saturating_duration_since(Instant::now()).as_millis() + 1);
    let timeout = left.map_or(-1, |left| c_int::try_from(left).unwrap_or(c_int::MAX));
    // SAFETY: the entries are as many as said, and outlive the call.
    unsafe { poll(entries.as_mut_ptr(), entries.len() as c_ulong, timeout) };
    entries[0].revents != 0
}

/// Takes the status of a child that has ended.
fn reap(pid: i32) -> c_int {
    const ALL: c_int = 0x4000_0000;
    let mut status = 0;
    loop {
        // SAFETY: the status outlives the call; the usage is not asked for.
        let found = unsafe { wait4(pid, &mut status, ALL, std::ptr::null_mut()) };
        if found >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return status;
        }
    }
}

fn set_nonblocking(descriptor: &OwnedFd) {
    const SET_FLAGS: c_int = 4;
    const NONBLOCK: c_int =
        if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 0o200 } else { 0o4000 };
    // SAFETY: takes no pointers.
    unsafe { fcntl(descriptor.as_raw_fd(), SET_FLAGS, NONBLOCK) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_the_last_lines_whoever_stalls() {
        use super::super::attach::{SOCKET, WANTS_OUTPUT};
        use std::io::Write;
        use std::os::unix::net::{UnixListener, UnixStream};
        let directory = tempfile::tempdir().expect("directory");
        let listener = UnixListener::bind(directory.path().join(SOCKET)).expect("listen");
        let mut sessions = Sessions::new(Some(listener), None, None, false);
        let mut stalled = UnixStream::connect(directory.path().join(SOCKET)).expect("connect");
        stalled.write_all(&[WANTS_OUTPUT]).expect("first byte");
        sessions.serve();
        while sessions.congested().is_none() {
            sessions.output(OUTPUT, &[0; 16 * 1024]);
        }
        let (reader, mut writer) = io::pipe().expect("pipe");
        writer.write_all(b"goodbye\n").expect("write");
        drop(writer);
        let path = directory.path().join("0.log");
        let mut log = Log::open(&path).ok();
        let file = File::from(OwnedFd::from(reader));
        let mut outputs = vec![Written { file, stream: Stream::new("stdout"), number: OUTPUT }];
        copy(&mut outputs, &mut [0; 64], &mut log, &mut sessions);
        assert_eq!(outputs.len(), 1, "it waits while the container runs");
        sessions.hurry();
        copy(&mut outputs, &mut [0; 64], &mut log, &mut sessions);
        assert!(outputs.is_empty());
        let text = fs::read_to_string(path).expect("log");
        assert!(text.ends_with(" stdout F goodbye\n"), "{text}");
    }

    #[test]
    fn kills_for_want_of_memory_are_read_from_both_versions() {
        let directory = tempfile::tempdir().expect("directory");
        let counted = |text: &str| {
            let file = directory.path().join("counter");
            fs::write(&file, text).expect("write");
            oom_kills(&file)
        };
        assert_eq!(counted("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(counted("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(counted("oom_kill_disable 0\n"), None);
    }
}
