//! When a node is short of something. Pure.

use super::choice::Short;
use super::signals::{Disk, Node};
use crate::clock::between;
use jiff::Timestamp;
use std::time::Duration;

/// `memory.available` below this is too little, in bytes: upstream's threshold.
const MEMORY: u64 = 100 << 20;
/// `nodefs.available` below this part of the disk, in per cent, is too little …
const DISK_PERCENT: u64 = 5;
/// … unless it is more than this, in bytes: a large disk of which little is left still has room.
const DISK_ENOUGH: u64 = 1 << 30;
/// `nodefs.inodesFree` below this part, in per cent: upstream's threshold.
const FILES_PERCENT: u64 = 5;
/// How long a condition is kept after its cause is gone, so that it does not flap: upstream's period.
const KEPT: Duration = Duration::from_secs(300);

/// Since when the node has been short of something, as last seen; None: it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressures {
    /// Memory.
    pub(crate) memory: Option<Timestamp>,
    /// Disk.
    pub(crate) disk: Option<Timestamp>,
}

impl Pressures {
    /// The pressures after a look at the node.
    pub(super) fn observe(&self, node: &Node, now: Timestamp) -> Self {
        let keep = |before: Option<Timestamp>, is_short: bool| {
            if is_short {
                return Some(now);
            }
            before.filter(|last| between(*last, now) < KEPT)
        };
        Pressures {
            memory: keep(self.memory, is_memory_short(node)),
            disk: keep(self.disk, is_short_of(node.disk)),
        }
    }

    /// What is short right now. Memory first: without it nothing goes on.
    pub(super) fn short(node: &Node) -> Option<Short> {
        let memory = is_memory_short(node).then_some(Short::Memory);
        memory.or_else(|| is_short_of(node.disk).then_some(Short::Disk))
    }
}

fn is_memory_short(node: &Node) -> bool {
    node.memory_available.is_some_and(|available| available < MEMORY)
}

/// Whether too little of a disk is left.
pub(super) fn is_short_of(disk: Option<Disk>) -> bool {
    let Some(disk) = disk else { return false };
    let threshold = (disk.capacity / 100 * DISK_PERCENT).min(DISK_ENOUGH);
    // File systems without inodes of their own say that they have none at all.
    let files = disk.files > 0 && disk.files_free < disk.files / 100 * FILES_PERCENT;
    disk.available < threshold || files
}

/// Why a pod is evicted, worded as upstream words it.
pub(super) fn message(short: Short, node: &Node) -> String {
    let (resource, threshold, available) = match short {
        Short::Memory => ("memory", MEMORY, node.memory_available.unwrap_or_default()),
        Short::Disk => {
            let disk = node.disk.unwrap_or_default();
            ("ephemeral-storage", (disk.capacity / 100 * DISK_PERCENT).min(DISK_ENOUGH), disk.available)
        }
    };
    format!(
        "The node was low on resource: {resource}. Threshold quantity: {}Ki, available: {}Ki. ",
        threshold / 1024,
        available / 1024
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{later, test_epoch};
    use rstest::rstest;

    const GIB: u64 = 1 << 30;

    fn node(memory: u64, capacity: u64, available: u64) -> Node {
        let disk = Disk { capacity, available, files: 1000, files_free: 500 };
        Node { memory_available: Some(memory), disk: Some(disk) }
    }

    #[rstest]
    #[case::plenty(GIB, 100 * GIB, 50 * GIB, None)]
    #[case::little_memory(99 << 20, 100 * GIB, 50 * GIB, Some(Short::Memory))]
    #[case::little_disk(GIB, 10 * GIB, 400 << 20, Some(Short::Disk))]
    #[case::a_large_disk_nearly_full_still_has_room(GIB, 252 * GIB, 6 * GIB, None)]
    #[case::a_large_disk_full(GIB, 252 * GIB, 900 << 20, Some(Short::Disk))]
    #[case::both(1 << 20, 10 * GIB, 0, Some(Short::Memory))]
    fn a_node_is_short_below_its_thresholds(
        #[case] memory: u64,
        #[case] capacity: u64,
        #[case] available: u64,
        #[case] short: Option<Short>,
    ) {
        assert_eq!(Pressures::short(&node(memory, capacity, available)), short);
    }

    #[test]
    fn a_disk_without_free_inodes_is_full() {
        let disk = Disk { capacity: GIB, available: GIB, files: 1000, files_free: 49 };
        assert!(is_short_of(Some(disk)));
        assert!(!is_short_of(Some(Disk { files: 0, files_free: 0, ..disk })), "it has none to run out of");
    }

    #[test]
    fn a_condition_stays_a_while_after_its_cause_is_gone() {
        let now = test_epoch();
        let short = Pressures::default().observe(&node(1 << 20, 10 * GIB, GIB), now);
        assert!(short.memory.is_some() && short.disk.is_none());
        let better = node(GIB, 10 * GIB, GIB);
        assert!(short.observe(&better, later(now, Duration::from_secs(299))).memory.is_some());
        assert!(short.observe(&better, later(now, KEPT)).memory.is_none());
    }

    #[test]
    fn what_cannot_be_read_is_not_short() {
        assert_eq!(Pressures::short(&Node { memory_available: None, disk: None }), None);
    }
}
