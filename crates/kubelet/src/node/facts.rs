//! What the machine is: read once from `/proc`, `/sys` and `/etc`.

use std::path::Path;

/// Facts about the machine that do not change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// CPUs this process may use.
    pub(crate) cpus: u64,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Bytes of the file system the kubelet's directory is on.
    pub(crate) storage: u64,
    /// Host name.
    pub(crate) hostname: String,
    /// `/etc/machine-id`.
    pub(crate) machine_id: String,
    /// Id of the hardware.
    pub(crate) system_uuid: String,
    /// Changes with every boot.
    pub(crate) boot_id: String,
    /// `uname -r`.
    pub(crate) kernel: String,
    /// Name of the distribution.
    pub(crate) os_image: String,
}

/// CPUs this process may use.
pub(crate) fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

impl Facts {
    /// Reads them; what cannot be read is empty.
    pub(crate) fn read(data_dir: &Path) -> Self {
        let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let uname = rustix::system::uname();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        let storage = rustix::fs::statvfs(data_dir).map(|it| it.f_blocks.saturating_mul(it.f_frsize));
        Facts {
            cpus: cpus(),
            memory: memory(&line("/proc/meminfo")),
            storage: storage.unwrap_or_default(),
            hostname: uname.nodename().to_string_lossy().into_owned(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: uname.release().to_string_lossy().into_owned(),
            os_image: os_image(&line("/etc/os-release")),
        }
    }
}

fn memory(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// The architecture as Kubernetes names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory("MemTotal:        2048 kB\nMemFree: 1 kB"), 2 << 20);
        assert_eq!(memory("nonsense"), 0);
    }

    #[test]
    fn the_distribution_is_named() {
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian 13\"\n"), "Debian 13");
    }
}
