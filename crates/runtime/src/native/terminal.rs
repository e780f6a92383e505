//! The outer side of a terminal, as a stream.

use super::shim::attach::set_size;
use crate::{Resize, TerminalSize};
use rustix::fd::OwnedFd;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A terminal. Clones share it: one may read while another writes. Its programs are hung up on when all are gone.
#[derive(Clone)]
pub(super) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        #[allow(unsafe_code)]
        // SAFETY: the descriptor is owned by what is registered, and stays open and the same as long as that lives.
        let registered = unsafe { AsyncFd::register(descriptor) };
        Ok(Self(Arc::new(registered?)))
    }

    /// Does not keep the terminal open.
    pub(super) fn resize(&self) -> Resize {
        let terminal = Arc::downgrade(&self.0);
        Arc::new(move |TerminalSize { columns, rows }| {
            if let Some(terminal) = terminal.upgrade() {
                set_size(terminal.get_ref(), rows, columns);
            }
        })
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            let read = |inner: &AsyncFd<OwnedFd>| Ok(rustix::io::read(inner.get_ref(), &mut *room)?);
            match ready.try_io(read) {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // Nothing has it open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|inner| Ok(rustix::io::write(inner.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
