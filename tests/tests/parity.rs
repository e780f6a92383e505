//! Our kubectl and the real one, side by side on one cluster: standard output, standard error and exit code are the
//! same, byte for byte, once ages, times and generated names are made equal.
//!
//! The invocations are in `parity/cases.txt`, the differences we want in `parity/differences.txt`. `$KUBECTL` names
//! the real program where it is not the first on the path.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use regex::Regex;
use sagong_tests::{Cluster, example, have, sagong};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const CASES: &str = include_str!("../parity/cases.txt");
const DIFFERENCES: &str = include_str!("../parity/differences.txt");

/// What one program said to one invocation.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

struct Bench {
    cluster: Cluster,
    directory: tempfile::TempDir,
    rules: Vec<(Regex, &'static str)>,
    /// The name of the only node.
    node: String,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A link by that name is how the binary becomes kubectl.
        let ours = directory.path().join("ours");
        std::fs::create_dir(&ours).unwrap();
        std::os::unix::fs::symlink(sagong(), ours.join("kubectl")).unwrap();
        let rules = [
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
            (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)", "TIME"),
            (r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+ [+-][0-9]{4}", "TIME"),
            (r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} [+-][0-9]{4}", "DATE"),
            (r"\b[0-9]+(\.[0-9]+)?(s|m|h|d|ms)([0-9]+(s|m|h))*\b", "AGE"),
            (r"(resourceVersion\\?: ?\\?)\x22[0-9]+\\?\x22", "${1}RV"),
            (r"(nodePort\x22?: ?)[0-9]+", "${1}PORT"),
            (r"\b10\.[0-9]+\.[0-9]+\.[0-9]+\b", "IP"),
            (r"(LIVE|MERGED)-[A-Za-z0-9]+", "$1"),
        ];
        let rules = rules.into_iter().map(|(from, to)| (Regex::new(from).unwrap(), to)).collect();
        let cluster = Cluster::start();
        let node = cluster.kubectl(&["get", "nodes", "-o", "name"]).trim().replace("node/", "");
        Self { cluster, directory, rules, node }
    }

    fn program(&self, ours: bool) -> PathBuf {
        if ours {
            return self.directory.path().join("ours/kubectl");
        }
        std::env::var_os("KUBECTL").map_or_else(|| "kubectl".into(), PathBuf::from)
    }

    /// Runs a case in a shell, so that it may quote.
    fn say(&self, ours: bool, case: &str, namespace: &str) -> Said {
        let script = format!("exec timeout 60 \"$PROGRAM\" {}", case.replace("$NS", namespace));
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(example(""))
            .env("PROGRAM", self.program(ours))
            .env("NODE", self.node.as_str())
            .env("KUBECONFIG", self.cluster.data_dir().join("kubeconfig"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_ne!(output.status.code(), Some(124), "{case}: no end after a minute");
        let text = |bytes: &[u8]| self.normal(&String::from_utf8_lossy(bytes), namespace);
        Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The same for a case that changes something: a controller may write between its read and its write.
    fn write(&self, ours: bool, case: &str, namespace: &str) -> Said {
        let mut said = self.say(ours, case, namespace);
        for _ in 0..5 {
            if !said.stderr.contains("Error from server (Conflict)") {
                break;
            }
            said = self.say(ours, case, namespace);
        }
        said
    }

    fn normal(&self, text: &str, namespace: &str) -> String {
        let mut text = text.replace(namespace, "NAMESPACE").replace("kubectl.1.33", "kubectl");
        for (from, to) in &self.rules {
            text = from.replace_all(&text, *to).into_owned();
        }
        text
    }

    /// Both programs on a case that changes nothing. Time goes on between the two, so an age may jump: again, then.
    fn differs_reading(&self, case: &str) -> Option<(Said, Said)> {
        let mut last = None;
        for _ in 0..3 {
            let (theirs, ours) = (self.say(false, case, "default"), self.say(true, case, "default"));
            if theirs == ours {
                return None;
            }
            last = Some((theirs, ours));
        }
        last
    }
}

/// The cases of a part of the file.
fn cases(part: &str) -> Vec<&'static str> {
    let mut current = "";
    let mut all = Vec::new();
    for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => current = name,
            None if current == part => all.push(line),
            None => {}
        }
    }
    all
}

/// Case and reason.
fn differences() -> BTreeMap<&'static str, &'static str> {
    let lines = DIFFERENCES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(" :: ").unwrap_or_else(|| panic!("{line:?} has no reason"))).collect()
}

fn report(failed: &[(&str, Said, Said)]) {
    for (case, theirs, ours) in failed {
        eprintln!("--- kubectl {case}\nkubectl {:?}\n{}{}", theirs.code, theirs.stdout, theirs.stderr);
        eprintln!("sagong {:?}\n{}{}", ours.code, ours.stdout, ours.stderr);
    }
    let names: Vec<&str> = failed.iter().map(|(case, ..)| *case).collect();
    assert!(failed.is_empty(), "{} invocations differ: {names:#?}", failed.len());
}

#[test]
fn there_are_enough_cases_and_few_enough_differences() {
    let count = cases("read").len() + cases("write").len();
    assert!(count >= 200, "only {count} cases");
    assert!(differences().len() <= 10, "too many differences");
    for case in differences().keys() {
        assert!(cases("read").contains(case) || cases("write").contains(case), "{case:?} is no case");
    }
}

#[test]
fn our_kubectl_says_what_the_real_one_says() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let bench = Bench::new();
    let cluster = &bench.cluster;
    cluster.kubectl(&["create", "-f", &example("kubia-rc-and-service-v1.yaml")]);
    cluster.kubectl(&["create", "-f", &example("kubia-deployment-v1.yaml"), "--record"]);
    cluster.kubectl(&["rollout", "status", "deployment", "kubia", "--timeout=60s"]);
    cluster.kubectl(&["wait", "pods", "--all", "--for=condition=Ready", "--timeout=60s"]);
    cluster.kubectl(&["create", "configmap", "settings", "--from-literal=a=b"]);
    cluster.kubectl(&["create", "secret", "generic", "keys", "--from-literal=p=q"]);
    cluster.kubectl(&["create", "-f", &example("../../tests/parity/odd.yaml")]);
    cluster.load_shell();
    cluster.kubectl(&["create", "-f", &example("../../tests/parity/shell.yaml")]);
    cluster.kubectl(&["wait", "pod/shell", "--for=condition=Ready", "--timeout=60s"]);
    let wanted = differences();
    let mut failed = Vec::new();
    for case in cases("read") {
        if let Some((theirs, ours)) = bench.differs_reading(case)
            && !wanted.contains_key(case)
        {
            failed.push((case, theirs, ours));
        }
    }
    cluster.kubectl(&["create", "namespace", "theirs-parity"]);
    cluster.kubectl(&["create", "namespace", "our-parity"]);
    for case in cases("write") {
        let case_in = |namespace: &str| format!("--namespace={namespace} {case}");
        let theirs = bench.write(false, &case_in("theirs-parity"), "theirs-parity");
        let ours = bench.write(true, &case_in("our-parity"), "our-parity");
        if theirs != ours && !wanted.contains_key(case) {
            failed.push((case, theirs, ours));
        }
    }
    report(&failed);
}
