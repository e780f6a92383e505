//! The terminal of a container that asks for one: libcontainer makes it inside and sends it out through a socket.

use nix::libc;
use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const INNER_FLAGS: libc::c_int = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;

/// Where the terminal is sent to.
pub(super) struct Console {
    listener: UnixListener,
    pub(super) path: PathBuf,
}

impl Console {
    /// Listens in the container's directory, which has to be the working directory: its path may be too long for a
    /// socket's address.
    pub(super) fn listen(directory: &Path, name: &str) -> io::Result<Self> {
        let _ = std::fs::remove_file(directory.join(name));
        Ok(Self { listener: UnixListener::bind(name)?, path: directory.join(name) })
    }

    /// Takes the terminal and gives it to a user; to be called when it was sent.
    pub(super) fn receive(self, uid: u32) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut messages = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 4096];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut messages, RecvFlags::CMSG_CLOEXEC)?;
        let terminal = messages
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            })
            .ok_or_else(|| io::Error::other("no terminal was sent"))?;
        // The side of the programs, found without a path: paths are the container's to choose.
        // SAFETY: takes no pointers, and gives a new descriptor or none.
        let inner = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGPTPEER, INNER_FLAGS) };
        if inner >= 0 {
            // SAFETY: it was just made, and nobody else knows it.
            let inner = unsafe { OwnedFd::from_raw_fd(inner) };
            super::own_streams(&[&inner], uid);
        }
        Ok(terminal)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
