//! What must be true of the machine, checked before anything is changed. Each failure is one line with its
//! remedy.

use anyhow::{Result, bail};
use std::net::{Ipv4Addr, TcpListener};

/// Checks that this machine can run a cluster at all.
pub(crate) fn check_machine() -> Result<()> {
    require_root()?;
    require_program("nft", "nftables")?;
    if let Err(reason) = sagong_runtime::native::check_cgroups() {
        bail!("{reason}");
    }
    Ok(())
}

/// Checks that nobody listens on the API server's port.
pub(crate) fn check_port(port: u16) -> Result<()> {
    let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else { return Ok(()) };
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            bail!(
                "port {port} is in use by another program (another cluster?); choose another one with --port"
            )
        }
        _ => bail!("cannot listen on port {port}: {error}; choose another one with --port"),
    }
}

/// Containers, namespaces and nftables rules need root.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("this needs root; run it with sudo");
}

fn require_program(program: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    if places.into_iter().any(|directory| directory.join(program).is_file()) {
        return Ok(());
    }
    bail!("{program} not found; install the package {package} (Debian, Ubuntu: apt-get install {package})");
}
