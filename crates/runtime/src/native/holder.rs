//! The first process of the process namespace that the containers of a pod share (`shareProcessNamespace`): such a
//! namespace ends with it, so it does nothing but be there and take the status of orphans.
//!
//! Containers see it, and one that may trace processes gets at whatever it has. So it has nothing: no user, no
//! capability, no file system but its own program, and otherwise the pod's namespaces.

#![allow(unsafe_code)]

use super::process::{self, ProcessIdentity};
use super::state::Record;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::process::{Signal, chdir, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where its namespace is pinned, in the directory of the sandbox's pins.
pub(super) const PIN: &str = "pid";
/// Where it lives; empty for everybody else.
const ROOT: &str = "holder";
/// The user nobody is.
const NOBODY: u32 = 65534;
/// How long it may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// Who it is.
#[derive(Debug, Serialize, Deserialize)]
struct HolderRecord {
    process: ProcessIdentity,
}

impl Record for HolderRecord {
    const FILE: &'static str = "holder.json";
}

/// Starts it, in this thread's namespaces but for that of processes, and pins that.
///
/// # Errors
/// If one of the steps fails; what was made is for [`stop`].
pub(super) fn start(keeper: &Path, pins: &Path) -> io::Result<()> {
    let program = fs::read(keeper).map_err(named("reading the program of the sandbox's first process"))?;
    let root = pins.join(ROOT);
    fs::create_dir_all(&root)?;
    // A thread of its own: it loses the host's file system.
    let spawned = std::thread::scope(|scope| scope.spawn(|| spawn(&program, &root)).join());
    let spawned = spawned.unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")));
    let pid = spawned.map_err(named("starting the sandbox's first process"))?;
    HolderRecord { process: ProcessIdentity::of(pid)? }.save(pins)?;
    let pin = pins.join(PIN);
    File::create(&pin)?;
    mount_bind(format!("/proc/{pid}/ns/pid"), &pin)
        .map_err(|error| named("pinning its namespace")(error.into()))
}

/// Its process id on the host, if it lives.
pub(super) fn pid(pins: &Path) -> Option<u32> {
    let process = HolderRecord::load(pins).ok().flatten()?.process;
    let handle = process.open().ok().flatten()?;
    (!process::wait_ended(&handle, Duration::ZERO)).then_some(process.pid)
}

/// Ends it, and with it all processes of its namespace; nothing if there is none.
pub(super) fn stop(pins: &Path) -> io::Result<()> {
    let Some(HolderRecord { process }) = HolderRecord::load(pins)? else { return Ok(()) };
    if let Some(handle) = process.open()? {
        process::signal(&handle, Signal::KILL.as_raw())?;
        process::wait_ended(&handle, ENDING);
        process::reap(&handle);
    }
    Ok(())
}

fn spawn(program: &[u8], root: &Path) -> io::Result<u32> {
    let null = || File::options().read(true).write(true).open("/dev/null").map(Stdio::from);
    let (input, output, errors) = (null()?, null()?, null()?);
    // SAFETY: of what these flags stop sharing nothing is memory or a file descriptor, and the thread is ours.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID | UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("holder", root, "tmpfs", flags, c"mode=555,size=4m")?;
    let path = root.join("holder");
    fs::write(&path, program)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o555))?;
    chdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    let child = Command::new("/holder")
        .arg0("sagong-sandbox")
        .arg("hold")
        .env_clear()
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .gid(NOBODY)
        .uid(NOBODY)
        .process_group(0)
        .spawn()?;
    Ok(child.id())
}

fn named(what: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
