//! Starting, ending, logs and commands.

use crate::harness::Bench;
use sagong_runtime::{ContainerState, Containers, RuntimeError};
use std::time::{Duration, Instant};

fn exit(state: &ContainerState) -> (i32, i32, &str) {
    match state {
        ContainerState::Exited { exit_code, signal, reason, .. } => (*exit_code, *signal, reason),
        state => panic!("not ended: {state:?}"),
    }
}

#[tokio::test]
async fn a_container_that_succeeds_is_completed() {
    let mut bench = Bench::new();
    let (state, log) = bench.complete(bench.container_config(&["out", "hello\\n"])).await;
    assert_eq!(exit(&state), (0, 0, "Completed"));
    assert_eq!(log, ["stdout F hello"]);
    let ContainerState::Exited { started: Some(started), finished, .. } = state else { panic!("{state:?}") };
    assert!(started <= finished);
}

#[tokio::test]
async fn an_exit_code_is_kept() {
    let mut bench = Bench::new();
    let (state, _) = bench.complete(bench.container_config(&["exit", "3"])).await;
    assert_eq!(exit(&state), (3, 0, "Error"));
}

#[tokio::test]
async fn a_signal_ends_a_container_with_128_and_its_number() {
    let mut bench = Bench::new();
    let container = bench.run(bench.container_config(&["out", "ready\\n", "sleep", "600000"])).await;
    bench.logged("stdout F ready").await;
    bench.runtime.signal_container(&container.id, 9).await.expect("signal");
    assert_eq!(exit(&bench.ended(&container.id).await), (137, 9, "Error"));
    bench
        .runtime
        .signal_container(&container.id, 9)
        .await
        .expect("a signal to a container that ended is no error");
}

#[tokio::test]
async fn both_streams_are_logged_and_a_line_without_end_is_partial() {
    let mut bench = Bench::new();
    let (_, log) = bench.complete(bench.container_config(&["out", "one\\ntwo", "err", "bad\\n"])).await;
    let of = |stream: &str| log.iter().filter(|line| line.starts_with(stream)).cloned().collect::<Vec<_>>();
    assert_eq!(of("stdout"), ["stdout F one", "stdout P two"]);
    assert_eq!(of("stderr"), ["stderr F bad"]);
}

#[tokio::test]
async fn a_line_of_40_kib_is_split_into_parts_of_16_kib() {
    let mut bench = Bench::new();
    let (_, log) = bench.complete(bench.container_config(&["fill", "40960"])).await;
    let parts: Vec<(&str, usize)> = log.iter().map(|line| (&line[..8], line.len() - 9)).collect();
    assert_eq!(parts, [("stdout P", 16384), ("stdout P", 16384), ("stdout F", 8192)]);
}

#[tokio::test]
async fn a_missing_program_is_a_start_error() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let mut config = bench.container_config(&[]);
    config.args = vec!["foo".to_owned()];
    let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
    let error = bench.runtime.start_container(&container.id).await.expect_err("no such program");
    assert!(error.to_string().ends_with("exec: \"foo\": executable file not found in $PATH"), "{error}");
    let mut bench = bench;
    let state = bench.ended(&container.id).await;
    assert_eq!(exit(&state), (128, 0, "StartError"));
    let ContainerState::Exited { message, started, .. } = state else { panic!("{state:?}") };
    assert_eq!(message, "exec: \"foo\": executable file not found in $PATH");
    assert_eq!(started, None);
}

#[tokio::test]
async fn a_missing_path_and_a_file_that_is_no_program_are_told_apart() {
    let bench = Bench::new();
    std::fs::write(bench.root().join("etc/text"), "text").expect("text");
    std::fs::write(bench.root().join("bin/empty"), "text").expect("text");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bench.root().join("bin/empty"), mode).expect("mode");
    let sandbox = bench.sandbox().await;
    for (attempt, (program, expected)) in [
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc/text", "exec: \"/etc/text\": permission denied"),
        ("empty", "exec /bin/empty: exec format error"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut config = bench.container_config(&[]);
        config.args = vec![program.to_owned()];
        config.attempt = attempt as u32;
        let container = bench.runtime.create_container(&sandbox.id, config).await.expect("create");
        let error = bench.runtime.start_container(&container.id).await.expect_err("no program");
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}

#[tokio::test]
async fn a_command_in_a_container_gives_its_output_and_code() {
    let bench = Bench::new();
    let mut config = bench.container_config(&["sleep", "600000"]);
    config.env = vec!["COLOUR=blue".to_owned()];
    config.working_dir = "/tmp".to_owned();
    config.security.run_as_user = Some(1000);
    let container = bench.run(config).await;
    let command = ["actor", "env", "COLOUR", "cwd", "user", "err", "bad", "exit", "4"].map(str::to_owned);
    let output = bench.runtime.exec(&container.id, &command, Duration::from_secs(30)).await.expect("exec");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "blue\n/tmp\nUid:\t1000\t1000\t1000\t1000\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "bad");
    assert_eq!(output.exit_code, 4);
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed() {
    let bench = Bench::new();
    let container = bench.run(bench.container_config(&["sleep", "600000"])).await;
    let before = Instant::now();
    let command = ["actor", "sleep", "600000"].map(str::to_owned);
    let error =
        bench.runtime.exec(&container.id, &command, Duration::from_millis(300)).await.expect_err("timeout");
    assert!(matches!(error, RuntimeError::TimedOut { .. }), "{error}");
    assert!(before.elapsed() < Duration::from_secs(20));
    let all = ["actor", "ls", "/proc"].map(str::to_owned);
    let output = bench.runtime.exec(&container.id, &all, Duration::from_secs(30)).await.expect("exec");
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let processes = names.split('"').filter(|name| name.parse::<u32>().is_ok()).count();
    assert_eq!(processes, 2, "only the first process and the one that looks: {names}");
}

#[tokio::test]
async fn a_command_that_leaves_a_child_behind_does_not_wait_for_it() {
    let bench = Bench::new();
    let container = bench.run(bench.container_config(&["sleep", "600000"])).await;
    let command = ["actor", "child", "600000", "out", "done"].map(str::to_owned);
    let output = bench.runtime.exec(&container.id, &command, Duration::from_secs(30)).await.expect("exec");
    assert_eq!((output.exit_code, output.stdout.as_slice()), (0, b"done".as_slice()));
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_an_error() {
    let bench = Bench::new();
    let container = bench.run(bench.container_config(&["sleep", "600000"])).await;
    let error = bench.runtime.exec(&container.id, &["foo".to_owned()], Duration::from_secs(30)).await;
    let error = error.expect_err("no such command");
    assert!(error.to_string().ends_with("exec: \"foo\": executable file not found in $PATH"), "{error}");
}

#[tokio::test]
async fn a_container_that_eats_its_memory_is_killed_and_says_so() {
    let mut bench = Bench::new();
    let mut config = bench.container_config(&["eat"]);
    config.resources.memory_limit = Some(32 << 20);
    let (state, _) = bench.complete(config).await;
    assert_eq!(exit(&state), (137, 9, "OOMKilled"));
}

#[tokio::test]
async fn the_score_for_killing_is_raised_and_a_refused_one_is_no_error() {
    let bench = Bench::new();
    let mut config = bench.container_config(&["sleep", "600000"]);
    config.resources.oom_score_adj = Some(1000);
    let container = bench.run(config.clone()).await;
    let pid = bench.pid(&container.id).await;
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("score");
    assert_eq!(score.trim(), "1000");
    config.resources.oom_score_adj = Some(-998);
    bench.run(config).await;
}

#[tokio::test]
async fn a_container_may_have_a_terminal() {
    let mut bench = Bench::new();
    let mut config = bench.container_config(&["out", "hello\\n", "ls", "/dev/pts"]);
    config.tty = true;
    let (state, log) = bench.complete(config).await;
    assert_eq!(exit(&state), (0, 0, "Completed"));
    assert_eq!(log, ["stdout F hello", "stdout F [\"0\", \"ptmx\"]"]);
}

#[tokio::test]
async fn standard_input_ends_at_once_unless_kept_open() {
    let mut bench = Bench::new();
    let (_, log) = bench.complete(bench.container_config(&["input"])).await;
    assert_eq!(log, ["stdout F read 0"]);
    let mut config = bench.container_config(&["out", "asking\\n", "input"]);
    config.stdin = true;
    let container = bench.run(config).await;
    bench.logged("stdout F asking").await;
    assert!(matches!(bench.state(&container.id).await, ContainerState::Running { .. }));
}

#[tokio::test]
async fn starting_twice_is_starting_once() {
    let bench = Bench::new();
    let container = bench.run(bench.container_config(&["sleep", "600000"])).await;
    let pid = bench.pid(&container.id).await;
    bench.runtime.start_container(&container.id).await.expect("again");
    assert_eq!(bench.pid(&container.id).await, pid);
}
