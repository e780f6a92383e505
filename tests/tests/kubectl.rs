//! Our kubectl where a table of invocations does not reach: files it writes, watches, interruptions, terminals.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use regex::Regex;
use sagong_tests::{Cluster, eventually, have, run, sagong, stdout};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A link named kubectl to the binary, in a directory of its own.
struct Ours {
    directory: tempfile::TempDir,
}

impl Ours {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(sagong(), directory.path().join("kubectl")).unwrap();
        Self { directory }
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("kubectl")
    }

    fn command(&self, cluster: &Cluster, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command.args(arguments).env("KUBECONFIG", cluster.data_dir().join("kubeconfig"));
        command
    }
}

fn theirs() -> PathBuf {
    std::env::var_os("KUBECTL").map_or_else(|| "kubectl".into(), PathBuf::from)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn interrupt(child: &Child) {
    stdout(Command::new("kill").args(["-INT", &child.id().to_string()]));
}

/// The end of a program that must come soon.
fn ended(mut child: Child) -> Output {
    eventually("a program's end", || child.try_wait().unwrap());
    child.wait_with_output().unwrap()
}

#[test]
fn config_writes_the_files_that_kubectl_writes() {
    if !have("kubectl") || !have("openssl") {
        return;
    }
    let ours = Ours::new();
    let root = tempfile::tempdir().unwrap();
    let pair = ["-keyout", "key.pem", "-out", "cert.pem"];
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"])
        .args(pair);
    stdout(openssl.current_dir(root.path()));
    // The real one may be called by the name of its version.
    let named = Regex::new(r"kubectl\.1\.[0-9]+").unwrap();
    let mut differing = Vec::new();
    for line in include_str!("../parity/config.txt").lines().filter(|line| !line.starts_with('#')) {
        let (kubeconfig, step) = match line.strip_prefix("KUBECONFIG=") {
            Some(rest) => rest.split_once(' ').unwrap(),
            None => ("cfg", line),
        };
        let [real, own] = [(theirs(), "theirs"), (ours.program(), "our")].map(|(program, name)| {
            let home = root.path().join(name);
            std::fs::create_dir_all(&home).unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exec \"$PROGRAM\" config {step}")]).current_dir(&home);
            let output =
                run(command.env("PROGRAM", program).env("HOME", &home).env("KUBECONFIG", kubeconfig));
            let plain = |bytes: &[u8]| {
                let plain = named.replace_all(&text(bytes), "kubectl").into_owned();
                plain.replace(home.to_str().unwrap(), "HOME")
            };
            (output.status.code(), plain(&output.stdout), plain(&output.stderr), files(&home))
        });
        if real != own {
            differing.push(format!("config {step}\nkubectl {real:#?}\nsagong {own:#?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// What is in a directory and below, but for caches.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == ".kube" || name == "cache" {
            continue;
        }
        if entry.path().is_dir() {
            found.extend(
                files(&entry.path()).into_iter().map(|(inner, text)| (format!("{name}/{inner}"), text)),
            );
        } else {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            found.insert(name, text.replace(directory.to_str().unwrap(), "HOME"));
        }
    }
    found
}

/// Watches of a config map's life, each run by both programs at the same time.
const WATCHES: [&[&str]; 10] = [
    &["get", "cm", "-w"],
    &["get", "cm", "--watch-only"],
    &["get", "cm", "-w", "--output-watch-events"],
    &["get", "cm", "-w", "-l", "x=y"],
    &["get", "cm", "-w", "-o", "name"],
    &["get", "cm", "-w", "-o", "json"],
    &["get", "cm", "-w", "-o", "yaml", "--output-watch-events"],
    &["get", "cm", "-w", "-o", "custom-columns=N:.metadata.name", "--no-headers"],
    &["get", "cm", "kube-root-ca.crt", "-w"],
    &["get", "cm", "-w", "-A"],
];

#[test]
fn watches_show_what_kubectl_shows_and_end_with_ctrl_c() {
    if !have("kubectl") {
        return;
    }
    let (cluster, ours) = (Cluster::prepare(), Ours::new());
    cluster.up(&[]);
    eventually("the first config map", || {
        run(&mut cluster.kubectl_command(&["get", "cm", "kube-root-ca.crt"])).status.success().then_some(())
    });
    let start = |mut command: Command| {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut pairs = Vec::new();
    for arguments in WATCHES {
        let mut real = Command::new(theirs());
        real.args(arguments).env("KUBECONFIG", cluster.data_dir().join("kubeconfig"));
        pairs.push((arguments, start(real), start(ours.command(&cluster, arguments))));
    }
    // A watch says nothing when it has begun.
    std::thread::sleep(Duration::from_secs(3));
    cluster.kubectl(&["create", "cm", "watched", "--from-literal=a=b"]);
    cluster.kubectl(&["label", "cm", "watched", "x=y"]);
    cluster.kubectl(&["patch", "cm", "watched", "-p", "{\"data\":{\"c\":\"d\"}}"]);
    cluster.kubectl(&["delete", "cm", "watched"]);
    std::thread::sleep(Duration::from_secs(2));
    let age = Regex::new(r"\b[0-9]+(s|m)\b").unwrap();
    for (arguments, real, own) in pairs {
        interrupt(&real);
        interrupt(&own);
        let (real, own) = (ended(real), ended(own));
        let plain = |bytes: &[u8]| age.replace_all(&text(bytes), "AGE").into_owned();
        assert!(
            arguments.contains(&"kube-root-ca.crt") || text(&own.stdout).contains("watched"),
            "{arguments:?}"
        );
        assert_eq!(plain(&own.stdout), plain(&real.stdout), "{arguments:?}");
        assert_eq!(text(&own.stderr), text(&real.stderr), "{arguments:?}");
        assert_eq!(own.status.code(), real.status.code(), "{arguments:?}");
    }
}

const CONTROLLER: &str = "
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 3
  selector: {app: rolled}
  template:
    metadata: {labels: {app: rolled}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'luksa/kubia:v1'}]
";

#[test]
fn a_rolling_update_that_was_interrupted_goes_on_or_back() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::start();
    cluster.kubectl_stdin(&["create"], CONTROLLER);
    cluster.kubectl(&["wait", "pods", "-l", "app=rolled", "--for=condition=Ready", "--timeout=60s"]);
    let update = |more: &[&str]| {
        let mut command = Command::new(sagong());
        command
            .args(["rolling-update", "old", "new", "--image=luksa/kubia:v2", "--poll-interval=20ms"])
            .args(more);
        command.env("KUBECONFIG", cluster.data_dir().join("kubeconfig"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let replicas = |name: &str| {
        let output =
            run(&mut cluster.kubectl_command(&["get", "rc", name, "-o", "jsonpath={.spec.replicas}"]));
        text(&output.stdout).parse::<i64>().ok()
    };
    let interrupted = || {
        let child = update(&["--update-period=1h"]).spawn().unwrap();
        eventually("a first step", || (replicas("new")? > 0 && replicas("old")? < 3).then_some(()));
        interrupt(&child);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(130));
        assert!(
            text(&output.stderr).contains("Run the same command again to go on"),
            "{}",
            text(&output.stderr)
        );
        output
    };
    interrupted();
    let output = run(&mut update(&["--rollback", "--update-period=10ms"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((replicas("old"), replicas("new")), (Some(3), None), "{}", text(&output.stdout));
    interrupted();
    let output = run(&mut update(&["--update-period=10ms"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Found existing update in progress (new), resuming."));
    assert_eq!((replicas("old"), replicas("new")), (None, Some(3)));
}

/// Runs a script on a terminal of its own, and whether the terminal is set afterwards as it was before.
fn on_terminal(script: &str, kubeconfig: &Path) -> (String, bool) {
    let whole = format!("stty -a > before; {script}; stty -a > after; cmp -s before after && echo SANE");
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("timeout");
    command.args(["60", "script", "-qec", &whole, "/dev/null"]).current_dir(directory.path());
    let output = run(command.env("KUBECONFIG", kubeconfig).env("SHELL", "/bin/sh").env("TERM", "xterm"));
    let said = text(&output.stdout);
    (said.clone(), said.contains("SANE"))
}

#[test]
fn a_terminal_is_as_it_was_however_a_session_ends() {
    if !have("script") || !have("busybox") {
        return;
    }
    let (cluster, ours) = (Cluster::start(), Ours::new());
    cluster.load_shell();
    let kubeconfig = cluster.data_dir().join("kubeconfig");
    let pod = "run shell --image=test/shell:1 --restart=Never -- -c 'sleep 1000'";
    let program = ours.program().display().to_string();
    stdout(Command::new("sh").args(["-c", &format!("{program} {pod}")]).env("KUBECONFIG", &kubeconfig));
    stdout(&mut ours.command(&cluster, &["wait", "pod/shell", "--for=condition=Ready", "--timeout=60s"]));
    let exec = format!("{program} exec -it shell -- sh -c");
    let (said, sane) = on_terminal(&format!("{exec} 'stty size; exit 5'; echo code $?"), &kubeconfig);
    assert!(
        sane && said.contains("code 5") && said.contains("command terminated with exit code 5"),
        "{said}"
    );
    // Told to end in the middle.
    let killed = format!(
        "(sleep 2; kill -TERM $(cat pid)) & sh -c 'echo $$ > pid; exec {program} exec -it shell -- sleep 1000'; echo over"
    );
    let (said, sane) = on_terminal(&killed, &kubeconfig);
    assert!(sane && said.contains("over"), "{said}");
    // The pod is deleted under it.
    let deleted = format!(
        "(sleep 1; {program} delete pod shell --now > /dev/null) & {exec} 'sleep 1000'; echo code $?"
    );
    let (said, sane) = on_terminal(&deleted, &kubeconfig);
    assert!(sane && said.contains("code "), "{said}");
    // A rollout watched live.
    let create = "create deployment web --image=luksa/kubia:v1 --replicas=2 > /dev/null";
    let watch =
        format!("{program} {create}; {} rollout watch deployment/web; echo code $?", sagong().display());
    let (said, sane) = on_terminal(&watch, &kubeconfig);
    assert!(sane && said.contains("code 0") && said.contains("successfully rolled out"), "{said}");
    assert!(said.contains("\u{1b}[") && said.contains("2/2"), "{said}");
}

#[test]
fn in_a_pod_the_service_account_is_who_one_is() {
    let (cluster, ours) = (Cluster::prepare(), Ours::new());
    cluster.up(&[]);
    let token = eventually("a service account", || {
        let output = run(&mut ours.command(&cluster, &["create", "token", "default"]));
        output.status.success().then(|| text(&output.stdout).trim().to_owned())
    });
    // A place for files that only this one process sees.
    let script = "
        mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount
        cd /run/secrets/kubernetes.io/serviceaccount && cp \"$CA\" ca.crt
        printf %s \"$TOKEN\" > token && printf kube-system > namespace
        \"$PROGRAM\" auth whoami && \"$PROGRAM\" get cm";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).env_remove("KUBECONFIG").env("HOME", ours.directory.path());
    command
        .env("CA", cluster.data_dir().join("pki/ca.crt"))
        .env("TOKEN", token)
        .env("PROGRAM", ours.program());
    command
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", cluster.port.to_string());
    let output = run(&mut command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains("system:serviceaccount:default:default"), "{out}{err}");
    assert!(err.contains("in the namespace \"kube-system\""), "{out}{err}");
}

#[test]
fn a_certificate_out_of_date_and_a_server_that_is_gone_are_told_in_one_sentence() {
    if !have("openssl") {
        return;
    }
    let (cluster, ours) = (Cluster::prepare(), Ours::new());
    cluster.up(&[]);
    let directory = tempfile::tempdir().unwrap();
    let pki = cluster.data_dir().join("pki");
    let script = "
        openssl ecparam -genkey -name prime256v1 -noout -out key.pem
        openssl req -new -key key.pem -subj /O=system:masters/CN=old -out old.csr
        printf 'basicConstraints=CA:FALSE\\n' > ext
        openssl x509 -req -in old.csr -CA \"$PKI/ca.crt\" -CAkey \"$PKI/ca.key\" -CAcreateserial -CAserial serial \
            -days -1 -extfile ext -out old.pem";
    let mut openssl = Command::new("sh");
    stdout(openssl.args(["-ec", script]).current_dir(directory.path()).env("PKI", &pki));
    let flags = ["--client-certificate=old.pem", "--client-key=key.pem"];
    let mut get = ours.command(&cluster, &["get", "pods"]);
    let output = run(get.args(flags).current_dir(directory.path()));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "Unable to connect to the server: remote error: tls: expired certificate\n"
    );
    let watch = ours
        .command(&cluster, &["get", "cm", "-A", "-w"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let kubeconfig = std::fs::read(cluster.data_dir().join("kubeconfig")).unwrap();
    stdout(&mut cluster.sagong(&["down"]));
    // A watch ends with its server, and does not wait for ever.
    ended(watch);
    std::fs::write(directory.path().join("kubeconfig"), kubeconfig).unwrap();
    let mut get = ours.command(&cluster, &["get", "pods"]);
    let output = run(get.env("KUBECONFIG", directory.path().join("kubeconfig")));
    let expected = format!(
        "The connection to the server 127.0.0.1:{} was refused - did you specify the right host or port?\n",
        cluster.port
    );
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), expected));
}
