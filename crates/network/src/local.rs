//! The addresses this machine has at the moment.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

/// Those of all links of the calling thread's network namespace.
pub(crate) fn addresses() -> io::Result<BTreeSet<Ipv4Addr>> {
    let links = nix::ifaddrs::getifaddrs().map_err(io::Error::from)?;
    Ok(links.filter_map(|link| Some(link.address?.as_sockaddr_in()?.ip())).collect())
}
