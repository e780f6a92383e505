//! Sessions attached to a container: what it writes is passed on to each, what they write is its input.
//!
//! Compiled into the keeper as well, so that it knows nothing but the standard library.
//!
//! A session connects to the socket in the container's directory and says with its first byte what it wants. Then
//! both sides send frames: a byte that says which stream, the length in two bytes, the bytes.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Name of the socket in the container's directory.
#[allow(dead_code, reason = "the keeper is given the socket")]
pub(crate) const SOCKET: &str = "attach.sock";

/// In the first byte: the session gives input.
pub(crate) const WANTS_INPUT: u8 = 1;
/// In the first byte: the session takes output.
pub(crate) const WANTS_OUTPUT: u8 = 2;
/// In the first byte: the session takes errors.
pub(crate) const WANTS_ERRORS: u8 = 4;

/// A frame of input; one without bytes is its end.
pub(crate) const INPUT: u8 = 0;
/// A frame of output.
pub(crate) const OUTPUT: u8 = 1;
/// A frame of errors.
pub(crate) const ERRORS: u8 = 2;
/// A frame with the size of the terminal: lines and characters in two bytes each.
pub(crate) const SIZE: u8 = 4;

/// Bytes before those of a frame.
pub(crate) const HEAD: usize = 3;
/// Bytes of input that wait for the container before no more is read.
const MOST_INPUT: usize = 64 * 1024;
/// Bytes of output that wait for a session before the container has to wait too.
const MOST_OUTPUT: usize = 256 * 1024;
/// How long the container waits for a session that takes nothing; then the session ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// Sessions at once; one more ends the oldest.
const MOST_SESSIONS: usize = 32;

/// The sessions of a container.
pub(crate) struct Sessions {
    listener: Option<UnixListener>,
    /// The container's input: a pipe or its terminal.
    input: Option<File>,
    terminal: Option<File>,
    /// Whether the input ends with the session that gave it.
    once: bool,
    /// Input the container has not taken yet.
    waiting: Vec<u8>,
    ended: bool,
    /// Nothing waits for sessions any more.
    hurried: bool,
    sessions: Vec<Session>,
}

struct Session {
    stream: UnixStream,
    /// What it said it wants; None before.
    wants: Option<u8>,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// When it last took something, or had nothing to take.
    moved: Instant,
    /// To be closed once all is sent.
    ending: bool,
    gone: bool,
}

impl Sessions {
    /// `input` and `terminal` must not block.
    pub(crate) fn new(
        listener: Option<UnixListener>,
        input: Option<File>,
        terminal: Option<File>,
        once: bool,
    ) -> Self {
        let listener = listener.filter(|listener| listener.set_nonblocking(true).is_ok());
        let (ended, hurried) = (false, false);
        Self { listener, input, terminal, once, waiting: Vec::new(), ended, hurried, sessions: Vec::new() }
    }

    /// Descriptors to wait for: whether for reading, whether for writing.
    pub(crate) fn interests(&self) -> Vec<(RawFd, bool, bool)> {
        let mut all = Vec::with_capacity(self.sessions.len() + 2);
        all.extend(self.listener.iter().map(|listener| (listener.as_raw_fd(), true, false)));
        if let Some(input) = self.input.as_ref().filter(|_| !self.waiting.is_empty()) {
            all.push((input.as_raw_fd(), false, true));
        }
        for session in &self.sessions {
            let (read, write) = (self.may_read(session), !session.unsent.is_empty());
            // Its end alone would be told again and again.
            if read || write {
                all.push((session.stream.as_raw_fd(), read, write));
            }
        }
        all
    }

    /// Does what can be done without waiting.
    pub(crate) fn serve(&mut self) {
        self.accept();
        for index in 0..self.sessions.len() {
            self.receive(index);
        }
        self.feed();
        self.flush();
    }

    /// Passes on what the container wrote.
    pub(crate) fn output(&mut self, stream: u8, bytes: &[u8]) {
        let wanted = if stream == ERRORS { WANTS_ERRORS } else { WANTS_OUTPUT };
        for session in &mut self.sessions {
            if session.wants.is_none_or(|wants| wants & wanted == 0) || session.ending {
                continue;
            }
            if self.hurried && session.unsent.len() > MOST_OUTPUT {
                // Better an end than a gap.
                session.ending = true;
                continue;
            }
            if session.unsent.is_empty() {
                session.moved = Instant::now();
            }
            for piece in bytes.chunks(usize::from(u16::MAX)) {
                session.unsent.push(stream);
                session.unsent.extend_from_slice(&(piece.len() as u16).to_be_bytes());
                session.unsent.extend_from_slice(piece);
            }
        }
        self.flush();
    }

    /// The container has ended: sessions that do not keep up get no more, and nothing waits for them.
    pub(crate) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether the container has to wait, and until when at most.
    pub(crate) fn congested(&self) -> Option<Instant> {
        if self.hurried {
            return None;
        }
        let full = self.sessions.iter().filter(|session| session.unsent.len() > MOST_OUTPUT);
        full.map(|session| session.moved + PATIENCE).min()
    }

    /// Whether everything was sent.
    pub(crate) fn is_drained(&self) -> bool {
        self.sessions.iter().all(|session| session.unsent.is_empty())
    }

    fn may_read(&self, session: &Session) -> bool {
        let gives_input = session.wants.is_none_or(|wants| wants & WANTS_INPUT != 0);
        !session.ending && (!gives_input || self.waiting.len() < MOST_INPUT)
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.sessions.len() >= MOST_SESSIONS {
                self.sessions.remove(0);
            }
            self.sessions.push(Session {
                stream,
                wants: None,
                received: Vec::new(),
                unsent: Vec::new(),
                moved: Instant::now(),
                ending: false,
                gone: false,
            });
        }
    }

    fn receive(&mut self, index: usize) {
        let mut buffer = [0; 8192];
        while self.may_read(&self.sessions[index]) {
            match self.sessions[index].stream.read(&mut buffer) {
                Ok(0) => {
                    self.sessions[index].gone = true;
                    return self.input_ended(index);
                }
                Ok(length) => {
                    self.sessions[index].received.extend_from_slice(&buffer[..length]);
                    self.understand(index);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.sessions[index].gone = true;
                    return self.input_ended(index);
                }
            }
        }
    }

    /// Acts on the whole frames that were received.
    fn understand(&mut self, index: usize) {
        let mut received = std::mem::take(&mut self.sessions[index].received);
        let mut rest = received.as_slice();
        if self.sessions[index].wants.is_none()
            && let Some((wants, after)) = rest.split_first()
        {
            self.sessions[index].wants = Some(*wants);
            rest = after;
        }
        while let [kind, high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((bytes, after)) = after.split_at_checked(length) else { break };
            self.act(index, *kind, bytes);
            rest = after;
        }
        let used = received.len() - rest.len();
        received.drain(..used);
        self.sessions[index].received = received;
    }

    fn act(&mut self, index: usize, kind: u8, bytes: &[u8]) {
        let gives_input = self.sessions[index].wants.is_some_and(|wants| wants & WANTS_INPUT != 0);
        match (kind, bytes) {
            (INPUT, []) => self.input_ended(index),
            (INPUT, bytes) if gives_input && self.input.is_some() && !self.ended => {
                self.waiting.extend_from_slice(bytes);
            }
            (SIZE, [a, b, c, d]) => {
                if let Some(terminal) = &self.terminal {
                    set_size(terminal, u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                }
            }
            _ => {}
        }
    }

    /// The input of a session ended. Either the container's ends with it, or the session does.
    fn input_ended(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        if session.wants.is_none_or(|wants| wants & WANTS_INPUT == 0) {
            return;
        }
        if self.once && self.terminal.is_none() {
            self.ended = true;
        } else {
            session.ending = true;
        }
    }

    /// Gives the container what waits for it.
    fn feed(&mut self) {
        while let (Some(input), false) = (&mut self.input, self.waiting.is_empty()) {
            match input.write(&self.waiting) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The container closed it.
                Err(_) => self.input = None,
            }
        }
        self.waiting.clear();
        if self.ended {
            self.input = None;
        }
    }

    /// Sends what waits to be sent, and forgets sessions that are over.
    fn flush(&mut self) {
        for session in &mut self.sessions {
            session.send();
            let stalled = session.unsent.len() > MOST_OUTPUT && session.moved.elapsed() > PATIENCE;
            session.gone |= stalled || (session.ending && session.unsent.is_empty());
        }
        self.sessions.retain(|session| !session.gone);
    }
}

impl Session {
    fn send(&mut self) {
        while !self.unsent.is_empty() && !self.gone {
            match self.stream.write(&self.unsent) {
                Ok(length) => {
                    self.unsent.drain(..length);
                    self.moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
    }
}

#[repr(C)]
struct WindowSize {
    rows: u16,
    columns: u16,
    width: u16,
    height: u16,
}

// Of the C library, which every program is linked with.
unsafe extern "C" {
    fn ioctl(descriptor: c_int, request: c_ulong, ...) -> c_int;
}

/// Tells the terminal's programs as well, by a signal.
pub(crate) fn set_size(terminal: &impl AsRawFd, rows: u16, columns: u16) {
    const SET_SIZE: c_ulong = if cfg!(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "sparc64"
    )) {
        0x8008_7467
    } else {
        0x5414
    };
    let size = WindowSize { rows, columns, width: 0, height: 0 };
    // SAFETY: the request reads a structure of this form, which outlives the call.
    unsafe { ioctl(terminal.as_raw_fd(), SET_SIZE, &size) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    struct Bench {
        sessions: Sessions,
        directory: tempfile::TempDir,
        reader: io::PipeReader,
    }

    use std::io;

    fn bench(once: bool) -> Bench {
        let directory = tempfile::tempdir().expect("directory");
        let listener = UnixListener::bind(directory.path().join(SOCKET)).expect("listen");
        let (reader, writer) = io::pipe().expect("pipe");
        let input = File::from(OwnedFd::from(writer));
        rustix::io::ioctl_fionbio(&input, true).expect("not blocking");
        Bench { sessions: Sessions::new(Some(listener), Some(input), None, once), directory, reader }
    }

    impl Bench {
        fn connect(&mut self, wants: u8) -> UnixStream {
            let mut stream = UnixStream::connect(self.directory.path().join(SOCKET)).expect("connect");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
            stream.write_all(&[wants]).expect("first byte");
            self.sessions.serve();
            stream
        }
    }

    fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
        [&[kind][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat()
    }

    #[test]
    fn output_reaches_every_session_that_wants_it() {
        let mut bench = bench(false);
        let mut both = bench.connect(WANTS_OUTPUT | WANTS_ERRORS);
        let mut errors = bench.connect(WANTS_ERRORS);
        bench.sessions.output(OUTPUT, b"hello");
        bench.sessions.output(ERRORS, b"bad");
        drop(bench);
        let (mut all, mut some) = (Vec::new(), Vec::new());
        both.read_to_end(&mut all).expect("read");
        errors.read_to_end(&mut some).expect("read");
        assert_eq!(all, [frame(OUTPUT, b"hello"), frame(ERRORS, b"bad")].concat());
        assert_eq!(some, frame(ERRORS, b"bad"));
    }

    #[test]
    fn input_arrives_however_it_is_cut() {
        for size in 1..8 {
            let mut bench = bench(true);
            let mut session = bench.connect(WANTS_INPUT);
            let sent = [frame(INPUT, b"hello "), frame(INPUT, b"world"), frame(INPUT, b"")].concat();
            for piece in sent.chunks(size) {
                session.write_all(piece).expect("write");
                bench.sessions.serve();
            }
            let mut read = String::new();
            bench.reader.read_to_string(&mut read).expect("the container's input ends");
            assert_eq!(read, "hello world");
        }
    }

    #[test]
    fn without_once_the_session_ends_and_the_input_stays() {
        let mut bench = bench(false);
        let mut session = bench.connect(WANTS_INPUT | WANTS_OUTPUT);
        session.write_all(&[frame(INPUT, b"a"), frame(INPUT, b"")].concat()).expect("write");
        bench.sessions.serve();
        assert_eq!(session.read(&mut [0; 1]).expect("the session ends"), 0);
        assert!(bench.sessions.input.is_some());
    }

    #[test]
    fn input_nobody_reads_is_bounded() {
        let mut bench = bench(false);
        let mut session = bench.connect(WANTS_INPUT);
        session.set_nonblocking(true).expect("not blocking");
        let piece = frame(INPUT, &[0; 1000]);
        let mut idle = 0;
        while idle < 3 {
            idle = if session.write(&piece).is_ok() { 0 } else { idle + 1 };
            bench.sessions.serve();
        }
        assert!(bench.sessions.waiting.len() < MOST_INPUT + 64 * 1024);
    }

    #[test]
    fn a_session_that_takes_nothing_holds_the_container_up() {
        let mut bench = bench(false);
        let _session = bench.connect(WANTS_OUTPUT);
        assert_eq!(bench.sessions.congested(), None);
        while bench.sessions.congested().is_none() {
            bench.sessions.output(OUTPUT, &[0; 16 * 1024]);
        }
        bench.sessions.sessions[0].moved = Instant::now() - PATIENCE - Duration::from_secs(1);
        bench.sessions.serve();
        assert_eq!((bench.sessions.congested(), bench.sessions.sessions.len()), (None, 0));
    }
}
