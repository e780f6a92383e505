//! `create role`, `create clusterrole` and their bindings.

use super::{GENERATOR, generated, one_name, required};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::printers::PRINT;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";

/// Verbs of requests for resources.
const VERBS: [&str; 14] = [
    "*",
    "get",
    "delete",
    "list",
    "create",
    "update",
    "patch",
    "watch",
    "proxy",
    "deletecollection",
    "use",
    "bind",
    "escalate",
    "impersonate",
];

const RULE: [Flag; 3] = [
    flag("verb", Takes::List, "[]", "What is allowed"),
    flag("resource", Takes::List, "[]", "Of what: RESOURCE[.GROUP][/SUBRESOURCE]"),
    flag("resource-name", Takes::Array, "[]", "Of which objects"),
];

/// Flags of `create role`.
pub(crate) const ROLE_FLAGS: [&[Flag]; 3] = [&PRINT, &GENERATOR, &RULE];
/// Flags of `create clusterrole`.
pub(crate) const CLUSTER_ROLE_FLAGS: [&[Flag]; 4] = [
    &PRINT,
    &GENERATOR,
    &RULE,
    &[
        flag("non-resource-url", Takes::List, "[]", "Paths that are no resources"),
        flag("aggregation-rule", Takes::List, "", "Labels of roles to take the rules from, KEY=VALUE"),
    ],
];
/// Flags of `create rolebinding` and `create clusterrolebinding`.
pub(crate) const BINDING_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("clusterrole", Takes::Text, "", "The cluster role"),
        flag("role", Takes::Text, "", "The role"),
        flag("user", Takes::Array, "[]", "Users"),
        flag("group", Takes::Array, "[]", "Groups"),
        flag("serviceaccount", Takes::Array, "[]", "Service accounts, NAMESPACE:NAME"),
    ],
];

/// `create role`.
///
/// # Errors
/// As all generators; a resource is not known to the server.
pub(crate) async fn role(context: &Context) -> Outcome {
    let name = one_name(context)?;
    let (verbs, resources, names) = asked(context);
    if verbs.is_empty() {
        return fail("at least one verb must be specified");
    }
    if resources.is_empty() {
        return fail("at least one resource must be specified");
    }
    check(context, &verbs, &resources)?;
    let rules = rules(context, &verbs, &resources, &names).await?;
    let object = json!({
        "apiVersion": VERSION, "kind": "Role", "metadata": {"name": name, "creationTimestamp": null},
        "rules": rules,
    });
    generated(context, object, "").await
}

/// `create clusterrole`.
///
/// # Errors
/// As [`role`].
pub(crate) async fn cluster_role(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let (verbs, resources, names) = asked(context);
    let (urls, aggregated) = (flags.list("non-resource-url"), flags.list("aggregation-rule"));
    let mut object = json!({
        "apiVersion": VERSION, "kind": "ClusterRole", "metadata": {"name": name, "creationTimestamp": null},
    });
    if !aggregated.is_empty() {
        if !(urls.is_empty() && verbs.is_empty() && resources.is_empty() && names.is_empty()) {
            return fail(
                "aggregation rule must be specified without nonResourceURLs, verbs, resources or resourceNames",
            );
        }
        let mut labels = Map::new();
        for label in &aggregated {
            let Some((key, value)) = label.split_once('=') else {
                return Err(Failure::Verbatim(format!(
                    "error: invalid argument {} for \"--aggregation-rule\" flag: malformed pair, expect string=string\nSee '{} --help' for usage.",
                    crate::failure::quote(&aggregated.join(",")),
                    context.command
                )));
            };
            labels.insert(key.into(), value.into());
        }
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        object["rules"] = Value::Null;
        return generated(context, object, "").await;
    }
    if verbs.is_empty() {
        return fail("at least one verb must be specified");
    }
    if resources.is_empty() && urls.is_empty() {
        return fail("one of resource or nonResourceURL must be specified");
    }
    if !resources.is_empty() {
        check(context, &verbs, &resources)?;
    }
    for url in &urls {
        if url != "*" && !url.starts_with('/') {
            return fail("nonResourceURL should start with /");
        }
        if url != "*" && url.trim_end_matches('*').contains('*') {
            return fail("nonResourceURL only supports wildcard matches when '*' is at the end");
        }
        for verb in &verbs {
            if !matches!(
                verb.as_str(),
                "*" | "get" | "post" | "put" | "delete" | "patch" | "head" | "options"
            ) {
                return fail(format!("invalid verb: '{verb}' for nonResourceURL"));
            }
        }
    }
    let mut rules = rules(context, &verbs, &resources, &names).await?;
    if !urls.is_empty() {
        rules.push(json!({"verbs": verbs, "nonResourceURLs": urls}));
    }
    object["rules"] = rules.into();
    generated(context, object, "").await
}

/// Verbs, resources and names, each once; `*` says it all.
fn asked(context: &Context) -> (Vec<String>, Vec<String>, Vec<String>) {
    let once = |flag: &str| {
        let mut all: Vec<String> = Vec::new();
        for value in context.flags.list(flag) {
            if !all.contains(&value) {
                all.push(value);
            }
        }
        all
    };
    let mut verbs = once("verb");
    if verbs.iter().any(|verb| verb == "*") {
        verbs = vec!["*".into()];
    }
    (verbs, once("resource"), once("resource-name"))
}

/// Resource, group and subresource of `deployments.apps/scale`.
fn parts(typed: &str) -> (&str, &str, &str) {
    let (resource, subresource) = typed.split_once('/').unwrap_or((typed, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    (resource, group, subresource)
}

fn check(context: &Context, verbs: &[String], resources: &[String]) -> Outcome {
    for typed in resources {
        if parts(typed).0.is_empty() {
            return fail("resource must be specified if apiGroup/subresource specified");
        }
    }
    for verb in verbs {
        if !VERBS.contains(&verb.as_str()) {
            context.err(&format!("Warning: '{verb}' is not a standard resource verb\n"));
        }
    }
    Ok(())
}

/// A rule for each group of the resources.
async fn rules(
    context: &Context,
    verbs: &[String],
    resources: &[String],
    names: &[String],
) -> Outcome<Vec<Value>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for typed in resources {
        let (resource, group, subresource) = parts(typed);
        let (group, resource) = if resource == "*" {
            (group.to_owned(), resource.to_owned())
        } else {
            let full = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
            let mapping = context.resource(&full).await.map_err(|error| match error {
                Failure::Message(text) => Failure::Verbatim(text),
                other => other,
            })?;
            (mapping.group, mapping.plural)
        };
        let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        let all = groups.entry(group).or_default();
        if !all.contains(&resource) {
            all.push(resource);
        }
    }
    let rule = |(group, resources): (String, Vec<String>)| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule
    };
    Ok(groups.into_iter().map(rule).collect())
}

/// `create rolebinding`.
///
/// # Errors
/// As all generators.
pub(crate) async fn role_binding(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let (role, cluster_role) = (flags.text("role"), flags.text("clusterrole"));
    if role.is_empty() == cluster_role.is_empty() {
        return fail("exactly one of clusterrole or role must be specified");
    }
    let reference = if role.is_empty() { ("ClusterRole", cluster_role) } else { ("Role", role) };
    bind(context, "RoleBinding", &name, reference).await
}

/// `create clusterrolebinding`.
///
/// # Errors
/// As all generators.
pub(crate) async fn cluster_role_binding(context: &Context) -> Outcome {
    required(context, &["clusterrole"])?;
    let name = one_name(context)?;
    let reference = ("ClusterRole", context.flags.text("clusterrole"));
    bind(context, "ClusterRoleBinding", &name, reference).await
}

async fn bind(context: &Context, kind: &str, name: &str, (role_kind, role): (&str, &str)) -> Outcome {
    let subjects = subjects(context)?;
    let mut object = json!({
        "apiVersion": VERSION, "kind": kind, "metadata": {"name": name, "creationTimestamp": null},
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    });
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    generated(context, object, &format!("{}: ", kind.to_lowercase())).await
}

/// The subjects that flags name.
///
/// # Errors
/// A service account has no namespace.
pub(crate) fn subjects(context: &Context) -> Outcome<Vec<Value>> {
    let flags = &context.flags;
    let subject = |kind: &'static str, names: Vec<String>| {
        names.into_iter().map(move |n| json!({"apiGroup": GROUP, "kind": kind, "name": n}))
    };
    let mut subjects: Vec<Value> = subject("User", flags.list("user")).collect();
    subjects.extend(subject("Group", flags.list("group")));
    for account in flags.list("serviceaccount") {
        let parts: Vec<&str> = account.split(':').collect();
        match parts.as_slice() {
            [namespace, name] if !name.is_empty() => {
                subjects.push(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}));
            }
            _ => return Err(Failure::Message("serviceaccount must be <namespace>:<name>".into())),
        }
    }
    Ok(subjects)
}
