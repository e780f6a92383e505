//! How each field is patched: the `patchStrategy` and `patchMergeKey` of upstream's types, as data.
//!
//! The same table makes the strategic merge patch and the `x-kubernetes-patch-*` of the OpenAPI documents, from
//! which `kubectl apply` computes its patches.

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strategy {
    /// A list is merged item by item instead of replaced.
    pub merge: bool,
    /// `$retainKeys` lists the only keys an object may keep (a union: setting one member clears the others).
    pub retain_keys: bool,
    /// The field that tells the items of a merged list apart; empty for lists of strings.
    pub merge_key: &'static str,
}

impl Strategy {
    /// As in `x-kubernetes-patch-strategy`; None when there is nothing special about the field.
    pub fn name(self) -> Option<&'static str> {
        match (self.merge, self.retain_keys) {
            (true, true) => Some("merge,retainKeys"),
            (true, false) => Some("merge"),
            (false, true) => Some("retainKeys"),
            (false, false) => None,
        }
    }
}

const fn by(merge_key: &'static str) -> Strategy {
    Strategy { merge: true, retain_keys: false, merge_key }
}

const fn union(merge_key: &'static str) -> Strategy {
    Strategy { merge: true, retain_keys: true, merge_key }
}

const RETAIN_KEYS: Strategy = Strategy { merge: false, retain_keys: true, merge_key: "" };

/// Type (without `io.k8s.`), field, strategy.
const TABLE: &[(&str, &str, Strategy)] = &[
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", by("")),
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", by("uid")),
    ("api.apps.v1.DeploymentSpec", "strategy", RETAIN_KEYS),
    ("api.apps.v1.DeploymentStatus", "conditions", by("type")),
    ("api.apps.v1.ReplicaSetStatus", "conditions", by("type")),
    ("api.core.v1.Container", "env", by("name")),
    ("api.core.v1.Container", "ports", by("containerPort")),
    ("api.core.v1.Container", "volumeDevices", by("devicePath")),
    ("api.core.v1.Container", "volumeMounts", by("mountPath")),
    ("api.core.v1.ContainerStatus", "allocatedResourcesStatus", by("name")),
    ("api.core.v1.ContainerStatus", "volumeMounts", by("mountPath")),
    ("api.core.v1.EphemeralContainer", "env", by("name")),
    ("api.core.v1.EphemeralContainer", "ports", by("containerPort")),
    ("api.core.v1.EphemeralContainer", "volumeDevices", by("devicePath")),
    ("api.core.v1.EphemeralContainer", "volumeMounts", by("mountPath")),
    ("api.core.v1.NamespaceStatus", "conditions", by("type")),
    ("api.core.v1.NodeSpec", "podCIDRs", by("")),
    ("api.core.v1.NodeStatus", "addresses", by("type")),
    ("api.core.v1.NodeStatus", "conditions", by("type")),
    ("api.core.v1.PodSpec", "containers", by("name")),
    ("api.core.v1.PodSpec", "ephemeralContainers", by("name")),
    ("api.core.v1.PodSpec", "hostAliases", by("ip")),
    ("api.core.v1.PodSpec", "imagePullSecrets", by("name")),
    ("api.core.v1.PodSpec", "initContainers", by("name")),
    ("api.core.v1.PodSpec", "resourceClaims", union("name")),
    ("api.core.v1.PodSpec", "schedulingGates", by("name")),
    ("api.core.v1.PodSpec", "topologySpreadConstraints", by("topologyKey")),
    ("api.core.v1.PodSpec", "volumes", union("name")),
    ("api.core.v1.PodStatus", "conditions", by("type")),
    ("api.core.v1.PodStatus", "hostIPs", by("ip")),
    ("api.core.v1.PodStatus", "podIPs", by("ip")),
    ("api.core.v1.PodStatus", "resourceClaimStatuses", union("name")),
    ("api.core.v1.ReplicationControllerStatus", "conditions", by("type")),
    ("api.core.v1.ServiceAccount", "secrets", by("name")),
    ("api.core.v1.ServiceSpec", "ports", by("port")),
    ("api.core.v1.ServiceStatus", "conditions", by("type")),
];

/// How a field of a type (`io.k8s.api.core.v1.PodSpec`) is patched.
pub fn strategy(type_: &str, field: &str) -> Strategy {
    let Some(short) = type_.strip_prefix("io.k8s.") else { return Strategy::default() };
    let row = TABLE.iter().find(|(owner, name, _)| *owner == short && *name == field);
    row.map(|(_, _, strategy)| *strategy).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Shape, Types};

    #[test]
    fn every_row_names_a_field_that_exists_and_has_a_key_exactly_when_its_items_are_objects() {
        for (type_, field, strategy) in TABLE {
            let shape = Types::get().shape(&format!("io.k8s.{type_}"), field);
            match shape {
                Shape::List(Some(_)) => {
                    assert!(strategy.merge && !strategy.merge_key.is_empty(), "{type_}.{field}")
                }
                Shape::List(None) => {
                    assert!(strategy.merge && strategy.merge_key.is_empty(), "{type_}.{field}")
                }
                Shape::Object(_) => assert_eq!(*strategy, RETAIN_KEYS, "{type_}.{field}"),
                other => panic!("{type_}.{field} is {other:?}"),
            }
        }
    }
}
