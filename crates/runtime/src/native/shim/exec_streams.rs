//! Where a command's input and output go: to who runs the shim, or to somebody who holds them while it runs.

use super::console::Console;
use super::{null, own_streams, pipe};
use crate::SessionOptions;
use libcontainer::container::builder::ContainerBuilder;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Said once a command whose streams are held was executed; the streams come along.
pub(crate) const STARTED: u8 = b'+';

/// The outer ends of a command's streams.
pub(super) enum Streams {
    /// The shim's own.
    Inherited,
    /// Input, output and errors, as far as they were asked for.
    Pipes(Vec<OwnedFd>),
    /// All in one.
    Terminal(Console),
}

impl Streams {
    /// The shim's own standard output and errors, and no input.
    pub(super) fn inherit(builder: ContainerBuilder) -> io::Result<(Self, ContainerBuilder)> {
        let own = |stream| rustix::io::fcntl_dupfd_cloexec(stream, 3).map_err(io::Error::from);
        let builder = builder
            .with_stdin(null()?)
            .with_stdout(own(rustix::stdio::stdout())?)
            .with_stderr(own(rustix::stdio::stderr())?);
        Ok((Self::Inherited, builder))
    }

    /// A terminal, or a pipe for each stream asked for. The container's directory has to be the working directory.
    pub(super) fn hold(
        builder: ContainerBuilder,
        directory: &Path,
        options: SessionOptions,
        uid: u32,
    ) -> io::Result<(Self, ContainerBuilder)> {
        if options.tty {
            let console = Console::listen(directory, &format!("exec-{}.sock", std::process::id()))?;
            let builder = builder.with_console_socket(Some(console.path.clone()));
            return Ok((Self::Terminal(console), builder));
        }
        let mut outer = Vec::new();
        let (inner_input, input) =
            if options.stdin { pipe().map(|(r, w)| (r, Some(w)))? } else { (null()?, None) };
        outer.extend(input);
        let mut output = |wanted: bool| -> io::Result<OwnedFd> {
            if !wanted {
                return null();
            }
            let (read, write) = pipe()?;
            own_streams(&[&write], uid);
            outer.push(read);
            Ok(write)
        };
        let (inner_output, inner_errors) = (output(options.stdout)?, output(options.stderr)?);
        let builder = builder.with_stdin(inner_input).with_stdout(inner_output).with_stderr(inner_errors);
        Ok((Self::Pipes(outer), builder))
    }

    /// Hands the outer ends over. To be called when the command was executed.
    pub(super) fn hand_over(self, socket: &UnixStream, uid: u32) -> io::Result<()> {
        let streams = match self {
            Self::Inherited => return Ok(()),
            Self::Pipes(streams) => streams,
            Self::Terminal(console) => vec![console.receive(uid)?],
        };
        let borrowed: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut messages = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() && !messages.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::other("too many streams"));
        }
        sendmsg(socket, &[IoSlice::new(&[STARTED])], &mut messages, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}
