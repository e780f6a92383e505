//! What is wrong is refused in upstream's words, and nothing is changed by it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, have, run, stdout};
use std::path::Path;
use std::process::{Command, Stdio};

/// A Deployment with some lines of its spec replaced.
fn deployment(replace: &[(&str, &str)]) -> String {
    let mut text = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: kubia
spec:
  replicas: 3
  selector:
    matchLabels:
      app: kubia
  template:
    metadata:
      labels:
        app: kubia
    spec:
      containers:
      - image: luksa/kubia:v1
        name: nodejs
"
    .to_owned();
    for (old, new) in replace {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    text
}

#[test]
fn bad_objects_are_refused_in_upstreams_words() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    let rolling =
        |fields: &str| format!("spec:\n  strategy:\n    rollingUpdate: {{{fields}}}\n  replicas: 3");
    let both_zero = rolling("maxSurge: 0, maxUnavailable: 0");
    let cases: [(&[(&str, &str)], &str); 9] = [
        (
            &[("replicas: 3", "replicas: -1")],
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            &[("matchLabels:\n      app: kubia", "matchLabels:\n      app: other")],
            "`selector` does not match template `labels`",
        ),
        (
            &[("spec:\n  replicas: 3", &both_zero)],
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            &[("name: kubia\n", "name: Kubia_1\n")],
            "metadata.name: Invalid value: \"Kubia_1\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            &[("labels:\n        app: kubia", "labels:\n        app: -kubia-")],
            "a valid label must be an empty string or consist of alphanumeric characters",
        ),
        (&[("replicas: 3", "replicass: 3")], "strict decoding error: unknown field \"spec.replicass\""),
        (
            &[("replicas: 3", "replicas: three")],
            "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            &[("kind: Deployment", "kind: Deploymentt")],
            "no matches for kind \"Deploymentt\" in version \"apps/v1\"",
        ),
        (&[("containers:", "containers")], "error: error parsing"),
    ];
    for (change, message) in cases {
        let output = cluster.kubectl_with(&["create"], &deployment(change));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{message}");
        assert!(error.contains(message), "wanted {message:?}, got {error}");
    }
    assert_eq!(cluster.get(&["deployments"])["items"], serde_json::json!([]), "nothing was created");

    let error = cluster.kubectl_fails(&["get", "nosuchthings"]);
    assert_eq!(error, "error: the server doesn't have a resource type \"nosuchthings\"\n");
    let error = cluster.kubectl_fails(&["get", "deployment", "nosuch"]);
    assert_eq!(error, "Error from server (NotFound): deployments.apps \"nosuch\" not found\n");
}

#[test]
fn bad_changes_are_refused_and_the_object_stays() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    cluster.kubectl_stdin(&["create"], &deployment(&[("replicas: 3", "replicas: 0")]));
    let before = cluster.get(&["deployment", "kubia"])["spec"].clone();

    let again = cluster.kubectl_with(&["create"], &deployment(&[]));
    let error = String::from_utf8(again.stderr).unwrap();
    assert!(
        error.contains("Error from server (AlreadyExists)")
            && error.contains("deployments.apps \"kubia\" already exists"),
        "{error}"
    );

    let selector = r#"{"spec":{"selector":{"matchLabels":{"app":"other"}},"template":{"metadata":{"labels":{"app":"other"}}}}}"#;
    let error = cluster.kubectl_fails(&["patch", "deployment", "kubia", "-p", selector]);
    assert!(
        error.contains("spec.selector: Invalid value") && error.contains("field is immutable"),
        "{error}"
    );

    let stale = r#"{"metadata":{"resourceVersion":"1"},"spec":{"replicas":1}}"#;
    let error = cluster.kubectl_fails(&["patch", "deployment", "kubia", "-p", stale]);
    assert!(
        error.contains(
            "the object has been modified; please apply your changes to the latest version and try again"
        ),
        "{error}"
    );

    let error = cluster.kubectl_fails(&["patch", "deployment", "kubia", "-p", r#"{"spec":{"replicas":-1}}"#]);
    assert!(error.contains("must be greater than or equal to 0"), "{error}");
    let malformed = cluster.kubectl_fails(&["patch", "deployment", "kubia", "-p", "{"]);
    assert!(malformed.contains("error decoding patch"), "{malformed}");
    assert_eq!(cluster.get(&["deployment", "kubia"])["spec"], before);
}

/// Sends a body with the administrator's certificate and returns the status code and the answer.
fn post(cluster: &Cluster, path: &str, kind: &str, body: &[u8]) -> (String, String) {
    use std::io::Write;
    let pki = cluster.data_dir().join("pki");
    let token = std::fs::read_to_string(pki.join("admin.token")).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sk", "-X", "POST", "-w", "\n%{http_code}", "--data-binary", "@-", "-H", "Expect:"])
        .args([
            "-H",
            &format!("Content-Type: {kind}"),
            "-H",
            &format!("Authorization: Bearer {}", token.trim()),
        ])
        .arg(format!("https://127.0.0.1:{}{path}", cluster.port))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = curl.spawn().unwrap();
    // The server may answer before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(body);
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let (answer, code) = output.rsplit_once('\n').unwrap();
    (code.to_owned(), answer.to_owned())
}

#[test]
fn bodies_that_cannot_be_read_are_refused_with_the_place() {
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let (code, answer) = post(&cluster, path, "application/json", b"{\n \"kind\": \"Deployment\",\n oops }");
    assert_eq!(code, "400");
    assert!(answer.contains("line 3"), "{answer}");
    let (code, answer) = post(&cluster, path, "application/yaml", b"kind: Deployment\nspec: [1, 2\n");
    assert_eq!(code, "400");
    assert!(answer.contains("line"), "{answer}");
    let (code, _) = post(&cluster, path, "application/json", &vec![b' '; (3 << 20) + 1]);
    assert_eq!(code, "413");
    let (code, _) = post(&cluster, path, "text/plain", b"hello");
    assert_eq!(code, "415");
    let (code, _) =
        post(&cluster, "/apis/apps/v1/namespaces/default/nosuchthings", "application/json", b"{}");
    assert_eq!(code, "404");
}

#[test]
fn bad_command_lines_are_one_line_with_the_remedy() {
    let cluster = Cluster::prepare();
    let error = |command: &mut Command| {
        let output = run(command);
        assert!(!output.status.success(), "{command:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let file = cluster.data_dir().with_file_name("not-an-image.tar");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, b"nothing of the kind").unwrap();
    let text = error(&mut cluster.sagong(&["image", "load", file.to_str().unwrap()]));
    assert!(text.contains("not a whole tar archive") && text.lines().count() == 1, "{text}");
    let text = error(&mut Cluster::prepare().sagong(&["image", "load", "/nonexistent.tar"]));
    assert!(text.contains("cannot read /nonexistent.tar; give") && text.lines().count() == 1, "{text}");
    let text = error(&mut cluster.sagong(&["tunnel"]));
    assert!(text.contains("sagong up -d --no-load-balancer") && text.lines().count() == 1, "{text}");
    let text = error(&mut cluster.up_command(&["--pod-cidr", "not-a-cidr"]));
    assert!(text.contains("--pod-cidr"), "{text}");
    // A machine without nft, as far as this one process sees.
    let hide = "mount --bind /dev/null $(PATH=$PATH:/usr/sbin command -v nft) && exec \"$0\" up --data-dir /nonexistent/sagong";
    let mut without_nft = Command::new("unshare");
    let text = error(without_nft.args(["--mount", "sh", "-c", hide]).arg(sagong_tests::sagong()));
    assert!(text.contains("nft not found; install the package nftables"), "{text}");
    assert!(!Path::new("/nonexistent").exists(), "nothing was changed");
    for arguments in [&["up"][..], &["image", "list"]] {
        let mut as_nobody = Command::new("setpriv");
        as_nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(sagong_tests::sagong());
        let text = error(as_nobody.args(arguments).current_dir("/"));
        assert!(text.contains("root") || text.contains("denied"), "{text}");
    }
    assert_eq!(stdout(&mut cluster.sagong(&["down"])).lines().count(), 1);
}
