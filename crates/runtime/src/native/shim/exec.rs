//! Running one more command in a container that runs.

use super::exec_streams::Streams;
use super::launcher::Outcome;
use super::{chain, reply};
use crate::SessionOptions;
use crate::native::process;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) id: String,
    pub(crate) command: Vec<String>,
    /// When it is killed; None: it may run for ever.
    pub(crate) timeout: Option<Duration>,
    /// The streams somebody holds while it runs; None: the shim's own.
    pub(crate) session: Option<SessionOptions>,
}

/// How it went.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ExecReply {
    pub(crate) exit_code: i32,
    pub(crate) timed_out: bool,
    /// Why it could not be run at all.
    pub(crate) error: Option<String>,
}

pub(super) fn exec(directory: &Path, socket: UnixStream) -> ExitCode {
    let result = request(&socket).and_then(|request| attempt(directory, &request, &socket));
    // The readers of our output wait for its end.
    if let Ok(null) = super::null() {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    let answer = result.unwrap_or_else(|error| ExecReply { error: Some(error), ..ExecReply::default() });
    reply(socket, &answer);
    ExitCode::SUCCESS
}

fn request(mut socket: &UnixStream) -> Result<ExecRequest, String> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).map_err(|error| format!("reading the request: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("reading the request: {error}"))
}

fn attempt(directory: &Path, request: &ExecRequest, socket: &UnixStream) -> Result<ExecReply, String> {
    let step = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    std::env::set_current_dir(directory).map_err(step("entering the container's directory"))?;
    let spec = Spec::load(directory.join("config.json")).map_err(|error| chain(&error))?;
    let (process, uid) = describe(directory, &spec, request).map_err(step("describing the command"))?;
    let (launcher, outcome) = Outcome::new().map_err(step("making a pipe"))?;
    let builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_root_path(directory.join("oci"))
        .map_err(|error| chain(&error))?
        .with_executor(launcher.joining(&spec));
    let (streams, builder) = match request.session {
        None => Streams::inherit(builder),
        Some(options) => Streams::hold(builder, directory, options, uid),
    }
    .map_err(step("making the command's streams"))?;
    let terminal = matches!(streams, Streams::Terminal(_));
    // A terminal is taken only of what it calls detached; nothing else depends on it.
    let built = builder.as_tenant().with_detach(terminal).with_process(Some(&process)).build();
    let _ = std::fs::remove_file(&process);
    forget_sockets(directory, &request.id);
    let pid = match built {
        Ok(pid) => pid.as_raw().cast_unsigned(),
        Err(error) => {
            return Err(outcome.wait().ok().filter(|text| !text.is_empty()).unwrap_or_else(|| chain(&error)));
        }
    };
    let handle = process::open(pid).map_err(step("opening the command's process"))?;
    let handle = handle.ok_or("the command's process is gone")?;
    let failure = outcome.wait().map_err(step("waiting for the command to be executed"))?;
    if !failure.is_empty() {
        return Err(failure);
    }
    streams.hand_over(socket, uid).map_err(step("handing the command's streams over"))?;
    if request.session.is_some() {
        // Sessions may last.
        super::memory::trim();
    }
    let timed_out = !wait(&handle, socket, request.timeout);
    if timed_out {
        let _ = process::signal(&handle, rustix::process::Signal::KILL.as_raw());
    }
    let status = waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED).ok().flatten();
    let signal = status.as_ref().and_then(|status| status.terminating_signal()).unwrap_or_default();
    let exit_code = status.as_ref().and_then(|status| status.exit_status()).unwrap_or(128 + signal);
    Ok(ExecReply { exit_code, timed_out, error: None })
}

/// Writes down what to execute: as the container's own program (the same user, variables and directory), with other
/// arguments, and a terminal if that is asked for. Gives the user as well.
fn describe(directory: &Path, spec: &Spec, request: &ExecRequest) -> io::Result<(PathBuf, u32)> {
    let mut process = spec.process().clone().ok_or_else(|| io::Error::other("config.json has no process"))?;
    let terminal = request.session.is_some_and(|session| session.tty);
    process.set_args(Some(request.command.clone())).set_terminal(terminal.then_some(true));
    if terminal {
        let mut variables = process.env().clone().unwrap_or_default();
        if !variables.iter().any(|variable| variable.starts_with("TERM=")) {
            variables.push("TERM=xterm".to_owned());
        }
        process.set_env(Some(variables));
    }
    let path = directory.join(format!("exec-{}.json", std::process::id()));
    std::fs::write(&path, serde_json::to_vec(&process).map_err(io::Error::other)?)?;
    Ok((path, process.user().uid()))
}

/// Waits for the end of the command: true; false when its time is over, or Sagong is gone.
fn wait(handle: &impl AsFd, socket: &UnixStream, allowed: Option<Duration>) -> bool {
    let deadline = allowed.and_then(|allowed| Instant::now().checked_add(allowed));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut events = [PollFd::new(handle, PollFlags::IN), PollFd::new(socket, PollFlags::empty())];
        match poll(&mut events, timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) if !events[0].revents().is_empty() => return true,
            Ok(_) if events[1].revents().contains(PollFlags::HUP) => return false,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// libcontainer leaves sockets behind for each command. Recent ones may belong to a command that is being started.
fn forget_sockets(directory: &Path, id: &str) {
    const RECENT: Duration = Duration::from_secs(60);
    for entry in std::fs::read_dir(directory.join("oci").join(id)).into_iter().flatten().flatten() {
        // Of a link itself, not of what it leads to.
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
        let old = matches!(age, Ok(Ok(age)) if age > RECENT);
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if old && (name.starts_with("tenant-notify-") || name.starts_with("tenant-tty-")) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
