//! The terminal of a container that asks for one: libcontainer makes it inside and sends it out through a socket.

use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Where the terminal is sent to.
pub(super) struct Console {
    listener: UnixListener,
    pub(super) path: PathBuf,
}

impl Console {
    /// Listens in the container's directory, which has to be the working directory: its path may be too long for a
    /// socket's address.
    pub(super) fn listen(directory: &Path) -> io::Result<Self> {
        const NAME: &str = "console.sock";
        let _ = std::fs::remove_file(directory.join(NAME));
        Ok(Self { listener: UnixListener::bind(NAME)?, path: directory.join(NAME) })
    }

    /// Takes the terminal; to be called when it was sent.
    pub(super) fn receive(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let _ = std::fs::remove_file(&self.path);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut messages = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 4096];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut messages, RecvFlags::CMSG_CLOEXEC)?;
        messages
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            })
            .ok_or_else(|| io::Error::other("no terminal was sent"))
    }
}
