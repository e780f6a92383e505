//! Starting one container and staying beside it until it ends.

use super::console::Console;
use super::launcher::Outcome;
use super::log::Log;
use super::stay::Kept;
use super::{StartReply, attach, chain, memory, own_streams, pipe, reply};
use crate::native::cgroup::Cgroups;
use crate::native::process::{self, ProcessIdentity};
use crate::native::state::{ExitRecord, LaunchRecord, Record, ShimRecord, StartRecord};
use jiff::Timestamp;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::libc;
use rustix::fd::OwnedFd;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

pub(super) fn run(directory: &Path, socket: UnixStream) -> ExitCode {
    super::notes::keep();
    let (launch, lock) = match claim(directory) {
        Ok(claimed) => claimed,
        Err(error) => {
            let taken = error.kind() == io::ErrorKind::ResourceBusy;
            reply(socket, &StartReply { error: Some(error.to_string()), taken });
            return ExitCode::FAILURE;
        }
    };
    let log =
        Log::open(&launch.log).map_err(|error| format!("opening the log {}: {error}", launch.log.display()));
    match log.and_then(|_| start(directory, &launch)) {
        Ok(mut kept) => {
            reply(socket, &StartReply::default());
            kept.held.push(lock);
            become_keeper(&launch.keeper, &kept);
            memory::trim();
            kept.stay()
        }
        Err(message) => {
            let message = super::notes::explain(message, directory);
            let code = save(&failed(message.clone()), directory);
            reply(socket, &StartReply { error: Some(message), taken: false });
            code
        }
    }
}

/// Returns only if that is not possible.
fn become_keeper(program: &Path, kept: &Kept) {
    let open = [&kept.handle].into_iter().chain(&kept.outputs).chain(&kept.held);
    let open = open.chain(&kept.input).chain(&kept.terminal).chain(&kept.listener);
    for descriptor in open {
        let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty());
    }
    let error = Command::new(program).arg0("sagong-shim").args(kept.arguments()).env_clear().exec();
    eprintln!("staying in the shim: {}: {error}", program.display());
}

/// Makes sure that this is the only shim of the container, and says who it is.
fn claim(directory: &Path) -> io::Result<(LaunchRecord, OwnedFd)> {
    std::env::set_current_dir(directory)?;
    ignore_signals();
    let lock = File::create(directory.join("shim.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "the container has been started already"))?;
    if ExitRecord::load(directory)?.is_some() {
        return Err(io::Error::other("the container has ended already"));
    }
    ShimRecord { process: ProcessIdentity::of(std::process::id())? }.save(directory)?;
    let launch = LaunchRecord::load(directory)?.ok_or_else(|| io::Error::other("launch.json is missing"))?;
    Ok((launch, lock.into()))
}

/// Only the end of the container, or a kill, ends the shim.
fn ignore_signals() {
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
        // SAFETY: ignoring a signal calls no code of ours.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

fn start(directory: &Path, launch: &LaunchRecord) -> Result<Kept, String> {
    let step = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let shims = format!("{}/shims", crate::native::cgroup_root(&launch.instance));
    let cgroups = Cgroups::detect().map_err(step("reading the mounted cgroups"))?;
    cgroups.detach_self(&shims).map_err(step("moving the shim's cgroup"))?;
    let (launcher, outcome) = Outcome::new().map_err(step("making a pipe"))?;
    let mut builder = ContainerBuilder::new(launch.id.clone(), SyscallType::default())
        .with_root_path(directory.join("oci"))
        .map_err(|error| chain(&error))?
        .with_executor(launcher);
    let (mut outputs, mut input, mut console) = (Vec::new(), None, None);
    if launch.tty {
        let listening =
            Console::listen(directory, "console.sock").map_err(step("listening for the terminal"))?;
        builder = builder.with_console_socket(Some(listening.path.clone()));
        console = Some(listening);
    } else {
        let (output, inner_output) = pipe().map_err(step("making a pipe"))?;
        let (errors, inner_errors) = pipe().map_err(step("making a pipe"))?;
        let inner_input = if launch.stdin {
            let (inner, outer) = pipe().map_err(step("making a pipe"))?;
            // Open, so that the container's standard input does not end.
            input = Some(outer);
            inner
        } else {
            super::null().map_err(step("opening /dev/null"))?
        };
        own_streams(&[&inner_output, &inner_errors], launch.uid);
        builder = builder.with_stdin(inner_input).with_stdout(inner_output).with_stderr(inner_errors);
        outputs = vec![output, errors];
    }
    let built = builder.as_init(directory).with_systemd(false).with_detach(true).build();
    let mut container = match built {
        Ok(container) => container,
        // What the launcher says is clearer than what reaches us through the layers.
        Err(error) => {
            return Err(outcome.wait().ok().filter(|text| !text.is_empty()).unwrap_or_else(|| chain(&error)));
        }
    };
    let pid = container.pid().map(|pid| pid.as_raw()).ok_or("the container has no process")?.cast_unsigned();
    let handle = process::open(pid).map_err(step("opening the container's process"))?;
    let handle = handle.ok_or("the container's process ended before it was started")?;
    let mut terminal = None;
    if let Some(console) = console {
        let received = console.receive(launch.uid).map_err(step("receiving the terminal"))?;
        let again = || received.try_clone().map_err(step("keeping the terminal"));
        (terminal, input) = (Some(again()?), launch.stdin.then(again).transpose()?);
        outputs = vec![received];
    }
    adjust_oom_score(pid, launch.oom_score_adj);
    container.start().map_err(|error| chain(&error))?;
    let failure = outcome.wait().map_err(step("waiting for the program to be executed"))?;
    if !failure.is_empty() {
        process::wait_ended(&handle, std::time::Duration::from_secs(10));
        return Err(failure);
    }
    let started = Timestamp::now();
    ProcessIdentity::of(pid)
        .and_then(|process| StartRecord { process, started }.save(directory))
        .map_err(step("recording the start"))?;
    Ok(Kept {
        directory: directory.to_owned(),
        log: launch.log.clone(),
        started: started.to_string(),
        pid: pid.cast_signed(),
        handle,
        outputs,
        held: Vec::new(),
        input,
        terminal,
        listener: listen().map_err(step("listening for sessions"))?,
        stdin_once: launch.stdin_once,
        counters: cgroups.oom_counters(&launch.cgroup),
    })
}

/// Where sessions attach, in the working directory: its path may be too long for a socket's address.
fn listen() -> io::Result<Option<OwnedFd>> {
    let _ = fs::remove_file(attach::SOCKET);
    Ok(Some(UnixListener::bind(attach::SOCKET)?.into()))
}

/// A lower score than one's own needs a privilege that Sagong may lack; a container without its score still runs.
fn adjust_oom_score(pid: u32, score: Option<i32>) {
    let Some(score) = score else { return };
    if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        eprintln!("oom_score_adj {score} was not set: {error}");
    }
}

fn failed(message: String) -> ExitRecord {
    ExitRecord {
        started: None,
        finished: Timestamp::now(),
        exit_code: 128,
        signal: 0,
        reason: "StartError".to_owned(),
        message,
    }
}

fn save(exit: &ExitRecord, directory: &Path) -> ExitCode {
    match exit.save(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recording the exit: {error}");
            ExitCode::FAILURE
        }
    }
}
