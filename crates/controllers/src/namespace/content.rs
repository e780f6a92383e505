//! What is in a namespace, as the API server tells it: every namespaced kind it serves, known here or not.

use crate::live::ReadError;
use crate::plan::KindRef;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};
use kube::{Api, Client};
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Lists at once.
const AT_ONCE: usize = 8;

/// The objects of one kind in the namespace.
#[derive(Clone, Debug)]
pub struct Content {
    /// The kind.
    pub kind: KindRef,
    /// Whether they can be deleted all at once.
    pub deletes_collections: bool,
    /// Their metadata.
    pub objects: Vec<ObjectMeta>,
}

/// Everything in the namespace. Kinds that cannot be listed and deleted, such as reviews, hold nothing.
pub async fn of(client: &Client, namespace: &str) -> Result<Vec<Content>, ReadError> {
    let discovery =
        Discovery::new(client.clone()).run().await.map_err(ReadError::of("which kinds are served"))?;
    let kinds = discovery.groups().flat_map(|group| group.recommended_resources());
    let kinds: Vec<_> = kinds.filter(|(_, capabilities)| holds_content(capabilities)).collect();
    let lists = kinds.into_iter().map(|(kind, capabilities)| list(client, namespace, kind, capabilities));
    stream::iter(lists).buffered(AT_ONCE).try_collect().await
}

fn holds_content(capabilities: &ApiCapabilities) -> bool {
    let supports = |verb| capabilities.supports_operation(verb);
    capabilities.scope == Scope::Namespaced
        && supports(verbs::LIST)
        && (supports(verbs::DELETE) || supports(verbs::DELETE_COLLECTION))
}

async fn list(
    client: &Client,
    namespace: &str,
    kind: ApiResource,
    capabilities: ApiCapabilities,
) -> Result<Content, ReadError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let listed = api.list_metadata(&ListParams::default()).await;
    let listed = match listed {
        Ok(listed) => listed.items.into_iter().map(|object| object.metadata).collect(),
        // No longer served.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Vec::new(),
        Err(error) => return Err(ReadError::of(format!("{} in {namespace}", kind.plural))(error)),
    };
    Ok(Content {
        kind: names(&kind),
        deletes_collections: capabilities.supports_operation(verbs::DELETE_COLLECTION),
        objects: listed,
    })
}

fn names(kind: &ApiResource) -> KindRef {
    KindRef {
        group: kept(&kind.group),
        api_version: kept(&kind.api_version),
        kind: kept(&kind.kind),
        plural: kept(&kind.plural),
    }
}

/// The text with the lifetime of the program. There are only as many as there are names of kinds.
fn kept(text: &str) -> &'static str {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock();
    if let Some(known) = kept.get(text) {
        return known;
    }
    let text: &'static str = Box::leak(text.into());
    kept.insert(text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;

    #[test]
    fn a_kind_told_by_the_server_equals_the_same_kind_known_here() {
        let kind = ApiResource::erase::<Deployment>(&());
        assert_eq!(names(&kind), KindRef::of::<Deployment>());
        assert!(std::ptr::eq(names(&kind).plural, names(&kind).plural), "kept once");
    }
}
