//! `create ingress`.

use super::{GENERATOR, generated, one_name};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::printers::PRINT;
use crate::write;
use serde_json::{Value, json};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("class", Takes::Text, "", "The ingress class"),
        flag("rule", Takes::Array, "[]", "HOST/PATH=SERVICE:PORT[,tls[=SECRET]]"),
        flag("default-backend", Takes::Text, "", "SERVICE:PORT for all else"),
        flag("annotation", Takes::Array, "[]", "KEY=VALUE"),
    ],
];

/// One `--rule`.
struct Rule<'a> {
    host: &'a str,
    path: String,
    path_type: &'static str,
    service: &'a str,
    port: &'a str,
    /// The secret's name, perhaps empty; None without TLS.
    tls: Option<&'a str>,
}

/// Runs it.
///
/// # Errors
/// As all generators.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let (specs, backend) = (flags.list("rule"), flags.text("default-backend"));
    if specs.is_empty() && backend.is_empty() {
        return fail(
            "not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)",
        );
    }
    let mut rules = Vec::new();
    for spec in &specs {
        let Some(rule) = parse(spec) else {
            return fail(format!(
                "rule {spec} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
            ));
        };
        rules.push(rule);
    }
    let mut object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "creationTimestamp": null}, "spec": spec(&rules),
        "status": {"loadBalancer": {}},
    });
    for annotation in flags.list("annotation") {
        let Some((key, value)) = annotation.split_once('=') else {
            return fail(format!("annotation {annotation} is invalid and should be in format key=[value]"));
        };
        write::annotate(&mut object, key, value);
    }
    if !backend.is_empty() {
        let (service, port) = backend
            .split_once(':')
            .filter(|(s, p)| !s.is_empty() && !p.is_empty())
            .ok_or(Failure::Message("default-backend should be in format servicename:serviceport".into()))?;
        object["spec"]["defaultBackend"] = to(service, port);
    }
    if !flags.text("class").is_empty() {
        object["spec"]["ingressClassName"] = flags.text("class").into();
    }
    generated(context, object, "ingress: ").await
}

fn parse(spec: &str) -> Option<Rule<'_>> {
    let (left, right) = spec.split_once('=')?;
    let (host, path) = left.split_once('/')?;
    let (backend, tls) = match right.split_once(',') {
        // Anything behind the comma asks for TLS.
        Some((backend, tls)) => (backend, Some(tls.split_once('=').map_or("", |(_, secret)| secret))),
        None => (right, None),
    };
    let (service, port) = backend.split_once(':')?;
    if service.is_empty() || port.is_empty() {
        return None;
    }
    let path = format!("/{path}");
    let (path, path_type) = match path.strip_suffix('*') {
        Some(prefix) => (prefix.to_owned(), "Prefix"),
        None => (path, "Exact"),
    };
    Some(Rule { host, path, path_type, service, port, tls })
}

fn to(service: &str, port: &str) -> Value {
    let port = match port.parse::<i64>() {
        Ok(number) => json!({"number": number}),
        Err(_) => json!({"name": port}),
    };
    json!({"service": {"name": service, "port": port}})
}

/// Rules by host in the order in which hosts come first; TLS by secret and host likewise.
fn spec(rules: &[Rule<'_>]) -> Value {
    let mut hosts: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut secrets: Vec<(&str, Vec<&str>)> = Vec::new();
    for rule in rules {
        let path = json!({
            "path": rule.path, "pathType": rule.path_type, "backend": to(rule.service, rule.port),
        });
        match hosts.iter_mut().find(|(host, _)| *host == rule.host) {
            Some((_, paths)) => paths.push(path),
            None => hosts.push((rule.host, vec![path])),
        }
        let Some(secret) = rule.tls else { continue };
        match secrets.iter_mut().find(|(known, _)| *known == secret) {
            Some((_, hosts)) if hosts.contains(&rule.host) => {}
            Some((_, hosts)) => hosts.push(rule.host),
            None => secrets.push((secret, vec![rule.host])),
        }
    }
    let mut spec = json!({});
    if !hosts.is_empty() {
        let rule = |(host, paths): (&str, Vec<Value>)| {
            let mut rule = json!({"http": {"paths": paths}});
            if !host.is_empty() {
                rule["host"] = host.into();
            }
            rule
        };
        spec["rules"] = hosts.into_iter().map(rule).collect();
    }
    if !secrets.is_empty() {
        let entry = |(secret, hosts): (&str, Vec<&str>)| {
            let hosts: Vec<&str> = hosts.into_iter().filter(|host| !host.is_empty()).collect();
            let mut entry = json!({});
            if !hosts.is_empty() {
                entry["hosts"] = json!(hosts);
            }
            if !secret.is_empty() {
                entry["secretName"] = secret.into();
            }
            entry
        };
        spec["tls"] = secrets.into_iter().map(entry).collect();
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("foo.com/bar=svc:80", "foo.com /bar Exact svc:80 None")]
    #[case("foo.com/*=svc:http,tls", "foo.com / Prefix svc:http Some(\"\")")]
    #[case("/=svc:1,tls=s", " / Exact svc:1 Some(\"s\")")]
    #[case("foo.com=svc:80", "")]
    #[case("foo.com/=svc", "")]
    #[case("foo", "")]
    fn rules_are_read_as_kubectl_reads_them(#[case] text: &str, #[case] expected: &str) {
        let shown = |rule: Rule<'_>| {
            let Rule { host, path, path_type, service, port, tls } = rule;
            format!("{host} {path} {path_type} {service}:{port} {tls:?}")
        };
        assert_eq!(parse(text).map_or(String::new(), shown), expected);
    }
}
