//! Programs on a terminal of ours.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{Winsize, tcsetwinsize};
use sagong_tests::PATIENCE;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

/// Stopped when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program on a terminal of ours.
pub(crate) struct Terminal {
    pub(crate) child: Running,
    ours: File,
    read: String,
}

impl Terminal {
    pub(crate) fn start(command: &Command, columns: u16, rows: u16) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let path = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs =
            || Stdio::from(OwnedFd::from(File::options().read(true).write(true).open(&path).unwrap()));
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
        // It learns of another size only if the terminal is its own.
        let mut own = Command::new("setsid");
        own.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            own.env(name, value.unwrap_or_default());
        }
        let child = own.stdin(theirs()).stdout(theirs()).stderr(theirs()).spawn().unwrap();
        Self { child: Running(child), ours: File::from(ours), read: String::new() }
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.ours, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until some text was read since the last time.
    pub(crate) fn until(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.read.find(text) {
                self.read.drain(..at + text.len());
                return;
            }
            let timeout = rustix::time::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let mut readable = [PollFd::new(&self.ours, PollFlags::IN)];
            let heard = poll(&mut readable, Some(&timeout)).unwrap();
            assert_ne!(heard, 0, "still waiting for {text:?} after {:?}", self.read);
            let length = self.ours.read(&mut buffer).unwrap_or(0);
            assert_ne!(length, 0, "it ended; waiting for {text:?} after {:?}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    /// Reads to the end and gives the exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        let mut rest = Vec::new();
        let _ = self.ours.read_to_end(&mut rest);
        self.child.0.wait().unwrap().code()
    }
}
