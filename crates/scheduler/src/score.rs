//! Which of the nodes that can take a pod is best.

use crate::cluster::{NodeState, Wanted};

/// Requests upstream assumes of a pod that states none, for scoring only: 100 millicores and 200 MiB, in
/// thousandths.
const UNSTATED: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 * 1024 * 1024 * 1000)];

/// 0 to 200: half for free CPU and memory (upstream's `LeastAllocated`), half for having few pods of the same
/// controller (the purpose of its default topology spread).
///
/// Example: a node of 2 CPUs of which 1 is taken, a pod that wants 0.5: CPU is 25 % free afterwards. With
/// memory 75 % free that is 50. One pod of the same controller: 100 / 2 = 50. Together 100.
pub fn score(wanted: &Wanted, node: &NodeState) -> i64 {
    let free: i64 = UNSTATED.iter().map(|&(name, unstated)| free_percent(wanted, node, name, unstated)).sum();
    let same = wanted.controller.as_ref().and_then(|controller| node.by_controller.get(controller)).copied();
    free / 2 + 100 / (1 + i64::try_from(same.unwrap_or(0)).unwrap_or(i64::MAX - 1))
}

fn free_percent(wanted: &Wanted, node: &NodeState, name: &str, unstated: i64) -> i64 {
    let capacity = i128::from(node.allocatable.get(name).copied().unwrap_or(0));
    if capacity == 0 {
        return 0;
    }
    let taken = node.taken.get(name).copied().unwrap_or(0);
    let asked = wanted.resources.get(name).copied().filter(|amount| *amount > 0).unwrap_or(unstated);
    let free = (capacity - i128::from(taken) - i128::from(asked)).max(0);
    i64::try_from(free * 100 / capacity).unwrap_or(0)
}
