//! Asking as somebody else: `kubectl --as`, the headers `Impersonate-*`.

use crate::authn::{self, AUTHENTICATED, User};
use crate::authz::{self, Attributes};
use crate::failure::{Failure, Outcome};
use http::HeaderMap;
use std::collections::BTreeMap;
use std::sync::Arc;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
/// Before the key of something extra.
const EXTRA: &str = "impersonate-extra-";

/// Everyone who is not known.
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Before the namespace and the name of a service account.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Where uids and extra things are resources to be allowed.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user a request is to be answered as: its own, unless it names another.
///
/// # Errors
/// Forbidden unless the user may impersonate everything that is named.
pub(crate) fn impersonate(user: Arc<User>, headers: &HeaderMap) -> Outcome<Arc<User>> {
    let Some(wanted) = read(headers)? else { return Ok(user) };
    for attributes in rights(&wanted) {
        authz::authorize(&user, &attributes)?;
    }
    let name = &wanted.name;
    tracing::debug!(user = user.name, %name, "impersonation");
    Ok(Arc::new(complete(wanted)))
}

/// Whom the headers name, and nothing more; None if they name nobody.
fn read(headers: &HeaderMap) -> Outcome<Option<User>> {
    let mut wanted = User {
        name: values(headers, USER)?.into_iter().next().unwrap_or_default(),
        uid: values(headers, UID)?.into_iter().next().unwrap_or_default(),
        groups: values(headers, GROUP)?,
        extra: BTreeMap::new(),
    };
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
        wanted.extra.entry(key).or_default().extend(values(headers, name.as_str())?);
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == User::default() {
        return Ok(None);
    }
    Err(Failure::internal(
        "requested impersonation of groups, a uid or extra values without impersonating a user",
    ))
}

fn values(headers: &HeaderMap, name: &str) -> Outcome<Vec<String>> {
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned);
    let read = headers.get_all(name).iter().map(text).collect::<Result<_, _>>();
    read.map_err(|_| Failure::bad_request(format!("the header {name} is not text")))
}

/// The namespace and the name of a service account.
fn account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(SERVICE_ACCOUNT)?.split_once(':').filter(|(_, name)| !name.contains(':'))
}

/// What somebody must be allowed to do to ask as this user: a right for each thing that is named.
fn rights(wanted: &User) -> Vec<Attributes> {
    let right = |group: &str, resource: &str, name: &str| Attributes {
        verb: "impersonate".into(),
        group: group.into(),
        resource: resource.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let mut all = vec![match account(&wanted.name) {
        Some((namespace, name)) => {
            Attributes { namespace: namespace.into(), ..right("", "serviceaccounts", name) }
        }
        None => right("", "users", &wanted.name),
    }];
    all.extend(wanted.groups.iter().map(|group| right("", "groups", group)));
    if !wanted.uid.is_empty() {
        all.push(right(AUTHENTICATION, "uids", &wanted.uid));
    }
    for (key, values) in &wanted.extra {
        all.extend(values.iter().map(|value| Attributes {
            subresource: key.clone(),
            ..right(AUTHENTICATION, "userextras", value)
        }));
    }
    all
}

/// The user with the groups that come with the name.
fn complete(mut wanted: User) -> User {
    if let Some((namespace, _)) = account(&wanted.name).filter(|_| wanted.groups.is_empty()) {
        wanted.groups = authn::service_account_groups(namespace);
    }
    let everyone = if wanted.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !wanted.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        wanted.groups.push(everyone.into());
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[rstest]
    #[case::nobody(&[], "admin", &["system:masters", "system:authenticated"])]
    #[case::a_user(&[("impersonate-user", "jane")], "jane", &["system:authenticated"])]
    #[case::groups(&[("impersonate-user", "jane"), ("impersonate-group", "dev"), ("impersonate-group", "ops")],
        "jane", &["dev", "ops", "system:authenticated"])]
    #[case::an_account(&[("impersonate-user", "system:serviceaccount:web:builder")],
        "system:serviceaccount:web:builder",
        &["system:serviceaccounts", "system:serviceaccounts:web", "system:authenticated"])]
    #[case::an_account_in_other_groups(
        &[("impersonate-user", "system:serviceaccount:web:builder"), ("impersonate-group", "dev")],
        "system:serviceaccount:web:builder", &["dev", "system:authenticated"])]
    #[case::no_account(&[("impersonate-user", "system:serviceaccount:a:b:c")],
        "system:serviceaccount:a:b:c", &["system:authenticated"])]
    #[case::nobody_known(&[("impersonate-user", "system:anonymous")],
        "system:anonymous", &["system:unauthenticated"])]
    fn an_admin_may_ask_as_anybody(
        #[case] lines: &[(&'static str, &str)],
        #[case] name: &str,
        #[case] groups: &[&str],
    ) {
        let user = impersonate(Arc::new(User::admin("admin")), &headers(lines)).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.iter().map(String::as_str).collect::<Vec<_>>()),
            (name, groups.to_vec())
        );
    }

    #[test]
    fn what_else_is_known_of_a_user_is_taken_over() {
        let lines = [
            ("impersonate-user", "jane"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-scopes", "view"),
            ("impersonate-extra-scopes", "edit"),
            ("impersonate-extra-acme.com%2fproject", "p"),
        ];
        let user = impersonate(Arc::new(User::admin("admin")), &headers(&lines)).unwrap();
        let extra = [("acme.com/project", vec!["p"]), ("scopes", vec!["view", "edit"])];
        let extra =
            extra.map(|(key, values)| (key.to_owned(), values.into_iter().map(str::to_owned).collect()));
        assert_eq!((user.uid.as_str(), &user.extra), ("7", &BTreeMap::from(extra)));
    }

    #[rstest]
    #[case::a_user("jane", &[], r#"users "jane" is forbidden: User "x" cannot impersonate resource "users" in API group "" at the cluster scope"#)]
    #[case::an_account("system:serviceaccount:web:builder", &[],
        r#"serviceaccounts "builder" is forbidden: User "x" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "web""#)]
    fn others_may_not(#[case] name: &str, #[case] more: &[(&'static str, &str)], #[case] expected: &str) {
        let mut lines = vec![("impersonate-user", name)];
        lines.extend_from_slice(more);
        for user in [User::new("x", &["system:nodes"]), User::new("x", &["dev"])] {
            let refused = impersonate(Arc::new(user), &headers(&lines)).unwrap_err();
            assert_eq!((refused.code(), refused.0.message.as_deref()), (403, Some(expected)));
        }
    }

    #[test]
    fn a_group_alone_is_nobody() {
        let refused = impersonate(Arc::new(User::admin("admin")), &headers(&[("impersonate-group", "dev")]));
        assert_eq!(refused.unwrap_err().code(), 500);
    }
}
