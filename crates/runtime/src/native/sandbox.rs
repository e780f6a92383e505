//! Namespaces that live without a process: made in a thread that ends, pinned by bind mounts.

#![allow(unsafe_code)]

use super::holder;
use crate::SandboxConfig;
use nix::libc;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The namespaces of a sandbox, as far as they are not the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    pub(crate) network: Option<PathBuf>,
    pub(crate) uts: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    /// Of processes, if containers share one.
    pub(crate) processes: Option<PathBuf>,
    /// Memory shared by the containers, mounted at `/dev/shm`.
    pub(crate) shared_memory: PathBuf,
    /// Exists as long as the sandbox is ready.
    directory: PathBuf,
}

impl Pins {
    /// Where the namespaces of a sandbox are pinned, whether they exist or not.
    pub(crate) fn of(directory: &Path, config: &SandboxConfig) -> Self {
        let own = |name: &str, host: bool| (!host).then(|| directory.join(name));
        Self {
            network: own("net", config.host_network),
            // On the host's network the host's name is the pod's, as with upstream's runtimes.
            uts: own("uts", config.host_network),
            ipc: own("ipc", config.host_ipc),
            processes: own(holder::PIN, !config.share_processes),
            shared_memory: if config.host_ipc { PathBuf::from("/dev/shm") } else { directory.join("shm") },
            directory: directory.to_owned(),
        }
    }

    /// Whether all of them exist.
    pub(crate) fn exist(&self) -> bool {
        // Nothing can be started in a namespace of processes whose first one is gone.
        let is_held = self
            .processes
            .as_ref()
            .is_none_or(|pin| is_namespace(pin) && holder::pid(&self.directory).is_some());
        self.directory.is_dir() && self.files().all(is_namespace) && is_held
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.network, &self.uts, &self.ipc].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Makes the namespaces. What was made remains for [`unpin`] on an error.
    pub(crate) fn make(&self, config: &SandboxConfig, keeper: &Path) -> io::Result<()> {
        let sysctls = sysctls(config)?;
        super::state::make_private(&self.directory)?;
        for file in self.files() {
            File::create(file)?;
        }
        if !config.host_ipc {
            fs::create_dir_all(&self.shared_memory)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("shm", &self.shared_memory, "tmpfs", flags, c"mode=1777,size=65536k")?;
        }
        // The namespaces of a thread end with it, so that nothing has to be undone in this process.
        let (pins, config, keeper) = (self.clone(), config.clone(), keeper.to_owned());
        let made = std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || {
                pins.make_in_this_thread(&config, &sysctls)?;
                pins.processes.as_ref().map_or(Ok(()), |_| holder::start(&keeper, &pins.directory))
            })?
            .join();
        made.unwrap_or_else(|_| Err(io::Error::other("the thread making namespaces panicked")))
    }

    fn make_in_this_thread(
        &self,
        config: &SandboxConfig,
        sysctls: &BTreeMap<String, Sysctl>,
    ) -> io::Result<()> {
        let mut flags = UnshareFlags::empty();
        flags.set(UnshareFlags::NEWNET, self.network.is_some());
        flags.set(UnshareFlags::NEWUTS, self.uts.is_some());
        flags.set(UnshareFlags::NEWIPC, self.ipc.is_some());
        if flags.is_empty() {
            return Ok(());
        }
        // SAFETY: of what these flags stop sharing nothing is memory or a file descriptor, and the thread is ours.
        unsafe { unshare_unsafe(flags) }.map_err(|error| named("unshare", error.into()))?;
        for (kind, file) in [("net", &self.network), ("uts", &self.uts), ("ipc", &self.ipc)] {
            if let Some(file) = file {
                mount_bind(format!("/proc/thread-self/ns/{kind}"), file)
                    .map_err(|error| named(&file.display().to_string(), error.into()))?;
            }
        }
        if self.uts.is_some() && !config.hostname.is_empty() {
            rustix::system::sethostname(config.hostname.as_bytes())
                .map_err(|error| named("hostname", error.into()))?;
        }
        if self.network.is_some() {
            raise_loopback().map_err(|error| named("raising the loopback interface", error))?;
        }
        for (path, sysctl) in sysctls {
            match fs::write(path, &sysctl.value) {
                Err(error) if sysctl.asked_for => return Err(named(path, error)),
                Err(error) => tracing::info!(path, %error, "a default sysctl of sandboxes was not set"),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Undoes [`Pins::make`], also when it failed half way; no error if nothing is there.
pub(crate) fn unpin(directory: &Path) -> io::Result<()> {
    holder::stop(directory)?;
    for name in super::state::children(directory)? {
        // Not everything in it is a mount point, and one can be mounted more than once.
        while unmount(directory.join(&name), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    }
    sagong_image::remove_tree(directory)
}

struct Sysctl {
    value: String,
    asked_for: bool,
}

/// The sysctls by their files. Those that would change the host are refused.
fn sysctls(config: &SandboxConfig) -> io::Result<BTreeMap<String, Sysctl>> {
    let mut sysctls = BTreeMap::new();
    if !config.host_network {
        // As containerd does: no privileges are needed in a pod for low ports and for ping.
        for (file, value) in [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")] {
            let sysctl = Sysctl { value: value.to_owned(), asked_for: false };
            sysctls.insert(format!("/proc/sys/net/ipv4/{file}"), sysctl);
        }
    }
    for (name, value) in &config.sysctls {
        let path = sysctl_path(name, config.host_network, config.host_ipc).ok_or_else(|| {
            named(name, io::Error::other("sysctl is not allowed: it would change the host"))
        })?;
        sysctls.insert(path, Sysctl { value: value.clone(), asked_for: true });
    }
    Ok(sysctls)
}

fn sysctl_path(name: &str, host_network: bool, host_ipc: bool) -> Option<String> {
    let name = name.replace('/', ".");
    let network = name.starts_with("net.");
    let ipc = name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name == "kernel.sem"
        || name.starts_with("fs.mqueue.");
    let allowed = (network && !host_network) || (ipc && !host_ipc);
    let sound = !name.split('.').any(str::is_empty);
    (allowed && sound).then(|| format!("/proc/sys/{}", name.replace('.', "/")))
}

fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    // SAFETY: the request is an ifreq with a terminated name, and lives through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call before filled in the flags.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    // SAFETY: as above.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn is_namespace(file: &Path) -> bool {
    const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;
    rustix::fs::statfs(file).is_ok_and(|found| found.f_type == NSFS_MAGIC)
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("net.core.somaxconn", false, false, Some("/proc/sys/net/core/somaxconn"))]
    #[case("net/core/somaxconn", false, false, Some("/proc/sys/net/core/somaxconn"))]
    #[case("net.core.somaxconn", true, false, None)]
    #[case("kernel.shmmax", false, false, Some("/proc/sys/kernel/shmmax"))]
    #[case("kernel.shmmax", false, true, None)]
    #[case("kernel.panic", false, false, None)]
    #[case("vm.swappiness", false, false, None)]
    #[case("net.../kernel.panic", false, false, None)]
    fn only_sysctls_of_own_namespaces_are_set(
        #[case] name: &str,
        #[case] host_network: bool,
        #[case] host_ipc: bool,
        #[case] path: Option<&str>,
    ) {
        assert_eq!(sysctl_path(name, host_network, host_ipc).as_deref(), path);
    }
}
