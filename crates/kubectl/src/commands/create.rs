//! `create`: from files, and the generators of the common kinds.

use crate::builder::{self, Builder, Info};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag, short};
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write;
use base64::Engine;
use serde_json::{Map, Value, json};
use std::path::Path;

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

const GENERATOR: [Flag; 4] = [DRY_RUN, write::VALIDATE, write::SAVE_CONFIG, write::manager("kubectl-create")];

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
    let teller = Teller::from_flags(context)?;
    let mut builder = Builder::new(context, &[]);
    builder.validate = write::validation(context)? != "Ignore";
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    let mut count = 0;
    for mut info in found.infos {
        count += 1;
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

/// Creates what a generator made; `what` is for failures.
pub(crate) async fn generated(context: &Context, object: Value, what: &str) -> Outcome {
    let teller = Teller::from_flags(context)?;
    let (namespace, explicit) = context.namespace().await?;
    let mut object = object;
    let (version, kind) =
        (crate::object::text(&object, "/apiVersion"), crate::object::text(&object, "/kind"));
    let known = context.mapper.kind(context.client().await?, version, kind).await;
    let mapping = known.map_err(|error| match error {
        Failure::Message(_) => Failure::Status(Box::new(json!({
            "kind": "Status", "reason": "NotFound", "message": "the server could not find the requested resource"
        }))),
        other => other,
    })?;
    let name = crate::object::name(&object).to_owned();
    let namespaced = mapping.namespaced;
    if namespaced && (explicit || teller.dry_run != DryRun::Client) {
        object["metadata"]["namespace"] = namespace.clone().into();
    }
    let namespace = if namespaced { namespace } else { String::new() };
    let info = Info { mapping, namespace, name, object, source: String::new() };
    match post(context, &teller, info).await {
        Ok(created) => teller.tell(&created, "created"),
        Err(Failure::Status(status)) if !what.is_empty() => {
            let text = Failure::Status(status).text();
            fail(format!("failed to create {what}{text}"))
        }
        Err(error) => Err(error),
    }
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

/// Flags of `create deployment`.
pub(crate) const DEPLOYMENT_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("image", Takes::List, "[]", "Images of its containers"),
        flag("port", Takes::Number, "-1", "Port its container listens on"),
        short("replicas", 'r', Takes::Number, "1", "How many pods"),
    ],
];

/// `create deployment`.
///
/// # Errors
/// As all generators.
pub(crate) async fn deployment(context: &Context) -> Outcome {
    let flags = &context.flags;
    let images = flags.list("image");
    if images.is_empty() {
        return Err(Failure::Verbatim("error: required flag(s) \"image\" not set".into()));
    }
    let (args, command) = flags.args.split_at(flags.dash.unwrap_or(flags.args.len()));
    let [name] = args else {
        return Err(context.usage(&format!("exactly one NAME is required, got {}", args.len())));
    };
    if images.len() > 1 && !command.is_empty() {
        return fail("cannot specify multiple --image options and command");
    }
    let mut containers: Vec<Value> = Vec::new();
    for image in &images {
        let mut container =
            json!({"name": container_name(image, images.len() > 1), "image": image, "resources": {}});
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        containers.push(container);
    }
    if flags.number("port") >= 0 {
        containers[0]["ports"] = json!([{"containerPort": flags.number("port")}]);
    }
    let labels = json!({"app": name});
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "creationTimestamp": null, "labels": labels},
        "spec": {
            "replicas": flags.number("replicas"), "selector": {"matchLabels": labels}, "strategy": {},
            "template": {"metadata": {"creationTimestamp": null, "labels": labels}, "spec": {"containers": containers}},
        },
        "status": {},
    });
    generated(context, object, "deployment: ").await
}

/// `luksa/kubia:v1` runs in a container `kubia`.
fn container_name(image: &str, unique: bool) -> String {
    let name = image.rsplit('/').next().unwrap_or_default();
    let name = name.split(['@', ':']).next().unwrap_or_default();
    let name: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .collect();
    let name = name.trim_matches('-').to_owned();
    if unique { format!("{name}-{}", suffix()) } else { name }
}

fn suffix() -> String {
    use rand::Rng;
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(letters[rng.random_range(0..letters.len())])).collect()
}

/// Flags of `create configmap` and `create secret generic`.
pub(crate) const DATA_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("from-literal", Takes::Array, "[]", "KEY=VALUE"),
        flag("from-file", Takes::Array, "[]", "KEY=FILE, FILE or a directory"),
        flag("from-env-file", Takes::Array, "[]", "A file of KEY=VALUE lines"),
        flag("append-hash", Takes::Bool, "false", "Append a hash to the name"),
        flag("type", Takes::Text, "", "Type of the secret"),
    ],
];

/// `create configmap`.
///
/// # Errors
/// As all generators; a file cannot be read or a key is wrong.
pub(crate) async fn config_map(context: &Context) -> Outcome {
    let name = one_name(context)?;
    let entries = entries(context, "ConfigMap", &name)?;
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, bytes) in entries {
        match String::from_utf8(bytes) {
            Ok(text) => data.insert(key, text.into()),
            Err(bytes) => {
                binary.insert(key, base64::engine::general_purpose::STANDARD.encode(bytes.as_bytes()).into())
            }
        };
    }
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "creationTimestamp": null}});
    if !data.is_empty() {
        object["data"] = data.into();
    }
    if !binary.is_empty() {
        object["binaryData"] = binary.into();
    }
    generated(context, object, "configmap: ").await
}

/// `create secret generic`.
///
/// # Errors
/// As all generators; a file cannot be read or a key is wrong.
pub(crate) async fn secret(context: &Context) -> Outcome {
    let name = one_name(context)?;
    let mut data = Map::new();
    for (key, bytes) in entries(context, "Secret", &name)? {
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(bytes).into());
    }
    let mut object =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "creationTimestamp": null}});
    if !data.is_empty() {
        object["data"] = data.into();
    }
    let kind = context.flags.text("type");
    if !kind.is_empty() {
        object["type"] = kind.into();
    }
    generated(context, object, "secret ").await
}

fn entries(context: &Context, kind: &str, name: &str) -> Outcome<Vec<(String, Vec<u8>)>> {
    let flags = &context.flags;
    let (literals, files, envs) =
        (flags.list("from-literal"), flags.list("from-file"), flags.list("from-env-file"));
    if !envs.is_empty() && (!files.is_empty() || !literals.is_empty()) {
        return fail("from-env-file cannot be combined with from-file or from-literal");
    }
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for source in &literals {
        let Some((key, value)) = source.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return fail(format!("invalid literal source {source}, expected key=value"));
        };
        let value = value.trim_matches(['"', '\'']);
        all.push((key.into(), value.as_bytes().to_vec()));
    }
    for source in &files {
        from_file(source, &mut all)?;
    }
    for source in &envs {
        let bytes = read(source)?;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (line.to_owned(), std::env::var(line).unwrap_or_default()),
            };
            all.push((key, value.into_bytes()));
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for (key, _) in &all {
        let errors = sagong_api::name::config_map_key(key);
        if !errors.is_empty() {
            return fail(if kind == "Secret" {
                format!("{} is not valid key name for a Secret {}", quote(key), errors.join(";"))
            } else {
                format!("{} is not a valid key name for a ConfigMap: {}", quote(key), errors.join(","))
            });
        }
        if seen.contains(&key.as_str()) {
            return fail(if kind == "Secret" {
                format!("cannot add key {key}, another key by that name already exists")
            } else {
                format!(
                    "cannot add key {}, another key by that name already exists in Data for ConfigMap {}",
                    quote(key),
                    quote(name)
                )
            });
        }
        seen.push(key);
    }
    Ok(all)
}

fn from_file(source: &str, all: &mut Vec<(String, Vec<u8>)>) -> Outcome {
    let (key, path) = match source.split_once('=') {
        Some((key, path)) => (Some(key), path),
        None => (None, source),
    };
    if key == Some("") {
        return fail(format!("key name for file path {path} missing"));
    }
    if Path::new(path).is_dir() {
        if key.is_some() {
            return fail("cannot give a key name for a directory path");
        }
        let mut files: Vec<_> = std::fs::read_dir(path)?.flatten().filter(|e| e.path().is_file()).collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            all.push((file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path())?));
        }
        return Ok(());
    }
    let base = Path::new(path).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    all.push((key.map_or(base, str::to_owned), read(path)?));
    Ok(())
}

fn read(path: &str) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Failure::Message(format!("error reading {path}: {}", crate::failure::io_text(&error)))
    })
}

/// Flags of `create service …`.
pub(crate) const SERVICE_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("tcp", Takes::List, "[]", "PORT or PORT:TARGET"),
        flag("clusterip", Takes::Text, "", "An address, or None"),
        flag("node-port", Takes::Number, "0", "Port on the nodes"),
        flag("external-name", Takes::Text, "", "The name it stands for"),
    ],
];

/// `create service clusterip`.
///
/// # Errors
/// As all generators.
pub(crate) async fn cluster_ip(context: &Context) -> Outcome {
    service(context, "ClusterIP").await
}

/// `create service nodeport`.
///
/// # Errors
/// As all generators.
pub(crate) async fn node_port(context: &Context) -> Outcome {
    service(context, "NodePort").await
}

/// `create service loadbalancer`.
///
/// # Errors
/// As all generators.
pub(crate) async fn load_balancer(context: &Context) -> Outcome {
    service(context, "LoadBalancer").await
}

/// `create service externalname`.
///
/// # Errors
/// As all generators.
pub(crate) async fn external_name(context: &Context) -> Outcome {
    service(context, "ExternalName").await
}

async fn service(context: &Context, kind: &str) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let tcp = flags.list("tcp");
    let cluster_ip = flags.text("clusterip");
    if tcp.is_empty() && cluster_ip != "None" && kind != "ExternalName" {
        return fail("at least one tcp port specifier must be provided");
    }
    let mut ports = Vec::new();
    for spec in &tcp {
        let (port, target) = parse_port(spec)?;
        let mut entry =
            json!({"name": spec.replace(':', "-"), "port": port, "protocol": "TCP", "targetPort": target});
        if kind == "NodePort" && flags.number("node-port") != 0 {
            entry["nodePort"] = flags.number("node-port").into();
        }
        ports.push(entry);
    }
    let mut spec = json!({"selector": {"app": name}, "type": kind});
    if !ports.is_empty() {
        spec["ports"] = ports.into();
    }
    if !cluster_ip.is_empty() {
        spec["clusterIP"] = cluster_ip.into();
    }
    if kind == "ExternalName" {
        spec["externalName"] = flags.text("external-name").into();
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "creationTimestamp": null, "labels": {"app": name}},
        "spec": spec, "status": {"loadBalancer": {}},
    });
    generated(context, object, &format!("{kind} service: ")).await
}

fn parse_port(spec: &str) -> Outcome<(i64, Value)> {
    let (port, target) = spec.split_once(':').unwrap_or((spec, spec));
    let Ok(number) = port.parse::<i64>() else {
        return fail(format!("strconv.ParseUint: parsing {}: invalid syntax", quote(port)));
    };
    if !(0..=65535).contains(&number) {
        return fail("must be between 0 and 65535, inclusive");
    }
    Ok((number, target.parse::<i64>().map_or_else(|_| target.into(), Value::from)))
}

/// Flags of `run`.
pub(crate) const RUN_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("image", Takes::Text, "", "Image of the container"),
        flag("port", Takes::Text, "", "Port the container listens on"),
        flag("env", Takes::Array, "[]", "NAME=VALUE"),
        short("labels", 'l', Takes::Text, "", "KEY=VALUE,…"),
        flag("restart", Takes::Text, "Always", "Always, OnFailure or Never"),
        flag("image-pull-policy", Takes::Text, "", "Always, IfNotPresent or Never"),
        flag("annotations", Takes::Array, "[]", "KEY=VALUE"),
        flag("command", Takes::Bool, "false", "The arguments are the command"),
        flag("expose", Takes::Bool, "false", "Also create a service"),
        flag("rm", Takes::Bool, "false", "Delete the pod at the end"),
        flag("attach", Takes::Bool, "false", "Attach to it"),
        short("stdin", 'i', Takes::Bool, "false", "Keep standard input open"),
        short("tty", 't', Takes::Bool, "false", "With a terminal"),
        short("quiet", 'q', Takes::Bool, "false", "Say less"),
        flag("privileged", Takes::Bool, "false", "With all rights"),
        flag("overrides", Takes::Text, "", "JSON to put over the object"),
        write::RECORD,
    ],
];

/// `run`.
///
/// # Errors
/// As all generators.
pub(crate) async fn run_pod(context: &Context) -> Outcome {
    let flags = &context.flags;
    let image = flags.text("image");
    if image.is_empty() {
        return Err(Failure::Verbatim("error: required flag(s) \"image\" not set".into()));
    }
    let Some(name) = flags.args.first() else { return Err(context.usage("NAME is required for run")) };
    if image.contains(' ') || image.chars().any(char::is_uppercase) && !image.contains(['/', ':']) {
        return fail(format!("invalid image name {}: invalid reference format", quote(image)));
    }
    if flags.on("tty") && !flags.on("stdin") {
        return fail("-i/--stdin is required for containers with -t/--tty=true");
    }
    if flags.on("expose") && flags.text("port").is_empty() {
        return fail("--port must be set when exposing a service");
    }
    if flags.on("rm") && !flags.on("attach") && !flags.on("stdin") {
        return fail("--rm should only be used for attached containers");
    }
    let restart = flags.text("restart");
    if !matches!(restart, "Always" | "OnFailure" | "Never") {
        return Err(context.usage(&format!("invalid restart policy: {restart}")));
    }
    let labels = match flags.text("labels") {
        "" => json!({"run": name}),
        text => Value::Object(super::expose::parse_labels(text)?),
    };
    let mut container = json!({"name": name, "image": image, "resources": {}});
    let extra = &flags.args[1..];
    if !extra.is_empty() {
        container[if flags.on("command") { "command" } else { "args" }] = json!(extra);
    }
    let mut env = Vec::new();
    for entry in flags.list("env") {
        let Some((key, value)) = entry.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return fail(format!("invalid env: {entry}"));
        };
        env.push(json!({"name": key, "value": value}));
    }
    if !env.is_empty() {
        container["env"] = env.into();
    }
    let port = flags.text("port");
    if !port.is_empty() {
        let Ok(port) = port.parse::<i64>() else { return fail("--port must be a number") };
        container["ports"] = json!([{"containerPort": port}]);
    }
    let policy = flags.text("image-pull-policy");
    if !policy.is_empty() {
        if !matches!(policy, "Always" | "IfNotPresent" | "Never") {
            return Err(context.usage(&format!("invalid image pull policy: {policy}")));
        }
        container["imagePullPolicy"] = policy.into();
    }
    if flags.on("stdin") {
        container["stdin"] = true.into();
        container["stdinOnce"] = true.into();
    }
    if flags.on("tty") {
        container["tty"] = true.into();
    }
    if flags.on("privileged") {
        container["securityContext"] = json!({"privileged": true});
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "creationTimestamp": null, "labels": labels},
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": restart}, "status": {},
    });
    for entry in flags.list("annotations") {
        if let Some((key, value)) = entry.split_once('=') {
            write::annotate(&mut object, key, value);
        }
    }
    if !flags.text("overrides").is_empty() {
        object = sagong_api::patch::merge(&object, flags.text("overrides").as_bytes())
            .map_err(|error| Failure::Message(format!("Invalid JSON Patch: {error}")))?;
    }
    write::record(context, &mut object);
    if flags.on("expose") {
        let port: i64 = port.parse().unwrap_or(0);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "creationTimestamp": null},
            "spec": {"ports": [{"port": port, "protocol": "TCP", "targetPort": port}], "selector": labels},
            "status": {"loadBalancer": {}},
        });
        let teller = Teller::from_flags(context)?;
        generated(context, service, "").await?;
        if matches!(teller.format, crate::printers::Format::Yaml) {
            out("---\n");
        }
    }
    generated(context, object, "").await
}
