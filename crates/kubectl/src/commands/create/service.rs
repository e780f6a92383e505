//! `create service …`.

use super::{GENERATOR, generated, one_name};
use crate::context::Context;
use crate::failure::{Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag};
use crate::printers::PRINT;
use serde_json::{Value, json};

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
    if kind == "ExternalName" {
        super::required(context, &["external-name"])?;
    }
    let name = one_name(context)?;
    let tcp = flags.list("tcp");
    let cluster_ip = flags.text("clusterip");
    if tcp.is_empty() && cluster_ip != "None" && kind != "ExternalName" {
        return fail("at least one tcp port specifier must be provided");
    }
    if kind == "ExternalName" && !sagong_api::name::dns1123_subdomain(flags.text("external-name")).is_empty()
    {
        return fail(format!("invalid service external name {}", flags.text("external-name")));
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
    let mut parts = spec.split(':');
    let port = parts.next().unwrap_or_default();
    let target = parts.next().unwrap_or(port);
    let number = match port.parse::<u64>() {
        Ok(number) if number <= 65535 => number,
        Ok(_) => return fail(format!("strconv.ParseUint: parsing {}: value out of range", quote(port))),
        Err(_) => return fail(format!("strconv.ParseUint: parsing {}: invalid syntax", quote(port))),
    };
    let target = match target.parse::<i64>() {
        Ok(number) if (1..=65535).contains(&number) || target == port => number.into(),
        Ok(_) => return fail("must be between 1 and 65535, inclusive"),
        Err(_) => target.into(),
    };
    Ok((number as i64, target))
}
