//! What a container sees.

use crate::harness::Bench;
use sagong_runtime::{Containers, Mount, Sandboxes};
use std::time::Duration;

#[tokio::test]
async fn containers_of_a_sandbox_share_its_name_and_network_and_memory() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let mut pids = Vec::new();
    for name in ["one", "two"] {
        let mut config = bench.container_config(&["sleep", "600000"]);
        config.name = name.to_owned();
        let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
        bench.runtime.start_container(&container.id).await.expect("start");
        pids.push((bench.pid(&container.id).await, container.id));
    }
    let namespace =
        |pid: u32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("namespace");
    for kind in ["net", "uts", "ipc"] {
        assert_eq!(namespace(pids[0].0, kind), namespace(pids[1].0, kind), "{kind}");
        assert_ne!(namespace(pids[0].0, kind), namespace(std::process::id(), kind), "{kind}");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(namespace(pids[0].0, kind), namespace(pids[1].0, kind), "{kind}");
    }
    let run = async |id: &str, command: &[&str]| {
        let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
        let output = bench.runtime.exec(id, &command, Duration::from_secs(30)).await.expect("exec");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(run(&pids[0].1, &["actor", "cat", "/proc/sys/kernel/hostname"]).await, "kubia");
    assert_eq!(run(&pids[0].1, &["actor", "write", "/dev/shm/file"]).await, "Ok(())");
    assert_eq!(run(&pids[1].1, &["actor", "cat", "/dev/shm/file"]).await, "x");
    assert_eq!(
        run(&pids[0].1, &["actor", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).await,
        "0"
    );
    assert!(run(&pids[0].1, &["actor", "cat", "/proc/net/dev"]).await.contains("lo:"));
}

#[tokio::test]
async fn a_sandbox_on_the_hosts_network_has_none_of_its_own() {
    let bench = Bench::new();
    let mut config = bench.sandbox_config();
    config.host_network = true;
    let sandbox = bench.runtime.run_sandbox(config).await.expect("sandbox");
    assert_eq!(sandbox.network_namespace, None);
    assert!(sandbox.ready);
    let config = bench.container_config(&["sleep", "600000"]);
    let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
    bench.runtime.start_container(&container.id).await.expect("start");
    let pid = bench.pid(&container.id).await;
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).expect("namespace");
    assert_eq!(namespace(&pid.to_string()), namespace("self"));
}

#[tokio::test]
async fn sysctls_are_set_in_the_sandbox_and_those_of_the_host_are_refused() {
    let mut bench = Bench::new();
    let mut config = bench.sandbox_config();
    config.sysctls = [("net.core.somaxconn", "77"), ("kernel.shmmax", "12345678")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let sandbox = bench.runtime.run_sandbox(config.clone()).await.expect("sandbox");
    let verbs = ["cat", "/proc/sys/net/core/somaxconn", "cat", "/proc/sys/kernel/shmmax"];
    let container =
        bench.runtime.create_container(&sandbox.id, bench.container_config(&verbs)).await.expect("create");
    bench.runtime.start_container(&container.id).await.expect("start");
    bench.ended(&container.id).await;
    assert_eq!(bench.log()[0], "stdout F 77");
    assert_eq!(bench.log()[2], "stdout F 12345678");
    config.uid = "another".to_owned();
    config.sysctls = [("vm.swappiness".to_owned(), "1".to_owned())].into();
    let error = bench.runtime.run_sandbox(config).await.expect_err("refused");
    assert!(error.to_string().contains("vm.swappiness"), "{error}");
}

#[tokio::test]
async fn mounts_are_read_only_when_asked_and_the_working_directory_is_made() {
    let mut bench = Bench::new();
    let host = bench.directory.path().join("volume");
    std::fs::create_dir(&host).expect("volume");
    let mount = |path: &str, read_only| Mount {
        container_path: path.to_owned(),
        host_path: host.clone(),
        read_only,
        recursive_read_only: false,
    };
    let mut config =
        bench.container_config(&["cwd", "write", "/rw/file", "write", "/ro/file", "cat", "/ro/file"]);
    config.mounts = vec![mount("/ro", true), mount("/rw", false)];
    config.working_dir = "/made/for/it".to_owned();
    let (_, log) = bench.complete(config).await;
    assert_eq!(
        log,
        ["stdout F /made/for/it", "stdout F Ok(())", "stdout F Err(ReadOnlyFilesystem)", "stdout F x"]
    );
}

/// A directory with memory mounted in its `sub`, where what the host mounts later is told to whoever has it.
struct Nested(std::path::PathBuf);

impl Nested {
    fn new(directory: &std::path::Path) -> Self {
        let host = directory.join("nested");
        std::fs::create_dir_all(&host).expect("directory");
        rustix::mount::mount_bind(&host, &host).expect("bind");
        let shared = rustix::mount::MountPropagationFlags::SHARED;
        rustix::mount::mount_change(&host, shared).expect("shared");
        let nested = Self(host);
        nested.mount("sub");
        nested
    }

    fn mount(&self, name: &str) {
        let sub = self.0.join(name);
        std::fs::create_dir_all(&sub).expect("directory");
        rustix::mount::mount("tmpfs", &sub, "tmpfs", rustix::mount::MountFlags::empty(), None)
            .expect("tmpfs");
        std::fs::write(sub.join("file"), "there").expect("file");
    }

    fn shown(&self, path: &str, read_only: bool, recursive_read_only: bool) -> Mount {
        Mount { container_path: path.to_owned(), host_path: self.0.clone(), read_only, recursive_read_only }
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        for path in ["sub", "later", "."] {
            let _ = rustix::mount::unmount(self.0.join(path), flags);
        }
    }
}

#[tokio::test]
async fn read_only_may_mean_what_is_mounted_below_as_well() {
    let mut bench = Bench::new();
    let nested = Nested::new(bench.directory.path());
    let mut config =
        bench.container_config(&["write", "/ro/sub/new", "write", "/rro/new", "write", "/rro/sub/new"]);
    config.mounts = vec![nested.shown("/ro", true, false), nested.shown("/rro", true, true)];
    let (_, log) = bench.complete(config).await;
    let refused = "stdout F Err(ReadOnlyFilesystem)";
    assert_eq!(log, ["stdout F Ok(())", refused, refused]);
}

#[tokio::test]
async fn what_the_host_mounts_later_is_seen() {
    let bench = Bench::new();
    let nested = Nested::new(bench.directory.path());
    let mut config = bench.container_config(&["sleep", "600000"]);
    config.mounts = vec![nested.shown("/v", false, false)];
    let container = bench.run(config).await;
    nested.mount("later");
    let command = ["actor", "cat", "/v/later/file"].map(str::to_owned);
    let output =
        bench.runtime.exec(&container.id, &command, std::time::Duration::from_secs(30)).await.expect("exec");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "there\n");
}

#[tokio::test]
async fn a_container_cannot_raise_its_own_limits_or_touch_the_kernels_settings() {
    let mut bench = Bench::new();
    let limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
    let limit = if std::path::Path::new(limit).exists() { limit } else { "/sys/fs/cgroup/memory.max" };
    let mut config =
        bench.container_config(&["cat", limit, "write", limit, "write", "/proc/sys/kernel/panic"]);
    config.resources.memory_limit = Some(64 << 20);
    let (_, log) = bench.complete(config).await;
    assert_eq!(log[0], format!("stdout F {}", 64 << 20));
    assert!(log[2].starts_with("stdout F Err("), "{log:?}");
    assert!(log[3].starts_with("stdout F Err("), "{log:?}");
}

#[tokio::test]
async fn users_are_looked_up_in_the_image_and_get_no_capabilities() {
    let bench = Bench::new();
    std::fs::write(bench.root().join("etc/passwd"), "root:x:0:0::/:/\nnode:x:1000:1001::/home/node:/\n")
        .expect("file");
    std::fs::write(bench.root().join("etc/group"), "audio:x:29:node\n").expect("file");
    let mut bench = bench;
    let mut config = bench.container_config(&["env", "HOME", "cat", "/proc/self/status"]);
    config.image_user = "node".to_owned();
    config.security.no_new_privileges = true;
    config.security.supplemental_groups = vec![5000];
    let (_, log) = bench.complete(config).await;
    let field = |name: &str| {
        let prefix = format!("stdout F {name}:");
        log.iter()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_else(|| panic!("{name} in {log:?}"))
            .trim()
    };
    assert_eq!(log[0], "stdout F /home/node");
    assert_eq!(field("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field("Gid"), "1001\t1001\t1001\t1001");
    // Its own group among them, as other runtimes have it since CVE-2022-36109.
    assert_eq!(field("Groups"), "29 1001 5000");
    assert_eq!(field("CapEff"), "0000000000000000");
    assert_eq!(field("NoNewPrivs"), "1");
}

#[tokio::test]
async fn root_has_the_default_capabilities_and_privileged_root_all_that_can_be_given() {
    let mut bench = Bench::new();
    let (_, log) = bench.complete(bench.container_config(&["cat", "/proc/self/status"])).await;
    let expected = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "stdout F CapEff:\t00000000a00425fb"
    } else {
        "stdout F CapEff:\t00000000a80425fb"
    };
    assert!(log.iter().any(|line| line == expected), "{log:?}");
    std::fs::remove_dir_all(bench.directory.path().join("logs")).expect("logs");
    let mut config = bench.container_config(&["cat", "/proc/self/status", "ls", "/dev"]);
    config.security.privileged = true;
    let (_, log) = bench.complete(config).await;
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("bounding set");
    assert!(log.iter().any(|line| *line == format!("stdout F CapEff:{own}")), "{log:?}");
    assert!(log.iter().any(|line| line.contains("\"kmsg\"")), "{log:?}");
}

#[tokio::test]
async fn nothing_of_sagong_is_open_or_ignored_in_a_container() {
    let mut bench = Bench::new();
    let (_, log) =
        bench.complete(bench.container_config(&["ls", "/proc/self/fd", "cat", "/proc/1/status"])).await;
    // The fourth is the directory being listed.
    assert_eq!(log[0], "stdout F [\"0\", \"1\", \"2\", \"3\"]");
    // The language's own runtime ignores SIGPIPE.
    assert!(log.iter().any(|line| line == "stdout F SigIgn:\t0000000000001000"), "{log:?}");
    assert!(log.iter().any(|line| line == "stdout F SigBlk:\t0000000000000000"), "{log:?}");
}

#[tokio::test]
async fn a_mount_of_nothing_is_refused_by_name() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let mut config = bench.container_config(&[]);
    config.mounts = vec![Mount {
        container_path: "/data".to_owned(),
        host_path: "/no/such".into(),
        read_only: false,
        recursive_read_only: false,
    }];
    let error = bench.runtime.create_container(&sandbox.id, config).await.expect_err("refused");
    assert!(error.to_string().contains("/no/such: No such file"), "{error}");
}

#[tokio::test]
async fn a_start_that_fails_inside_says_where() {
    let bench = Bench::new();
    std::fs::write(bench.root().join("file"), "").expect("file");
    let sandbox = bench.sandbox().await;
    let mut config = bench.container_config(&[]);
    let host_path = bench.directory.path().join("volume");
    std::fs::create_dir(&host_path).expect("volume");
    config.mounts = vec![Mount {
        container_path: "/file".to_owned(),
        host_path,
        read_only: false,
        recursive_read_only: false,
    }];
    let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
    let error = bench.runtime.start_container(&container.id).await.expect_err("refused");
    let message = error.to_string();
    assert!(message.contains("failed to prepare rootfs") && message.contains("/volume"), "{message}");
}
