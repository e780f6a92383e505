//! Real software, from Debian's packages, by way of a registry: started by its usual entry points, probed the usual
//! ways, reached through services, and stopped as it wants to be stopped.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::debian::{base, install, make_directory};
use sagong_tests::load::{Connections, Load};
use sagong_tests::registry::Registry;
use sagong_tests::{Cluster, eventually, free_port, have, run, stdout};
use serde_json::{Value, json};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// A cluster, a registry, and the layer that all images stand on.
struct Stage {
    registry: Registry,
    base: TempDir,
    cluster: Cluster,
}

impl Stage {
    /// None if this machine lacks what it takes.
    fn set() -> Option<Self> {
        let needed = ["docker-registry", "kubectl", "curl", "busybox", "apt-get", "dpkg-deb"];
        if !needed.into_iter().all(have) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        base(directory.path());
        let stage = Self { registry: Registry::start(), base: directory, cluster: Cluster::prepare() };
        stage.cluster.up(&[]);
        Some(stage)
    }

    /// Packages in a directory of their own, which stands on the base: its links are there, too.
    fn layer(&self, packages: &[&str], programs: &[&str]) -> TempDir {
        let layer = tempfile::tempdir().unwrap();
        for name in ["usr/bin", "usr/lib", "usr/lib64", "usr/sbin"] {
            std::fs::create_dir_all(layer.path().join(name)).unwrap();
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            symlink(format!("usr/{name}"), layer.path().join(name)).unwrap();
        }
        install(layer.path(), packages, programs);
        layer
    }

    fn push(&self, name: &str, layers: &[&Path], process: Value) -> String {
        self.registry.push(name, &[&[self.base.path()], layers].concat(), process)
    }

    fn apply(&self, objects: &[Value]) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.cluster.kubectl_stdin(&["apply"], &list.to_string());
    }

    fn wait_for_rollout(&self, name: &str) {
        let name = format!("deployment/{name}");
        self.cluster.kubectl(&["rollout", "status", &name, "--timeout=120s"]);
    }

    /// The one pod of an app.
    fn pod(&self, app: &str) -> String {
        let selector = format!("app={app}");
        let pods = self.cluster.get(&["pods", "-l", &selector]);
        pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
    }

    fn exec(&self, pod: &str, command: &[&str]) -> String {
        self.cluster.kubectl(&[&["exec", pod, "--"], command].concat())
    }

    fn cluster_ip(&self, service: &str) -> String {
        self.cluster.get(&["service", service])["spec"]["clusterIP"].as_str().unwrap().to_owned()
    }

    /// Deletes a pod, and gives what it said to its end.
    fn last_words(&self, pod: &str) -> String {
        let mut logs = Following::start(&self.cluster, pod);
        self.cluster.kubectl(&["delete", "pod", pod]);
        logs.rest()
    }
}

/// `kubectl logs -f`; stopped when dropped.
struct Following(Child);

impl Following {
    fn start(cluster: &Cluster, pod: &str) -> Self {
        let mut command = cluster.kubectl_command(&["logs", "-f", pod]);
        let mut following = Self(command.stdout(Stdio::piped()).spawn().unwrap());
        // It is connected once it has printed something.
        following.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        following
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn deployment(app: &str, replicas: u32, pod: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": app },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": app } },
            "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": { "metadata": { "labels": { "app": app } }, "spec": pod },
        },
    })
}

fn service(app: &str, kind: &str, port: u16, target: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": app },
        "spec": { "type": kind, "selector": { "app": app }, "ports": [{ "port": port, "targetPort": target }] },
    })
}

/// Debian's configuration, with logs where the official image has them.
fn nginx_layer(stage: &Stage) -> TempDir {
    let layer = stage.layer(&["nginx", "nginx-common"], &["usr/sbin/nginx"]);
    let root = layer.path();
    std::fs::remove_file(root.join("etc/nginx/sites-enabled/default")).unwrap_or_default();
    let file = root.join("etc/nginx/nginx.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, after) =
        ("error_log /var/log/nginx/error.log;", "error_log /var/log/nginx/error.log notice;");
    assert!(text.contains(before), "{text}");
    std::fs::write(&file, text.replace(before, after)).unwrap();
    std::fs::create_dir_all(root.join("var/log/nginx")).unwrap();
    std::fs::create_dir_all(root.join("var/lib/nginx")).unwrap();
    symlink("/dev/stdout", root.join("var/log/nginx/access.log")).unwrap();
    symlink("/dev/stderr", root.join("var/log/nginx/error.log")).unwrap();
    layer
}

/// nginx as a Deployment of three, its site in a ConfigMap of this version.
fn nginx(version: &str, image: &str) -> Vec<Value> {
    let site = format!(
        "server {{\n  listen 80;\n  root /var/www/html;\n  add_header X-Config {version};\n  \
         location /slow {{ limit_rate 1000; }}\n}}\n"
    );
    let map = format!("site-{version}");
    let probe = |path: &str| json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": 1 });
    let container = json!({
        "name": "nginx", "image": image, "ports": [{ "name": "http", "containerPort": 80 }],
        "readinessProbe": probe("/"), "livenessProbe": probe("/index.html"), "startupProbe": probe("/"),
        "volumeMounts": [{ "name": "site", "mountPath": "/etc/nginx/conf.d" }],
    });
    let volume = json!({ "name": "site", "configMap": { "name": map } });
    vec![
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": map }, "data": { "site.conf": site } }),
        deployment("nginx", 3, json!({ "containers": [container], "volumes": [volume] })),
    ]
}

#[test]
fn nginx_is_rolled_under_load_and_finishes_what_it_serves() {
    let Some(stage) = Stage::set() else { return };
    let layer = nginx_layer(&stage);
    let [v1, v2] = ["v1", "v2"].map(|version| {
        let site = tempfile::tempdir().unwrap();
        let html = site.path().join("var/www/html");
        std::fs::create_dir_all(&html).unwrap();
        std::fs::write(html.join("index.html"), format!("This is {version} of nginx\n")).unwrap();
        std::fs::write(html.join("slow"), "x".repeat(3000)).unwrap();
        let process = json!({ "Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT", "Env": ["PATH=/usr/sbin:/usr/bin"] });
        stage.push(&format!("nginx:{version}"), &[layer.path(), site.path()], process)
    });
    let (cluster, port) = (&stage.cluster, free_port());
    stage.apply(&[nginx("v1", &v1), vec![service("nginx", "LoadBalancer", port, 80)]].concat());
    stage.wait_for_rollout("nginx");

    let pod = stage.pod("nginx");
    let processes = "for p in /proc/[0-9]*; do echo $(cat $p/comm) $(stat -c %u $p); done";
    let processes = stage.exec(&pod, &["busybox", "sh", "-c", &processes.replace("stat", "busybox stat")]);
    assert!(processes.contains("nginx 0\n") && processes.contains("nginx 33\n"), "{processes}");
    let cluster_ip: SocketAddr = format!("{}:{port}", stage.cluster_ip("nginx")).parse().unwrap();
    let balancer: SocketAddr = eventually("an external address", || {
        let address =
            cluster.get(&["service", "nginx"])["status"]["loadBalancer"]["ingress"][0]["ip"].clone();
        Some(format!("{}:{port}", address.as_str()?).parse().unwrap())
    });

    let loads = [
        ("cluster IP", Load::start(cluster_ip, Connections::Fresh, 2)),
        ("balancer", Load::start(balancer, Connections::Fresh, 2)),
        ("balancer, kept alive", Load::start(balancer, Connections::KeptAlive, 2)),
    ];
    for (version, image) in [("v2", &v2), ("v1", &v1)] {
        stage.apply(&nginx(version, image));
        stage.wait_for_rollout("nginx");
        let answer =
            stdout(std::process::Command::new("curl").args(["-sSi", &format!("http://{cluster_ip}")]));
        assert!(answer.contains(&format!("X-Config: {version}")), "{answer}");
    }
    for (way, load) in loads {
        let tally = load.stop();
        assert!(tally.failures.is_empty(), "{way}: {:?} of {}", tally.failures, tally.sent());
        assert!(tally.versions.contains_key("v1") && tally.versions.contains_key("v2"), "{way}: {tally:?}");
    }

    // A request that takes three seconds, and the pod that serves it deleted in the midst of it.
    let pod = stage.pod("nginx");
    let address = cluster.get(&["pod", &pod])["status"]["podIP"].as_str().unwrap().to_owned();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "-N", &format!("http://{address}/slow")]).stdout(Stdio::piped());
    let mut curl = curl.spawn().unwrap();
    curl.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let said = stage.last_words(&pod);
    let mut rest = String::new();
    curl.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert!(curl.wait().unwrap().success());
    assert_eq!(rest.len(), 2999, "the request that was served was served to its end");
    assert!(said.contains("(SIGQUIT) received"), "{said}");
    assert!(said.contains("GET /slow HTTP/1.1\" 200 3000"), "{said}");
}

#[test]
fn redis_serves_and_saves_when_it_is_stopped() {
    let Some(stage) = Stage::set() else { return };
    let layer =
        stage.layer(&["redis-tools", "redis-server"], &["usr/bin/redis-check-rdb", "usr/bin/redis-cli"]);
    make_directory(layer.path(), "data", 0o755, 998);
    let process = json!({
        "Entrypoint": ["redis-server"], "Cmd": ["--save", "3600", "1"], "User": "redis", "WorkingDir": "/data",
        "Env": ["PATH=/usr/bin"],
    });
    let image = stage.push("redis:7", &[layer.path()], process);
    let container = json!({
        "name": "redis", "image": image, "args": ["--save", "3600", "1", "--protected-mode", "no"],
        "readinessProbe": { "exec": { "command": ["redis-cli", "ping"] }, "periodSeconds": 1 },
        "livenessProbe": { "tcpSocket": { "port": 6379 }, "periodSeconds": 1 },
        "resources": { "requests": { "memory": "16Mi" }, "limits": { "memory": "128Mi" } },
    });
    let pod = json!({ "containers": [container] });
    stage.apply(&[deployment("redis", 1, pod), service("redis", "ClusterIP", 6379, 6379)]);
    stage.wait_for_rollout("redis");
    let pod = stage.pod("redis");
    assert_eq!(stage.exec(&pod, &["id", "-un"]).trim(), "redis", "the user that the image names");
    // By the service's name, from inside.
    assert_eq!(stage.exec(&pod, &["redis-cli", "-h", "redis", "set", "key", "value"]).trim(), "OK");
    assert_eq!(stage.exec(&pod, &["redis-cli", "-h", "redis", "get", "key"]).trim(), "value");
    let logs = stage.cluster.kubectl(&["logs", &pod]);
    assert!(logs.contains("Ready to accept connections"), "{logs}");
    let said = stage.last_words(&pod);
    assert!(said.contains("DB saved on disk") && said.contains("bye bye"), "{said}");
}

/// What the official image's entry point does, short.
const POSTGRES_ENTRYPOINT: &str = r#"#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username=postgres --pwfile=/tmp/password --auth-host=scram-sha-256 --locale=C --encoding=UTF8 --no-sync
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec "$@"
"#;

/// Where Debian has a version's programs.
fn postgres_version() -> String {
    let names = stdout(std::process::Command::new("apt-cache").args(["pkgnames", "postgresql-client-"]));
    let versions =
        names.lines().filter_map(|name| name.strip_prefix("postgresql-client-")?.parse::<u32>().ok());
    versions.max().expect("apt knows no postgresql").to_string()
}

fn postgres_image(stage: &Stage) -> String {
    let version = postgres_version();
    let bin = format!("usr/lib/postgresql/{version}/bin");
    let programs = ["postgres", "initdb", "psql", "pg_isready"].map(|program| format!("{bin}/{program}"));
    let packages = [format!("postgresql-{version}"), format!("postgresql-client-{version}")];
    let layer =
        stage.layer(&[&packages[0], &packages[1], "tzdata"], &programs.each_ref().map(String::as_str));
    let root = layer.path();
    // Compiling of queries, which nobody needs here, and other people's languages.
    for directory in [
        format!("usr/lib/postgresql/{version}/lib/bitcode"),
        "usr/share/locale".into(),
        "usr/share/doc".into(),
    ] {
        let _ = std::fs::remove_dir_all(root.join(directory));
    }
    let entrypoint = root.join("usr/bin/docker-entrypoint.sh");
    std::fs::write(&entrypoint, POSTGRES_ENTRYPOINT).unwrap();
    std::fs::set_permissions(&entrypoint, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    make_directory(root, "run/postgresql", 0o2775, 999);
    let process = json!({
        "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["postgres", "-c", "listen_addresses=*"], "User": "postgres",
        "StopSignal": "SIGINT", "WorkingDir": "/tmp",
        "Env": [format!("PATH=/{bin}:/usr/bin"), "PGDATA=/var/lib/postgresql/data/pgdata"],
    });
    stage.push("postgres:latest-of-debian", &[root], process)
}

#[test]
fn postgres_keeps_its_data_over_restarts_and_answers_other_pods() {
    let Some(stage) = Stage::set() else { return };
    let (cluster, image) = (&stage.cluster, postgres_image(&stage));
    cluster.kubectl(&["create", "secret", "generic", "postgres", "--from-literal=password=s3cret"]);
    let password = |name: &str| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": "postgres", "key": "password" } } });
    let ready = ["pg_isready", "-h", "127.0.0.1", "-U", "postgres"];
    let container = json!({
        "name": "postgres", "image": image, "env": [password("POSTGRES_PASSWORD")],
        "startupProbe": { "exec": { "command": ready }, "periodSeconds": 1, "failureThreshold": 100 },
        "readinessProbe": { "exec": { "command": ready }, "periodSeconds": 1 },
        "livenessProbe": { "tcpSocket": { "port": 5432 } },
        "volumeMounts": [{ "name": "data", "mountPath": "/var/lib/postgresql/data" }],
    });
    let pod = json!({
        "containers": [container], "volumes": [{ "name": "data", "emptyDir": {} }],
        "securityContext": { "fsGroup": 999 },
    });
    stage.apply(&[deployment("postgres", 1, pod), service("postgres", "ClusterIP", 5432, 5432)]);
    stage.wait_for_rollout("postgres");

    // From another pod, by the service's name, with the password that the secret has.
    let query = |name: &str, sql: &str| {
        let container = json!({
            "name": "psql", "image": image, "command": ["psql", "-h", "postgres", "-U", "postgres", "-At", "-c", sql],
            "env": [password("PGPASSWORD")],
        });
        let spec = json!({ "restartPolicy": "Never", "containers": [container] });
        stage.apply(&[
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec }),
        ]);
        let ended = eventually("the query's end", || {
            let phase = cluster.get(&["pod", name])["status"]["phase"].clone();
            ["Succeeded", "Failed"].into_iter().find(|end| phase == *end)
        });
        let said = cluster.kubectl(&["logs", name]);
        assert_eq!(ended, "Succeeded", "{said}");
        said
    };
    query("insert", "create table t (n int); insert into t select generate_series(1, 1000)");
    let pod = stage.pod("postgres");
    assert_eq!(stage.exec(&pod, &["id", "-un"]).trim(), "postgres");
    let owner = stage.exec(&pod, &["busybox", "stat", "-c", "%g %a", "/var/lib/postgresql/data"]);
    assert_eq!(owner.trim(), "999 2777", "the group of the volume is fsGroup");

    // It ends in order, and comes again over the same data.
    stage.exec(&pod, &["sh", "-c", "kill -INT 1"]);
    eventually("its restart", || {
        let status = cluster.get(&["pod", &pod])["status"]["containerStatuses"][0].clone();
        (status["restartCount"] == 1 && status["ready"] == true).then_some(())
    });
    let before = cluster.kubectl(&["logs", "--previous", &pod]);
    assert!(before.contains("received fast shutdown request"), "{before}");
    assert_eq!(query("sum", "select sum(n) from t").trim(), "500500");
    let said = stage.last_words(&pod);
    assert!(said.contains("received fast shutdown request"), "SIGINT, as the image wants it: {said}");
    assert!(said.contains("database system is shut down"), "{said}");
}

const SERVER: &str = r#"
const http = require('http');
const server = http.createServer((request, response) => {
    console.log(`${request.method} ${request.url}`);
    response.end(`This is v1 running in pod ${process.env.HOSTNAME}, node ${process.version}\n`);
});
server.listen(8080, () => console.log('listening'));
process.on('SIGTERM', () => { console.log('closing'); server.close(() => process.exit(0)); });
"#;

#[test]
fn node_js_runs_a_server_as_nobody_on_a_file_system_it_cannot_write() {
    let Some(stage) = Stage::set() else { return };
    let packages = ["nodejs", "node-acorn", "node-cjs-module-lexer", "node-undici"];
    let layer = stage.layer(&packages, &["usr/bin/node"]);
    std::fs::create_dir_all(layer.path().join("srv")).unwrap();
    std::fs::write(layer.path().join("srv/server.js"), SERVER).unwrap();
    let process = json!({
        "Entrypoint": ["node"], "Cmd": ["server.js"], "WorkingDir": "/srv", "Env": ["PATH=/usr/bin"], "User": "nobody",
    });
    let image = stage.push("node:debian", &[layer.path()], process);
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 });
    let container = json!({
        "name": "node", "image": image, "readinessProbe": probe, "livenessProbe": probe,
        "securityContext": {
            "runAsUser": 65534, "runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
        },
    });
    let pod = json!({ "containers": [container] });
    stage.apply(&[deployment("node", 2, pod), service("node", "ClusterIP", 80, 8080)]);
    stage.wait_for_rollout("node");
    let address = format!("http://{}", stage.cluster_ip("node"));
    let answers = stage.cluster.curl(&address, 20);
    assert!(
        answers.iter().all(|answer| answer.starts_with("This is v1 running in pod node-")),
        "{answers:?}"
    );
    let pod = stage.pod("node");
    assert!(stage.cluster.kubectl(&["logs", &pod]).contains("GET /healthz"));
    assert_eq!(stage.exec(&pod, &["node", "-p", "process.getuid()"]).trim(), "65534");
    let refused = run(&mut stage.cluster.kubectl_command(&["exec", &pod, "--", "touch", "/srv/file"]));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    assert!(stage.last_words(&pod).contains("closing"));
}
