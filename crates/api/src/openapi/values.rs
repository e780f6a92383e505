//! Which values a field may have, where that is a closed list: upstream's types that are marked `+enum`, as data.
//! `kubectl explain` shows them under `ENUM`.

use serde_json::{Map, Value};

const ADDRESS: &[&str] = &["FQDN", "IPv4", "IPv6"];
const APP_ARMOR: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const DNS: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const FAMILY_POLICY: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const FS_GROUP: &[&str] = &["Always", "OnRootMismatch"];
const HOST_PATH: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const IP_FAMILY: &[&str] = &["", "IPv4", "IPv6"];
const MESSAGE: &[&str] = &["FallbackToLogsOnError", "File"];
const NODE_INCLUSION: &[&str] = &["Honor", "Ignore"];
const NODE_PHASE: &[&str] = &["Pending", "Running", "Terminated"];
const NODE_SELECTOR: &[&str] = &["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"];
const POD_PHASE: &[&str] = &["Failed", "Pending", "Running", "Succeeded", "Unknown"];
const PREEMPTION: &[&str] = &["Never", "PreemptLowerPriority"];
const PROC_MOUNT: &[&str] = &["Default", "Unmasked"];
const PROPAGATION: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const PROTOCOL: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL: &[&str] = &["Always", "IfNotPresent", "Never"];
const QOS: &[&str] = &["BestEffort", "Burstable", "Guaranteed"];
const RESTART: &[&str] = &["Always", "Never", "OnFailure"];
const SCHEME: &[&str] = &["HTTP", "HTTPS"];
const SECCOMP: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const SPREAD: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const SUPPLEMENTAL: &[&str] = &["Merge", "Strict"];
const TAINT: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const TRAFFIC: &[&str] = &["Cluster", "Local"];

/// Type (without `io.k8s.api.`), field, values in order.
const TABLE: &[(&str, &str, &[&str])] = &[
    ("apps.v1.DeploymentStrategy", "type", &["Recreate", "RollingUpdate"]),
    ("core.v1.AppArmorProfile", "type", APP_ARMOR),
    ("core.v1.Container", "imagePullPolicy", PULL),
    ("core.v1.Container", "terminationMessagePolicy", MESSAGE),
    ("core.v1.ContainerPort", "protocol", PROTOCOL),
    ("core.v1.EndpointPort", "protocol", PROTOCOL),
    ("core.v1.EphemeralContainer", "imagePullPolicy", PULL),
    ("core.v1.EphemeralContainer", "terminationMessagePolicy", MESSAGE),
    ("core.v1.HTTPGetAction", "scheme", SCHEME),
    ("core.v1.HostPathVolumeSource", "type", HOST_PATH),
    ("core.v1.ImageVolumeSource", "pullPolicy", PULL),
    ("core.v1.NamespaceStatus", "phase", &["Active", "Terminating"]),
    ("core.v1.NodeSelectorRequirement", "operator", NODE_SELECTOR),
    ("core.v1.NodeStatus", "phase", NODE_PHASE),
    ("core.v1.PodSecurityContext", "fsGroupChangePolicy", FS_GROUP),
    ("core.v1.PodSecurityContext", "supplementalGroupsPolicy", SUPPLEMENTAL),
    ("core.v1.PodSpec", "dnsPolicy", DNS),
    ("core.v1.PodSpec", "preemptionPolicy", PREEMPTION),
    ("core.v1.PodSpec", "restartPolicy", RESTART),
    ("core.v1.PodStatus", "phase", POD_PHASE),
    ("core.v1.PodStatus", "qosClass", QOS),
    ("core.v1.PortStatus", "protocol", PROTOCOL),
    ("core.v1.SeccompProfile", "type", SECCOMP),
    ("core.v1.SecurityContext", "procMount", PROC_MOUNT),
    ("core.v1.ServicePort", "protocol", PROTOCOL),
    ("core.v1.ServiceSpec", "externalTrafficPolicy", TRAFFIC),
    ("core.v1.ServiceSpec", "internalTrafficPolicy", TRAFFIC),
    ("core.v1.ServiceSpec", "ipFamilies", IP_FAMILY),
    ("core.v1.ServiceSpec", "ipFamilyPolicy", FAMILY_POLICY),
    ("core.v1.ServiceSpec", "sessionAffinity", &["ClientIP", "None"]),
    ("core.v1.ServiceSpec", "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    ("core.v1.Taint", "effect", TAINT),
    ("core.v1.Toleration", "effect", TAINT),
    ("core.v1.Toleration", "operator", &["Equal", "Exists"]),
    ("core.v1.TopologySpreadConstraint", "nodeAffinityPolicy", NODE_INCLUSION),
    ("core.v1.TopologySpreadConstraint", "nodeTaintsPolicy", NODE_INCLUSION),
    ("core.v1.TopologySpreadConstraint", "whenUnsatisfiable", SPREAD),
    ("core.v1.VolumeMount", "mountPropagation", PROPAGATION),
    ("discovery.v1.EndpointPort", "protocol", PROTOCOL),
    ("discovery.v1.EndpointSlice", "addressType", ADDRESS),
];

/// Says which values a property of a type (`io.k8s.api.core.v1.PodSpec`) may have, if they are known; of a list, which
/// ones its items may have.
pub(super) fn add(type_: &str, field: &str, property: &mut Map<String, Value>) {
    let Some(short) = type_.strip_prefix("io.k8s.api.") else { return };
    let Some((.., values)) = TABLE.iter().find(|(owner, name, _)| *owner == short && *name == field) else {
        return;
    };
    if let Some(Value::Object(items)) = property.get_mut("items") {
        items.insert("enum".to_owned(), Value::from(*values));
        return;
    }
    if let Some(Value::String(description)) = property.get_mut("description") {
        description.push_str("\n\nPossible enum values:");
        for value in *values {
            description.push_str(&format!("\n - `{value:?}`"));
        }
    }
    property.insert("enum".to_owned(), Value::from(*values));
}

#[cfg(test)]
mod tests {
    use super::TABLE;
    use crate::kinds::registry;
    use crate::openapi::{v2, v3};
    use serde_json::{Value, json};

    #[test]
    fn every_row_names_a_field_that_is_published_and_holds_text() {
        let document = v2(&registry());
        for (type_, field, values) in TABLE {
            let property = &document["definitions"][format!("io.k8s.api.{type_}")]["properties"][field];
            let text = if property["type"] == "array" { &property["items"] } else { property };
            assert_eq!((&text["type"], &text["enum"]), (&json!("string"), &json!(values)), "{type_}.{field}");
            assert!(values.is_sorted(), "{type_}.{field}");
        }
        assert!(TABLE.is_sorted(), "easy to find");
    }

    #[test]
    fn explain_is_told_how_pods_restart() {
        let document = v3("v1", &registry()).unwrap();
        let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
        let property: &Value = &spec["restartPolicy"];
        assert_eq!(property["enum"], json!(["Always", "Never", "OnFailure"]));
        let description = property["description"].as_str().unwrap();
        let list = "\n\nPossible enum values:\n - `\"Always\"`\n - `\"Never\"`\n - `\"OnFailure\"`";
        assert!(description.ends_with(list), "{description}");
    }
}
