//! What containers get from their pod, and what they do not get at, with real containers.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::shell::{TOOLS, cluster_with, create, import, output, pod, root as tools_root};
use sagong_tests::{Cluster, eventually, have, run, stdout};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn last_line(cluster: &Cluster, pod: &str) -> String {
    cluster.kubectl(&["logs", pod, "--tail=1"]).trim().to_owned()
}

/// kubectl itself, behind what may stand before it.
fn kubectl() -> PathBuf {
    let path = stdout(Command::new("sh").args(["-c", "command -v kubectl"]));
    Path::new(path.trim()).canonicalize().unwrap()
}

#[test]
fn a_client_in_a_pod_finds_the_api_server_and_is_known_there() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let kubectl = kubectl();
    let cluster = cluster_with(&[&kubectl]);
    let program = kubectl.file_name().unwrap().to_str().unwrap().to_owned();
    let review = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;
    let script = format!(
        "cd /var/run/secrets/kubernetes.io/serviceaccount; ls; cat namespace; echo; \
         echo '{review}' | {program} create --raw=/apis/authentication.k8s.io/v1/selfsubjectreviews -f -; echo; \
         {program} get pods; {program} get pods --token=guessed"
    );
    let said = output(&cluster, &pod("client", &script));
    assert!(said.starts_with("ca.crt\nnamespace\ntoken\ndefault\n"), "{said}");
    let user = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{said}"));
    let review: Value = serde_json::from_str(user).unwrap();
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:default", "{said}");
    let uid = cluster.get(&["pod", "client"])["metadata"]["uid"].clone();
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-uid"][0], uid, "{said}");
    // Known, but without rights; and with another token not even known.
    assert!(
        said.contains("User \"system:serviceaccount:default:default\" cannot list resource \"pods\""),
        "{said}"
    );
    assert!(said.contains("You must be logged in to the server"), "{said}");

    // The token ends with its pod.
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "client"});
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [], "boundObjectRef": bound},
    });
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let own = cluster.kubectl_stdin(&["create", "--raw", path], &request.to_string());
    let own: Value = serde_json::from_str(&own).unwrap();
    let own = own["status"]["token"].as_str().unwrap().to_owned();
    let asks = |token: &str| {
        let url = format!("https://127.0.0.1:{}/api", cluster.port);
        let header = format!("Authorization: Bearer {}", token.trim());
        stdout(Command::new("curl").args([
            "-sk",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            &header,
            &url,
        ]))
    };
    assert_eq!(asks(&own), "200");
    cluster.kubectl(&["delete", "pod", "client"]);
    assert_eq!(asks(&own), "401");

    // A pod that wants no token gets none, and an account that does not exist is named.
    let mut without = pod("without", "ls /var/run/secrets/kubernetes.io");
    without["spec"]["automountServiceAccountToken"] = json!(false);
    assert!(output(&cluster, &without).contains("No such file or directory"));
    let mut stranger = pod("stranger", "true");
    stranger["spec"]["serviceAccountName"] = json!("nobody");
    let refused = cluster.kubectl_with(&["create"], &stranger.to_string());
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("error looking up service account default/nobody"), "{refused}");
}

/// What [`a_program_of_kube_rs_finds_its_way_by_itself`] runs in a pod: this very program.
#[test]
#[ignore = "runs in a pod"]
fn in_a_pod() {
    use k8s_openapi::api::authentication::v1::SelfSubjectReview;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer: SelfSubjectReview = runtime.block_on(async {
        let client = kube::Client::try_default().await.unwrap();
        let api = kube::Api::all(client);
        api.create(&kube::api::PostParams::default(), &SelfSubjectReview::default()).await.unwrap()
    });
    println!("I am {}", answer.status.unwrap().user_info.unwrap().username.unwrap());
}

#[test]
fn a_program_of_kube_rs_finds_its_way_by_itself() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let own = std::env::current_exe().unwrap();
    let cluster = Cluster::prepare();
    let root = tools_root(&[&own]);
    // What a debugger would need is a hundred megabytes.
    let copy = root.path().join("bin").join(own.file_name().unwrap());
    let _ = run(Command::new("strip").arg(copy));
    // The libraries it is linked with, where it looks for them.
    for library in
        stdout(Command::new("ldd").arg(&own)).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let target = root.path().join(library.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(library, target).unwrap();
    }
    import(&cluster, root.path(), TOOLS);
    cluster.up(&[]);
    let program = own.file_name().unwrap().to_str().unwrap();
    let script = format!("/bin/{program} --ignored --exact in_a_pod --nocapture");
    let said = output(&cluster, &pod("client", &script));
    assert!(said.contains("I am system:serviceaccount:default:default\n"), "{said}");
}

#[test]
fn what_volumes_show_changes_within_seconds() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster_with(&[]);
    cluster.kubectl(&["create", "configmap", "cm", "--from-literal=a=1"]);
    cluster.kubectl(&["create", "secret", "generic", "sec", "--from-literal=k=1"]);
    let files = "/cm/a /single /sec/k /all/a /all/labels";
    let mut pod = pod(
        "watcher",
        &format!("while true; do echo $(for f in {files}; do cat $f; echo; done); sleep 0.1; done"),
    );
    let labels = json!({"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels['x']"}}]});
    pod["metadata"]["labels"] = json!({"x": "1"});
    pod["spec"]["volumes"] = json!([
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 256}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "cm"}}, {"downwardAPI": labels}]}},
        {"name": "later", "configMap": {"name": "later", "optional": true}},
    ]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "cm", "mountPath": "/cm"},
        {"name": "cm", "mountPath": "/single", "subPath": "a"},
        {"name": "sec", "mountPath": "/sec"},
        {"name": "all", "mountPath": "/all"},
        {"name": "later", "mountPath": "/later"},
    ]);
    create(&cluster, &pod);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/watcher", "--timeout=60s"]);
    eventually("the first values", || (last_line(&cluster, "watcher") == "1 1 1 1 1").then_some(()));

    let began = std::time::Instant::now();
    cluster.kubectl(&["patch", "configmap", "cm", "-p", r#"{"data": {"a": "2"}}"#]);
    cluster.kubectl(&["patch", "secret", "sec", "-p", r#"{"stringData": {"k": "2"}}"#]);
    cluster.kubectl(&["label", "pod", "watcher", "x=2", "--overwrite"]);
    // The file mounted by itself keeps its first value, as upstream documents it.
    eventually("the second values", || (last_line(&cluster, "watcher") == "2 1 2 2 2").then_some(()));
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());

    // What is immutable is refused a change, and what was missing comes when it is there.
    cluster.kubectl(&["patch", "configmap", "cm", "-p", r#"{"immutable": true}"#]);
    let refused = cluster.kubectl_fails(&["patch", "configmap", "cm", "-p", r#"{"data": {"a": "3"}}"#]);
    assert!(refused.contains("immutable"), "{refused}");
    let uid = cluster.get(&["pod", "watcher"])["metadata"]["uid"].as_str().unwrap().to_owned();
    let later = cluster.data_dir().join(format!("pods/{uid}/volumes/later/b"));
    cluster.kubectl(&["create", "configmap", "later", "--from-literal=b=1"]);
    eventually("what was optional", || std::fs::read_to_string(&later).ok().filter(|text| text == "1"));
    let secret = cluster.data_dir().join(format!("pods/{uid}/volumes/sec"));
    let kind = stdout(Command::new("stat").args(["-f", "-c", "%T"]).arg(&secret));
    assert_eq!(kind.trim(), "tmpfs", "secrets touch no disk");
}

#[test]
fn files_belong_to_the_pods_group_and_tokens_to_its_user() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster_with(&[]);
    cluster.kubectl(&["create", "secret", "generic", "sec", "--from-literal=k=v"]);
    let script = "id -u; id -G; cat /sec/k; echo; stat -L -c '%a %g' /sec/k /dir; touch /dir/x && stat -c %g /dir/x; \
                  stat -L -c '%a %u' /var/run/secrets/kubernetes.io/serviceaccount/token";
    let mut pod = pod("grouped", script);
    pod["spec"]["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000});
    pod["spec"]["volumes"] = json!([
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 256}}, {"name": "dir", "emptyDir": {}},
    ]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "sec", "mountPath": "/sec"}, {"name": "dir", "mountPath": "/dir"}]);
    let said = output(&cluster, &pod);
    assert_eq!(said, "1000\n1000 2000\nv\n440 2000\n2777 2000\n2000\n640 1000\n");
}

#[test]
fn system_calls_are_restricted_unless_the_pod_says_otherwise() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster_with(&[]);
    let script = "grep -E '^(Seccomp|CapBnd|CapEff):' /proc/self/status; unshare -U true && echo made; \
                  mkdir /tmp/d && echo mkdir; mount -t tmpfs none /tmp && echo mounted; true";
    let with = |name: &str, container: Value| {
        let mut pod = pod(name, script);
        pod["spec"]["containers"][0]["securityContext"] = container;
        pod
    };
    let said = output(&cluster, &with("default", json!({})));
    assert!(said.contains("Seccomp:\t2\n") && !said.contains("made") && !said.contains("mounted"), "{said}");
    assert!(said.contains("unshare(0x10000000): Operation not permitted"), "{said}");
    // What was lent to set the filter up is not there any more.
    for set in ["CapBnd:\t00000000a80425fb", "CapEff:\t00000000a80425fb"] {
        assert!(said.contains(set), "{said}");
    }
    let user =
        json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false});
    let said = output(&cluster, &with("restricted", user));
    assert!(said.contains("Seccomp:\t2\n") && said.contains("CapBnd:\t0000000000000000"), "{said}");
    let said = output(&cluster, &with("unconfined", json!({"seccompProfile": {"type": "Unconfined"}})));
    assert!(said.contains("Seccomp:\t0\n") && said.contains("made") && !said.contains("mounted"), "{said}");
    let said = output(&cluster, &with("privileged", json!({"privileged": true})));
    assert!(said.contains("Seccomp:\t0\n") && said.contains("mounted"), "{said}");

    // The same holds of what is executed in it later.
    create(&cluster, &pod("sleeper", "sleep 600"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]);
    let said = cluster.kubectl(&["exec", "sleeper", "--", "/bin/sh", "-c", script]);
    assert!(said.contains("Seccomp:\t2\n") && !said.contains("made"), "{said}");
    assert!(
        said.contains("CapBnd:\t00000000a80425fb") && said.contains("CapEff:\t00000000a80425fb"),
        "{said}"
    );

    let profiles = cluster.data_dir().join("seccomp/own");
    std::fs::create_dir_all(&profiles).unwrap();
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    std::fs::write(profiles.join("no-mkdir.json"), profile.to_string()).unwrap();
    let local = |file: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": file}});
    let said = output(&cluster, &with("localhost", local("own/no-mkdir.json")));
    assert!(said.contains("No space left on device") && said.contains("made"), "{said}");
    create(&cluster, &with("missing", local("own/nosuch.json")));
    eventually("the missing profile", || {
        let state = cluster.get(&["pod", "missing"])["status"]["containerStatuses"][0]["state"].clone();
        let message = state["waiting"]["message"].as_str().unwrap_or_default().to_owned();
        (state["waiting"]["reason"] == "CreateContainerError" && message.contains("own/nosuch.json"))
            .then_some(())
    });
}

/// The subresource that takes ephemeral containers.
const EPHEMERAL: &str = "/api/v1/namespaces/default/pods/app/ephemeralcontainers";

/// Runs a script beside `app`, with kubectl's own command if it is young enough to know how.
fn debug(cluster: &Cluster, script: &str) {
    let version: Value =
        serde_json::from_str(&cluster.kubectl(&["version", "--client", "-o", "json"])).unwrap();
    let minor =
        version["clientVersion"]["minor"].as_str().unwrap().trim_end_matches('+').parse::<u32>().unwrap();
    if minor >= 25 {
        let command = ["debug", "app", "--image", TOOLS, "--image-pull-policy=Never", "--target=main"];
        let command = [&command[..], &["--container=look", "--", "sh", "-c", script]].concat();
        cluster.kubectl(&command);
        return;
    }
    let mut pod = cluster.get(&["pod", "app"]);
    pod["spec"]["ephemeralContainers"] = json!([{
        "name": "look", "image": TOOLS, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
        "targetContainerName": "main",
    }]);
    cluster.kubectl_stdin(&["replace", "--raw", EPHEMERAL], &pod.to_string());
}

#[test]
fn a_debugger_sees_the_processes_of_the_container_it_looks_into() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster_with(&[]);
    cluster.load_kubia();
    create(
        &cluster,
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"},
            "spec": {"containers": [{"name": "main", "image": "luksa/kubia:v1"}], "terminationGracePeriodSeconds": 0},
        }),
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/app", "--timeout=60s"]);
    let script = "ps; wget -qO- http://127.0.0.1:8080; ls -l /proc/1/root/kubia; exit 3";
    debug(&cluster, script);
    let status = eventually("the end of the debugger", || {
        let pod = cluster.get(&["pod", "app"]);
        let status = pod["status"]["ephemeralContainerStatuses"][0].clone();
        status["state"]["terminated"].is_object().then_some(status)
    });
    assert_eq!((&status["name"], &status["ready"]), (&json!("look"), &json!(false)));
    assert_eq!(status["state"]["terminated"]["exitCode"], 3, "{status}");
    let said = cluster.kubectl(&["logs", "app", "-c", "look"]);
    assert!(said.contains("/kubia") && said.contains("This is v1 running in pod app"), "{said}");
    // The pod goes on as if nothing had been.
    let pod = cluster.get(&["pod", "app"]);
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["containerStatuses"][0]["restartCount"]),
        (&json!("Running"), &json!(0))
    );
    let events = cluster.kubectl(&["get", "events", "-o", "json"]);
    assert!(events.contains("spec.ephemeralContainers{look}"), "{events}");
    // It can be added to, and nothing else.
    let mut changed = cluster.get(&["pod", "app"]);
    changed["spec"]["ephemeralContainers"][0]["image"] = json!("other");
    let refused = cluster.kubectl_with(&["replace", "--raw", EPHEMERAL], &changed.to_string());
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("existing ephemeral containers \"look\" may not be changed"), "{refused}");
}

#[test]
fn containers_may_share_their_processes_and_see_nothing_of_the_node_by_that() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster_with(&[]);
    let look = "while ! ps | grep -q '[s]leep 4711'; do sleep 0.1; done; ps; ls /proc/1/root/; \
                kill $(ps | awk '/[s]leep 4711/ {print $1; exit}'); sleep 600";
    let mut pod = pod("shared", look);
    pod["spec"]["shareProcessNamespace"] = json!(true);
    pod["spec"]["restartPolicy"] = json!("Always");
    pod["spec"]["containers"][0]["securityContext"] = json!({"capabilities": {"add": ["SYS_PTRACE"]}});
    let other =
        json!({"name": "other", "image": TOOLS, "imagePullPolicy": "Never", "command": ["sleep", "4711"]});
    pod["spec"]["containers"].as_array_mut().unwrap().push(other);
    create(&cluster, &pod);
    let status = eventually("the other container to be started again", || {
        let status = cluster.get(&["pod", "shared"])["status"]["containerStatuses"].clone();
        (status[1]["restartCount"] == 1 && status[1]["state"]["running"].is_object()).then_some(status)
    });
    assert_eq!(status[0]["restartCount"], 0, "its neighbour lives on: {status}");
    let said = cluster.kubectl(&["logs", "shared", "-c", "main"]);
    let first =
        said.lines().find(|line| line.trim_start().starts_with("1 ")).unwrap_or_else(|| panic!("{said}"));
    assert!(first.contains("sagong-sandbox") && !first.contains("root"), "{said}");
    // Whoever traces the first process finds an empty place.
    let listed: Vec<&str> = said.lines().skip_while(|line| !line.contains("sleep 4711")).collect();
    assert!(!listed.iter().any(|line| ["etc", "proc", "home"].contains(line)), "{said}");
    let uid = cluster.get(&["pod", "shared"])["metadata"]["uid"].as_str().unwrap().to_owned();
    let cgroups = || stdout(Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("pod{uid}")]));
    assert!(!cgroups().is_empty());
    cluster.kubectl(&["delete", "pod", "shared"]);
    eventually("the first process to end with the pod", || cgroups().is_empty().then_some(()));

    let mut host = sagong_tests::shell::pod("host", "ls -d /proc/[0-9]* | wc -l");
    host["spec"]["hostPID"] = json!(true);
    let seen: usize = output(&cluster, &host).trim().parse().unwrap();
    assert!(seen > 10, "{seen}");
}

#[test]
fn a_program_that_cannot_be_executed_is_told_as_upstream_tells_it() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster_with(&[]);
    let mut pod = pod("broken", "");
    pod["spec"]["containers"][0]["command"] = json!(["/no/such/program"]);
    create(&cluster, &pod);
    let ended = eventually("its end", || {
        let status = cluster.get(&["pod", "broken"])["status"]["containerStatuses"][0].clone();
        let ended = status["state"]["terminated"].clone();
        ended.is_object().then_some(ended)
    });
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("StartError"), &json!(128)), "{ended}");
    assert_eq!(ended["startedAt"], "1970-01-01T00:00:00Z", "{ended}");
    let text = cluster.kubectl(&["describe", "pod", "broken"]);
    assert!(text.contains("Thu, 01 Jan 1970 00:00:00"), "{text}");
    let node = cluster.kubectl(&["describe", "node"]);
    for event in ["Starting kubelet.", "status is now: NodeReady", "status is now: NodeHasSufficientMemory"] {
        assert!(node.contains(event), "{event}: {node}");
    }
}

#[test]
fn a_pod_whose_volume_grows_beyond_its_limit_is_evicted() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster_with(&[]);
    let mut pod = pod("greedy", "dd if=/dev/zero of=/dir/file bs=1M count=4; sync; sleep 600");
    pod["spec"]["volumes"] = json!([{"name": "dir", "emptyDir": {"sizeLimit": "1Mi"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "dir", "mountPath": "/dir"}]);
    create(&cluster, &pod);
    let status = eventually("the eviction", || {
        let status = cluster.get(&["pod", "greedy"])["status"].clone();
        (status["phase"] == "Failed").then_some(status)
    });
    assert_eq!(status["reason"], "Evicted", "{status}");
    assert_eq!(status["message"], "Usage of EmptyDir volume \"dir\" exceeds the limit \"1Mi\". ");
}
