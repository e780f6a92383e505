//! Services and their endpoints.

use super::{Writer, events, or_none};
use crate::context::Context;
use crate::failure::Outcome;
use crate::object::{self, list, number, text};
use crate::printers::go_template::go_value;
use serde_json::Value;

/// Describes a service.
pub(super) async fn service(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.head(object);
    let spec = &object["spec"];
    writer.field(0, "Selector", or_none(&object::joined(&object::strings(spec, "/selector"))));
    writer.field(0, "Type", text(spec, "/type"));
    if !text(spec, "/ipFamilyPolicy").is_empty() {
        writer.field(0, "IP Family Policy", text(spec, "/ipFamilyPolicy"));
    }
    let joined =
        |pointer: &str| list(spec, pointer).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    writer.field(0, "IP Families", or_none(&joined("/ipFamilies")));
    writer.field(0, "IP", text(spec, "/clusterIP"));
    writer.field(0, "IPs", or_none(&joined("/clusterIPs")));
    for (label, value) in [
        ("External IPs", joined("/externalIPs")),
        ("Desired LoadBalancer IP", text(spec, "/loadBalancerIP").to_owned()),
        ("External Name", text(spec, "/externalName").to_owned()),
        ("LoadBalancer Ingress", ingress(object)),
    ] {
        if !value.is_empty() {
            writer.field(0, label, value);
        }
    }
    let slices = context.resource("endpointslices").await?.collection(object::namespace(object));
    let selector = format!("kubernetes.io/service-name={}", object::name(object));
    let slices = context.client().await?.get(&slices, &[("labelSelector", selector.as_str())]).await;
    let slices = slices.unwrap_or_default();
    for port in list(spec, "/ports") {
        let name = match text(port, "/name") {
            "" => "<unset>",
            name => name,
        };
        let protocol = text(port, "/protocol");
        writer.field(0, "Port", format!("{name}\t{}/{protocol}", number(port, "/port")));
        writer.field(0, "TargetPort", format!("{}/{protocol}", go_value(&port["targetPort"])));
        if !text(port, "/appProtocol").is_empty() {
            writer.field(0, "AppProtocol", text(port, "/appProtocol"));
        }
        if number(port, "/nodePort") != 0 {
            writer.field(0, "NodePort", format!("{name}\t{}/{protocol}", number(port, "/nodePort")));
        }
        writer.field(0, "Endpoints", addresses(list(&slices, "/items"), text(port, "/name")));
    }
    writer.field(0, "Session Affinity", text(spec, "/sessionAffinity"));
    for (label, field) in [
        ("External Traffic Policy", "/externalTrafficPolicy"),
        ("Internal Traffic Policy", "/internalTrafficPolicy"),
    ] {
        if !text(spec, field).is_empty() {
            writer.field(0, label, text(spec, field));
        }
    }
    if number(spec, "/healthCheckNodePort") != 0 {
        writer.field(0, "HealthCheck NodePort", number(spec, "/healthCheckNodePort"));
    }
    let ranges = joined("/loadBalancerSourceRanges");
    if !ranges.is_empty() {
        writer.field(0, "LoadBalancer Source Ranges", ranges);
    }
    if !text(spec, "/trafficDistribution").is_empty() {
        writer.field(0, "Traffic Distribution", text(spec, "/trafficDistribution"));
    }
    writer.events(events(context, object, true).await?.as_deref());
    Ok(())
}

fn ingress(object: &Value) -> String {
    let each = list(object, "/status/loadBalancer/ingress").iter().map(|entry| {
        let (ip, mode) = (text(entry, "/ip"), text(entry, "/ipMode"));
        match (ip, mode) {
            ("", _) => text(entry, "/hostname").to_owned(),
            (ip, "") => ip.to_owned(),
            (ip, mode) => format!("{ip} ({mode})"),
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Ready addresses with their port, three at most.
fn addresses(slices: &[Value], port_name: &str) -> String {
    let mut all = Vec::new();
    for slice in slices {
        let ports = list(slice, "/ports");
        for port in ports.iter().filter(|port| text(port, "/name") == port_name) {
            for endpoint in list(slice, "/endpoints") {
                if endpoint["conditions"]["ready"] == false {
                    continue;
                }
                for address in list(endpoint, "/addresses").iter().filter_map(Value::as_str) {
                    all.push(format!("{address}:{}", number(port, "/port")));
                }
            }
        }
    }
    if all.is_empty() {
        // Without slices there is nothing to say; with slices, nothing is ready.
        return if slices.is_empty() { "<none>".into() } else { String::new() };
    }
    let more = all.len().saturating_sub(3);
    let text = all[..all.len().min(3)].join(",");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

/// Describes endpoints.
pub(super) async fn endpoints(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.head(object);
    writer.line(0, "Subsets:");
    for subset in list(object, "/subsets") {
        for (label, field) in [("Addresses", "/addresses"), ("NotReadyAddresses", "/notReadyAddresses")] {
            let ips: Vec<&str> = list(subset, field).iter().map(|address| text(address, "/ip")).collect();
            writer.field(1, label, or_none(&ips.join(",")));
        }
        let ports = list(subset, "/ports");
        if !ports.is_empty() {
            writer.line(1, "Ports:");
            writer.line(2, "Name\tPort\tProtocol");
            writer.line(2, "----\t----\t--------");
            for port in ports {
                let name = match text(port, "/name") {
                    "" => "<unset>",
                    name => name,
                };
                writer.line(2, &format!("{name}\t{}\t{}", number(port, "/port"), text(port, "/protocol")));
            }
        }
        writer.line(0, "");
    }
    writer.events(events(context, object, true).await?.as_deref());
    Ok(())
}

/// Describes an endpoint slice.
pub(super) async fn slice(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.head(object);
    writer.field(0, "AddressType", text(object, "/addressType"));
    let unset = |text: &str| if text.is_empty() { "<unset>".to_owned() } else { text.to_owned() };
    let ports = list(object, "/ports");
    if ports.is_empty() {
        writer.line(0, "Ports: <unset>");
    } else {
        writer.line(0, "Ports:");
        writer.line(1, "Name\tPort\tProtocol");
        writer.line(1, "----\t----\t--------");
        for port in ports {
            let number = port["port"].as_i64().map_or("<unset>".to_owned(), |n| n.to_string());
            writer.line(1, &format!("{}\t{number}\t{}", unset(text(port, "/name")), text(port, "/protocol")));
        }
    }
    let endpoints = list(object, "/endpoints");
    writer.line(0, if endpoints.is_empty() { "Endpoints: <none>" } else { "Endpoints:" });
    for endpoint in endpoints {
        let addresses: Vec<&str> = list(endpoint, "/addresses").iter().filter_map(Value::as_str).collect();
        writer.field(1, "- Addresses", or_none(&addresses.join(", ")));
        writer.line(2, "Conditions:");
        let ready = endpoint["conditions"]["ready"].as_bool().map_or("<unset>".to_owned(), |b| b.to_string());
        writer.field(3, "Ready", ready);
        writer.field(2, "Hostname", unset(text(endpoint, "/hostname")));
        if endpoint["targetRef"].is_object() {
            let target = &endpoint["targetRef"];
            writer.field(2, "TargetRef", format!("{}/{}", text(target, "/kind"), text(target, "/name")));
        }
        writer.field(2, "NodeName", unset(text(endpoint, "/nodeName")));
        writer.field(2, "Zone", unset(text(endpoint, "/zone")));
    }
    writer.events(events(context, object, true).await?.as_deref());
    Ok(())
}
