//! What containers are, and what is told of those that cannot be, with real ones.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::shell::{cluster_with, create, events, output, pod, told};
use sagong_tests::{Cluster, eventually, have, run, stdout};
use serde_json::{Value, json};
use std::process::Command;

fn ready() -> Option<Cluster> {
    (have("kubectl") && have("busybox")).then(|| cluster_with(&[]))
}

/// The first container's status once it fits.
fn status(cluster: &Cluster, pod: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("the status of {pod}"), || {
        let status = cluster.get(&["pod", pod])["status"]["containerStatuses"][0].clone();
        fits(&status).then_some(status)
    })
}

#[test]
fn a_container_has_the_names_groups_and_amounts_it_was_given_and_its_status_says_so() {
    let Some(cluster) = ready() else { return };
    let mut named = pod("named", "hostname; cat /etc/hostname; echo $HOSTNAME");
    named["spec"]["hostname"] = json!("h");
    named["spec"]["subdomain"] = json!("sub");
    named["spec"]["setHostnameAsFQDN"] = json!(true);
    assert_eq!(output(&cluster, &named), "h.sub.default.svc.cluster.local\n".repeat(3));

    // The image says that the user is in group 50, too.
    let group = "echo 'extra:x:50:app' > /etc/group";
    let mut strict = pod("strict", &format!("{group}; sleep 600"));
    strict["spec"]["securityContext"] =
        json!({"runAsUser": 1000, "supplementalGroups": [4000], "supplementalGroupsPolicy": "Strict"});
    strict["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}});
    create(&cluster, &strict);
    let shown = status(&cluster, "strict", |status| status["state"]["running"].is_object());
    assert_eq!(
        shown["user"],
        json!({"linux": {"uid": 1000, "gid": 1000, "supplementalGroups": [1000, 4000]}})
    );
    assert_eq!(shown["allocatedResources"], json!({"cpu": "100m", "memory": "64Mi"}), "{shown}");
    assert_eq!(shown["resources"]["limits"], json!({"memory": "64Mi"}), "{shown}");
    let token = &shown["volumeMounts"][0];
    assert_eq!(
        (&token["readOnly"], &token["recursiveReadOnly"]),
        (&json!(true), &json!("Disabled")),
        "{shown}"
    );
    assert_eq!(cluster.kubectl(&["exec", "strict", "--", "id", "-G"]), "1000 4000\n");

    let mut amounts =
        pod("amounts", "echo $STORAGE; tr '\\0' '\\n' < /proc/1/environ | grep '^P[_.]' | sort");
    amounts["spec"]["containers"][0]["env"] = json!([
        {"name": "STORAGE", "valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}},
    ]);
    amounts["spec"]["containers"][0]["envFrom"] = json!([{"prefix": "P_", "configMapRef": {"name": "odd"}}]);
    cluster.kubectl(&["create", "configmap", "odd", "--from-literal=a=1", "--from-literal=b-c.d=2"]);
    let said = output(&cluster, &amounts);
    let node = cluster.get(&["nodes"])["items"][0]["status"]["allocatable"]["ephemeral-storage"].clone();
    assert_eq!(said, format!("{}\nP_a=1\nP_b-c.d=2\n", node.as_str().unwrap()));
}

#[test]
fn hooks_that_fail_and_hooks_that_arrive_are_told_apart() {
    let Some(cluster) = ready() else { return };
    let hooked = |name: &str, script: &str, hook: Value| {
        let mut pod = pod(name, script);
        pod["spec"]["containers"][0]["lifecycle"] = hook;
        pod["spec"]["restartPolicy"] = json!("Always");
        pod
    };
    let fails = json!({"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 3"]}}});
    create(&cluster, &hooked("fails", "sleep 600", fails));
    let shown =
        status(&cluster, "fails", |status| status["state"]["waiting"]["reason"] == "PostStartHookError");
    let message = shown["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "Exec lifecycle hook ([sh -c echo no; exit 3]) for Container \"main\" in Pod \"fails_default("
        ),
        "{message}"
    );
    let end = "failed - error: command 'sh -c echo no; exit 3' exited with 3: , message: \"no\\n\"";
    assert!(message.ends_with(end), "{message}");
    told(&cluster, "fails", "FailedPostStartHook", "PostStartHook failed");
    told(&cluster, "fails", "Killing", "FailedPostStartHook");

    // Whatever a server answers, the request has arrived; and nothing is asked of a port where nobody listens.
    let serve = "mkdir /www; httpd -p 8080 -h /www; sleep 600";
    let wait = json!({"exec": {"command": ["sh", "-c", "until wget -qO- 127.0.0.1:8080 2>&1 | grep -q 404; do sleep 0.1; done"]}});
    let get = |port: u16| json!({"httpGet": {"path": "/none", "port": port}});
    let mut arrives = hooked("arrives", serve, json!({"postStart": wait, "preStop": get(8080)}));
    let mut misses = hooked("misses", serve, json!({"postStart": wait, "preStop": get(81)}));
    for pod in [&mut arrives, &mut misses] {
        pod["spec"]["terminationGracePeriodSeconds"] = json!(2);
        create(&cluster, pod);
    }
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/arrives", "pod/misses", "--timeout=60s"]);
    cluster.kubectl(&["delete", "pod", "arrives", "misses"]);
    told(&cluster, "misses", "FailedPreStopHook", "PreStopHook failed");
    assert!(!events(&cluster, "arrives").iter().any(|(reason, _)| reason == "FailedPreStopHook"));
}

#[test]
fn what_the_node_cannot_give_is_said_and_not_left_out() {
    let Some(cluster) = ready() else { return };
    let with = |name: &str, pointer: &str, value: Value| {
        let mut pod = pod(name, "true");
        pod["spec"][pointer] = value;
        pod
    };
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = json!("v");
        json!([volume])
    };
    create(
        &cluster,
        &with("claim", "volumes", volume(json!({"persistentVolumeClaim": {"claimName": "data"}}))),
    );
    create(
        &cluster,
        &with("file", "volumes", volume(json!({"hostPath": {"path": "/dev/null", "type": "Directory"}}))),
    );
    create(&cluster, &with("huge", "volumes", volume(json!({"emptyDir": {"medium": "HugePages"}}))));
    create(&cluster, &with("users", "hostUsers", json!(false)));
    let sysctl = json!({"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]});
    create(&cluster, &with("sysctl", "securityContext", sysctl));
    let profile = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
    create(&cluster, &with("armor", "securityContext", profile));
    for (pod, reason, message) in [
        ("claim", "FailedMount", "volume \"v\" : persistentvolumeclaim \"data\""),
        ("file", "FailedMount", "volume \"v\" : hostPath type check failed: /dev/null is not a directory"),
        ("huge", "FailedMount", "medium \"HugePages\" is not supported"),
        (
            "users",
            "FailedCreatePodSandBox",
            "can't set `spec.hostUsers: false`, runtime does not support user namespaces",
        ),
        ("sysctl", "SysctlForbidden", "forbidden sysctl: \"net.core.somaxconn\" not allowlisted"),
        ("armor", "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"),
    ] {
        told(&cluster, pod, reason, message);
    }
    let listed = cluster.kubectl(&["get", "pod", "sysctl", "armor", "--no-headers"]);
    assert!(listed.contains("SysctlForbidden") && listed.contains("AppArmor"), "{listed}");
    let refused =
        cluster.kubectl_with(&["create"], &with("class", "runtimeClassName", json!("kata")).to_string());
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    let why = "pods \"class\" is forbidden: pod rejected: RuntimeClass \"kata\" not found";
    assert!(refused.contains(why), "{refused}");
}

#[test]
fn mounts_that_come_later_are_seen_by_who_asked_for_it() {
    let Some(cluster) = ready() else { return };
    let directory = tempfile::tempdir().unwrap();
    let shared = directory.path().join("shared");
    std::fs::create_dir_all(shared.join("later")).unwrap();
    let path = shared.to_str().unwrap();
    stdout(Command::new("mount").args(["--bind", path, path]));
    stdout(Command::new("mount").args(["--make-shared", path]));
    let mut pod = pod("looks", "sleep 600");
    pod["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": path, "type": "Directory"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "v", "mountPath": "/follows", "mountPropagation": "HostToContainer"},
    ]);
    create(&cluster, &pod);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/looks", "--timeout=60s"]);
    let later = format!("{path}/later");
    stdout(Command::new("mount").args(["-t", "tmpfs", "later", &later]));
    std::fs::write(format!("{later}/file"), "").unwrap();
    let seen = cluster.kubectl(&["exec", "looks", "--", "sh", "-c", "ls /follows/later"]);
    run(Command::new("umount").arg(&later));
    cluster.kubectl(&["delete", "pod", "looks"]);
    run(Command::new("umount").arg(path));
    assert_eq!(seen, "file\n");
}
