//! What the volumes of a pod refer to. Pure.

use super::content::TokenWish;
use k8s_openapi::api::core::v1::{Pod, Volume};
use std::collections::BTreeSet;

/// A kind of object that volumes show and that may change under them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Shown {
    /// `ConfigMap`.
    ConfigMap,
    /// `Secret`.
    Secret,
}

/// What has to be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Config maps and secrets by name.
    pub(super) objects: BTreeSet<(Shown, String)>,
    /// Tokens of the pod's service account.
    pub(super) tokens: BTreeSet<TokenWish>,
}

impl Needs {
    /// Of all volumes of a pod.
    pub(super) fn of(pod: &Pod) -> Self {
        let mut needs = Needs::default();
        pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).for_each(|volume| needs.add(volume));
        needs
    }

    fn add(&mut self, volume: &Volume) {
        self.objects.extend(volume.config_map.iter().map(|source| (Shown::ConfigMap, source.name.clone())));
        let secret = volume.secret.as_ref().and_then(|source| source.secret_name.clone());
        self.objects.extend(secret.map(|name| (Shown::Secret, name)));
        let parts = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
        for part in parts {
            self.objects.extend(part.config_map.iter().map(|source| (Shown::ConfigMap, source.name.clone())));
            self.objects.extend(part.secret.iter().map(|source| (Shown::Secret, source.name.clone())));
            self.tokens.extend(part.service_account_token.iter().map(TokenWish::of));
        }
    }
}

/// Whether a volume shows labels or annotations of the pod itself, which may change while it runs.
pub(crate) fn shows_the_pod(pod: &Pod) -> bool {
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let parts =
        || volumes().filter_map(|volume| volume.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    let own = volumes().filter_map(|volume| volume.downward_api.as_ref()?.items.as_ref());
    let projected = parts().filter_map(|part| part.downward_api.as_ref()?.items.as_ref());
    let mut fields = own.chain(projected).flatten().filter_map(|file| file.field_ref.as_ref());
    fields.any(|field| {
        ["metadata.labels", "metadata.annotations"].iter().any(|map| field.field_path.starts_with(map))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_a_pod_shows_is_found() {
        let token = json!({"serviceAccountToken": {"path": "t", "expirationSeconds": 3607}});
        let labels = json!({"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]});
        let volumes = json!([
            {"name": "a", "configMap": {"name": "one"}},
            {"name": "b", "secret": {"secretName": "two"}},
            {"name": "c", "projected": {"sources": [{"configMap": {"name": "three"}}, token, {"downwardAPI": labels}]}},
            {"name": "d", "emptyDir": {}},
        ]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [], "volumes": volumes}}))
                .unwrap();
        let needs = Needs::of(&pod);
        let names: Vec<&str> = needs.objects.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["one", "three", "two"]);
        assert_eq!(needs.tokens.len(), 1);
        assert!(shows_the_pod(&pod));
        assert!(!shows_the_pod(&Pod::default()));
    }
}
