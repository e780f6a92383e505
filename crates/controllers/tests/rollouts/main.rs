//! Whole rollouts, planned by the real controllers in a model cluster, in many random orders.

#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "tests may panic, and need not be fast")]

mod world;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus};
use proptest::prelude::*;
use sagong_controllers::deployment::progress::condition;
use sagong_controllers::deployment::rolling_update::Limits;
use serde_json::json;
use std::collections::BTreeMap;
use world::World;

const ENOUGH: usize = 20_000;

fn spec(replicas: i32, surge: i32, unavailable: i32, strategy: &str) -> DeploymentSpec {
    let rolling =
        (strategy == "RollingUpdate").then(|| json!({"maxSurge": surge, "maxUnavailable": unavailable}));
    serde_json::from_value(json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "kubia"}},
        "strategy": {"type": strategy, "rollingUpdate": rolling},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "template": {
            "metadata": {"labels": {"app": "kubia"}},
            "spec": {"containers": [{"name": "nodejs", "image": "v1"}]},
        },
    }))
    .unwrap()
}

fn set_image(deployment: &mut Deployment, image: &str) {
    deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image =
        Some(image.into());
}

fn created(seed: u64, spec: DeploymentSpec) -> World {
    let mut world = World::new(seed);
    world.apply(|deployment| deployment.spec = Some(spec));
    world.settle(ENOUGH, |_| {});
    world
}

fn counts(status: &DeploymentStatus) -> [i32; 5] {
    [
        status.replicas,
        status.updated_replicas,
        status.ready_replicas,
        status.available_replicas,
        status.unavailable_replicas,
    ]
    .map(Option::unwrap_or_default)
}

fn reason(world: &World, type_: &str) -> String {
    let status = world.deployment().status.as_ref().unwrap();
    condition(status, type_).and_then(|condition| condition.reason.clone()).unwrap_or_default()
}

fn revisions(world: &World) -> BTreeMap<i64, i32> {
    let sets = world.replica_sets.objects.values();
    sets.map(|set| {
        let annotations = set.metadata.annotations.as_ref().unwrap();
        let size = set.spec.as_ref().unwrap().replicas.unwrap();
        (annotations["deployment.kubernetes.io/revision"].parse().unwrap(), size)
    })
    .collect()
}

fn assert_complete(world: &World, replicas: i32, image: &str) {
    let status = world.deployment().status.clone().unwrap();
    assert_eq!(counts(&status), [replicas, replicas, replicas, replicas, 0]);
    assert_eq!(status.observed_generation, world.deployment().metadata.generation);
    let images: Vec<_> = world.images().into_iter().collect();
    let expected = if replicas == 0 { vec![] } else { vec![(image.to_owned(), replicas as usize)] };
    assert_eq!(images, expected);
    assert_eq!(reason(world, "Progressing"), "NewReplicaSetAvailable");
    assert_eq!(reason(world, "Available"), "MinimumReplicasAvailable");
}

/// No more ReplicaSet sizes than the surge allows, no fewer available pods than must be.
fn check_limits(world: &World, min_ready_seconds: i32) {
    let limits = Limits::of(world.deployment());
    assert!(world.total_size() <= limits.most(), "{} in all, {limits:?}", world.total_size());
    let available = world.available(min_ready_seconds);
    assert!(available >= limits.fewest(), "{available} available, {limits:?}, {:#?}", world.events);
}

#[test]
fn the_chapters_rollout_goes_one_by_one_and_reports_it() {
    let mut world = created(1, spec(3, 1, 0, "RollingUpdate"));
    assert_complete(&world, 3, "v1");
    let old = world.replica_sets.objects.keys().next().unwrap().name.clone();
    world.apply(|deployment| set_image(deployment, "v2"));
    world.settle(ENOUGH, |world| check_limits(world, 0));
    assert_complete(&world, 3, "v2");
    let new = world.replica_sets.objects.keys().find(|key| key.name != old).unwrap().name.clone();
    let expected = [
        format!("Scaled up replica set {old} from 0 to 3"),
        format!("Scaled up replica set {new} from 0 to 1"),
        format!("Scaled down replica set {old} from 3 to 2"),
        format!("Scaled up replica set {new} from 1 to 2"),
        format!("Scaled down replica set {old} from 2 to 1"),
        format!("Scaled up replica set {new} from 2 to 3"),
        format!("Scaled down replica set {old} from 1 to 0"),
    ];
    assert_eq!(world.events, expected);
    let annotations = world.deployment().metadata.annotations.clone().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "2");
}

#[test]
fn a_rollback_uses_the_old_set_again_and_numbers_it_anew() {
    let mut world = created(2, spec(3, 1, 0, "RollingUpdate"));
    world.apply(|deployment| set_image(deployment, "v2"));
    world.settle(ENOUGH, |_| {});
    assert_eq!(revisions(&world), BTreeMap::from([(1, 0), (2, 3)]));
    world.apply(|deployment| set_image(deployment, "v1"));
    world.settle(ENOUGH, |world| check_limits(world, 0));
    assert_complete(&world, 3, "v1");
    assert_eq!(revisions(&world), BTreeMap::from([(2, 0), (3, 3)]));
    let set = world
        .replica_sets
        .objects
        .values()
        .find(|set| set.spec.as_ref().unwrap().replicas == Some(3))
        .unwrap();
    let annotations = set.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
}

#[test]
fn a_bad_version_stops_keeps_the_old_one_serving_and_times_out() {
    let mut world = created(3, spec(3, 1, 0, "RollingUpdate"));
    world.broken_image = Some("bad".into());
    world.apply(|deployment| set_image(deployment, "bad"));
    world.settle(ENOUGH, |world| check_limits(world, 0));
    assert_eq!(world.images(), BTreeMap::from([("bad".to_owned(), 1), ("v1".to_owned(), 3)]));
    assert_eq!(reason(&world, "Progressing"), "ProgressDeadlineExceeded");
    assert_eq!(reason(&world, "Available"), "MinimumReplicasAvailable");
    world.apply(|deployment| set_image(deployment, "v1"));
    world.settle(ENOUGH, |world| check_limits(world, 0));
    assert_complete(&world, 3, "v1");
}

#[test]
fn a_paused_rollout_does_not_start_a_new_version_but_scales() {
    let mut world = created(4, spec(3, 1, 0, "RollingUpdate"));
    world.apply(|deployment| {
        deployment.spec.as_mut().unwrap().paused = Some(true);
        set_image(deployment, "v2");
    });
    world.settle(ENOUGH, |_| {});
    assert_eq!(reason(&world, "Progressing"), "DeploymentPaused");
    assert_eq!(world.images(), BTreeMap::from([("v1".to_owned(), 3)]));
    world.apply(|deployment| set_image(deployment, "v3"));
    world.settle(ENOUGH, |_| {});
    assert_eq!(world.images(), BTreeMap::from([("v1".to_owned(), 3)]));
    world.apply(|deployment| deployment.spec.as_mut().unwrap().replicas = Some(5));
    world.settle(ENOUGH, |_| {});
    assert_eq!(world.images(), BTreeMap::from([("v1".to_owned(), 5)]));
    world.apply(|deployment| deployment.spec.as_mut().unwrap().paused = None);
    world.settle(ENOUGH, |_| {});
    assert_complete(&world, 5, "v3");
    assert_eq!(
        revisions(&world),
        BTreeMap::from([(1, 0), (2, 5)]),
        "what was never rolled out has no revision"
    );
}

#[test]
fn a_third_version_in_mid_rollout_stops_the_second_from_growing_at_once() {
    let mut world = created(10, spec(10, 2, 2, "RollingUpdate"));
    world.broken_image = Some("slow".into());
    world.apply(|deployment| set_image(deployment, "slow"));
    world.settle_now(ENOUGH);
    let size = |world: &World| revisions(world)[&2];
    assert_eq!(size(&world), 4, "surge and what may be missing; none of them is ready");
    world.apply(|deployment| set_image(deployment, "v3"));
    let mut last = size(&world);
    world.settle(ENOUGH, |world| {
        check_limits(world, 0);
        assert!(size(world) <= last, "the second grew from {last} to {}", size(world));
        last = size(world);
    });
    assert_complete(&world, 10, "v3");
    assert_eq!(revisions(&world), BTreeMap::from([(1, 0), (2, 0), (3, 10)]));
}

#[test]
fn a_rollout_paused_midway_keeps_both_versions_and_shares_out_new_pods() {
    let mut world = created(5, spec(10, 2, 0, "RollingUpdate"));
    world.broken_image = Some("bad".into());
    world.apply(|deployment| set_image(deployment, "bad"));
    world.settle_now(ENOUGH);
    assert_eq!(world.images(), BTreeMap::from([("bad".to_owned(), 2), ("v1".to_owned(), 10)]));
    world.apply(|deployment| {
        let spec = deployment.spec.as_mut().unwrap();
        spec.paused = Some(true);
        spec.replicas = Some(20);
    });
    world.settle(ENOUGH, |_| {});
    // 22 may be in all: 10 × 22 / 12 = 18.3 and 2 × 22 / 12 = 3.7.
    assert_eq!(world.images(), BTreeMap::from([("bad".to_owned(), 4), ("v1".to_owned(), 18)]));
    assert_eq!(
        reason(&world, "Progressing"),
        "DeploymentPaused",
        "a pause is no lack of progress, however long"
    );
}

#[test]
fn a_rollback_by_annotation_is_carried_out_once_and_not_while_paused() {
    let ask = |deployment: &mut Deployment| {
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        annotations.insert("deprecated.deployment.rollback.to".into(), "1".into());
    };
    let mut world = created(9, spec(3, 1, 0, "RollingUpdate"));
    world.apply(|deployment| set_image(deployment, "v2"));
    world.settle(ENOUGH, |_| {});
    world.apply(|deployment| {
        deployment.spec.as_mut().unwrap().paused = Some(true);
        ask(deployment);
    });
    world.settle(ENOUGH, |_| {});
    assert_eq!(world.images(), BTreeMap::from([("v2".to_owned(), 3)]));
    world.apply(|deployment| deployment.spec.as_mut().unwrap().paused = None);
    world.settle(ENOUGH, |world| check_limits(world, 0));
    assert_complete(&world, 3, "v1");
    assert_eq!(revisions(&world), BTreeMap::from([(2, 0), (3, 3)]));
    assert!(world.events.iter().any(|event| event == "Rolled back deployment \"kubia\" to revision 1"));
    world.apply(|deployment| set_image(deployment, "v3"));
    world.settle(ENOUGH, |_| {});
    assert_complete(&world, 3, "v3");
}

#[test]
fn recreate_lets_all_old_pods_end_before_the_first_new_one_starts() {
    let mut world = created(6, spec(4, 0, 0, "Recreate"));
    assert_complete(&world, 4, "v1");
    world.apply(|deployment| set_image(deployment, "v2"));
    world.settle(ENOUGH, |world| {
        let versions: std::collections::BTreeSet<_> =
            world.pods.objects.values().map(world::image_of).collect();
        assert!(versions.len() <= 1, "two versions at once: {versions:?}");
    });
    assert_complete(&world, 4, "v2");
}

#[test]
fn only_as_many_old_sets_are_kept_as_the_history_limit_says() {
    let mut world = created(7, spec(2, 1, 0, "RollingUpdate"));
    world.apply(|deployment| deployment.spec.as_mut().unwrap().revision_history_limit = Some(2));
    for version in 2..8 {
        world.apply(|deployment| set_image(deployment, &format!("v{version}")));
        world.settle(ENOUGH, |_| {});
    }
    assert_eq!(revisions(&world), BTreeMap::from([(5, 0), (6, 0), (7, 2)]));
}

#[test]
fn a_thousand_pods_roll_in_few_plans() {
    let mut world = created(8, spec(1000, 250, 250, "RollingUpdate"));
    world.plans = 0;
    world.apply(|deployment| set_image(deployment, "v2"));
    world.settle(200_000, |_| {});
    assert_complete(&world, 1000, "v2");
    assert!(world.plans < 60_000, "{} plans", world.plans);
}

fn any_limits() -> impl Strategy<Value = (i32, i32, i32)> {
    (0..12, 0..5, 0..5).prop_map(|(replicas, surge, unavailable)| {
        (replicas, surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rollout_keeps_its_limits_and_ends(
        (replicas, surge, unavailable) in any_limits(), seed in 1u64.., min_ready in prop_oneof![Just(0), Just(10)],
    ) {
        let mut spec = spec(replicas, surge, unavailable, "RollingUpdate");
        spec.min_ready_seconds = Some(min_ready);
        let mut world = created(seed, spec);
        assert_complete(&world, replicas, "v1");
        world.apply(|deployment| set_image(deployment, "v2"));
        world.settle(ENOUGH, |world| check_limits(world, min_ready));
        assert_complete(&world, replicas, "v2");
    }

    #[test]
    fn changing_ones_mind_at_any_moment_keeps_the_limits_and_ends_with_the_last_word(
        (replicas, surge, unavailable) in any_limits(), seed in 1u64..,
        changes in proptest::collection::vec((1..5u8, 0..120usize), 1..6),
        broken in proptest::option::of(2..5u8),
    ) {
        let mut world = created(seed, spec(replicas, surge, unavailable, "RollingUpdate"));
        world.broken_image = broken.map(|version| format!("v{version}"));
        for (version, steps) in changes {
            world.apply(|deployment| set_image(deployment, &format!("v{version}")));
            for _ in 0..steps {
                world.step();
                check_limits(&world, 0);
            }
        }
        let last = if broken == Some(4) { "v3" } else { "v4" };
        world.apply(|deployment| set_image(deployment, last));
        world.settle(ENOUGH, |world| check_limits(world, 0));
        assert_complete(&world, replicas, last);
    }

    #[test]
    fn failing_writes_and_crashes_of_the_controllers_change_nothing_of_that(
        (replicas, surge, unavailable) in any_limits(), seed in 1u64.., fault_rate in 2..20usize,
        changes in proptest::collection::vec((1..5u8, 0..60usize), 1..6),
    ) {
        let mut world = created(seed, spec(replicas, surge, unavailable, "RollingUpdate"));
        world.fault_rate = fault_rate;
        for (version, steps) in changes {
            world.apply(|deployment| set_image(deployment, &format!("v{version}")));
            for _ in 0..steps {
                world.step();
                check_limits(&world, 0);
            }
            world.restart();
        }
        world.apply(|deployment| set_image(deployment, "v5"));
        world.settle(ENOUGH, |world| check_limits(world, 0));
        assert_complete(&world, replicas, "v5");
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_ends_at_the_new_size(
        (replicas, surge, unavailable) in any_limits(), seed in 1u64..,
        sizes in proptest::collection::vec((0..15i32, 0..60usize), 1..4),
    ) {
        let mut world = created(seed, spec(replicas, surge, unavailable, "RollingUpdate"));
        world.apply(|deployment| set_image(deployment, "v2"));
        let mut last = replicas;
        for (size, steps) in sizes {
            world.apply(|deployment| deployment.spec.as_mut().unwrap().replicas = Some(size));
            for _ in 0..steps {
                world.step();
            }
            last = size;
        }
        world.settle(ENOUGH, |_| {});
        assert_complete(&world, last, "v2");
    }

    #[test]
    fn a_replica_set_never_has_more_pods_than_its_largest_size(seed in 1u64.., sizes in proptest::collection::vec(0..9i32, 1..6)) {
        let mut world = created(seed, spec(0, 1, 0, "RollingUpdate"));
        let largest = sizes.iter().copied().max().unwrap_or(0);
        for size in &sizes {
            world.apply(|deployment| deployment.spec.as_mut().unwrap().replicas = Some(*size));
            for _ in 0..30 {
                world.step();
                prop_assert!(world.pods_by_owner().values().all(|pods| *pods <= largest));
            }
        }
        world.settle(ENOUGH, |_| {});
        assert_complete(&world, *sizes.last().unwrap(), "v1");
    }
}
