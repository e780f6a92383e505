//! Images from a registry (Debian's docker-registry, on loopback), and images that are not there.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::registry::Registry;
use sagong_tests::{Cluster, eventually, example, have, stdout};
use serde_json::{Value, json};

#[test]
fn an_image_is_pulled_from_a_registry_by_name() {
    if !have("docker-registry") || !have("kubectl") || !have("curl") {
        return;
    }
    let registry = Registry::start();
    let name = registry.push_kubia();
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    cluster.kubectl(&["create", "deployment", "kubia", "--image", &name]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    let pod = cluster.get(&["pods"])["items"][0].clone();
    let address = format!("http://{}:8080", pod["status"]["podIP"].as_str().unwrap());
    assert!(cluster.curl(&address, 1)[0].starts_with("This is v2"));
    let events = cluster.kubectl(&["get", "events"]);
    assert!(events.contains(&format!("Pulling image \"{name}\"")), "{events}");
    assert!(events.contains(&format!("Successfully pulled image \"{name}\" in ")), "{events}");

    // By hand, too, into a store that nobody runs.
    let other = Cluster::prepare();
    let said = stdout(&mut other.sagong(&["image", "pull", &name]));
    assert!(said.starts_with(&format!("Loaded {name}")), "{said}");
    assert!(stdout(&mut other.sagong(&["image", "list"])).contains(&name));
    stdout(&mut other.sagong(&["image", "rm", &name]));
    assert!(!stdout(&mut other.sagong(&["image", "list"])).contains(&name));
}

#[test]
fn a_private_image_is_pulled_with_the_secret_of_the_pod_or_of_its_account() {
    if !have("docker-registry") || !have("kubectl") || !have("curl") {
        return;
    }
    let registry = Registry::start_private();
    let name = registry.push_kubia();
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    let server = format!("--docker-server=127.0.0.1:{}", registry.port);
    for (secret, password) in [("wrong", "guessed"), ("right", "s3cret")] {
        let password = format!("--docker-password={password}");
        let command =
            ["create", "secret", "docker-registry", secret, &server, "--docker-username=user", &password];
        cluster.kubectl(&command);
    }
    let create = |pod: &str, secret: &str| {
        let secrets: Vec<Value> =
            [secret].iter().filter(|name| !name.is_empty()).map(|name| json!({"name": name})).collect();
        let container = json!({"name": "main", "image": name, "imagePullPolicy": "Always"});
        let spec = json!({"containers": [container], "imagePullSecrets": secrets, "terminationGracePeriodSeconds": 0});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec});
        cluster.kubectl_stdin(&["create"], &pod.to_string());
    };
    let refused = |pod: &str, why: &str| {
        eventually("the registry's refusal", || {
            let state = cluster.get(&["pod", pod])["status"]["containerStatuses"][0]["state"].clone();
            let message = state["waiting"]["message"].as_str().unwrap_or_default().to_owned();
            (message.contains("pull access denied") && message.contains(why)).then_some(())
        });
    };
    create("anonymous", "");
    create("wrong", "wrong");
    refused("anonymous", "no credentials were given");
    refused("wrong", "the credentials given were refused");
    create("right", "right");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/right", "--timeout=60s"]);
    // What the account has, its pods have.
    cluster.kubectl(&[
        "patch",
        "serviceaccount",
        "default",
        "-p",
        r#"{"imagePullSecrets": [{"name": "right"}]}"#,
    ]);
    create("by-account", "");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/by-account", "--timeout=60s"]);
}

#[test]
fn an_image_that_does_not_exist_holds_the_rollout_and_the_old_version_serves_on() {
    if !have("kubectl") || !have("docker-registry") {
        return;
    }
    let registry = Registry::start();
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml")]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    cluster.kubectl(&["expose", "deployment", "kubia", "--port=8080"]);
    let missing = format!("nodejs=127.0.0.1:{}/nosuch:v9", registry.port);
    cluster.kubectl(&["set", "image", "deployment", "kubia", &missing]);

    let waiting = |reason: &str| {
        let pods = cluster.get(&["pods"]);
        let pods = pods["items"].as_array().unwrap().clone();
        pods.iter()
            .any(|pod| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason)
            .then_some(())
    };
    eventually("ErrImagePull", || waiting("ErrImagePull").or_else(|| waiting("ImagePullBackOff")));
    eventually("ImagePullBackOff", || waiting("ImagePullBackOff"));
    let table = cluster.kubectl(&["get", "po"]);
    assert!(table.contains("ImagePullBackOff") || table.contains("ErrImagePull"), "{table}");
    let deployment = cluster.get(&["deployment", "kubia"]);
    assert_eq!(deployment["status"]["availableReplicas"], 3, "{deployment}");
    let address = cluster.get(&["svc", "kubia"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    for body in cluster.curl(&format!("http://{address}:8080"), 10) {
        assert!(body.starts_with("This is v1"), "{body}");
    }
    cluster.kubectl(&["rollout", "undo", "deployment", "kubia"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
}
