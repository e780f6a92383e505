//! What a plan for a Deployment depends on, and the roles of the ReplicaSets in it.

use super::{recreate, revision, template_hash};
use crate::cache::Key;
use crate::caches::Caches;
use crate::pod::Sketch;
use crate::selector::Matcher;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All that a plan depends on.
pub struct Snapshot {
    /// The Deployment.
    pub deployment: Arc<Deployment>,
    /// The ReplicaSets it controls, and those that match and that nobody controls.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// With the Recreate strategy: the pods of its ReplicaSets, as it waits for the old ones to go.
    pub pods: Vec<Arc<Sketch>>,
    /// The ReplicaSet that already has the name a new one would get, whosever it is.
    pub namesake: Option<Arc<ReplicaSet>>,
}

/// Takes a snapshot; none when the Deployment is gone.
pub fn observe(caches: &Caches, key: &Key) -> Option<Snapshot> {
    let deployment = caches.deployments.get(key)?;
    let spec = spec_of(&deployment);
    let selector = Matcher::of(&spec.selector);
    let mut replica_sets =
        caches.replica_sets.controlled_by(deployment.metadata.uid.as_deref().unwrap_or_default());
    let orphans = caches.replica_sets.uncontrolled(&key.namespace);
    replica_sets.extend(orphans.into_iter().filter(|set| selector.matches(&set.metadata)));
    let pods = if recreate::is_strategy_of(&deployment) {
        let uids = replica_sets.iter().filter_map(|set| set.metadata.uid.as_deref());
        uids.flat_map(|uid| caches.pods.controlled_by(uid)).collect()
    } else {
        Vec::new()
    };
    let name = template_hash::replica_set_name(&deployment);
    let namesake = caches.replica_sets.get(&Key::new(key.namespace.clone(), name));
    Some(Snapshot { deployment, replica_sets, pods, namesake })
}

/// The spec; an empty one stands for the impossible Deployment without.
pub fn spec_of(deployment: &Deployment) -> &DeploymentSpec {
    static EMPTY: std::sync::LazyLock<DeploymentSpec> = std::sync::LazyLock::new(DeploymentSpec::default);
    deployment.spec.as_ref().unwrap_or(&EMPTY)
}

/// `spec.replicas`; 1 if unset.
pub fn wanted(deployment: &Deployment) -> i32 {
    spec_of(deployment).replicas.unwrap_or(1).max(0)
}

/// A ReplicaSet as observed, and as it is to become.
#[derive(Clone)]
pub struct Set {
    object: Arc<ReplicaSet>,
    observed: Option<Arc<ReplicaSet>>,
}

impl Set {
    /// One that exists.
    pub fn existing(object: Arc<ReplicaSet>) -> Self {
        Self { observed: Some(object.clone()), object }
    }

    /// One that is to be created.
    pub fn fresh(object: ReplicaSet) -> Self {
        Self { object: Arc::new(object), observed: None }
    }

    /// As it is to become.
    pub fn object(&self) -> &ReplicaSet {
        &self.object
    }

    /// As it is to become, to change.
    pub fn object_mut(&mut self) -> &mut ReplicaSet {
        Arc::make_mut(&mut self.object)
    }

    /// Whether it is still to be created.
    pub fn is_fresh(&self) -> bool {
        self.observed.is_none()
    }

    /// Whether it differs from what was observed.
    pub fn is_changed(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| !Arc::ptr_eq(observed, &self.object))
    }

    /// `spec.replicas` as observed; 0 before it is created.
    pub fn size_before(&self) -> i32 {
        self.observed.as_ref().map_or(0, |observed| size_of(observed))
    }

    /// `spec.replicas` as it is to become.
    pub fn size(&self) -> i32 {
        size_of(&self.object)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its uid; empty before it is created.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Its annotation of this name.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.object.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Its status.
    pub fn status(&self) -> Option<&ReplicaSetStatus> {
        self.object.status.as_ref()
    }

    /// `status.replicas`: pods that exist.
    pub fn existing_pods(&self) -> i32 {
        self.status().map_or(0, |status| status.replicas)
    }

    /// `status.readyReplicas`.
    pub fn ready(&self) -> i32 {
        self.status().and_then(|status| status.ready_replicas).unwrap_or(0)
    }

    /// `status.availableReplicas`.
    pub fn available(&self) -> i32 {
        self.status().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    /// The available pods it surely still has at its present and its planned size, even if its status does not tell yet
    /// that it was scaled down: pods that are not available go first. None if its controller has not seen its last
    /// change: the status may then tell of pods that are gone.
    pub fn surely_available(&self) -> Option<i32> {
        let Some(observed) = &self.observed else { return Some(0) };
        let Some(status) = &observed.status else { return Some(0) };
        is_current(observed, status).then(|| self.available().min(self.size_before()).min(self.size()))
    }

    /// The pods it has at most, those aside that are being deleted. None if that is not known: it was scaled, and its
    /// controller has not told yet what it made of that.
    pub fn pods_at_most(&self) -> Option<i32> {
        let Some(observed) = &self.observed else { return Some(self.size()) };
        let largest = self.size_before().max(self.size());
        match &observed.status {
            Some(status) if is_current(observed, status) => Some(largest.max(status.replicas)),
            // It never had another size.
            _ if observed.metadata.generation.unwrap_or(0) <= 1 => Some(largest),
            _ => None,
        }
    }

    /// Its age, oldest first; the name decides among those of one second.
    pub fn age(&self) -> (Timestamp, &str) {
        let created = self.object.metadata.creation_timestamp.as_ref();
        (created.map_or(Timestamp::MAX, |time| time.0), self.name())
    }
}

/// Whether the status tells of the set as it is now.
fn is_current(set: &ReplicaSet, status: &ReplicaSetStatus) -> bool {
    status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
}

fn size_of(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The sum of planned sizes.
pub fn total_size<'a>(sets: impl IntoIterator<Item = &'a Set>) -> i32 {
    sets.into_iter().map(Set::size).fold(0, i32::saturating_add)
}

/// The ReplicaSets of a Deployment by role.
#[derive(Clone)]
pub struct Roles {
    /// The one whose template is the Deployment's; none before it is created.
    pub new: Option<Set>,
    /// All others, oldest first.
    pub old: Vec<Set>,
}

impl Roles {
    /// Assigns the roles. Of several ReplicaSets with the Deployment's template the oldest is the new one, so that
    /// a second one, made by mistake, does not win.
    pub fn assign(deployment: &Deployment, sets: Vec<Arc<ReplicaSet>>) -> Self {
        let mut old: Vec<Set> = sets.into_iter().map(Set::existing).collect();
        old.sort_by(|a, b| a.age().cmp(&b.age()));
        let template = &spec_of(deployment).template;
        let position = old.iter().position(|set| is_template_of(set.object(), template));
        let new = position.map(|position| old.remove(position));
        Self { new, old }
    }

    /// All sets, the new one last.
    pub fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    /// The greatest revision among the old ones.
    pub fn greatest_old_revision(&self) -> i64 {
        self.old.iter().map(revision::of).max().unwrap_or(0).max(0)
    }
}

/// Whether the ReplicaSet has this template, apart from the hash label.
pub fn is_template_of(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(own) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return false };
    // As upstream: `env: []` or `tty: false` is no other template than one without. Images mostly tell without a long look.
    if !images(own).eq(images(template)) || !sagong_api::pod::is_same(&own.spec, &template.spec) {
        return false;
    }
    let (own, other) =
        (own.metadata.clone().unwrap_or_default(), template.metadata.clone().unwrap_or_default());
    let significant = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.remove(template_hash::LABEL);
        labels
    };
    significant(own.labels) == significant(other.labels)
        && own.annotations.unwrap_or_default() == other.annotations.unwrap_or_default()
        && own.finalizers.unwrap_or_default() == other.finalizers.unwrap_or_default()
        && own.name == other.name
        && own.namespace == other.namespace
        && own.generate_name == other.generate_name
}

fn images(template: &PodTemplateSpec) -> impl Iterator<Item = &Option<String>> {
    template.spec.iter().flat_map(|spec| &spec.containers).map(|container| &container.image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn template(image: &str, hash: Option<&str>) -> Value {
        let mut labels = json!({"app": "kubia"});
        if let Some(hash) = hash {
            labels["pod-template-hash"] = hash.into();
        }
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "nodejs", "image": image}]}})
    }

    fn set(name: &str, created: &str, image: &str) -> Arc<ReplicaSet> {
        let value = json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"replicas": 1, "selector": {}, "template": template(image, Some(name))},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn roles(image: &str, sets: Vec<Arc<ReplicaSet>>) -> (Option<String>, Vec<String>) {
        let value = json!({"metadata": {"name": "kubia"},
            "spec": {"selector": {}, "template": template(image, None)}});
        let roles = Roles::assign(&serde_json::from_value(value).unwrap(), sets);
        (
            roles.new.map(|set| set.name().to_owned()),
            roles.old.iter().map(|set| set.name().to_owned()).collect(),
        )
    }

    #[test]
    fn the_new_set_is_the_one_with_the_same_template_apart_from_the_hash() {
        let sets = vec![set("b", "2024-01-02T00:00:00Z", "v2"), set("a", "2024-01-01T00:00:00Z", "v1")];
        assert_eq!(roles("v2", sets.clone()), (Some("b".into()), vec!["a".into()]));
        assert_eq!(roles("v1", sets.clone()), (Some("a".into()), vec!["b".into()]));
        assert_eq!(roles("v3", sets), (None, vec!["a".into(), "b".into()]));
    }

    #[test]
    fn a_template_that_says_nothing_more_is_the_same() {
        let of = |change: fn(&mut Value)| {
            let mut value = template("v1", None);
            change(&mut value);
            serde_json::from_value::<PodTemplateSpec>(value).unwrap()
        };
        let set = set("a", "2024-01-01T00:00:00Z", "v1");
        let wordier = of(|template| {
            template["spec"]["containers"][0]["env"] = json!([]);
            template["spec"]["hostNetwork"] = json!(false);
            template["metadata"]["annotations"] = json!({});
        });
        assert!(is_template_of(&set, &wordier));
        let other = of(|template| template["spec"]["containers"][0]["env"] = json!([{"name": "A"}]));
        assert!(!is_template_of(&set, &other));
    }

    #[rstest]
    #[case::settled(json!({"replicas": 3, "observedGeneration": 4}), 4, Some(3))]
    #[case::pods_still_to_be_deleted(json!({"replicas": 5, "observedGeneration": 4}), 4, Some(5))]
    #[case::scaled_and_not_seen_yet(json!({"replicas": 3, "observedGeneration": 3}), 4, None)]
    #[case::just_created(json!(null), 1, Some(3))]
    fn the_most_pods_a_set_can_have_are_known_once_its_controller_has_seen_its_size(
        #[case] status: Value,
        #[case] generation: i64,
        #[case] expected: Option<i32>,
    ) {
        let value = json!({"metadata": {"name": "a", "generation": generation},
            "spec": {"replicas": 3, "selector": {}}, "status": status});
        assert_eq!(Set::existing(Arc::new(serde_json::from_value(value).unwrap())).pods_at_most(), expected);
    }

    #[test]
    fn of_several_with_the_template_the_oldest_is_the_new_one_and_the_name_breaks_a_tie() {
        let sets = vec![set("c", "2024-01-02T00:00:00Z", "v1"), set("b", "2024-01-01T00:00:00Z", "v1")];
        assert_eq!(roles("v1", sets).0, Some("b".into()));
        let sets = vec![set("z", "2024-01-01T00:00:00Z", "v1"), set("a", "2024-01-01T00:00:00Z", "v1")];
        assert_eq!(roles("v1", sets).0, Some("a".into()));
    }
}
