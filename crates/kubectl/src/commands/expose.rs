//! `expose`: a service for what runs already.

use crate::builder::{self, Builder, Info};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::object;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write;
use sagong_api::patch;
use serde_json::{Map, Value, json};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        DRY_RUN,
        write::RECORD,
        write::SAVE_CONFIG,
        write::manager("kubectl-expose"),
        flag("name", Takes::Text, "", "Name of the service"),
        flag("port", Takes::Text, "", "Port of the service"),
        flag("target-port", Takes::Text, "", "Port of the containers"),
        flag("protocol", Takes::Text, "", "TCP, UDP or SCTP"),
        flag("type", Takes::Text, "", "ClusterIP, NodePort, LoadBalancer or ExternalName"),
        flag("selector", Takes::Text, "", "Labels of the pods"),
        short("labels", 'l', Takes::Text, "", "Labels of the service"),
        flag("cluster-ip", Takes::Text, "", "Address of the service"),
        flag("external-ip", Takes::Text, "", "An address from outside"),
        flag("load-balancer-ip", Takes::Text, "", "Address of the balancer"),
        flag("session-affinity", Takes::Text, "", "None or ClientIP"),
        flag("overrides", Takes::Text, "", "JSON to put over the object"),
        flag("override-type", Takes::Text, "merge", "How: json, merge or strategic"),
    ],
];

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let teller = Teller::from_flags(context)?;
    let mut builder = Builder::new(context, &context.flags.args);
    builder.selector = None;
    builder.latest = true;
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    for info in found.infos {
        if let Err(error) = one(context, &teller, info).await {
            failures.push(error);
        }
    }
    Failure::aggregate(failures)
}

async fn one(context: &Context, teller: &Teller, info: Info) -> Outcome {
    let flags = &context.flags;
    let object = &info.object;
    if !matches!(
        info.mapping.kind.as_str(),
        "Pod" | "Service" | "ReplicationController" | "Deployment" | "ReplicaSet"
    ) {
        let group =
            if info.mapping.group.is_empty() { String::new() } else { format!(".{}", info.mapping.group) };
        return fail(format!("cannot expose a {}{group}", info.mapping.kind));
    }
    let selector = match flags.text("selector") {
        "" => selector_of(object)?,
        text => parse_labels(text)?,
    };
    let ports = ports_of(object);
    let given = flags.text("port");
    let numbers: Vec<(i64, String)> = if given.is_empty() {
        ports.clone()
    } else {
        let mut all = Vec::new();
        for port in given.split(',') {
            let Ok(port) = port.parse::<i64>() else {
                return fail(format!("strconv.Atoi: parsing \"{port}\": invalid syntax"));
            };
            let known =
                ports.iter().find(|(number, _)| *number == port).map(|(_, protocol)| protocol.clone());
            all.push((port, known.unwrap_or_else(|| "TCP".into())));
        }
        all
    };
    if numbers.is_empty() {
        return fail("couldn't find port via --port flag or introspection");
    }
    let many = numbers.len() > 1;
    let mut entries = Vec::new();
    for (index, (port, protocol)) in numbers.iter().enumerate() {
        let protocol =
            if flags.text("protocol").is_empty() { protocol.as_str() } else { flags.text("protocol") };
        let target = match flags.text("target-port") {
            "" => json!(port),
            text => text.parse::<i64>().map_or_else(|_| json!(text), Value::from),
        };
        let mut entry = json!({"port": port, "protocol": protocol, "targetPort": target});
        if many {
            entry["name"] = format!("port-{}", index + 1).into();
        }
        entries.push(entry);
    }
    let name = if flags.text("name").is_empty() { info.name.as_str() } else { flags.text("name") };
    let labels = match flags.text("labels") {
        "" => json!(object::labels(object)),
        text => Value::Object(parse_labels(text)?),
    };
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "creationTimestamp": null},
        "spec": {"ports": entries, "selector": selector}, "status": {"loadBalancer": {}},
    });
    if labels.as_object().is_some_and(|l| !l.is_empty()) {
        service["metadata"]["labels"] = labels;
    }
    for (flag, field) in
        [("type", "type"), ("cluster-ip", "clusterIP"), ("session-affinity", "sessionAffinity")]
    {
        if !flags.text(flag).is_empty() {
            service["spec"][field] = flags.text(flag).into();
        }
    }
    if service["spec"]["type"] == "LoadBalancer" && !flags.text("load-balancer-ip").is_empty() {
        service["spec"]["loadBalancerIP"] = flags.text("load-balancer-ip").into();
    }
    if !flags.text("external-ip").is_empty() {
        service["spec"]["externalIPs"] = json!([flags.text("external-ip")]);
    }
    service = overridden(context, service)?;
    write::record(context, &mut service);
    let (namespace, explicit) = context.namespace().await?;
    if teller.dry_run != DryRun::Client || explicit {
        service["metadata"]["namespace"] = namespace.clone().into();
    }
    let mapping = context.resource("services").await?;
    let info = Info { mapping, namespace, name: name.into(), object: service, source: String::new() };
    if teller.dry_run == DryRun::Client {
        return teller.tell_built(&info.object, "exposed");
    }
    let created = write::create(context, &info, &teller.query(flags.text("field-manager"))).await?;
    teller.tell_built(&created, "exposed")
}

/// What `--overrides` makes of an object, by `--override-type`.
///
/// # Errors
/// The override does not fit, or there is no such type.
pub(crate) fn overridden(context: &Context, object: Value) -> Outcome<Value> {
    let flags = &context.flags;
    let (text, kind) = (flags.text("overrides"), flags.text("override-type"));
    if !matches!(kind, "json" | "merge" | "strategic") {
        return fail(format!("invalid override type: {kind}"));
    }
    if text.is_empty() {
        return Ok(object);
    }
    let invalid = || Failure::Message("Invalid JSON Patch".into());
    let changed = match kind {
        "json" => patch::json(&object, text.as_bytes()),
        "merge" => patch::merge(&object, text.as_bytes()),
        _ => {
            let (version, name) = (object::text(&object, "/apiVersion"), object::text(&object, "/kind"));
            let known = super::patch::served(version, name).ok_or_else(invalid)?;
            patch::strategic(&known, object, text.as_bytes())
        }
    };
    changed.map_err(|_| invalid())
}

fn selector_of(object: &Value) -> Outcome<Map<String, Value>> {
    let selector = match object::text(object, "/kind") {
        "Pod" => &object["metadata"]["labels"],
        "Deployment" | "ReplicaSet" => {
            if !object::list(object, "/spec/selector/matchExpressions").is_empty() {
                return fail(
                    "couldn't retrieve selectors via --selector flag or introspection: couldn't convert expressions - \"matchExpressions\" to map-based selector format",
                );
            }
            &object["spec"]["selector"]["matchLabels"]
        }
        _ => &object["spec"]["selector"],
    };
    match selector.as_object() {
        Some(labels) if !labels.is_empty() => Ok(labels.clone()),
        _ if object["kind"] == "Pod" => fail(
            "couldn't retrieve selectors via --selector flag or introspection: the pod has no labels and cannot be exposed",
        ),
        _ => fail(format!(
            "couldn't retrieve selectors via --selector flag or introspection: the {} has no pod selector set",
            object::text(object, "/kind").to_lowercase()
        )),
    }
}

/// Port and protocol of every container port, or of a service.
fn ports_of(object: &Value) -> Vec<(i64, String)> {
    let entries: Vec<&Value> = if object["kind"] == "Service" {
        object::list(object, "/spec/ports").iter().collect()
    } else {
        let spec = write::pod_spec(object).unwrap_or("/spec");
        object::list(object, &format!("{spec}/containers"))
            .iter()
            .flat_map(|c| object::list(c, "/ports"))
            .collect()
    };
    let field = if object["kind"] == "Service" { "/port" } else { "/containerPort" };
    entries
        .iter()
        .map(|entry| (object::number(entry, field), entry["protocol"].as_str().unwrap_or("TCP").to_owned()))
        .collect()
}

/// `a=b,c=d`.
///
/// # Errors
/// It is not of that form.
pub(crate) fn parse_labels(text: &str) -> Outcome<Map<String, Value>> {
    let mut labels = Map::new();
    for part in text.split(',') {
        let Some((key, value)) = part.split_once('=') else {
            return fail(format!("unexpected label spec: {part}"));
        };
        if key.is_empty() {
            return fail("unexpected empty label key");
        }
        labels.insert(key.into(), value.into());
    }
    Ok(labels)
}
