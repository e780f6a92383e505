//! Which images can go when the disk is full: upstream's rule (`imageGCHighThresholdPercent` and its kin). Pure.

use super::signals::Disk;
use crate::clock::between;
use jiff::Timestamp;
use sagong_image::Image;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Above this use of the disk, in per cent, images go …
const HIGH: u64 = 85;
/// … until it is below this.
const LOW: u64 = 80;
/// How old an image has to be.
const OLD: Duration = Duration::from_secs(120);

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Bytes it takes.
    pub(super) size: u64,
    /// When it was first seen.
    first: Timestamp,
    /// When a container was last seen using it.
    used: Option<Timestamp>,
    /// A container uses it.
    in_use: bool,
    /// It came from a registry, and can come again.
    is_from_registry: bool,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bytes that should be freed.
    pub(super) wanted: u64,
    /// Ids of images to be removed, in this order.
    pub(super) remove: Vec<String>,
}

/// Takes over what is there and what is used.
pub(super) fn observe(
    seen: &mut BTreeMap<String, Record>,
    present: &[Image],
    in_use: &BTreeSet<String>,
    now: Timestamp,
) {
    seen.retain(|id, _| present.iter().any(|image| image.id == *id));
    for image in present {
        let fresh = Record { size: 0, first: now, used: None, in_use: false, is_from_registry: false };
        let record = seen.entry(image.id.clone()).or_insert(fresh);
        record.size = image.size;
        record.in_use = in_use.contains(&image.id);
        // What was loaded by hand could not be fetched again.
        record.is_from_registry = !image.digests.is_empty();
        if record.in_use {
            record.used = Some(now);
        }
    }
}

/// The images to remove: unused, not young, from a registry; those unused for longest first.
pub(super) fn plan(seen: &BTreeMap<String, Record>, disk: Option<Disk>, now: Timestamp) -> Plan {
    let Some(disk) = disk.filter(|disk| disk.capacity > 0) else { return Plan::default() };
    let used = disk.capacity.saturating_sub(disk.available);
    if u128::from(used) * 100 < u128::from(disk.capacity) * u128::from(HIGH) {
        return Plan::default();
    }
    let wanted = used.saturating_sub(disk.capacity / 100 * LOW);
    let may_go =
        |record: &Record| !record.in_use && record.is_from_registry && between(record.first, now) >= OLD;
    let mut eligible: Vec<(&String, &Record)> = seen.iter().filter(|(_, record)| may_go(record)).collect();
    eligible.sort_by_key(|(id, record)| (record.used, record.first, (*id).clone()));
    let mut freed = 0_u64;
    let mut plan = Plan { wanted, remove: Vec::new() };
    for (id, record) in eligible {
        if freed >= wanted {
            break;
        }
        freed = freed.saturating_add(record.size);
        plan.remove.push(id.clone());
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{later, test_epoch};
    use proptest::prelude::{any, prop};
    use proptest::proptest;

    fn image(id: &str, size: u64) -> Image {
        let digests = vec![format!("registry/{id}@sha256:{id}")];
        Image { id: id.into(), tags: vec![], digests, size, config: Default::default() }
    }

    fn disk(available: u64) -> Option<Disk> {
        Some(Disk { capacity: 1000, available, ..Default::default() })
    }

    fn at(seconds: u64) -> Timestamp {
        later(test_epoch(), Duration::from_secs(seconds))
    }

    #[test]
    fn images_go_above_the_high_mark_until_the_low_one_oldest_first() {
        let mut seen = BTreeMap::new();
        let all = [image("a", 40), image("b", 40), image("c", 40)];
        observe(&mut seen, &all, &BTreeSet::from(["a".to_owned(), "c".to_owned()]), at(0));
        observe(&mut seen, &all, &BTreeSet::from(["c".to_owned()]), at(200));
        assert_eq!(plan(&seen, disk(151), at(200)).remove, Vec::<String>::new(), "84.9 % is not 85 %");
        // Never used before used long ago; what is in use not at all.
        assert_eq!(plan(&seen, disk(150), at(200)).remove, ["b", "a"]);
        assert_eq!(plan(&seen, disk(0), at(200)).remove, ["b", "a"]);
        assert_eq!(plan(&seen, disk(0), at(200)).wanted, 200);
    }

    #[test]
    fn the_young_and_what_was_loaded_by_hand_stay() {
        let mut seen = BTreeMap::new();
        let by_hand = Image { digests: vec![], ..image("own", 40) };
        observe(&mut seen, &[by_hand, image("young", 40)], &BTreeSet::new(), at(0));
        assert_eq!(plan(&seen, disk(0), at(119)).remove, Vec::<String>::new());
        assert_eq!(plan(&seen, disk(0), at(120)).remove, ["young"]);
    }

    proptest! {
        #[test]
        fn nothing_in_use_ever_goes_and_no_more_than_needed(
            images in prop::collection::vec((0_u64..300, any::<bool>()), 0..12),
            available in 0_u64..1000,
        ) {
            let present: Vec<Image> =
                images.iter().enumerate().map(|(at, (size, _))| image(&at.to_string(), *size)).collect();
            let used = images.iter().enumerate().filter(|(_, (_, used))| *used);
            let used: BTreeSet<String> = used.map(|(at, _)| at.to_string()).collect();
            let mut seen = BTreeMap::new();
            observe(&mut seen, &present, &used, at(0));
            let plan = plan(&seen, disk(available), at(500));
            assert!(plan.remove.iter().all(|id| !used.contains(id)));
            let without_last: u64 = plan.remove.iter().rev().skip(1).map(|id| seen[id].size).sum();
            assert!(plan.remove.is_empty() || without_last < plan.wanted);
        }
    }
}
