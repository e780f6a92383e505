//! Killing a cluster's processes as a crash does, and counting what it has on the machine.

use crate::{Cluster, eventually, run, stdout};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often something is killed in a test: `SAGONG_KILLS`, or `usual`.
pub fn kills(usual: u64) -> u64 {
    std::env::var("SAGONG_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The process that runs the cluster, ready or not.
pub fn process(cluster: &Cluster) -> Option<u32> {
    let data = cluster.data_dir().display().to_string();
    let is_it = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.contains(&data) && command.contains("\0--background\0")
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it)
}

/// Kills a process as a crash does, and waits until it is gone, with every thread: the last one gives back the lock
/// and the ports. When init takes note of that is another matter: in a container it may take seconds, in which names
/// would not resolve.
pub fn kill(pid: u32) {
    stdout(Command::new("kill").args(["-9", &pid.to_string()]));
    eventually("its end", || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        (threads == 0 || threads == 1 && state.contains("\nState:\tZ")).then_some(())
    });
}

/// Starts it and kills it so much later, wherever it has got by then.
pub fn kill_while_it_starts(cluster: &Cluster, later: Duration) {
    let mut up = cluster.up_command(&[]);
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = eventually("a process", || process(cluster));
    // Another moment each time; that it is not waited for anything is the point.
    std::thread::sleep(later);
    kill(pid);
    up.wait().unwrap();
}

/// Rules, chains and elements of maps in the cluster's table. (The sets still have what was in use one change ago.)
fn rules(instance: &str) -> usize {
    let list = format!("PATH=$PATH:/usr/sbin nft -j list table ip sagong-{instance}");
    let output = run(Command::new("sh").args(["-c", &list])).stdout;
    let listed: Value = serde_json::from_slice(&output).unwrap_or_default();
    let objects =
        listed["nftables"].as_array().into_iter().flatten().flat_map(|one| one.as_object().unwrap());
    let elements = |object: &Value| object["elem"].as_array().map_or(0, Vec::len);
    objects.map(|(kind, object)| 1 + if kind == "map" { elements(object) } else { 0 }).sum()
}

/// How much of each kind the cluster has on the machine.
pub fn holdings(cluster: &Cluster, instance: &str) -> BTreeMap<&'static str, usize> {
    let shell = |command: String| {
        let output = run(Command::new("sh").args(["-c", &command]));
        String::from_utf8_lossy(&output.stdout).trim().parse::<usize>().unwrap_or_default()
    };
    let data = cluster.data_dir();
    let data = data.display();
    BTreeMap::from([
        ("mounts", shell(format!("grep -c -e {data} -e sagong-{instance} /proc/self/mounts"))),
        ("namespaces", shell(format!("ls /run/sagong-{instance}/ns | wc -l"))),
        ("rules", rules(instance)),
        ("links", shell(format!("ls /sys/class/net | grep -c ^sg{instance}"))),
        ("cgroups", shell(format!("find /sys/fs/cgroup -type d -path '*sagong-{instance}*/pod*' | wc -l"))),
        (
            "shims",
            shell(format!(
                "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '{data}/runtime/containers/[0-9a-f]* ' | sort | wc -l"
            )),
        ),
        (
            "records",
            shell(format!("ls {data}/runtime/containers {data}/runtime/sandboxes | grep -c '^[0-9a-f]'")),
        ),
        ("directories", shell(format!("ls {data}/pods | wc -l"))),
        ("snapshots", shell(format!("ls {data}/images/snapshots | wc -l"))),
        ("logs", shell(format!("ls {data}/logs | wc -l"))),
        // Written beside what they were to replace, and layers half pulled.
        (
            "halves",
            shell(format!(
                "find {data} -name '*.json.[0-9]*' -o -name '*.new.[0-9]*' -o -path '*/partial/*' | wc -l"
            )),
        ),
    ])
}

/// The processes that stay beside containers, by the container's id.
pub fn shims(cluster: &Cluster) -> BTreeMap<String, u32> {
    let mark = format!("{}/runtime/containers/", cluster.data_dir().display());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let container = |pid: u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).into_owned();
        let id = command.split_once(&mark)?.1.split(['\0', '/']).next()?.to_owned();
        Some((id, pid))
    };
    numbers.filter_map(container).collect()
}
