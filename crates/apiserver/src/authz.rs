//! What a user may do. Pure.

use crate::authn::{MASTERS, User};
use sagong_api::error::ApiError;

/// What a request wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or an HTTP method in
    /// lower case for paths, or `impersonate`.
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// For requests that are not about a resource.
    pub(crate) path: Option<String>,
}

/// The components of a cluster, which may do everything. (Upstream gives each a role of its own; here they are
/// one process.)
const COMPONENTS: [&str; 5] = [
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
    "system:kubelet",
];

/// Paths everyone who is identified may read (`system:discovery`).
const DISCOVERY: [&str; 7] = ["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz"];

/// Allows or refuses.
pub(crate) fn authorize(user: &User, attributes: &Attributes) -> Result<(), ApiError> {
    if is_allowed(user, attributes) { Ok(()) } else { Err(refusal(user, attributes)) }
}

/// Whether the user may.
pub(crate) fn is_allowed(user: &User, attributes: &Attributes) -> bool {
    if attributes.verb == "impersonate" {
        // What a component may do it does under its own name.
        return user.groups.iter().any(|group| group == MASTERS);
    }
    let component =
        COMPONENTS.contains(&user.name.as_str()) || user.groups.iter().any(|g| g == "system:nodes");
    if component || user.groups.iter().any(|group| group == MASTERS) {
        return true;
    }
    match &attributes.path {
        Some(path) => attributes.verb == "get" && DISCOVERY.iter().any(|open| is_under(path, open)),
        None => is_about_oneself(attributes),
    }
}

fn is_under(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Questions about one's own rights and name (`system:basic-user`).
fn is_about_oneself(attributes: &Attributes) -> bool {
    attributes.verb == "create"
        && matches!(
            (attributes.group.as_str(), attributes.resource.as_str()),
            ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
                | ("authentication.k8s.io", "selfsubjectreviews")
        )
}

fn refusal(user: &User, attributes: &Attributes) -> ApiError {
    let Attributes { verb, group, resource, subresource, namespace, name, path } = attributes;
    let who = &user.name;
    if let Some(path) = path {
        let detail = format!("User {who:?} cannot {verb} path {path:?}");
        return ApiError::Forbidden { resource: String::new(), name: String::new(), detail };
    }
    let full = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    let place = if namespace.is_empty() {
        "at the cluster scope".into()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let detail = format!("User {who:?} cannot {verb} resource {full:?} in API group {group:?} {place}");
    let qualified = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
    ApiError::Forbidden { resource: qualified, name: name.clone(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_pods() -> Attributes {
        Attributes {
            verb: "list".into(),
            resource: "pods".into(),
            namespace: "default".into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn admins_and_components_may_do_everything_and_others_are_told_what_they_may_not() {
        assert!(authorize(&User::admin("a"), &list_pods()).is_ok());
        assert!(authorize(&User::new("system:kube-scheduler", &[]), &list_pods()).is_ok());
        let refused = authorize(&User::new("jane", &["dev"]), &list_pods()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
        );
    }

    #[rstest::rstest]
    #[case::discovery("/apis/apps/v1", true)]
    #[case::version("/version", true)]
    #[case::metrics("/metrics", false)]
    #[case::a_look_alike("/apisnot", false)]
    fn anyone_identified_may_read_discovery(#[case] path: &str, #[case] allowed: bool) {
        let attributes = Attributes { verb: "get".into(), path: Some(path.into()), ..Attributes::default() };
        assert_eq!(is_allowed(&User::new("jane", &[]), &attributes), allowed);
    }
}
