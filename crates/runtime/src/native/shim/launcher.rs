//! The last steps inside of the container before its program takes over the process.

use libcontainer::oci_spec::runtime::{LinuxSeccomp, Spec};
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::libc;
use rustix::process::Signal;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Executes a program; says through a pipe why it could not be. The pipe closes when the program was executed.
#[derive(Clone)]
pub(super) struct Launcher {
    /// Belongs to the process that made it, and is inherited by the container's until it executes its program.
    failure: RawFd,
    /// Restricts a command that joins a container: libcontainer leaves the container's own out of its configuration.
    seccomp: Option<LinuxSeccomp>,
}

/// Reads what the launcher has to say.
pub(super) struct Outcome {
    read: OwnedFd,
    write: OwnedFd,
}

impl Outcome {
    /// A launcher, and where it reports to.
    pub(super) fn new() -> io::Result<(Launcher, Self)> {
        let (read, write) = super::pipe()?;
        Ok((Launcher { failure: write.as_raw_fd(), seccomp: None }, Self { read, write }))
    }

    /// Waits until the program was executed (an empty text) or could not be.
    pub(super) fn wait(self) -> io::Result<String> {
        drop(self.write);
        let mut text = String::new();
        std::fs::File::from(self.read).read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Launcher {
    /// The same, restricting system calls as the configuration of a container that is joined.
    pub(super) fn joining(self, spec: &Spec) -> Self {
        let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
        Self { seccomp, ..self }
    }

    /// The configuration with what was left out.
    fn completed(&self, spec: &Spec) -> Spec {
        let mut spec = spec.clone();
        if let Some(seccomp) = &self.seccomp {
            let mut linux = spec.linux().clone().unwrap_or_default();
            linux.set_seccomp(Some(seccomp.clone()));
            spec.set_linux(Some(linux));
        }
        spec
    }

    fn fail(&self, message: &str) {
        // SAFETY: the descriptor is open in this process as long as the launcher is used, and is not closed here.
        let mut pipe = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(self.failure) });
        let _ = pipe.write_all(message.as_bytes());
    }
}

impl Executor for Launcher {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        program(spec).map(drop).map_err(|message| {
            self.fail(&message);
            ExecutorValidationError::ArgValidationError(message)
        })
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let message = match execute(&self.completed(spec)) {
            Ok(never) => match never {},
            Err(message) => message,
        };
        self.fail(&message);
        Err(ExecutorError::Other(message))
    }
}

fn execute(spec: &Spec) -> Result<std::convert::Infallible, String> {
    let (path, arguments) = program(spec)?;
    let terminated =
        |bytes: &[u8]| CString::new(bytes).map_err(|_| "exec: an argument holds a zero byte".to_owned());
    let path = terminated(path.as_os_str().as_bytes())?;
    let arguments: Vec<CString> =
        arguments.iter().map(|text| terminated(text.as_bytes())).collect::<Result<_, _>>()?;
    reset_signals();
    super::confine::confine(spec)?;
    // Should the shim be killed nobody would notice the container's end: it ends too.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    nix::unistd::execv(&path, &arguments)
        .map_err(|error| format!("exec {}: {}", path.to_string_lossy(), describe(io::Error::from(error))))
}

/// What the shim, or whoever started Sagong, ignores the container would ignore as well, having no way of telling.
fn reset_signals() {
    // As large as the kernel's own structure on every architecture; all zero is the default action.
    let default = [0u64; 8];
    let none = 0u64;
    for number in 1..=64 {
        // SAFETY: the kernel reads from what outlives the calls. The library's own function refuses two of the numbers.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                &default,
                std::ptr::null::<u64>(),
                size_of_val(&none),
            )
        };
    }
    let old = std::ptr::null::<u64>();
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &none, old, size_of_val(&none)) };
}

/// The program's path and its arguments; worded like the runtimes users know.
fn program(spec: &Spec) -> Result<(PathBuf, &[String]), String> {
    let process = spec.process().as_ref();
    let arguments = process.and_then(|process| process.args().as_deref()).unwrap_or_default();
    let name = arguments.first().filter(|name| !name.is_empty()).ok_or("exec: no command given")?;
    if name.contains('/') {
        let path = Path::new(name);
        check(path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => format!("exec: {name:?}: permission denied"),
            _ => format!("exec: {name:?}: stat {name}: {}", describe(error)),
        })?;
        return Ok((path.to_owned(), arguments));
    }
    let variables = process.and_then(|process| process.env().as_deref()).unwrap_or_default();
    let search =
        variables.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    search
        .split(':')
        .map(|directory| Path::new(if directory.is_empty() { "." } else { directory }).join(name))
        .find(|path| check(path).is_ok())
        .map(|path| (path, arguments))
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

fn check(path: &Path) -> io::Result<()> {
    let metadata = path.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        return Ok(());
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

fn describe(error: io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
