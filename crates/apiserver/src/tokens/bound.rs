//! What a token is bound to: it ends when its account, or the pod, secret or node it was made for, does.

use super::{Private, Reference};
use crate::failure::{Failure, Outcome};
use crate::resources::Resource;
use crate::state::Core;
use crate::wire::Stored;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::Pod;
use sagong_api::kind::Object;

/// How long a token outlives the end of what it is bound to, also when a finalizer holds that object: upstream allows
/// for clocks that differ (`jwt.DefaultLeeway`).
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The objects a token is to be bound to.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) pod: Option<Reference>,
    pub(super) secret: Option<Reference>,
    /// Also the node of that pod.
    pub(super) node: Option<Reference>,
}

impl Bound {
    /// The object a request names, as it is now.
    pub(super) async fn of(core: &Core, namespace: &str, request: &TokenRequest) -> Outcome<Self> {
        let Some(wanted) = &request.spec.bound_object_ref else { return Ok(Self::default()) };
        let kind = wanted.kind.as_deref().unwrap_or_default();
        let version = wanted.api_version.as_deref().unwrap_or_default();
        let (plural, place) = match (version, kind) {
            ("v1", "Pod") => ("pods", Some(namespace)),
            ("v1", "Secret") => ("secrets", Some(namespace)),
            ("v1", "Node") => ("nodes", None),
            _ => {
                let group_version =
                    if version.contains('/') { version.into() } else { format!("/{version}") };
                let detail = format!("cannot bind token to object of type {group_version}, Kind={kind}");
                return Err(Failure::bad_request(detail));
            }
        };
        let resource = core.resources.core(plural)?;
        let name = wanted.name.clone().unwrap_or_default();
        let object = get(core, resource, place, &name).await?.ok_or_else(|| resource.not_found(&name))?;
        let uid = object.metadata().uid.clone().unwrap_or_default();
        if let Some(given) = wanted.uid.as_deref().filter(|given| !given.is_empty() && *given != uid) {
            let detail = format!(
                "the UID in the bound object reference ({given}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            return Err(resource.conflict(&name, detail).into());
        }
        let reference = Some(Reference { name, uid });
        Ok(match plural {
            "secrets" => Self { secret: reference, ..Self::default() },
            "nodes" => Self { node: reference, ..Self::default() },
            _ => Self { pod: reference, node: node_of(core, request, object.as_ref()).await?, secret: None },
        })
    }
}

/// The node of a pod a token is asked for. Only the pod's own account may be.
async fn node_of(core: &Core, request: &TokenRequest, pod: &dyn Object) -> Outcome<Option<Reference>> {
    let spec = pod.as_any().downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
    let account = spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    let asked = request.metadata.name.clone().unwrap_or_default();
    if account != asked {
        let detail = format!(
            "cannot bind token for serviceaccount {asked:?} to pod running with different serviceaccount name."
        );
        return Err(Failure::bad_request(detail));
    }
    let name = spec.and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok(None) };
    let node = get(core, core.resources.core("nodes")?, None, &name).await?;
    let uid = node.and_then(|node| node.metadata().uid.clone()).unwrap_or_default();
    Ok(Some(Reference { name, uid }))
}

/// Whether everything a token is bound to is still there.
pub(super) async fn holds(core: &Core, claims: &Private, now: Timestamp) -> Outcome<bool> {
    let place = Some(claims.namespace.as_str());
    // The node of a pod is told but is not what the token ends with.
    let node = claims.node.as_ref().filter(|_| claims.pod.is_none());
    let all = [
        ("serviceaccounts", place, Some(&claims.serviceaccount)),
        ("secrets", place, claims.secret.as_ref()),
        ("pods", place, claims.pod.as_ref()),
        ("nodes", None, node),
    ];
    for (plural, place, reference) in all {
        let Some(reference) = reference else { continue };
        let resource = core.resources.core(plural)?;
        let object = get(core, resource, place, &reference.name).await?;
        if !object.is_some_and(|object| is_meant(object.as_ref(), reference, now)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether this is the object that was meant, and not one that should be gone by now.
fn is_meant(object: &dyn Object, named: &Reference, now: Timestamp) -> bool {
    let meta = object.metadata();
    let over = meta.deletion_timestamp.as_ref().is_some_and(|at| now.duration_since(at.0) > LEEWAY);
    !over && meta.uid.as_deref() == Some(named.uid.as_str())
}

async fn get(
    core: &Core,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> Outcome<Option<Box<dyn Object>>> {
    let Some(entry) = core.store.get(&resource.key(namespace, name)).await? else { return Ok(None) };
    Ok(Some(resource.decode_stored(&Stored::from(&entry))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ServiceAccount;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use rstest::rstest;

    #[rstest]
    #[case::it_lives("u", None, true)]
    #[case::another_of_that_name("v", None, false)]
    #[case::it_is_to_end_soon("u", Some(1000), true)]
    #[case::within_the_leeway("u", Some(940), true)]
    #[case::held_by_a_finalizer("u", Some(939), false)]
    fn a_token_ends_with_its_object_and_not_with_the_last_finalizer(
        #[case] uid: &str,
        #[case] deleted: Option<i64>,
        #[case] expected: bool,
    ) {
        let at = |second| Timestamp::from_second(second).unwrap();
        let metadata = ObjectMeta {
            uid: Some("u".into()),
            deletion_timestamp: deleted.map(|second| Time(at(second))),
            ..ObjectMeta::default()
        };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        let named = Reference { name: "a".into(), uid: uid.into() };
        assert_eq!(is_meant(&account, &named, at(1000)), expected);
    }
}
