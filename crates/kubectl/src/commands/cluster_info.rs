//! `cluster-info`: where the cluster is; `dump`: everything that helps to find out what is wrong with it.

use crate::context::{Context, out};
use crate::failure::{Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object::{self, list};
use crate::printers::{Format, PRINT};
use http::Method;
use serde_json::Value;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Flags of `cluster-info`.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[]];
/// Flags of `dump`.
pub(crate) const DUMP_FLAGS: [&[Flag]; 2] = [
    &PRINT,
    &[
        crate::builder::ALL_NAMESPACES,
        flag("namespaces", Takes::List, "[]", "Namespaces to dump"),
        flag("output-directory", Takes::Text, "", "Where to write files; - or nothing is standard output"),
        flag("pod-running-timeout", Takes::Span, "20s", "Unused"),
    ],
];

/// Runs `cluster-info`.
///
/// # Errors
/// The server cannot be reached.
pub(crate) async fn run(context: &Context) -> Outcome {
    let client = context.client().await?;
    client.get("/version", &[]).await?;
    let tell = |name: &str, url: &str| {
        if std::io::stdout().is_terminal() {
            out(&format!("\x1b[0;32m{name}\x1b[0m is running at \x1b[0;33m{url}\x1b[0m\n"));
        } else {
            out(&format!("{name} is running at {url}\n"));
        }
    };
    tell("Kubernetes control plane", &client.server);
    let query = [("labelSelector", "kubernetes.io/cluster-service=true")];
    if let Ok(services) = client.get("/api/v1/namespaces/kube-system/services", &query).await {
        for service in list(&services, "/items") {
            let name = object::labels(service)
                .remove("kubernetes.io/name")
                .unwrap_or_else(|| object::name(service).to_owned());
            tell(&name, &address(service, &client.server));
        }
    }
    out(&format!(
        "\nTo further debug and diagnose cluster problems, use '{} cluster-info dump'.\n",
        context.name
    ));
    Ok(())
}

/// Where a service of the cluster is reached: at its balancer, or through the API server.
fn address(service: &Value, server: &str) -> String {
    let ports = list(service, "/spec/ports");
    if let Some(ingress) = list(service, "/status/loadBalancer/ingress").first() {
        let host = ingress["ip"].as_str().or(ingress["hostname"].as_str()).unwrap_or_default();
        let each = ports.iter().map(|port| format!("http://{host}:{} ", object::number(port, "/port")));
        return each.collect();
    }
    let mut name = object::name(service).to_owned();
    if let Some(port) = ports.first() {
        let port_name = object::text(port, "/name");
        if port_name == "https" || object::number(port, "/port") == 443 {
            name = format!("https:{name}:{port_name}");
        } else if !port_name.is_empty() {
            name = format!("{name}:{port_name}");
        }
    }
    format!("{server}/api/v1/namespaces/kube-system/services/{name}/proxy")
}

/// What is dumped of a namespace, as it is named in files and in the API.
const KINDS: [(&str, &str); 7] = [
    ("events", "events"),
    ("replication-controllers", "replicationcontrollers"),
    ("services", "services"),
    ("daemonsets", "daemonsets"),
    ("deployments", "deployments"),
    ("replicasets", "replicasets"),
    ("pods", "pods"),
];

/// Runs `dump`.
///
/// # Errors
/// What the command line or the server is to blame for; a file cannot be written.
pub(crate) async fn dump(context: &Context) -> Outcome {
    let flags = &context.flags;
    let mut format = Format::from_flags(context, false)?;
    if format.human() {
        format = Format::Json;
    }
    let ending = if matches!(format, Format::Yaml) { "yaml" } else { "json" };
    let directory = flags.text("output-directory");
    let place = |name: &str| -> Option<PathBuf> {
        (!matches!(directory, "" | "-")).then(|| Path::new(directory).join(format!("{name}.{ending}")))
    };
    let client = context.client().await?;
    let nodes = client.get("/api/v1/nodes", &[]).await?;
    put(place("nodes"), &format.show(&nodes, false)?)?;
    let namespaces: Vec<String> = if flags.on("all-namespaces") {
        let all = client.get("/api/v1/namespaces", &[]).await?;
        list(&all, "/items").iter().map(|namespace| object::name(namespace).to_owned()).collect()
    } else if flags.given("namespaces") {
        flags.list("namespaces")
    } else {
        vec!["kube-system".to_owned(), context.namespace().await?.0]
    };
    for namespace in &namespaces {
        let mut pods = Value::Null;
        for (file, plural) in KINDS {
            // What a small cluster does not serve it does not have.
            let Ok(mapping) = context.resource(plural).await else { continue };
            let found = client.get(&mapping.collection(namespace), &[]).await?;
            put(place(&format!("{namespace}/{file}")), &format.show(&found, false)?)?;
            pods = found;
        }
        for pod in list(&pods, "/items") {
            logs(context, pod, directory).await?;
        }
    }
    if !matches!(directory, "" | "-") {
        out(&format!("Cluster info dumped to {directory}\n"));
    }
    Ok(())
}

async fn logs(context: &Context, pod: &Value, directory: &str) -> Outcome {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    let path = format!("{}/log", context.resource("pods").await?.object(namespace, name));
    let to_files = !matches!(directory, "" | "-");
    let mut text = String::new();
    for container in list(pod, "/spec/containers") {
        let container = object::text(container, "/name");
        let query = [("container", container)];
        let log = context.client().await?.bytes(Method::GET, &path, &query, None, "*/*").await;
        let log = match log {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("Request log error: {}\n", error.text()),
        };
        text.push_str(&format!(
            "==== START logs for container {container} of pod {namespace}/{name} ====\n{log}==== END logs for container {container} of pod {namespace}/{name} ====\n"
        ));
    }
    let file = Path::new(directory).join(namespace).join(name).join("logs.txt");
    put(to_files.then_some(file), &text)
}

fn put(file: Option<PathBuf>, text: &str) -> Outcome {
    let Some(file) = file else {
        out(text);
        return Ok(());
    };
    let write = || {
        std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(&file, text)
    };
    write().or_else(|error: std::io::Error| {
        fail(format!("{}: {}", file.display(), crate::failure::io_text(&error)))
    })
}
