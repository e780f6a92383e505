//! Containers, probes, volumes and pod templates.

use super::{Writer, date};
use crate::failure::quote;
use crate::object::{self, list, number, text};
use crate::printers::go_template::go_value;
use serde_json::Value;

/// `Containers:` and all of them. `indent` is that of pod templates; `pod` resolves field references.
pub(crate) fn containers(
    writer: &mut Writer,
    label: &str,
    containers: &[Value],
    statuses: &[Value],
    pod: Option<&Value>,
    indent: &str,
) {
    let none = if containers.is_empty() { " <none>" } else { "" };
    writer.line(0, &format!("{indent}{label}:{none}"));
    for container in containers {
        let status = statuses.iter().find(|status| status["name"] == container["name"]);
        one(writer, container, status, pod, indent);
    }
}

fn one(writer: &mut Writer, container: &Value, status: Option<&Value>, pod: Option<&Value>, indent: &str) {
    let gap = if indent.is_empty() { "" } else { " " };
    writer.line(1, &format!("{gap}{}:", text(container, "/name")));
    if let Some(status) = status {
        writer.field(2, "Container ID", text(status, "/containerID"));
    }
    writer.field(2, "Image", text(container, "/image"));
    if let Some(status) = status {
        writer.field(2, "Image ID", text(status, "/imageID"));
    }
    for (label, field, always) in [("Port", "/containerPort", true), ("Host Port", "/hostPort", false)] {
        let ports: Vec<String> = list(container, "/ports")
            .iter()
            .map(|port| format!("{}/{}", number(port, field), port["protocol"].as_str().unwrap_or("TCP")))
            .collect();
        let _ = always;
        let shown = if field == "/hostPort" || !ports.is_empty() { ports.join(", ") } else { String::new() };
        let plural = if ports.len() > 1 { "s" } else { "" };
        writer.field(2, &format!("{label}{plural}"), super::or_none(&shown));
    }
    for (label, field) in [("Command", "/command"), ("Args", "/args")] {
        let words = list(container, field);
        if !words.is_empty() {
            writer.line(2, &format!("{label}:"));
            for word in words {
                for part in word.as_str().unwrap_or_default().split('\n') {
                    writer.line(3, part);
                }
            }
        }
    }
    if let Some(status) = status {
        state(writer, "State", &status["state"]);
        if status["lastState"]["terminated"].is_object() {
            state(writer, "Last State", &status["lastState"]);
        }
        writer.field(2, "Ready", if status["ready"] == true { "True" } else { "False" });
        writer.field(2, "Restart Count", number(status, "/restartCount"));
    }
    for (label, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let entries = object::strings(container, &format!("/resources/{field}"));
        if !entries.is_empty() {
            writer.line(2, &format!("{label}:"));
            entries.iter().for_each(|(name, value)| writer.field(3, name, value));
        }
    }
    for (label, field) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if container[field].is_object() {
            writer.field(2, label, probe(&container[field]));
        }
    }
    environment(writer, container, pod);
    mounts(writer, container);
}

fn state(writer: &mut Writer, label: &str, state: &Value) {
    if state["running"].is_object() {
        writer.field(2, label, "Running");
        writer.field(3, "Started", date(text(state, "/running/startedAt")));
    } else if state["terminated"].is_object() {
        let end = &state["terminated"];
        writer.field(2, label, "Terminated");
        for (label, field) in [("Reason", "/reason"), ("Message", "/message")] {
            if !text(end, field).is_empty() {
                writer.field(3, label, text(end, field));
            }
        }
        writer.field(3, "Exit Code", number(end, "/exitCode"));
        if number(end, "/signal") > 0 {
            writer.field(3, "Signal", number(end, "/signal"));
        }
        writer.field(3, "Started", date(text(end, "/startedAt")));
        writer.field(3, "Finished", date(text(end, "/finishedAt")));
    } else {
        writer.field(2, label, "Waiting");
        let reason = text(state, "/waiting/reason");
        if !reason.is_empty() {
            writer.field(3, "Reason", reason);
        }
    }
}

fn probe(probe: &Value) -> String {
    let n = |field: &str, default: i64| probe.get(field).and_then(Value::as_i64).unwrap_or(default);
    let attributes = format!(
        "delay={}s timeout={}s period={}s successThreshold={} failureThreshold={}",
        n("initialDelaySeconds", 0),
        n("timeoutSeconds", 0),
        n("periodSeconds", 0),
        n("successThreshold", 0),
        n("failureThreshold", 0)
    );
    if probe["exec"].is_object() {
        return format!("exec {} {attributes}", go_value(&probe["exec"]["command"]));
    }
    if probe["httpGet"].is_object() {
        let get = &probe["httpGet"];
        return format!(
            "http-get {}://{}:{}{} {attributes}",
            text(get, "/scheme").to_lowercase(),
            text(get, "/host"),
            go_value(&get["port"]),
            text(get, "/path")
        );
    }
    if probe["tcpSocket"].is_object() {
        let socket = &probe["tcpSocket"];
        return format!("tcp-socket {}:{} {attributes}", text(socket, "/host"), go_value(&socket["port"]));
    }
    if probe["grpc"].is_object() {
        return format!(
            "grpc <pod>:{} {} {attributes}",
            number(probe, "/grpc/port"),
            text(probe, "/grpc/service")
        );
    }
    format!("unknown {attributes}")
}

fn environment(writer: &mut Writer, container: &Value, pod: Option<&Value>) {
    let sources = list(container, "/envFrom");
    if !sources.is_empty() {
        writer.line(2, "Environment Variables from:");
        for source in sources {
            let (from, field) = if source["configMapRef"].is_object() {
                ("ConfigMap", "configMapRef")
            } else {
                ("Secret", "secretRef")
            };
            let prefix = text(source, "/prefix");
            let with = if prefix.is_empty() { String::new() } else { format!(" with prefix '{prefix}'") };
            let optional = source[field]["optional"] == true;
            writer.line(
                3,
                &format!(
                    "{}\t{from}{with}\tOptional: {optional}",
                    source[field]["name"].as_str().unwrap_or_default()
                ),
            );
        }
    }
    let entries = list(container, "/env");
    writer.line(2, if entries.is_empty() { "Environment:\t<none>" } else { "Environment:" });
    for entry in entries {
        let name = text(entry, "/name");
        let from = &entry["valueFrom"];
        if from["fieldRef"].is_object() {
            let path = text(from, "/fieldRef/fieldPath");
            let value = pod.map(|pod| resolve(pod, path)).unwrap_or_default();
            writer.field(3, name, format!("{value} ({}:{path})", text(from, "/fieldRef/apiVersion")));
        } else if from["resourceFieldRef"].is_object() {
            let resource = text(from, "/resourceFieldRef/resource");
            let pointer = format!("/resources/{}", resource.replacen('.', "/", 1));
            let value = match text(container, &pointer) {
                "" if resource.starts_with("limits") => "node allocatable",
                "" => "0",
                value => value,
            };
            writer.field(3, name, format!("{value} ({resource})"));
        } else if from["secretKeyRef"].is_object() {
            let key = &from["secretKeyRef"];
            writer.field(
                3,
                name,
                format!(
                    "<set to the key '{}' in secret '{}'>\tOptional: {}",
                    text(key, "/key"),
                    text(key, "/name"),
                    key["optional"] == true
                ),
            );
        } else if from["configMapKeyRef"].is_object() {
            let key = &from["configMapKeyRef"];
            writer.field(
                3,
                name,
                format!(
                    "<set to the key '{}' of config map '{}'>\tOptional: {}",
                    text(key, "/key"),
                    text(key, "/name"),
                    key["optional"] == true
                ),
            );
        } else {
            for (index, part) in text(entry, "/value").split('\n').enumerate() {
                if index == 0 { writer.field(3, name, part) } else { writer.line(3, &format!("\t{part}")) }
            }
        }
    }
}

fn resolve(pod: &Value, path: &str) -> String {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let pointer = format!("/{}", map.replace('.', "/"));
        return object::strings(pod, &pointer).remove(key).unwrap_or_default();
    }
    text(pod, &format!("/{}", path.replace('.', "/"))).to_owned()
}

fn mounts(writer: &mut Writer, container: &Value) {
    let mut mounts = list(container, "/volumeMounts").to_vec();
    mounts.sort_by(|a, b| text(a, "/mountPath").cmp(text(b, "/mountPath")));
    writer.line(2, if mounts.is_empty() { "Mounts:\t<none>" } else { "Mounts:" });
    for mount in &mounts {
        let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
        let sub = text(mount, "/subPath");
        if !sub.is_empty() {
            flags.push(format!("path={}", quote(sub)));
        }
        writer.line(
            3,
            &format!("{} from {} ({})", text(mount, "/mountPath"), text(mount, "/name"), flags.join(",")),
        );
    }
}

/// `Volumes:` and all of them.
pub(crate) fn volumes(writer: &mut Writer, volumes: &[Value], indent: &str) {
    if volumes.is_empty() {
        writer.line(0, &format!("{indent}Volumes:\t<none>"));
        return;
    }
    writer.line(0, &format!("{indent}Volumes:"));
    let gap = if indent.is_empty() { "" } else { " " };
    for volume in volumes {
        writer.line(1, &format!("{gap}{}:", text(volume, "/name")));
        let mut field = |name: &str, value: &str| writer.field(2, name, value);
        let boolean = |value: &Value| (*value == true).to_string();
        if volume["hostPath"].is_object() {
            field("Type", "HostPath (bare host directory volume)");
            field("Path", text(volume, "/hostPath/path"));
            field("HostPathType", volume["hostPath"]["type"].as_str().unwrap_or("<none>"));
        } else if volume["emptyDir"].is_object() {
            field("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
            field("Medium", text(volume, "/emptyDir/medium"));
            field("SizeLimit", volume["emptyDir"]["sizeLimit"].as_str().unwrap_or("<unset>"));
        } else if volume["secret"].is_object() {
            field("Type", "Secret (a volume populated by a Secret)");
            field("SecretName", text(volume, "/secret/secretName"));
            field("Optional", &boolean(&volume["secret"]["optional"]));
        } else if volume["configMap"].is_object() {
            field("Type", "ConfigMap (a volume populated by a ConfigMap)");
            field("Name", text(volume, "/configMap/name"));
            field("Optional", &boolean(&volume["configMap"]["optional"]));
        } else if volume["downwardAPI"].is_object() {
            field("Type", "DownwardAPI (a volume populated by information about the pod)");
            writer.line(2, "Items:");
            for item in list(volume, "/downwardAPI/items") {
                writer.line(3, &format!("{} -> {}", text(item, "/fieldRef/fieldPath"), text(item, "/path")));
            }
        } else if volume["projected"].is_object() {
            field("Type", "Projected (a volume that contains injected data from multiple sources)");
            for source in list(volume, "/projected/sources") {
                projected(writer, source);
            }
        } else {
            writer.line(1, "<unknown>");
        }
    }
}

fn projected(writer: &mut Writer, source: &Value) {
    if source["secret"].is_object() {
        writer.field(2, "SecretName", text(source, "/secret/name"));
        writer.field(2, "Optional", source["secret"]["optional"] == true);
    } else if source["downwardAPI"].is_object() {
        writer.field(2, "DownwardAPI", "true");
    } else if source["configMap"].is_object() {
        writer.field(2, "ConfigMapName", text(source, "/configMap/name"));
        writer.field(2, "Optional", source["configMap"]["optional"] == true);
    } else if source["serviceAccountToken"].is_object() {
        writer.field(2, "TokenExpirationSeconds", number(source, "/serviceAccountToken/expirationSeconds"));
    }
}

/// `Pod Template:`.
pub(crate) fn template(writer: &mut Writer, template: &Value) {
    writer.line(0, "Pod Template:");
    writer.labels("  Labels", &object::labels(template));
    let annotations = object::strings(template, "/metadata/annotations");
    if !annotations.is_empty() {
        writer.annotations("  Annotations", &annotations);
    }
    let spec = &template["spec"];
    let account = text(spec, "/serviceAccountName");
    if !account.is_empty() {
        writer.field(1, "Service Account", account);
    }
    if !list(spec, "/initContainers").is_empty() {
        containers(writer, "Init Containers", list(spec, "/initContainers"), &[], None, "  ");
    }
    containers(writer, "Containers", list(spec, "/containers"), &[], None, "  ");
    volumes(writer, list(spec, "/volumes"), "  ");
    let priority = text(spec, "/priorityClassName");
    if !priority.is_empty() {
        writer.field(1, "Priority Class Name", priority);
    }
    writer.labels("  Node-Selectors", &object::strings(spec, "/nodeSelector"));
    tolerations(writer, "  Tolerations", list(spec, "/tolerations"));
}

/// A pod template alone, its tabs not laid out: as `rollout history --revision` prints it.
pub(crate) fn template_text(value: &Value) -> String {
    let mut writer = Writer::default();
    template(&mut writer, value);
    writer.text
}

/// What taints are put up with.
pub(crate) fn tolerations(writer: &mut Writer, title: &str, tolerations: &[Value]) {
    writer.put(0, &format!("{title}:\t"));
    if tolerations.is_empty() {
        writer.line(0, "<none>");
        return;
    }
    let mut sorted = tolerations.to_vec();
    sorted.sort_by(|a, b| text(a, "/key").cmp(text(b, "/key")));
    for (index, toleration) in sorted.iter().enumerate() {
        if index > 0 {
            writer.put(0, "\t");
        }
        let (key, value, effect) =
            (text(toleration, "/key"), text(toleration, "/value"), text(toleration, "/effect"));
        let mut line = key.to_owned();
        if !value.is_empty() {
            line.push_str(&format!("={value}"));
        }
        if !effect.is_empty() {
            line.push_str(&format!(":{effect}"));
        }
        if toleration["operator"] == "Exists" && value.is_empty() {
            line.push_str(if key.is_empty() && effect.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
            line.push_str(&format!(" for {seconds}s"));
        }
        writer.line(0, &line);
    }
}
