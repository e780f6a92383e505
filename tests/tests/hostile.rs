//! Containers that try to get at the node, at other pods and at the API.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_tests::shell::{TOOLS, create, import, output, pod, root};
use sagong_tests::{Cluster, eventually, have, stdout};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// kubectl itself, behind what may stand before it.
fn kubectl() -> PathBuf {
    let path = stdout(Command::new("sh").args(["-c", "command -v kubectl"]));
    Path::new(path.trim()).canonicalize().unwrap()
}

/// A cluster with the image of tools, kubectl among them.
fn cluster() -> Cluster {
    let root = root(&[]);
    std::fs::copy(kubectl(), root.path().join("bin/kubectl")).unwrap();
    let cluster = Cluster::prepare();
    import(&cluster, root.path(), TOOLS);
    cluster.up(&[]);
    cluster
}

/// Each line would say ESCAPED if it worked.
const KERNEL: [&str; 26] = [
    "echo h > /proc/sysrq-trigger && echo ESCAPED sysrq",
    "echo '|/tmp/x' > /proc/sys/kernel/core_pattern && echo ESCAPED core_pattern",
    "echo 1 > /proc/sys/kernel/panic && echo ESCAPED panic",
    "find /proc/sys -type f | while read f; do (: > $f) && echo ESCAPED $f; done",
    "for f in /sys/kernel/mm/ksm/run /sys/kernel/uevent_helper /sys/power/state /sys/module/*/parameters/*; do \
     (: > $f) && echo ESCAPED $f; done",
    "test -s /proc/kcore && echo ESCAPED kcore",
    "head -c 1 /proc/kmsg && echo ESCAPED kmsg",
    "cat /proc/timer_list 2>/dev/null | grep -q . && echo ESCAPED timer_list",
    "cat /proc/keys 2>/dev/null | grep -q . && echo ESCAPED keys",
    "ls /sys/firmware | grep -q . && echo ESCAPED firmware",
    "mount -t proc none /tmp && echo ESCAPED mount",
    "mount --bind / /tmp && echo ESCAPED bind",
    "mount -t cgroup -o memory none /tmp && echo ESCAPED cgroup mount",
    "mount -t overlay -o lowerdir=/bin:/etc none /tmp && echo ESCAPED overlay",
    "umount /proc/kcore 2>/dev/null && echo ESCAPED umount",
    "umount /proc/sys 2>/dev/null && echo ESCAPED umount of sys",
    "for d in /sys/dev/block/*; do d=${d##*/}; mknod /tmp/b$d b ${d%:*} ${d#*:}; \
     head -c 1 /tmp/b$d && echo ESCAPED disk $d; (: > /tmp/b$d) && echo ESCAPED written $d; done",
    "for d in 1:1 1:2 1:4 1:11 4:64 5:1 10:200 10:229 10:232 10:237 136:0; do mknod /tmp/c$d c ${d%:*} ${d#*:}; \
     (: < /tmp/c$d) && echo ESCAPED device $d; done",
    "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name tasks \
     -o -name cgroup.procs -o -name 'memory.*limit*' -o -name pids.max -o -name devices.allow 2>/dev/null); do \
     echo 0 > $f && echo ESCAPED $f; done",
    "unshare -m true && echo ESCAPED unshare",
    "unshare -U true && echo ESCAPED user namespace",
    "hostname evil && echo ESCAPED hostname",
    "date -s 2001-01-01 >/dev/null; test $(date +%Y) = 2001 && echo ESCAPED date",
    "reboot -f && echo ESCAPED reboot",
    "dmesg | grep -q . && echo ESCAPED dmesg",
    "echo -1000 > /proc/self/oom_score_adj && echo ESCAPED oom score",
];

/// The same, against others on the node and against the API.
const OTHERS: [&str; 13] = [
    "ls /proc/1/root/../../etc/shadow 2>/dev/null && echo ESCAPED root",
    "nsenter -t 1 -m true && test -e /etc/shadow && echo ESCAPED nsenter",
    "chroot /proc/1/root test -e /etc/shadow && echo ESCAPED chroot",
    "test $(ls -d /proc/[0-9]* | wc -l) -lt 10 || echo ESCAPED processes",
    "ls /dev | grep -E '^(sd|vd|nvme|mem|kmsg|fuse|kvm)' && echo ESCAPED devices",
    "grep $ABSTRACT /proc/net/unix && echo ESCAPED abstract socket",
    "find / -name state.redb -o -name shim.lock -o -name attach.sock -o -name kubeconfig 2>/dev/null | grep . \
     && echo ESCAPED data directory",
    "find / -name k -path '*/sec/*' 2>/dev/null | grep . && echo ESCAPED secret",
    "ip address add $NEIGHBOUR/32 dev eth0 && echo ESCAPED address",
    "ip link set eth0 address 02:00:00:00:00:01 && echo ESCAPED hardware address",
    "kubectl get secrets -A && echo ESCAPED token",
    "kubectl get secrets -A --token=guessed && echo ESCAPED guess",
    "kubectl get secrets -A --kubeconfig=/dev/null \
     --server=https://$KUBERNETES_SERVICE_HOST --insecure-skip-tls-verify </dev/null && echo ESCAPED anonymous",
];

#[test]
fn a_hostile_container_stays_in_its_box() {
    if !have("kubectl") || !have("busybox") {
        return;
    }
    let cluster = cluster();
    // Beside it: a pod with a secret, and a program of the host that listens where no file system leads.
    cluster.kubectl(&["create", "secret", "generic", "sec", "--from-literal=k=neighbours-secret"]);
    let mut beside = pod("beside", "while true; do date; sleep 0.2; done");
    beside["spec"]["volumes"] = json!([{"name": "sec", "secret": {"secretName": "sec"}}]);
    beside["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "sec", "mountPath": "/sec"}]);
    create(&cluster, &beside);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/beside", "--timeout=60s"]);
    let address = cluster.get(&["pod", "beside"])["status"]["podIP"].clone();
    let abstract_name = format!("sagong-test-{}", std::process::id());
    let _socket = {
        use std::os::linux::net::SocketAddrExt;
        let name = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name).unwrap();
        std::os::unix::net::UnixListener::bind_addr(&name).unwrap()
    };

    let script = [&KERNEL[..], &OTHERS, &["echo done"]].concat().join("\n");
    let mut hostile = pod("hostile", &script);
    hostile["spec"]["containers"][0]["env"] =
        json!([{"name": "ABSTRACT", "value": abstract_name}, {"name": "NEIGHBOUR", "value": address}]);
    let host = stdout(&mut Command::new("hostname"));
    let said = output(&cluster, &hostile);
    assert!(said.contains("done\n") && !said.contains("ESCAPED"), "{said}");
    assert_eq!(stdout(&mut Command::new("hostname")), host);

    cannot_write_to_the_shim(&cluster);

    // It forks without end, beside a pod that goes on.
    create(&cluster, &pod("bomb", "b() { b | b & }; while true; do b; sleep 0.01; done"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/bomb", "--timeout=60s"]);
    let last_line = || cluster.kubectl(&["logs", "beside", "--tail=1"]);
    let first = last_line();
    eventually("the other pod to go on", || (last_line() != first).then_some(()));
    cluster.kubectl(&["delete", "pod", "bomb", "beside", "--timeout=60s"]);
    let ready = cluster.get(&["nodes"])["items"][0]["status"]["conditions"][3].clone();
    assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")));
}

/// What a container can see of the program that executes commands in it is read-only (CVE-2019-5736).
fn cannot_write_to_the_shim(cluster: &Cluster) {
    create(cluster, &pod("idle", "sleep 600"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/idle", "--timeout=60s"]);
    let mut exec = cluster.kubectl_command(&["exec", "-i", "idle", "--", "cat"]);
    let mut exec = exec.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let data = cluster.data_dir().display().to_string();
    let program = eventually("the shim of the command", || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let is_shim = |path: &PathBuf| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&data) && line.contains("shim exec")
        };
        std::fs::File::open({ processes }.find(is_shim)?.join("exe")).ok()
    });
    let flags = rustix::fs::fstatvfs(&program).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
    drop(exec.stdin.take());
    exec.wait().unwrap();
    cluster.kubectl(&["delete", "pod", "idle"]);
}
