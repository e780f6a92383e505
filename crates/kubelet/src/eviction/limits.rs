//! What a pod may write to the node's disk. Pure.

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sagong_api::quantity::Amount;
use std::collections::BTreeMap;

/// What may not grow beyond a limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// An `emptyDir` volume on disk, by name.
    Volume(String),
    /// All the pod writes: volumes, logs, and what containers write beside them.
    Pod,
    /// What one container writes beside volumes, and its logs.
    Container(String),
}

/// A limit of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageLimit {
    pub(crate) subject: Subject,
    /// Bytes.
    pub(crate) most: u64,
    /// As the API writes it.
    text: String,
}

/// The limits of a pod, in the order in which upstream looks at them.
pub(crate) fn of(spec: &PodSpec) -> Vec<StorageLimit> {
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        // What is in memory is limited by its file system.
        let source = Some(source).filter(|source| source.medium.as_deref() != Some("Memory"))?;
        let limit = limit(Subject::Volume(volume.name.clone()), amount(source.size_limit.as_ref()?)?);
        (limit.most > 0).then_some(limit)
    });
    let of_container = |container: &k8s_openapi::api::core::v1::Container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        Some((container.name.clone(), amount(limits.get("ephemeral-storage")?)?))
    };
    let containers: Vec<(String, Amount)> = spec.containers.iter().filter_map(of_container).collect();
    // Init containers run before the others, unless they go on beside them.
    let (beside, before): (Vec<_>, Vec<_>) = spec
        .init_containers
        .iter()
        .flatten()
        .partition(|container| container.restart_policy.as_deref() == Some("Always"));
    let beside: Vec<(String, Amount)> = beside.into_iter().filter_map(of_container).collect();
    let together = containers.iter().chain(&beside).map(|(_, amount)| *amount).reduce(Amount::plus);
    let largest = before.into_iter().filter_map(of_container).map(|(_, amount)| amount).max();
    let pod = together.max(largest).map(|amount| limit(Subject::Pod, amount));
    let each = containers.into_iter().map(|(name, amount)| limit(Subject::Container(name), amount));
    volumes.chain(pod).chain(each).collect()
}

fn amount(quantity: &Quantity) -> Option<Amount> {
    Amount::try_from(quantity).ok()
}

fn limit(subject: Subject, amount: Amount) -> StorageLimit {
    let most = u64::try_from(amount.units()).unwrap_or_default();
    StorageLimit { subject, most, text: amount.to_string() }
}

/// Why a pod has to go that uses so much, worded as upstream words it; None if it may stay.
pub(super) fn exceeded(limits: &[StorageLimit], used: &BTreeMap<Subject, u64>) -> Option<String> {
    let over = limits.iter().find(|limit| used.get(&limit.subject).is_some_and(|used| *used > limit.most))?;
    let text = &over.text;
    Some(match &over.subject {
        Subject::Volume(name) => {
            format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\". ")
        }
        Subject::Pod => {
            format!("Pod ephemeral local storage usage exceeds the total limit of containers {text}. ")
        }
        Subject::Container(name) => {
            format!("Container {name} exceeded its local ephemeral storage limit \"{text}\". ")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn limits(spec: Value) -> Vec<(Subject, u64)> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        of(&spec).into_iter().map(|limit| (limit.subject, limit.most)).collect()
    }

    fn container(name: &str, limit: Option<&str>) -> Value {
        let limits = limit.map_or(json!({}), |limit| json!({"ephemeral-storage": limit}));
        json!({"name": name, "resources": {"limits": limits}})
    }

    #[test]
    fn a_pod_has_the_limits_of_its_volumes_and_its_containers() {
        let spec = json!({
            "containers": [container("a", Some("10Mi")), container("b", Some("2Mi")), container("c", None)],
            "volumes": [
                {"name": "small", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": "memory", "emptyDir": {"sizeLimit": "1Mi", "medium": "Memory"}},
                {"name": "free", "emptyDir": {}},
            ],
        });
        let expected = [
            (Subject::Volume("small".into()), 1 << 20),
            (Subject::Pod, 12 << 20),
            (Subject::Container("a".into()), 10 << 20),
            (Subject::Container("b".into()), 2 << 20),
        ];
        assert_eq!(limits(spec), expected);
        assert_eq!(limits(json!({"containers": [container("a", None)]})), []);
    }

    #[test]
    fn init_containers_count_beside_or_before_the_others() {
        let mut sidecar = container("sidecar", Some("3Mi"));
        sidecar["restartPolicy"] = json!("Always");
        let with = |first: &str| {
            let inits = [container("first", Some(first)), sidecar.clone()];
            limits(json!({"containers": [container("a", Some("1Mi"))], "initContainers": inits}))[0].clone()
        };
        assert_eq!(with("2Mi"), (Subject::Pod, 4 << 20));
        assert_eq!(with("9Mi"), (Subject::Pod, 9 << 20));
    }

    #[test]
    fn who_writes_more_than_allowed_is_told_so_in_upstreams_words() {
        let spec = json!({"containers": [container("a", Some("1024Ki")), container("b", Some("4Mi"))]});
        let limits = of(&serde_json::from_value(spec).unwrap());
        let used = |pod: u64, a: u64| {
            let used = [(Subject::Pod, pod << 20), (Subject::Container("a".into()), a << 20)];
            exceeded(&limits, &BTreeMap::from(used))
        };
        assert_eq!(used(5, 1), None, "as much as allowed");
        let pod = "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ";
        assert_eq!(used(6, 2).as_deref(), Some(pod));
        let container = "Container a exceeded its local ephemeral storage limit \"1Mi\". ";
        assert_eq!(used(5, 2).as_deref(), Some(container));
    }
}
