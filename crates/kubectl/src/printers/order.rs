//! The order of fields in JSON of objects that kubectl builds itself: that of Go's structs, not of the alphabet.
//! What comes from the server is in the order of the alphabet, here and there.

use serde_json::Value;

/// The fields of what stands under a name, first to last. More precise names, `PARENT/NAME`, go first. The name of
/// the whole object is its kind. Fields that are not listed come last.
const ORDER: [(&str, &[&str]); 29] = [
    (
        "metadata",
        &[
            "name",
            "generateName",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "labels",
            "annotations",
        ],
    ),
    ("ownerReferences", &["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"]),
    (
        "Deployment/spec",
        &["replicas", "selector", "template", "strategy", "minReadySeconds", "revisionHistoryLimit"],
    ),
    ("ReplicaSet/spec", &["replicas", "minReadySeconds", "selector", "template"]),
    (
        "Service/spec",
        &["ports", "selector", "clusterIP", "clusterIPs", "type", "externalIPs", "sessionAffinity"],
    ),
    ("CronJob/spec", &["schedule", "concurrencyPolicy", "suspend", "jobTemplate"]),
    ("Ingress/spec", &["ingressClassName", "defaultBackend", "tls", "rules"]),
    ("PodDisruptionBudget/spec", &["minAvailable", "selector", "maxUnavailable"]),
    ("HorizontalPodAutoscaler/spec", &["scaleTargetRef", "minReplicas", "maxReplicas", "metrics"]),
    ("scaleTargetRef", &["kind", "name", "apiVersion"]),
    ("metrics", &["type", "resource"]),
    ("resource/target", &["type", "value", "averageValue", "averageUtilization"]),
    (
        "spec",
        &[
            "volumes",
            "initContainers",
            "containers",
            "ephemeralContainers",
            "restartPolicy",
            "terminationGracePeriodSeconds",
            "activeDeadlineSeconds",
            "dnsPolicy",
            "nodeSelector",
            "serviceAccountName",
            "serviceAccount",
            "automountServiceAccountToken",
            "nodeName",
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "securityContext",
            "imagePullSecrets",
            "hostname",
            "subdomain",
            "affinity",
            "schedulerName",
            "tolerations",
        ],
    ),
    (
        "containers",
        &[
            "name",
            "image",
            "command",
            "args",
            "workingDir",
            "ports",
            "envFrom",
            "env",
            "resources",
            "volumeMounts",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "terminationMessagePath",
            "terminationMessagePolicy",
            "imagePullPolicy",
            "securityContext",
            "stdin",
            "stdinOnce",
            "tty",
        ],
    ),
    ("env", &["name", "value", "valueFrom"]),
    ("ports", &["name", "hostPort", "containerPort", "protocol", "port", "targetPort", "nodePort"]),
    ("rules", &["host", "http", "verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs"]),
    ("paths", &["path", "pathType", "backend"]),
    ("subjects", &["kind", "apiGroup", "name", "namespace"]),
    (
        "status",
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
            "desiredReplicas",
            "currentMetrics",
        ],
    ),
    ("userInfo", &["username", "uid", "groups", "extra"]),
    ("clusters", &["name", "cluster"]),
    (
        "cluster",
        &[
            "server",
            "tls-server-name",
            "insecure-skip-tls-verify",
            "certificate-authority",
            "certificate-authority-data",
            "proxy-url",
        ],
    ),
    ("contexts", &["name", "context"]),
    ("context", &["cluster", "user", "namespace"]),
    ("users", &["name", "user"]),
    ("involvedObject", &["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"]),
    ("clientVersion", VERSION),
    ("serverVersion", VERSION),
];

const VERSION: &[&str] = &[
    "major",
    "minor",
    "emulationMajor",
    "emulationMinor",
    "minCompatibilityMajor",
    "minCompatibilityMinor",
    "gitVersion",
    "gitCommit",
    "gitTreeState",
    "buildDate",
    "goVersion",
    "compiler",
    "platform",
];

/// The fields of a whole object, and of the items of a list.
const WHOLE: &[&str] = &[
    "kind",
    "apiVersion",
    "metadata",
    "immutable",
    "data",
    "binaryData",
    "stringData",
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "series",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
    "secrets",
    "rules",
    "aggregationRule",
    "subjects",
    "roleRef",
    "value",
    "globalDefault",
    "description",
    "preemptionPolicy",
    "preferences",
    "clusters",
    "users",
    "contexts",
    "current-context",
    "clientVersion",
    "kustomizeVersion",
    "serverVersion",
    "spec",
    "status",
    "items",
];

/// An object as JSON with its fields in Go's order, indented by `indent`.
pub(crate) fn pretty(value: &Value, indent: &str) -> String {
    let mut text = String::new();
    write(value, &Place { parent: "", name: "", indent }, 0, &mut text);
    text
}

struct Place<'p> {
    parent: &'p str,
    name: &'p str,
    indent: &'p str,
}

impl Place<'_> {
    fn fields(&self) -> &'static [&'static str] {
        if self.name.is_empty() || self.name == "items" {
            return WHOLE;
        }
        let precise = format!("{}/{}", self.parent, self.name);
        let find = |wanted: &str| ORDER.iter().find(|(name, _)| *name == wanted).map(|(_, fields)| *fields);
        find(&precise).or_else(|| find(self.name)).unwrap_or_default()
    }
}

fn write(value: &Value, place: &Place<'_>, depth: usize, text: &mut String) {
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.push_str(&place.indent.repeat(depth));
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let listed = place.fields();
            let rank = |key: &str| listed.iter().position(|known| *known == key).unwrap_or(listed.len());
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| rank(key));
            // Names of the user's own, as those of labels, have no order of their own.
            let kind =
                if place.name.is_empty() || place.name == "items" { value["kind"].as_str() } else { None };
            for (index, (key, inner)) in entries.iter().enumerate() {
                text.push(if index == 0 { '{' } else { ',' });
                line(text, depth + 1);
                text.push_str(&super::json::compact(&Value::String((*key).clone())));
                text.push_str(": ");
                let place = Place { parent: kind.unwrap_or(place.name), name: key, indent: place.indent };
                write(inner, &place, depth + 1, text);
            }
            line(text, depth);
            text.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                text.push(if index == 0 { '[' } else { ',' });
                line(text, depth + 1);
                write(item, place, depth + 1, text);
            }
            line(text, depth);
            text.push(']');
        }
        other => text.push_str(&super::json::compact(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_in_the_order_of_the_structs() {
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "creationTimestamp": null, "labels": {}},
            "spec": {"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]},
        });
        let text = pretty(&object, "");
        let expected = "{\n\"kind\": \"Service\",\n\"apiVersion\": \"v1\",\n\"metadata\": {\n\"name\": \"a\",\n\"creationTimestamp\": null,\n\"labels\": {}\n},\n\"spec\": {\n\"ports\": [\n{\n\"protocol\": \"TCP\",\n\"port\": 80\n}\n],\n\"type\": \"ClusterIP\"\n}\n}";
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(object));
    }
}
