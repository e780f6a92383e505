//! Nodes.

use super::{Writer, date, events_of};
use crate::context::Context;
use crate::failure::Outcome;
use crate::object::{self, list, text};
use crate::printers::table::age;
use sagong_api::quantity::Amount;
use serde_json::Value;
use std::collections::BTreeMap;

/// Describes a node.
pub(super) async fn describe(context: &Context, node: &Value, writer: &mut Writer) -> Outcome {
    writer.field(0, "Name", object::name(node));
    let labels = object::labels(node);
    let mut roles: Vec<&str> = labels
        .keys()
        .filter_map(|key| key.strip_prefix("node-role.kubernetes.io/"))
        .filter(|r| !r.is_empty())
        .collect();
    roles.sort_unstable();
    writer.field(0, "Roles", super::or_none(&roles.join(",")));
    writer.labels("Labels", &labels);
    writer.annotations("Annotations", &object::strings(node, "/metadata/annotations"));
    writer.field(0, "CreationTimestamp", date(text(node, "/metadata/creationTimestamp")));
    taints(writer, list(node, "/spec/taints"));
    writer.field(0, "Unschedulable", node["spec"]["unschedulable"] == true);
    lease(context, node, writer).await;
    conditions(writer, node);
    writer.line(0, "Addresses:");
    for address in list(node, "/status/addresses") {
        writer.field(1, text(address, "/type"), text(address, "/address"));
    }
    for (label, field) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        let all = object::strings(node, field);
        if !all.is_empty() {
            writer.line(0, &format!("{label}:"));
            all.iter().for_each(|(name, value)| writer.field(1, name, value));
        }
    }
    writer.line(0, "System Info:");
    for (label, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        writer.field(1, label, text(node, &format!("/status/nodeInfo/{field}")));
    }
    if !text(node, "/spec/podCIDR").is_empty() {
        writer.field(0, "PodCIDR", text(node, "/spec/podCIDR"));
    }
    let cidrs: Vec<&str> = list(node, "/spec/podCIDRs").iter().filter_map(Value::as_str).collect();
    if !cidrs.is_empty() {
        writer.field(0, "PodCIDRs", cidrs.join(","));
    }
    if !text(node, "/spec/providerID").is_empty() {
        writer.field(0, "ProviderID", text(node, "/spec/providerID"));
    }
    pods(context, node, writer).await?;
    let events = events_of(context, node, Some("Node"), object::name(node)).await?;
    writer.events(events.as_deref());
    Ok(())
}

fn taints(writer: &mut Writer, taints: &[Value]) {
    writer.put(0, "Taints:\t");
    if taints.is_empty() {
        writer.line(0, "<none>");
    }
    for (index, taint) in taints.iter().enumerate() {
        if index > 0 {
            writer.put(0, "\t");
        }
        let value = text(taint, "/value");
        let value = if value.is_empty() { String::new() } else { format!("={value}") };
        writer.line(0, &format!("{}{value}:{}", text(taint, "/key"), text(taint, "/effect")));
    }
}

async fn lease(context: &Context, node: &Value, writer: &mut Writer) {
    let path =
        format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", object::name(node));
    let lease = match context.client().await {
        Ok(client) => client.get(&path, &[]).await,
        Err(error) => Err(error),
    };
    match lease {
        Ok(lease) => {
            let time = |field| match text(&lease, field) {
                "" => "<unset>".to_owned(),
                time => date(time),
            };
            writer.line(0, "Lease:");
            writer.field(1, "HolderIdentity", text(&lease, "/spec/holderIdentity"));
            writer.field(1, "AcquireTime", time("/spec/acquireTime"));
            writer.field(1, "RenewTime", time("/spec/renewTime"));
        }
        Err(error) => writer.field(0, "Lease", format!("Failed to get lease: {}", error.text())),
    }
}

fn conditions(writer: &mut Writer, node: &Value) {
    let conditions = list(node, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    writer.line(0, "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    writer.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for c in conditions {
        writer.line(
            1,
            &format!(
                "{} \t{} \t{} \t{} \t{} \t{}",
                text(c, "/type"),
                text(c, "/status"),
                date(text(c, "/lastHeartbeatTime")),
                date(text(c, "/lastTransitionTime")),
                text(c, "/reason"),
                text(c, "/message")
            ),
        );
    }
}

/// Requests and limits of a pod or several, in milli-units.
type Sums = BTreeMap<(&'static str, &'static str), i64>;

const KINDS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

fn sums(pods: &[&Value]) -> Sums {
    let mut sums = Sums::new();
    for container in pods.iter().flat_map(|pod| list(pod, "/spec/containers")) {
        for part in ["requests", "limits"] {
            for name in KINDS {
                let value = text(container, &format!("/resources/{part}/{name}"));
                *sums.entry((part, name)).or_default() += millis(value);
            }
        }
    }
    sums
}

fn millis(text: &str) -> i64 {
    text.parse::<Amount>().map_or(0, Amount::millis)
}

fn show(name: &str, millis: i64) -> String {
    if millis == 0 {
        return "0".into();
    }
    if name == "cpu" {
        return if millis % 1000 == 0 { (millis / 1000).to_string() } else { format!("{millis}m") };
    }
    let units = millis / 1000;
    for (suffix, size) in [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if units % size == 0 {
            return format!("{}{suffix}", units / size);
        }
    }
    units.to_string()
}

async fn pods(context: &Context, node: &Value, writer: &mut Writer) -> Outcome {
    let fields = format!("spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed", object::name(node));
    let pods = context.client().await?.get("/api/v1/pods", &[("fieldSelector", fields.as_str())]).await?;
    let pods: Vec<&Value> = list(&pods, "/items").iter().collect();
    let size = |name: &str| match millis(text(node, &format!("/status/allocatable/{name}"))) {
        0 => millis(text(node, &format!("/status/capacity/{name}"))),
        size => size,
    };
    let cell = |sums: &Sums, part: &'static str, name: &'static str| {
        let value = sums.get(&(part, name)).copied().unwrap_or(0);
        let percent = if size(name) == 0 { 0 } else { (value as f64 / size(name) as f64 * 100.0) as i64 };
        format!("{} ({percent}%)", show(name, value))
    };
    writer.field(0, "Non-terminated Pods", format!("({} in total)", pods.len()));
    writer.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    writer.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    for pod in &pods {
        let own = sums(&[pod]);
        writer.line(
            1,
            &format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}",
                object::namespace(pod),
                object::name(pod),
                cell(&own, "requests", "cpu"),
                cell(&own, "limits", "cpu"),
                cell(&own, "requests", "memory"),
                cell(&own, "limits", "memory"),
                age(text(pod, "/metadata/creationTimestamp"))
            ),
        );
    }
    writer.line(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)");
    writer.line(1, "Resource\tRequests\tLimits");
    writer.line(1, "--------\t--------\t------");
    let all = sums(&pods);
    for name in KINDS {
        writer.line(1, &format!("{name}\t{}\t{}", cell(&all, "requests", name), cell(&all, "limits", name)));
    }
    let mut others: Vec<String> = object::strings(node, "/status/allocatable").into_keys().collect();
    others.retain(|name| name.starts_with("hugepages-"));
    for name in others {
        writer.line(1, &format!("{name}\t0 (0%)\t0 (0%)"));
    }
    Ok(())
}
