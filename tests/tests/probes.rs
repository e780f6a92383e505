//! Probes of real containers: what they find, what is told of it, and what comes of it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::debian::{base, install};
use sagong_tests::shell::{cluster_with, create, events, import, pod, told};
use sagong_tests::{Cluster, eventually, have, stdout};
use serde_json::{Value, json};
use std::process::Command;

/// A server of gRPC's own library that says it is not well while there is a file.
const HEALTH: &str = r#"
import concurrent.futures, grpc, os

def check(request, context):
    service = request[2:].decode()
    if service not in ("", "kubia"):
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return b"\x08\x02" if os.path.exists("/tmp/sick") else b"\x08\x01"

methods = {"Check": grpc.unary_unary_rpc_method_handler(check)}
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods),))
server.add_insecure_port("0.0.0.0:9000")
server.start()
print("serving", flush=True)
server.wait_for_termination()
"#;

fn is_ready(cluster: &Cluster, pod: &str) -> bool {
    cluster.get(&["pod", pod])["status"]["containerStatuses"][0]["ready"] == true
}

#[test]
fn a_server_of_grpcs_own_library_is_asked_for_its_health() {
    let needed = ["kubectl", "busybox", "apt-get", "apt-cache", "dpkg-deb"];
    if !needed.into_iter().all(have) {
        return;
    }
    // `python3.11-minimal`, say.
    let depends = stdout(Command::new("apt-cache").args(["depends", "python3-minimal"]));
    let minimal = depends.split_whitespace().find(|it| it.starts_with("python3.")).unwrap();
    let python = minimal.trim_end_matches("-minimal");
    let root = tempfile::tempdir().unwrap();
    base(root.path());
    let packages = [
        minimal.to_owned(),
        format!("lib{minimal}"),
        format!("lib{python}-stdlib"),
        "python3-grpcio".into(),
        "python3-six".into(),
    ];
    let version: String = python.chars().filter(char::is_ascii_digit).collect();
    let tag = format!("cpython-{version}-{}-linux-gnu.so", std::env::consts::ARCH);
    let programs = [
        format!("usr/bin/{python}"),
        format!("usr/lib/python3/dist-packages/grpc/_cython/cygrpc.{tag}"),
        format!("usr/lib/{python}/lib-dynload/_ssl.{tag}"),
    ];
    install(
        root.path(),
        &packages.iter().map(String::as_str).collect::<Vec<_>>(),
        &programs.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    std::fs::write(root.path().join("health.py"), HEALTH).unwrap();
    let cluster = Cluster::prepare();
    import(&cluster, root.path(), "health:v1");
    cluster.up(&[]);

    let with = |name: &str, service: &str| {
        let probe = json!({"grpc": {"port": 9000, "service": service}, "periodSeconds": 1});
        let mut pod = pod(name, &format!("exec {python} /health.py"));
        pod["spec"]["containers"][0]["image"] = json!("health:v1");
        pod["spec"]["containers"][0]["readinessProbe"] = probe;
        pod
    };
    create(&cluster, &with("kubia", "kubia"));
    create(&cluster, &with("other", "other"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/kubia", "--timeout=60s"]);
    told(&cluster, "other", "Unhealthy", "rpc error: code = NotFound desc = unknown service");
    assert!(!is_ready(&cluster, "other"));
    cluster.kubectl(&["exec", "kubia", "--", "touch", "/tmp/sick"]);
    told(&cluster, "kubia", "Unhealthy", "service unhealthy (responded with \"NOT_SERVING\")");
    eventually("it to be unready", || (!is_ready(&cluster, "kubia")).then_some(()));
    cluster.kubectl(&["exec", "kubia", "--", "sh", "-c", "rm /tmp/sick || busybox rm /tmp/sick"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/kubia", "--timeout=60s"]);
}

/// A container that serves pages and has a probe.
fn probed(name: &str, kind: &str, probe: Value) -> Value {
    let pages = "mkdir -p /www/cgi-bin; echo ok > /www/good; \
                 for to in good bad; do printf '#!/bin/sh\necho Status: 302 Found; echo Location: /'$to'; echo' \
                 > /www/cgi-bin/$to; chmod +x /www/cgi-bin/$to; done; httpd -f -p 8080 -h /www";
    let mut pod = pod(name, pages);
    let mut probe = probe;
    probe["periodSeconds"] = json!(1);
    pod["spec"]["containers"][0][kind] = probe;
    pod
}

#[test]
fn what_probes_find_is_told_as_upstream_tells_it() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster_with(&[]);
    let get = |path: &str, port: Value| json!({"httpGet": {"path": path, "port": port}});
    let run = |script: &str| json!({"exec": {"command": ["sh", "-c", script]}});
    let ready = [
        ("page", get("/good", json!(8080))),
        ("redirect", get("/cgi-bin/good", json!(8080))),
        ("open", json!({"tcpSocket": {"port": 8080}})),
        ("elsewhere", json!({"tcpSocket": {"host": "localhost", "port": cluster.port}})),
        ("command", run("true")),
    ];
    let unready = [
        ("missing", get("/bad", json!(8080)), "probe failed: HTTP probe failed with statuscode: 404"),
        ("misled", get("/cgi-bin/bad", json!(8080)), "probe failed: HTTP probe failed with statuscode: 404"),
        (
            "nameless",
            get("/", json!("web")),
            "errored and resulted in unknown state: strconv.Atoi: parsing \"web\"",
        ),
        ("closed", json!({"tcpSocket": {"port": 81}}), "probe failed: dial tcp 10."),
        ("loud", run("echo out; echo err >&2; exit 3"), "Readiness probe failed: out\nerr\n"),
        (
            "late",
            json!({"exec": {"command": ["sleep", "9"]}}),
            "Readiness probe failed: command timed out: \"sleep 9\" timed out after 1s",
        ),
        ("absent", json!({"exec": {"command": ["nosuch"]}}), "errored and resulted in unknown state: "),
    ];
    for (name, probe) in &ready {
        create(&cluster, &probed(name, "readinessProbe", probe.clone()));
    }
    for (name, probe, _) in &unready {
        create(&cluster, &probed(name, "readinessProbe", probe.clone()));
    }
    // What cannot be found out restarts nothing; what is found out does, unless it must not.
    create(
        &cluster,
        &probed("lives", "livenessProbe", json!({"exec": {"command": ["nosuch"]}, "failureThreshold": 1})),
    );
    create(
        &cluster,
        &probed("ends", "livenessProbe", json!({"exec": {"command": ["false"]}, "failureThreshold": 1})),
    );
    for (name, _) in ready {
        cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    }
    for (name, _, why) in unready {
        told(&cluster, name, "Unhealthy", why);
        assert!(!is_ready(&cluster, name), "{name}");
    }
    told(&cluster, "ends", "Killing", "Container main failed liveness probe");
    assert!(!events(&cluster, "ends").iter().any(|(_, message)| message.contains("restarted")));
    told(&cluster, "lives", "Unhealthy", "Liveness probe errored and resulted in unknown state: ");
    assert!(!events(&cluster, "lives").iter().any(|(reason, _)| reason == "Killing"));
}
