//! The controllers outside of the cluster's process: `sagong up --without-controllers` and `sagong controllers`.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::{Cluster, eventually, have, run, sagong, stdout};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: kubia}
spec:
  replicas: 3
  selector: {matchLabels: {app: kubia}}
  template:
    metadata: {labels: {app: kubia}}
    spec:
      nodeSelector: {type: simulated}
      containers: [{name: nodejs, image: 'luksa/kubia:v1'}]
";

/// `sagong controllers --kubeconfig`, killed when dropped.
struct Controllers {
    process: Child,
    log: PathBuf,
}

impl Controllers {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let log = cluster.data_dir().join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let mut command = Command::new(sagong());
        command.arg("controllers").arg("--kubeconfig").arg(cluster.data_dir().join("kubeconfig"));
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { process: command.spawn().unwrap(), log }
    }

    fn says(&self, what: &str) {
        let said = || std::fs::read_to_string(&self.log).unwrap_or_default();
        eventually(&format!("{what:?} in {}", self.log.display()), || said().contains(what).then_some(()));
    }

    /// As at the end of a shift: with SIGTERM.
    fn stop(mut self) {
        stdout(Command::new("kill").arg(self.process.id().to_string()));
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}: {}", std::fs::read_to_string(&self.log).unwrap_or_default());
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn holder(cluster: &Cluster) -> String {
    let leases = cluster.get(&["leases", "-n", "kube-system"]);
    let lease = leases["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["metadata"]["name"] == "kube-controller-manager");
    lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn controllers_of_their_own_roll_a_deployment_and_take_over_from_each_other() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::prepare();
    cluster.up(&["--simulated-nodes", "2", "--without-controllers"]);
    cluster.kubectl_stdin(&["apply"], DEPLOYMENT);
    let waits = ["wait", "deployment", "kubia", "--for=condition=Available", "--timeout=1s"];
    cluster.kubectl_fails(&waits);

    let first = Controllers::start(&cluster, "first");
    first.says("until interrupted");
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    let published = ["get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.data.ca\\.crt}"];
    let own = std::fs::read_to_string(cluster.data_dir().join("pki/ca.crt")).unwrap();
    let published = eventually("what pods know the API server by", || {
        let output = run(&mut cluster.kubectl_command(&published));
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert_eq!(published.trim(), own.trim());
    let leader = holder(&cluster);
    let second = Controllers::start(&cluster, "second");
    second.says(&leader);
    cluster.kubectl(&["set", "image", "deployment", "kubia", "nodejs=luksa/kubia:v2"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    assert_eq!(holder(&cluster), leader, "one leads, and the other waits");

    first.stop();
    second.says("until interrupted");
    assert_ne!(holder(&cluster), leader);
    cluster.kubectl(&["rollout", "undo", "deployment", "kubia"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    let sets = cluster.get(&["replicasets"]);
    let sets = sets["items"].as_array().unwrap();
    let mut sizes: Vec<_> = sets.iter().map(|set| set["spec"]["replicas"].as_i64().unwrap()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 3]);
    second.stop();

    let transitions = cluster.get(&["lease", "kube-controller-manager", "-n", "kube-system"]);
    assert_eq!(transitions["spec"]["leaseTransitions"], 1);
    let events =
        cluster.kubectl(&["get", "events", "-n", "kube-system", "-o", "jsonpath={.items[*].message}"]);
    assert!(events.contains(&format!("{leader} became leader")), "{events}");
}

#[test]
fn controllers_beside_a_cluster_with_its_own_wait_for_their_turn() {
    if !have("kubectl") {
        return;
    }
    let cluster = Cluster::prepare();
    cluster.up(&[]);
    let own = eventually("a leader", || Some(holder(&cluster)).filter(|holder| !holder.is_empty()));
    assert!(own.starts_with("sagong-"), "{own}");
    let other = Controllers::start(&cluster, "other");
    other.says(&format!("Waiting: {own} runs the controllers"));
    assert_eq!(holder(&cluster), own);
    other.stop();
}
