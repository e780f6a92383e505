//! What upstream's built-in admission plugins do to objects: ServiceAccount, Priority,
//! DefaultTolerationSeconds, NamespaceLifecycle's label.

use crate::failure::Outcome;
use crate::pods::service_account;
use crate::resources::Resource;
use crate::state::Core;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, Toleration};
use sagong_api::kind::Object;

/// How long pods stay on a node that is not ready or unreachable, in seconds (DefaultTolerationSeconds).
const DEFAULT_TOLERATION_SECONDS: i64 = 300;
/// The label every namespace has with its own name (KEP-2161).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer of the namespace controller.
const NAMESPACE_FINALIZER: &str = "kubernetes";

/// Fills in what admission sets on new objects.
pub(crate) async fn create(core: &Core, resource: &Resource, object: &mut dyn Object) -> Outcome<()> {
    match resource.qualified.as_str() {
        "pods" => {
            if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
                refuse_runtime_class(resource, pod)?;
                service_account::admit(core, resource, pod).await?;
                pod.spec.iter_mut().for_each(complete_pod);
            }
        }
        "namespaces" => {
            if let Some(namespace) = object.as_any_mut().downcast_mut::<Namespace>() {
                complete_namespace(namespace);
            }
        }
        _ => {}
    }
    Ok(())
}

/// What admission sets on changed objects.
pub(crate) fn update(resource: &Resource, object: &mut dyn Object, _old: &dyn Object) -> Outcome<()> {
    if resource.qualified == "namespaces"
        && let Some(namespace) = object.as_any_mut().downcast_mut::<Namespace>()
    {
        label_namespace(namespace);
    }
    Ok(())
}

/// There are no RuntimeClasses, and a pod must not run without the isolation that it asks for.
fn refuse_runtime_class(resource: &Resource, pod: &Pod) -> Outcome<()> {
    match pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()) {
        None | Some("") => Ok(()),
        Some(class) => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let detail = format!("pod rejected: RuntimeClass {class:?} not found");
            Err(resource.forbidden(name, detail).into())
        }
    }
}

fn complete_pod(spec: &mut PodSpec) {
    if spec.priority.is_none() {
        spec.priority = Some(match spec.priority_class_name.as_deref() {
            Some("system-node-critical") => 2_000_001_000,
            Some("system-cluster-critical") => 2_000_000_000,
            _ => 0,
        });
    }
    spec.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    let tolerations = spec.tolerations.get_or_insert_with(Vec::new);
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations.iter().any(|t| tolerates_no_execute(t, key)) {
            tolerations.push(Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                effect: Some("NoExecute".into()),
                toleration_seconds: Some(DEFAULT_TOLERATION_SECONDS),
                value: None,
            });
        }
    }
}

fn tolerates_no_execute(toleration: &Toleration, key: &str) -> bool {
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    let (k, effect) = (given(&toleration.key), given(&toleration.effect));
    (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
}

fn complete_namespace(namespace: &mut Namespace) {
    label_namespace(namespace);
    let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_with(Vec::new);
    if !finalizers.iter().any(|f| f == NAMESPACE_FINALIZER) {
        finalizers.push(NAMESPACE_FINALIZER.into());
    }
}

fn label_namespace(namespace: &mut Namespace) {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.into(), name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_pod_gets_a_priority_and_two_tolerations_once() {
        let mut spec = PodSpec::default();
        complete_pod(&mut spec);
        let once = spec.clone();
        complete_pod(&mut spec);
        assert_eq!(spec, once);
        assert_eq!(spec.priority, Some(0));
        assert_eq!(spec.tolerations.map(|t| t.len()), Some(2));
    }

    #[test]
    fn a_pod_that_tolerates_everything_gets_no_more_tolerations() {
        let everything = Toleration { operator: Some("Exists".into()), ..Toleration::default() };
        let mut spec = PodSpec { tolerations: Some(vec![everything.clone()]), ..PodSpec::default() };
        complete_pod(&mut spec);
        assert_eq!(spec.tolerations, Some(vec![everything]));
    }
}
