//! The same tests again under version 2 of cgroups alone, mounted for them in a mount namespace of their own.

use std::process::Command;

/// What needs controllers that belong to version 1 on a machine that mounts both.
const NEED_CONTROLLERS: [&str; 3] =
    ["a_container_that_eats_its_memory", "a_container_cannot_raise", "containers_can_be_put_into_cgroups"];

#[test]
fn everything_works_under_version_2_alone() {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        eprintln!("SKIPPED: this machine has version 2 alone, so that all other tests cover it");
        return;
    }
    let prepare =
        "mount --make-rprivate / && umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{prepare} && exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().expect("own path")).args(["--skip", "unified::"]);
    for name in NEED_CONTROLLERS {
        command.args(["--skip", name]);
    }
    let output = command.output().expect("unshare, of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test result: ok") && !text.contains(" 0 passed"), "{text}");
}
