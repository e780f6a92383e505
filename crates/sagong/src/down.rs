//! `sagong down`: stops the process, then everything it made on this machine. Works after a crash, too.

use crate::cli;
use crate::data_dir::DataDir;
use crate::kubeconfig::UserFile;
use crate::{cluster, preflight};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

/// How long the process may take to stop by itself, in seconds.
const PATIENCE: i64 = 20;

pub(crate) async fn run(options: cli::Down) -> Result<()> {
    preflight::require_root()?;
    let Some(data) = DataDir::existing(&options.data.data_dir)? else {
        println!("Nothing to stop: {} does not exist.", options.data.data_dir.display());
        return Ok(());
    };
    if options.purge {
        refuse_foreign(&data)?;
    }
    let was_running = data.running()?;
    if let Some(pid) = was_running {
        stop(pid)?;
    }
    // Nobody may start it again while it is being taken down.
    let lock = match data.lock_to_end()? {
        Ok(lock) => lock,
        Err(pid) => bail!("process {pid} still runs the cluster"),
    };
    cluster::destroy(&data).await?;
    if options.purge {
        if let Some(file) = UserFile::find() {
            file.remove(&data)?;
        }
        sagong_image::remove_tree(data.path())
            .with_context(|| format!("cannot delete {}", data.path().display()))?;
        println!("Stopped, and deleted {}.", data.path().display());
    } else if was_running.is_some() {
        println!("Stopped. `sagong up` goes on with the same objects; `sagong down --purge` deletes them.");
    } else {
        println!("It was not running; nothing is left of it but {}.", data.path().display());
    }
    drop(lock);
    Ok(())
}

/// `--purge` deletes a whole directory: only one that holds a cluster, or nothing.
fn refuse_foreign(data: &DataDir) -> Result<()> {
    let ours = data.join("lock").exists() || data.join("images").exists();
    let empty = std::fs::read_dir(data.path())?.next().is_none();
    if ours || empty {
        return Ok(());
    }
    bail!("{} holds no cluster of Sagong; it is not deleted", data.path().display());
}

/// Asks the process to stop and waits until it is gone.
fn stop(pid: u32) -> Result<()> {
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let raw = raw.with_context(|| format!("the lock names no process: {pid}"))?;
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return Ok(()) };
    let target = Pid::from_raw(raw.as_raw_nonzero().get());
    for (signal, seconds) in [(Signal::SIGTERM, PATIENCE), (Signal::SIGKILL, 5)] {
        let _ = kill(target, signal);
        let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit))? > 0 {
            return Ok(());
        }
    }
    bail!("process {pid} does not stop");
}
