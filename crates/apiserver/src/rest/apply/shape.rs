//! How the fields of each type are owned: one by one, or only as a whole.
//!
//! By default objects are owned field by field, maps entry by entry, and lists as a whole. The tables hold the
//! exceptions, the `listType`, `listMapKey`, `mapType` and `structType` of upstream's types.

use sagong_api::types::{Shape, Types};

/// A place in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Owned as a whole.
    Leaf,
    /// An object of this type, owned field by field.
    Struct(&'static str),
    /// A map, owned entry by entry; the entries are of this type, or leaves.
    Map(Option<&'static str>),
    /// A list of objects of this type, told apart by these keys.
    Items(&'static str, &'static [&'static str]),
    /// A list of leaves in which each value is once.
    Members,
}

const CORE: &str = "io.k8s.api.core.v1.";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const APPS: &str = "io.k8s.api.apps.v1.";
const DISCOVERY: &str = "io.k8s.api.discovery.v1.";

/// Lists whose items are told apart by keys: package, type, field, keys.
const KEYED: &[(&str, &str, &str, &[&str])] = &[
    (META, "ObjectMeta", "ownerReferences", &["uid"]),
    (CORE, "Container", "env", &["name"]),
    (CORE, "Container", "ports", &["containerPort", "protocol"]),
    (CORE, "Container", "volumeDevices", &["devicePath"]),
    (CORE, "Container", "volumeMounts", &["mountPath"]),
    (CORE, "ContainerStatus", "allocatedResourcesStatus", &["name"]),
    (CORE, "ContainerStatus", "volumeMounts", &["mountPath"]),
    (CORE, "EphemeralContainer", "env", &["name"]),
    (CORE, "EphemeralContainer", "ports", &["containerPort", "protocol"]),
    (CORE, "EphemeralContainer", "volumeDevices", &["devicePath"]),
    (CORE, "EphemeralContainer", "volumeMounts", &["mountPath"]),
    (CORE, "NamespaceStatus", "conditions", &["type"]),
    (CORE, "NodeStatus", "addresses", &["type"]),
    (CORE, "NodeStatus", "conditions", &["type"]),
    (CORE, "PodSpec", "containers", &["name"]),
    (CORE, "PodSpec", "ephemeralContainers", &["name"]),
    (CORE, "PodSpec", "hostAliases", &["ip"]),
    (CORE, "PodSpec", "imagePullSecrets", &["name"]),
    (CORE, "PodSpec", "initContainers", &["name"]),
    (CORE, "PodSpec", "resourceClaims", &["name"]),
    (CORE, "PodSpec", "schedulingGates", &["name"]),
    (CORE, "PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    (CORE, "PodSpec", "volumes", &["name"]),
    (CORE, "PodStatus", "conditions", &["type"]),
    (CORE, "PodStatus", "podIPs", &["ip"]),
    (CORE, "PodStatus", "resourceClaimStatuses", &["name"]),
    (CORE, "ReplicationControllerStatus", "conditions", &["type"]),
    (CORE, "ResourceRequirements", "claims", &["name"]),
    (CORE, "ResourceStatus", "resources", &["resourceID"]),
    (CORE, "ServiceAccount", "secrets", &["name"]),
    (CORE, "ServiceSpec", "ports", &["port", "protocol"]),
    (CORE, "ServiceStatus", "conditions", &["type"]),
    (APPS, "DeploymentStatus", "conditions", &["type"]),
    (APPS, "ReplicaSetStatus", "conditions", &["type"]),
];

/// Lists that are sets.
const SETS: &[(&str, &str, &str)] = &[
    (META, "ObjectMeta", "finalizers"),
    (CORE, "NodeSpec", "podCIDRs"),
    (DISCOVERY, "Endpoint", "addresses"),
];

/// Maps that are owned as a whole.
const WHOLE_MAPS: &[(&str, &str, &str)] = &[
    (CORE, "PodSpec", "nodeSelector"),
    (CORE, "ReplicationControllerSpec", "selector"),
    (CORE, "ServiceSpec", "selector"),
];

/// Objects that are owned as a whole.
const WHOLE_TYPES: &[(&str, &str)] = &[
    (META, "OwnerReference"),
    (META, "LabelSelector"),
    (CORE, "SecretReference"),
    (CORE, "ObjectFieldSelector"),
    (CORE, "ResourceFieldSelector"),
    (CORE, "ConfigMapKeySelector"),
    (CORE, "SecretKeySelector"),
    (CORE, "NodeSelector"),
    (CORE, "NodeSelectorTerm"),
    (CORE, "TopologySelectorTerm"),
    (CORE, "EndpointAddress"),
    (CORE, "EndpointPort"),
    (CORE, "ObjectReference"),
    (CORE, "LocalObjectReference"),
    (CORE, "TypedLocalObjectReference"),
    (CORE, "ScopeSelector"),
    (DISCOVERY, "EndpointPort"),
];

fn is(type_: &str, package: &str, name: &str) -> bool {
    type_.strip_prefix(package) == Some(name)
}

fn object(type_: &'static str) -> Node {
    let whole = WHOLE_TYPES.iter().any(|(package, name)| is(type_, package, name));
    if whole { Node::Leaf } else { Node::Struct(type_) }
}

impl Node {
    /// The place of a field of this one.
    pub(super) fn field(self, name: &str) -> Self {
        match self {
            Self::Struct(type_) => field(type_, name),
            Self::Map(Some(type_)) => object(type_),
            _ => Self::Leaf,
        }
    }
}

fn field(type_: &'static str, name: &str) -> Node {
    let listed = |(package, owner, field): &(&str, &str, &str)| *field == name && is(type_, package, owner);
    match Types::get().shape(type_, name) {
        Shape::Leaf => Node::Leaf,
        Shape::Object(inner) => object(inner),
        Shape::Map(_) if WHOLE_MAPS.iter().any(listed) => Node::Leaf,
        Shape::Map(inner) => Node::Map(inner.as_deref()),
        Shape::List(_) if SETS.iter().any(listed) => Node::Members,
        Shape::List(inner) => {
            let keyed = KEYED.iter().find(|(package, owner, field, _)| listed(&(package, owner, field)));
            match (inner, keyed) {
                (Some(item), Some((.., keys))) => Node::Items(item, keys),
                _ => Node::Leaf,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_field_that_has_that_shape() {
        for (package, owner, name, _) in KEYED {
            let type_ = format!("{package}{owner}");
            let shape = Types::get().shape(&type_, name);
            assert!(matches!(shape, Shape::List(Some(_))), "{type_}.{name} is {shape:?}");
        }
        for (package, owner, name) in SETS {
            let type_ = format!("{package}{owner}");
            assert!(matches!(Types::get().shape(&type_, name), Shape::List(None)), "{type_}.{name}");
        }
        for (package, owner, name) in WHOLE_MAPS {
            let type_ = format!("{package}{owner}");
            assert!(matches!(Types::get().shape(&type_, name), Shape::Map(None)), "{type_}.{name}");
        }
    }
}
