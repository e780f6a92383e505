//! The process beside each container. It outlives Sagong: it starts the container, writes its log, and records how it
//! ended. It has one thread, and little memory, as there are as many of it as containers.

#![allow(unsafe_code)]

pub(crate) mod attach;
mod confine;
mod console;
mod exec;
mod exec_streams;
mod filter;
mod launcher;
mod log;
mod memory;
mod notes;
mod run;
mod stay;

use nix::libc;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) use exec::{ExecReply, ExecRequest};
pub(crate) use exec_streams::STARTED;
pub(crate) use notes::FILE as NOTES;

/// What a shim says once its container runs, or could not be started.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct StartReply {
    /// Why not; None if it runs.
    pub(crate) error: Option<String>,
    /// Because another shim is starting it, or has.
    pub(crate) taken: bool,
}

/// The body of the hidden command of the binary that Sagong re-executes (`sagong shim …`, without `sagong shim`).
///
/// To be called before anything else, above all before any thread exists: the process clones itself into the
/// container. Standard input has to be the socket that Sagong made.
pub fn shim_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(command), Some(directory), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("this command is for Sagong itself: it starts a container");
        return ExitCode::from(2);
    };
    let directory = PathBuf::from(directory);
    let socket = match become_shim() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("preparing the shim: {error}");
            return ExitCode::FAILURE;
        }
    };
    match command.to_str() {
        Some("run") => run::run(&directory, socket),
        Some("exec") => exec::exec(&directory, socket),
        _ => ExitCode::from(2),
    }
}

/// Cuts what ties the process to the one that started it; gives the socket that was standard input.
fn become_shim() -> io::Result<UnixStream> {
    // An error means that it leads a session already.
    let _ = rustix::process::setsid();
    // SAFETY: nothing in this process owns a descriptor beyond the standard ones yet.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Groups of whoever started Sagong must not reach a container that asks for none.
    nix::unistd::setgroups(&[])?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(null()?)?;
    Ok(UnixStream::from(socket))
}

fn null() -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Lets the container's user open its streams again, as `/dev/stdout` does. What may not be given away is left.
fn own_streams(streams: &[&OwnedFd], uid: u32) {
    for stream in streams {
        let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None);
    }
}

fn reply(mut socket: UnixStream, reply: &impl Serialize) {
    // Nobody listens if Sagong was stopped meanwhile; what counts is on disk.
    let _ = serde_json::to_vec(reply).map_err(io::Error::other).and_then(|bytes| socket.write_all(&bytes));
}

/// An error with all its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
