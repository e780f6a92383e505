//! `create`: from files; and what all of its generators share.

pub(crate) mod data;
pub(crate) mod ingress;
pub(crate) mod policy;
pub(crate) mod rbac;
pub(crate) mod service;
pub(crate) mod token;
pub(crate) mod workload;

use crate::builder::{self, Builder, Info};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::mapping::Mapping;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write;
use serde_json::{Value, json};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        DRY_RUN,
        builder::SELECTOR,
        write::RECORD,
        write::VALIDATE,
        write::SAVE_CONFIG,
        write::manager("kubectl-create"),
        flag("edit", Takes::Bool, "false", "Edit before creating"),
        flag("raw", Takes::Text, "", "A path to POST to"),
    ],
];

/// Flags of all generators.
pub(crate) const GENERATOR: [Flag; 4] =
    [DRY_RUN, write::VALIDATE, write::SAVE_CONFIG, write::manager("kubectl-create")];

/// Runs it.
///
/// # Errors
/// What the files, the command line or the server are to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    if !flags.args.is_empty() {
        return Err(context.usage(&format!("Unexpected args: [{}]", flags.args.join(" "))));
    }
    if flags.list("filename").is_empty() && !flags.given("kustomize") {
        return fail("must specify one of -f and -k");
    }
    if !flags.text("raw").is_empty() {
        return raw(context, http::Method::POST, flags.text("raw")).await;
    }
    let teller = Teller::from_flags(context)?;
    let mut builder = Builder::new(context, &[]);
    builder.validate = write::validation(context)? != "Ignore";
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    let mut count = 0;
    for mut info in found.infos {
        count += 1;
        if flags.on("edit") {
            let text = crate::printers::yaml::document(&info.object);
            let edited = super::edit::by_hand(&text, "")?;
            if edited.trim().is_empty() {
                return fail("edit cancelled, no objects created");
            }
            info.object = crate::manifest::parse(&edited).map_err(Failure::Message)?;
            info.name = crate::object::name(&info.object).to_owned();
        }
        write::record(context, &mut info.object);
        let source = info.source.clone();
        match post(context, &teller, info).await {
            Ok(object) => teller.tell(&object, "created")?,
            Err(error) => failures.push(error.with_source("creating", &source)),
        }
    }
    if count == 0 && failures.is_empty() {
        return fail("no objects passed to create");
    }
    Failure::aggregate(failures)
}

/// Posts a file to a path as it is.
pub(super) async fn raw(context: &Context, method: http::Method, path: &str) -> Outcome {
    let flags = &context.flags;
    let files = flags.list("filename");
    let [file] = files.as_slice() else {
        return fail("--raw can only use a single local file or stdin");
    };
    if flags.on("edit") || !flags.text("selector").is_empty() {
        return fail("--raw and --edit or --selector are mutually exclusive");
    }
    let bytes = if file == "-" {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes)?;
        bytes
    } else {
        std::fs::read(file)
            .map_err(|error| Failure::Message(format!("open {file}: {}", crate::failure::io_text(&error))))?
    };
    let body = Some((crate::client::JSON, bytes));
    let client = context.client().await?;
    let answer = client.bytes(method, path, &[], body, crate::client::JSON).await?;
    crate::context::out_bytes(&answer);
    Ok(())
}

/// Creates one object, unless it is only to be shown.
pub(crate) async fn post(context: &Context, teller: &Teller, mut info: Info) -> Outcome<Value> {
    if context.flags.on("save-config") {
        let configuration = write::configuration(&info.object);
        write::annotate(&mut info.object, write::LAST_APPLIED, &configuration);
    }
    if teller.dry_run == DryRun::Client {
        return Ok(info.object);
    }
    let mut query = teller.query(context.flags.text("field-manager"));
    query.push(("fieldValidation", write::validation(context)?.to_owned()));
    write::create(context, &info, &query).await
}

/// Creates what a generator made, and tells; `what` is for failures.
pub(crate) async fn generated(context: &Context, object: Value, what: &str) -> Outcome {
    let (created, teller) = created(context, object, what).await?;
    teller.tell_built(&created, "created")
}

/// The same without a word.
pub(crate) async fn created(context: &Context, object: Value, what: &str) -> Outcome<(Value, Teller)> {
    let teller = Teller::from_flags(context)?;
    let (namespace, explicit) = context.namespace().await?;
    let mut object = object;
    let (version, kind) =
        (crate::object::text(&object, "/apiVersion"), crate::object::text(&object, "/kind"));
    let mapping = if teller.dry_run == DryRun::Client {
        unasked(version, kind)
    } else {
        match context.mapper.kind(context.client().await?, version, kind).await {
            // Not served: kubectl only learns it from the answer to the write.
            Err(Failure::Message(_)) => unasked(version, kind),
            known => known?,
        }
    };
    let name = crate::object::name(&object).to_owned();
    let namespaced = mapping.namespaced;
    if namespaced && (explicit || teller.dry_run != DryRun::Client) {
        object["metadata"]["namespace"] = namespace.clone().into();
    }
    let namespace = if namespaced { namespace } else { String::new() };
    let info = Info { mapping, namespace, name, object, source: String::new() };
    match post(context, &teller, info).await {
        Ok(created) => Ok((created, teller)),
        Err(Failure::Status(status)) if !what.is_empty() => {
            let text = Failure::Status(status).text();
            fail(format!("failed to create {what}{text}"))
        }
        Err(error) => Err(error),
    }
}

/// A mapping of which nobody is asked: by the rules that the names of kinds follow.
fn unasked(api_version: &str, kind: &str) -> Mapping {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let lower = kind.to_lowercase();
    let global = matches!(kind, "Namespace" | "ClusterRole" | "ClusterRoleBinding" | "PriorityClass");
    Mapping {
        group: group.into(),
        version: version.into(),
        plural: if kind.ends_with('s') { format!("{lower}es") } else { format!("{lower}s") },
        kind: kind.into(),
        namespaced: !global,
        ..Mapping::default()
    }
}

/// Flags that must be given.
///
/// # Errors
/// One is not.
pub(crate) fn required(context: &Context, names: &[&str]) -> Outcome {
    let missing: Vec<String> =
        names.iter().filter(|name| !context.flags.given(name)).map(|name| format!("\"{name}\"")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Verbatim(format!("error: required flag(s) {} not set", missing.join(", "))))
}

fn one_name(context: &Context) -> Outcome<String> {
    match context.flags.args.as_slice() {
        [name] => Ok(name.clone()),
        args => Err(context.usage(&format!("exactly one NAME is required, got {}", args.len()))),
    }
}

/// Flags of `create namespace` and others that need nothing more.
pub(crate) const PLAIN_FLAGS: [&[Flag]; 2] = [&PRINT, &GENERATOR];

/// `create namespace`.
///
/// # Errors
/// As all generators: the command line, or the server.
pub(crate) async fn namespace(context: &Context) -> Outcome {
    let name = one_name(context)?;
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "creationTimestamp": null}, "spec": {}, "status": {}});
    generated(context, object, "").await
}

/// `create serviceaccount`.
///
/// # Errors
/// As all generators.
pub(crate) async fn service_account(context: &Context) -> Outcome {
    let name = one_name(context)?;
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "creationTimestamp": null}});
    generated(context, object, "serviceaccount: ").await
}
