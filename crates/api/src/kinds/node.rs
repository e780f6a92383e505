//! `Node` of core/v1.

use crate::field::{self, Errors, Path};
use crate::kind::{Column, Identity, Kind, Part, Subresources};
use crate::quantity::{self, Amount};
use crate::{name, table};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus, NodeSystemInfo, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What is particular to `Node`.
pub struct NodeKind;

impl Kind for NodeKind {
    type Object = Node;

    fn identity(&self) -> Identity {
        Identity {
            group: "",
            version: "v1",
            kind: "Node",
            plural: "nodes",
            singular: "node",
            short_names: &["no"],
            categories: &[],
            namespaced: false,
        }
    }

    fn subresources(&self) -> Subresources {
        Subresources { status: true, scale: false }
    }

    fn default(&self, node: &mut Node) {
        let Some(status) = &mut node.status else { return };
        if status.allocatable.is_none() {
            status.allocatable = status.capacity.clone();
        }
        let lists = [status.capacity.as_mut(), status.allocatable.as_mut()];
        for amount in lists.into_iter().flatten().flat_map(|list| list.values_mut()) {
            // What cannot be read stays as it is, for validation to tell.
            if let Ok(canonical) = quantity::canonical(amount) {
                *amount = canonical;
            }
        }
    }

    // A node's status is not reset on create: the kubelet registers the node together with it.

    fn prepare_update(&self, new: &mut Node, old: &Node, part: Part) {
        match part {
            Part::Main => new.status = old.status.clone(),
            Part::Status => new.spec = old.spec.clone(),
        }
    }

    fn validate_create(&self, node: &Node) -> Errors {
        let spec = Path::new("spec");
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let mut errors = validate_taints(taints, &spec.child("taints"));
        if let Some(status) = &node.status {
            errors.extend(validate_status(status, &Path::new("status")));
        }
        let cidrs = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
        for (index, cidr) in cidrs.iter().enumerate().filter(|(_, cidr)| !is_cidr(cidr)) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(field::invalid(&spec.child("podCIDRs").index(index), cidr, detail));
        }
        errors
    }

    fn validate_update(&self, new: &Node, old: &Node, _part: Part) -> Errors {
        let mut errors = self.validate_create(new);
        let spec = Path::new("spec");
        let cidrs =
            |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        if !cidrs(old).is_empty() && cidrs(new) != cidrs(old) {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(field::forbidden(&spec.child("podCIDRs"), detail));
        }
        let provider =
            |node: &Node| node.spec.as_ref().and_then(|spec| spec.provider_id.clone()).unwrap_or_default();
        if !provider(old).is_empty() && provider(new) != provider(old) {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.push(field::forbidden(&spec.child("providerID"), detail));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 10] = [
            table::NAME,
            table::string("Status", "Whether it is ready, and takes new pods."),
            table::string("Roles", "From its node-role.kubernetes.io labels."),
            table::AGE,
            table::string("Version", "Of its kubelet."),
            table::wide(table::string("Internal-IP", "Its address inside the cluster.")),
            table::wide(table::string("External-IP", "Its address outside.")),
            table::wide(table::string("OS-Image", "Its operating system.")),
            table::wide(table::string("Kernel-Version", "Its kernel.")),
            table::wide(table::string("Container-Runtime", "What runs its containers.")),
        ];
        &COLUMNS
    }

    fn cells(&self, node: &Node, now: Timestamp) -> Vec<Value> {
        let none = NodeSystemInfo::default();
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref()).unwrap_or(&none);
        let known = |text: &str| Value::from(if text.is_empty() { "<unknown>" } else { text });
        vec![
            table::name(&node.metadata),
            shown_status(node).into(),
            roles(node).into(),
            table::age(&node.metadata, now),
            info.kubelet_version.clone().into(),
            address(node, "InternalIP").into(),
            address(node, "ExternalIP").into(),
            known(&info.os_image),
            known(&info.kernel_version),
            known(&info.container_runtime_version),
        ]
    }

    fn selectable_fields(&self, node: &Node) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_unschedulable(node).to_string())]
    }
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

/// `Ready`, `NotReady,SchedulingDisabled`, `Unknown` before the first report.
fn shown_status(node: &Node) -> String {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if is_unschedulable(node) { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

fn roles(node: &Node) -> String {
    let labels = node.metadata.labels.iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None => (key == ROLE_LABEL).then_some(value.as_str()),
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { Vec::from_iter(roles).join(",") }
}

fn address(node: &Node, type_: &str) -> String {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut of_type = addresses.filter(|address| address.type_ == type_);
    of_type.next().map_or_else(|| "<none>".to_owned(), |address| address.address.clone())
}

fn is_cidr(text: &str) -> bool {
    let Some((ip, bits)) = text.split_once('/') else { return false };
    let (Ok(ip), Ok(bits)) = (ip.parse::<std::net::IpAddr>(), bits.parse::<u8>()) else { return false };
    bits <= if ip.is_ipv4() { 32 } else { 128 }
}

fn validate_taints(taints: &[Taint], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        let value = taint.value.as_deref().unwrap_or_default();
        let wrong = name::qualified_name(&taint.key);
        errors.extend(wrong.iter().map(|wrong| field::invalid(&path.child("key"), &taint.key, wrong)));
        let wrong = name::label_value(value);
        errors.extend(wrong.iter().map(|wrong| field::invalid(&path.child("value"), value, wrong)));
        let at = path.child("effect");
        match taint.effect.as_str() {
            "" => errors.push(field::required(&at, "")),
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            other => {
                let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
                errors.push(field::not_supported(&at, other, &supported));
            }
        }
        if !seen.insert((&taint.key, &taint.effect)) {
            let mut error = field::duplicate(&path, taint);
            error.message.push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
    errors
}

fn validate_status(status: &NodeStatus, path: &Path) -> Errors {
    let mut errors = validate_resources(status.capacity.as_ref(), &path.child("capacity"));
    errors.extend(validate_resources(status.allocatable.as_ref(), &path.child("allocatable")));
    let mut seen = BTreeSet::new();
    for (index, address) in status.addresses.iter().flatten().enumerate() {
        if !seen.insert((&address.type_, &address.address)) {
            errors.push(field::duplicate(&path.child("addresses").index(index), address));
        }
    }
    errors
}

fn validate_resources(amounts: Option<&BTreeMap<String, Quantity>>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (resource, amount) in amounts.into_iter().flatten() {
        let at = path.key(resource);
        match Amount::try_from(amount) {
            Err(error) => errors.push(field::invalid(&at, amount, &error.to_string())),
            Ok(negative) if negative.is_negative() => {
                errors.push(field::invalid(&at, amount, "must be greater than or equal to 0"));
            }
            Ok(_) => {}
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn node(body: Value) -> Node {
        let mut node = serde_json::from_value(body).unwrap();
        NodeKind.default(&mut node);
        node
    }

    #[rstest]
    #[case(json!({}), "Unknown")]
    #[case(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}), "Ready")]
    #[case(json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}), "NotReady")]
    #[case(
        json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        "Ready,SchedulingDisabled"
    )]
    fn the_status_column_tells_readiness_and_cordon(#[case] body: Value, #[case] text: &str) {
        assert_eq!(shown_status(&node(body)), text);
    }

    #[rstest]
    #[case(json!({}), "<none>")]
    #[case(json!({"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}), "control-plane,worker")]
    #[case(json!({"kubernetes.io/role": "edge"}), "edge")]
    fn roles_come_from_labels(#[case] labels: Value, #[case] text: &str) {
        assert_eq!(roles(&node(json!({"metadata": {"labels": labels}}))), text);
    }

    #[test]
    fn wide_columns_show_addresses_and_system() {
        let node = node(json!({
            "metadata": {"name": "box"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.33.0", "kernelVersion": "6.1", "containerRuntimeVersion": "sagong://0.1"},
            },
        }));
        let cells = NodeKind.cells(&node, Timestamp::UNIX_EPOCH);
        let expected: [Value; 10] = [
            "box",
            "Unknown",
            "<none>",
            "<unknown>",
            "v1.33.0",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "6.1",
            "sagong://0.1",
        ]
        .map(Value::from);
        assert_eq!(cells, expected);
        assert_eq!(cells.len(), NodeKind.columns().len());
    }

    #[test]
    fn allocatable_defaults_to_capacity_in_canonical_form() {
        let node = node(json!({"status": {"capacity": {"cpu": "2000m", "memory": "1024Mi"}}}));
        let allocatable = node.status.unwrap().allocatable.unwrap();
        assert_eq!((allocatable["cpu"].0.as_str(), allocatable["memory"].0.as_str()), ("2", "1Gi"));
    }

    #[rstest]
    #[case(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}), &[])]
    #[case(json!({"spec": {"taints": [{"key": "a", "effect": "Never"}]}}), &["spec.taints[0].effect"])]
    #[case(
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]}}),
        &["spec.taints[1]"]
    )]
    #[case(json!({"spec": {"podCIDRs": ["10.0.0.0/33"]}}), &["spec.podCIDRs[0]"])]
    #[case(json!({"status": {"capacity": {"cpu": "x"}, "allocatable": {"cpu": "-1"}}}), &["status.capacity[cpu]", "status.allocatable[cpu]"])]
    fn a_wrong_node_is_reported(#[case] body: Value, #[case] wrong: &[&str]) {
        let errors = NodeKind.validate_create(&node(body));
        let paths: Vec<String> = errors.iter().map(|error| error.path.to_string()).collect();
        assert_eq!(paths, wrong);
    }

    #[test]
    fn a_pod_range_once_given_stays() {
        let old = node(json!({"spec": {"podCIDRs": ["10.0.0.0/24"]}}));
        let new = node(json!({"spec": {"podCIDRs": ["10.0.1.0/24"]}}));
        assert_eq!(NodeKind.validate_update(&new, &old, Part::Main).len(), 1);
        assert!(NodeKind.validate_update(&old, &node(json!({})), Part::Main).is_empty());
    }
}
