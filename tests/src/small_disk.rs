//! A data directory on a disk of its own that is soon full.

use crate::{Cluster, run, stdout};
use std::process::Command;

/// The disk of a cluster that has not been started yet; gone when dropped, and the cluster stopped before.
pub struct SmallDisk<'a>(&'a Cluster);

impl<'a> SmallDisk<'a> {
    /// Mounts one of so many megabytes, in memory.
    pub fn mount(cluster: &'a Cluster, megabytes: u32) -> Self {
        std::fs::create_dir(cluster.data_dir()).unwrap();
        let size = format!("size={megabytes}m");
        stdout(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(cluster.data_dir()));
        Self(cluster)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        run(&mut self.0.sagong(&["down"]));
        run(Command::new("umount").arg(self.0.data_dir()));
    }
}
