//! What the server serves and who one is to it: `api-resources`, `api-versions`, `version`, `auth`.

use crate::client::JSON;
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::mapping::group_versions;
use crate::object::{list, text};
use crate::printers::{PRINT, table, yaml};
use http::Method;
use serde_json::{Value, json};

/// Flags of `api-resources`.
pub(crate) const RESOURCES_FLAGS: [&[Flag]; 1] = [&[
    flag("api-group", Takes::Text, "", "Only this group"),
    flag("namespaced", Takes::Bool, "true", "Only those in namespaces, or only those that are not"),
    flag("no-headers", Takes::Bool, "false", "No headings"),
    short("output", 'o', Takes::Text, "", "wide or name"),
    flag("sort-by", Takes::Text, "", "name or kind"),
    flag("verbs", Takes::List, "[]", "Only those with these verbs"),
    flag("categories", Takes::List, "[]", "Only those in these categories"),
    flag("cached", Takes::Bool, "false", "Unused: nothing is cached"),
]];

/// Runs `api-resources`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn resources(context: &Context) -> Outcome {
    let flags = &context.flags;
    if !flags.args.is_empty() {
        return Err(context.usage(&format!("unexpected arguments: [{}]", flags.args.join(" "))));
    }
    let output = flags.text("output");
    if !matches!(output, "" | "wide" | "name") {
        return fail(format!("--output {output} is not available"));
    }
    let sort = flags.text("sort-by");
    if !matches!(sort, "" | "name" | "kind") {
        return fail("--sort-by accepts only name or kind");
    }
    let mut all = context.mapper.all(context.client().await?).await?.to_vec();
    let (verbs, categories) = (flags.list("verbs"), flags.list("categories"));
    all.retain(|m| {
        (!flags.given("api-group") || m.group == flags.text("api-group"))
            && (!flags.given("namespaced") || m.namespaced == flags.on("namespaced"))
            && verbs.iter().all(|verb| m.verbs.contains(verb))
            && categories.iter().all(|category| m.categories.contains(category))
            && !m.verbs.is_empty()
    });
    match sort {
        "name" => all.sort_by(|a, b| a.plural.cmp(&b.plural)),
        "kind" => all.sort_by(|a, b| a.kind.cmp(&b.kind)),
        _ => all.sort_by(|a, b| a.group.cmp(&b.group).then_with(|| a.plural.cmp(&b.plural))),
    }
    if output == "name" {
        all.iter().for_each(|m| out(&format!("{}\n", m.qualified())));
        return Ok(());
    }
    let wide = output == "wide";
    let mut lines = String::new();
    if !flags.on("no-headers") {
        lines.push_str("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND");
        lines.push_str(if wide { "\tVERBS\tCATEGORIES\n" } else { "\n" });
    }
    for m in &all {
        lines.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}",
            m.plural,
            m.short_names.join(","),
            m.api_version(),
            m.namespaced,
            m.kind
        ));
        if wide {
            lines.push_str(&format!("\t{}\t{}", m.verbs.join(","), m.categories.join(",")));
        }
        lines.push('\n');
    }
    out(&table::layout(&lines));
    Ok(())
}

/// No flags at all.
pub(crate) const NONE: [&[Flag]; 1] = [&[]];

/// Runs `api-versions`.
///
/// # Errors
/// The server cannot be reached.
pub(crate) async fn versions(context: &Context) -> Outcome {
    if !context.flags.args.is_empty() {
        return Err(context.usage(&format!("unexpected arguments: [{}]", context.flags.args.join(" "))));
    }
    let all = group_versions(context.client().await?).await?;
    let mut names: Vec<String> = all
        .into_iter()
        .map(|(group, version, _)| if group.is_empty() { version } else { format!("{group}/{version}") })
        .collect();
    names.sort();
    names.iter().for_each(|name| out(&format!("{name}\n")));
    Ok(())
}

/// Flags of `version`.
pub(crate) const VERSION_FLAGS: [&[Flag]; 1] = [&[
    flag("client", Takes::Bool, "false", "Only the client's"),
    short("output", 'o', Takes::Text, "", "yaml or json"),
]];

/// The Kubernetes this client speaks.
const CLIENT: &str = concat!("v1.33.0+sagong", env!("CARGO_PKG_VERSION"));

/// Runs `version`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn version(context: &Context) -> Outcome {
    let flags = &context.flags;
    if !flags.args.is_empty() {
        return fail(format!("extra arguments: [{}]", flags.args.join(" ")));
    }
    let output = flags.text("output");
    if !matches!(output, "" | "yaml" | "json") {
        return fail("--output must be 'yaml' or 'json'");
    }
    let server = if flags.on("client") {
        Ok(Value::Null)
    } else {
        match context.client().await {
            Ok(client) => client.get("/version", &[]).await,
            Err(error) => Err(error),
        }
    };
    let mut all = json!({"clientVersion": {
        "major": "1", "minor": "33", "gitVersion": CLIENT, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none (Rust)", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    }});
    if let Ok(server) = &server
        && !server.is_null()
    {
        all["serverVersion"] = server.clone();
    }
    match output {
        "json" => out(&(serde_json::to_string_pretty(&all).unwrap_or_default() + "\n")),
        "yaml" => out(&(yaml::document(&all) + "\n")),
        _ => {
            out(&format!("Client Version: {CLIENT}\n"));
            if let Some(server) = all["serverVersion"]["gitVersion"].as_str() {
                out(&format!("Server Version: {server}\n"));
            }
        }
    }
    server.map(|_| ())
}

/// `--match-server-version`: whether client and server are of one minor version.
///
/// # Errors
/// They are not, or the server cannot be reached.
pub(super) async fn same_version(context: &Context) -> Outcome {
    let server = context.client().await?.get("/version", &[]).await?;
    let version = text(&server, "/gitVersion");
    let minor = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    if minor(version) == minor(CLIENT) {
        return Ok(());
    }
    fail(format!("server version ({version}) differs from client version ({CLIENT})!"))
}

/// Flags of `auth can-i`.
pub(crate) const CAN_I_FLAGS: [&[Flag]; 1] = [&[
    crate::builder::ALL_NAMESPACES,
    short("quiet", 'q', Takes::Bool, "false", "Only the exit code"),
    flag("list", Takes::Bool, "false", "Everything one can"),
    flag("subresource", Takes::Text, "", "Subresource"),
    flag("no-headers", Takes::Bool, "false", "No headings"),
]];

/// Runs `auth can-i`.
///
/// # Errors
/// One cannot (silently, with code 1); what the command line or the server is to blame for.
pub(crate) async fn can_i(context: &Context) -> Outcome {
    let flags = &context.flags;
    let (namespace, _) = context.namespace().await?;
    let namespace = if flags.on("all-namespaces") { String::new() } else { namespace };
    if flags.on("list") {
        if !flags.args.is_empty() {
            return fail("list option must be specified with no arguments");
        }
        return rules(context, &namespace).await;
    }
    let (verb, what) = match flags.args.as_slice() {
        [verb, what] => (verb, what.as_str()),
        _ => {
            return Err(Failure::Verbatim(format!(
                "error: you must specify two arguments: verb resource or verb resource/resourceName.\nSee '{} -h' for help and examples.",
                context.command
            )));
        }
    };
    if what.starts_with('/') {
        return review(context, json!({"nonResourceAttributes": {"path": what, "verb": verb}})).await;
    }
    let (what, name) = what.split_once('/').unwrap_or((what, ""));
    ask(context, verb, what, name, &namespace).await
}

async fn ask(context: &Context, verb: &str, what: &str, name: &str, namespace: &str) -> Outcome {
    let (group, resource, namespaced) = if what == "*" {
        ("*".to_owned(), "*".to_owned(), true)
    } else {
        match context.resource(what).await {
            Ok(mapping) => (mapping.group, mapping.plural, mapping.namespaced),
            Err(Failure::Message(_)) => {
                let (resource, group) = what.split_once('.').unwrap_or((what, ""));
                let of = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
                context
                    .err(&format!("Warning: the server doesn't have a resource type '{resource}'{of}\n\n"));
                (group.to_owned(), resource.to_owned(), true)
            }
            Err(error) => return Err(error),
        }
    };
    if !namespaced {
        context.err(&format!(
            "Warning: resource '{resource}' is not namespace scoped{}\n\n",
            if group.is_empty() { String::new() } else { format!(" in group '{group}'") }
        ));
    }
    const VERBS: [&str; 17] = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "use",
        "bind",
        "approve",
        "sign",
        "escalate",
        "impersonate",
        "attest",
        "*",
        "proxy",
    ];
    if !VERBS.contains(&verb) {
        context.err(&format!("Warning: verb '{verb}' is not a known verb\n\n"));
    }
    let namespace = if namespaced { namespace } else { "" };
    review(
        context,
        json!({"resourceAttributes": {
            "namespace": namespace, "verb": verb, "group": group, "resource": resource,
            "subresource": context.flags.text("subresource"), "name": name,
        }}),
    )
    .await
}

async fn review(context: &Context, spec: Value) -> Outcome {
    let body =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = context.client().await?.call(Method::POST, path, &[], Some((JSON, &body))).await?;
    let allowed = answer["status"]["allowed"] == true;
    if !context.flags.on("quiet") {
        let mut line = if allowed { "yes".to_owned() } else { "no".to_owned() };
        for (field, label) in [("/status/reason", ""), ("/status/evaluationError", "")] {
            let said = text(&answer, field);
            if !said.is_empty() && !allowed {
                line.push_str(&format!(" - {label}{said}"));
            }
        }
        out(&format!("{line}\n"));
    }
    if allowed { Ok(()) } else { Err(Failure::Exit(1)) }
}

async fn rules(context: &Context, namespace: &str) -> Outcome {
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = context.client().await?.call(Method::POST, path, &[], Some((JSON, &body))).await?;
    let mut lines = String::new();
    if !context.flags.on("no-headers") {
        lines.push_str("Resources\tNon-Resource URLs\tResource Names\tVerbs\n");
    }
    let words = |rule: &Value, field: &str| {
        let all: Vec<&str> = list(rule, field).iter().filter_map(Value::as_str).collect();
        format!("[{}]", all.join(" "))
    };
    for rule in list(&answer, "/status/resourceRules") {
        for resource in list(rule, "/resources").iter().filter_map(Value::as_str) {
            for group in list(rule, "/apiGroups").iter().filter_map(Value::as_str) {
                let name = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
                lines.push_str(&format!(
                    "{name}\t[]\t{}\t{}\n",
                    words(rule, "/resourceNames"),
                    words(rule, "/verbs")
                ));
            }
        }
    }
    for rule in list(&answer, "/status/nonResourceRules") {
        lines.push_str(&format!("\t{}\t[]\t{}\n", words(rule, "/nonResourceURLs"), words(rule, "/verbs")));
    }
    out(&table::layout(&lines));
    Ok(())
}

/// Flags of `auth whoami`.
pub(crate) const WHOAMI_FLAGS: [&[Flag]; 1] = [&PRINT];

/// Runs `auth whoami`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn whoami(context: &Context) -> Outcome {
    let format = crate::printers::Format::from_flags(context, false)?;
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {"creationTimestamp": null}, "status": {"userInfo": {}}});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = context.client().await?.call(Method::POST, path, &[], Some((JSON, &body))).await?;
    if !format.human() {
        let mut answer = answer;
        answer["metadata"]["creationTimestamp"] = Value::Null;
        out(&format.show_built(&answer, false)?);
        return Ok(());
    }
    let info = &answer["status"]["userInfo"];
    let mut lines = String::from("ATTRIBUTE\tVALUE\n");
    for (label, field) in [("Username", "/username"), ("UID", "/uid")] {
        if !text(info, field).is_empty() {
            lines.push_str(&format!("{label}\t{}\n", text(info, field)));
        }
    }
    let words = |value: &Value| {
        let all: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!("[{}]", all.join(" "))
    };
    if !list(info, "/groups").is_empty() {
        lines.push_str(&format!("Groups\t{}\n", words(&info["groups"])));
    }
    for (key, value) in info["extra"].as_object().into_iter().flatten() {
        lines.push_str(&format!("Extra: {key}\t{}\n", words(value)));
    }
    out(&table::layout(&lines));
    Ok(())
}
