//! What a new pod gets from the admission plugins upstream enables by default: ServiceAccount (the name
//! only), Priority and DefaultTolerationSeconds. Templates get none of it.

use super::defaults::fill;
use k8s_openapi::api::core::v1::{PodSpec, Toleration};

/// Seconds a pod stays bound to a node that is not ready or not reachable.
const NODE_FAULT_SECONDS: i64 = 300;

/// Fills in what the plugins would. Idempotent.
pub fn admit(spec: &mut PodSpec) {
    fill(&mut spec.service_account_name, "default");
    spec.service_account.clone_from(&spec.service_account_name);
    if spec.priority_class_name.as_deref().unwrap_or_default().is_empty() {
        spec.priority.get_or_insert(0);
    }
    spec.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        tolerate_for_a_while(spec.tolerations.get_or_insert_default(), key);
    }
}

fn tolerate_for_a_while(tolerations: &mut Vec<Toleration>, key: &str) {
    let covers = |toleration: &Toleration| {
        let of = |field: &Option<String>, value: &str| {
            matches!(field.as_deref(), None | Some("")) || field.as_deref() == Some(value)
        };
        of(&toleration.key, key) && of(&toleration.effect, "NoExecute")
    };
    if !tolerations.iter().any(covers) {
        tolerations.push(Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(NODE_FAULT_SECONDS),
            value: None,
        });
    }
}
