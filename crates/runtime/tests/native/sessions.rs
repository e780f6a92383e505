//! Sessions: commands whose streams are held, attaching to a container, connections into a pod.

use crate::harness::{Bench, PATIENCE};
use sagong_runtime::{
    Container, ContainerState, Containers, Output, Seccomp, Session, SessionOptions, Streams, TerminalSize,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const ALL: SessionOptions = SessionOptions { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: SessionOptions = SessionOptions { stdin: true, stdout: true, stderr: false, tty: true };

async fn sleeper(bench: &Bench) -> Container {
    bench.run(bench.container_config(&["sleep", "600000"])).await
}

async fn begin(bench: &Bench, id: &str, verbs: &[&str], options: SessionOptions) -> Session {
    let mut command = vec!["actor".to_owned()];
    command.extend(verbs.iter().map(|verb| (*verb).to_owned()));
    bench.runtime.exec_session(id, &command, options).await.expect("session")
}

async fn all(output: Option<Output>) -> String {
    let mut text = String::new();
    let mut output = output.expect("asked for");
    timeout(PATIENCE, output.read_to_string(&mut text)).await.expect("an end in time").expect("text");
    text
}

/// Reads until some text was read.
async fn until(output: &mut Output, text: &str) -> String {
    let mut read = String::new();
    let mut buffer = [0; 1024];
    while !read.contains(text) {
        let length = timeout(PATIENCE, output.read(&mut buffer)).await.expect("in time").expect("bytes");
        assert_ne!(length, 0, "ended after {read:?}, waiting for {text:?}");
        read.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    read
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

/// Whether processes other than the container's first are in its process namespace.
async fn others(bench: &Bench, id: &str) -> usize {
    let output = all_processes(bench, id).await;
    output.split('"').filter(|name| name.parse::<u32>().is_ok()).count() - 2
}

async fn all_processes(bench: &Bench, id: &str) -> String {
    let list = ["actor", "ls", "/proc"].map(str::to_owned);
    let output = bench.runtime.exec(id, &list, Duration::from_secs(30)).await.expect("exec");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// No event tells of the end of a process that is not ours.
async fn alone(bench: &Bench, id: &str) {
    let alone = async {
        while others(bench, id).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, alone).await.expect("no other process in time");
}

#[tokio::test]
async fn output_errors_and_the_exit_code_of_a_command() {
    let bench = Bench::new();
    let container = sleeper(&bench).await;
    let options = SessionOptions { stdin: false, ..ALL };
    let session =
        begin(&bench, &container.id, &["out", "good\\n", "err", "bad", "input", "exit", "7"], options);
    let session = session.await;
    assert!(session.stdin.is_none() && session.resize.is_none());
    assert_eq!(all(session.stdout).await, "good\nread 0\n");
    assert_eq!(all(session.stderr).await, "bad");
    assert_eq!(session.end.await.expect("end"), 7);
}

#[tokio::test]
async fn ten_megabytes_there_and_back_are_the_same() {
    let bench = Bench::new();
    let container = sleeper(&bench).await;
    let session = begin(&bench, &container.id, &["echo"], ALL).await;
    let (mut stdin, mut stdout) = (session.stdin.expect("stdin"), session.stdout.expect("stdout"));
    let sent = pattern(10 << 20);
    let copy = sent.clone();
    let write = tokio::spawn(async move { stdin.write_all(&copy).await.expect("write") });
    let mut received = Vec::new();
    timeout(PATIENCE, stdout.read_to_end(&mut received)).await.expect("in time").expect("read");
    write.await.expect("written");
    assert!(received == sent, "{} bytes came back", received.len());
    assert_eq!(session.end.await.expect("end"), 0);
}

#[tokio::test]
async fn a_terminal_has_the_size_it_is_given_and_belongs_to_the_user() {
    let bench = Bench::new();
    let mut config = bench.container_config(&["sleep", "600000"]);
    config.security.run_as_user = Some(1000);
    let container = bench.run(config).await;
    let verbs = ["out", "ready\\n", "input", "size", "env", "TERM", "own", "/dev/pts/0"];
    let session = begin(&bench, &container.id, &verbs, TERMINAL).await;
    let mut stdout = session.stdout.expect("stdout");
    until(&mut stdout, "ready").await;
    session.resize.expect("terminal")(TerminalSize { columns: 100, rows: 30 });
    let mut stdin = session.stdin.expect("stdin");
    stdin.write_all(b"\n").await.expect("write");
    let text = until(&mut stdout, "Ok(()").await;
    assert!(text.contains("size 0 30 100\r\nxterm\r\n"), "{text}");
    assert_eq!(session.end.await.expect("end"), 0);
}

#[tokio::test]
async fn streams_belong_to_the_user() {
    let bench = Bench::new();
    let mut config = bench.container_config(&["sleep", "600000"]);
    config.security.run_as_user = Some(1000);
    let container = bench.run(config).await;
    let session = begin(&bench, &container.id, &["own", "/proc/self/fd/1"], ALL).await;
    assert_eq!(all(session.stdout).await, "Ok(())\n");
}

#[tokio::test]
async fn commands_may_do_what_the_container_may_and_no_more() {
    let bench = Bench::new();
    for user in [0, 1000] {
        let mut config = bench.container_config(&["sleep", "600000"]);
        config.security.run_as_user = Some(user);
        config.security.seccomp = Seccomp::RuntimeDefault;
        let container = bench.run(config).await;
        let pid = bench.pid(&container.id).await;
        let limits = |status: &str| -> Vec<String> {
            let fields = ["Seccomp:", "NoNewPrivs:", "CapEff:", "CapPrm:", "CapBnd:", "CapAmb:", "Groups:"];
            let lines = status.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
            lines.map(str::to_owned).collect()
        };
        let expected = limits(&std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status"));
        assert!(expected.contains(&"Seccomp:\t2".to_owned()), "{expected:?}");
        let verbs = ["cat", "/proc/self/status"];
        let command = ["actor", "cat", "/proc/self/status"].map(str::to_owned);
        let output =
            bench.runtime.exec(&container.id, &command, Duration::from_secs(30)).await.expect("exec");
        assert_eq!(limits(&String::from_utf8_lossy(&output.stdout)), expected);
        for options in [ALL, TERMINAL] {
            let session = begin(&bench, &container.id, &verbs, options).await;
            let text = all(session.stdout).await.replace('\r', "");
            assert_eq!(limits(&text), expected);
        }
    }
}

#[tokio::test]
async fn dropping_a_session_leaves_no_process() {
    let bench = Bench::new();
    let container = sleeper(&bench).await;
    let mut session = begin(&bench, &container.id, &["out", "ready\\n", "sleep", "600000"], ALL).await;
    until(session.stdout.as_mut().expect("stdout"), "ready").await;
    assert_eq!(others(&bench, &container.id).await, 1);
    drop(session);
    alone(&bench, &container.id).await;
}

#[tokio::test]
async fn a_terminal_that_is_dropped_hangs_up() {
    let bench = Bench::new();
    let container = sleeper(&bench).await;
    let session = begin(&bench, &container.id, &["out", "ready\\n", "sleep", "600000"], TERMINAL).await;
    let Session { stdin, stdout, resize, end, .. } = session;
    let mut stdout = stdout.expect("stdout");
    until(&mut stdout, "ready").await;
    drop((stdin, stdout));
    // What resizes does not keep the terminal open.
    assert_eq!(timeout(PATIENCE, end).await.expect("in time").expect("end"), 128 + 1);
    drop(resize);
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_says_why() {
    let bench = Bench::new();
    let container = sleeper(&bench).await;
    for options in [ALL, TERMINAL] {
        let error = bench.runtime.exec_session(&container.id, &["foo".to_owned()], options).await.err();
        let error = error.expect("no such command").to_string();
        assert!(error.ends_with("exec: \"foo\": executable file not found in $PATH"), "{error}");
    }
    let left = std::fs::read_dir(bench.options.root.join("containers").join(&container.id)).expect("list");
    let left: Vec<_> = left.map(|entry| entry.expect("entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("exec-")), "{left:?}");
}

#[tokio::test]
async fn attached_sessions_share_output_and_input_reaches_the_container() {
    let mut bench = Bench::new();
    let mut config = bench.container_config(&["echo"]);
    config.stdin = true;
    let container = bench.run(config).await;
    bench.reopen();
    let watcher = SessionOptions { stdin: false, ..ALL };
    let watching = bench.runtime.attach(&container.id, watcher).await.expect("attach");
    let writing = bench.runtime.attach(&container.id, ALL).await.expect("attach");
    let mut stdin = writing.stdin.expect("stdin");
    stdin.write_all(b"hello\n").await.expect("write");
    let (mut seen, mut own) = (watching.stdout.expect("stdout"), writing.stdout.expect("stdout"));
    assert_eq!(until(&mut own, "\n").await, "hello\n");
    assert_eq!(until(&mut seen, "\n").await, "hello\n");
    bench.logged("stdout F hello").await;
    // The input of a session ends the session, not the container's.
    drop(stdin);
    assert_eq!(timeout(PATIENCE, writing.end).await.expect("in time").expect("end"), 0);
    assert!(matches!(bench.state(&container.id).await, ContainerState::Running { .. }));
    bench.runtime.signal_container(&container.id, 9).await.expect("signal");
    assert_eq!(timeout(PATIENCE, watching.end).await.expect("in time").expect("end"), 0);
}

#[tokio::test]
async fn with_once_the_containers_input_ends_with_the_session() {
    let mut bench = Bench::new();
    let mut config = bench.container_config(&["echo", "out", "bye\\n"]);
    (config.stdin, config.stdin_once) = (true, true);
    let container = bench.run(config).await;
    let session = bench.runtime.attach(&container.id, ALL).await.expect("attach");
    let mut stdin = session.stdin.expect("stdin");
    let sent = pattern(1 << 20);
    let copy = sent.clone();
    let write = tokio::spawn(async move {
        stdin.write_all(&copy).await.expect("write");
        stdin.shutdown().await.expect("end");
    });
    let mut received = Vec::new();
    let mut stdout = session.stdout.expect("stdout");
    timeout(PATIENCE, stdout.read_to_end(&mut received)).await.expect("in time").expect("read");
    write.await.expect("written");
    assert!(received == [&sent[..], b"bye\n"].concat(), "{} bytes came back", received.len());
    assert!(matches!(bench.ended(&container.id).await, ContainerState::Exited { exit_code: 0, .. }));
}

#[tokio::test]
async fn a_container_with_a_terminal_is_attached_to_with_its_size() {
    let bench = Bench::new();
    let mut config = bench.container_config(&["input", "size", "echo"]);
    (config.stdin, config.tty) = (true, true);
    let container = bench.run(config).await;
    let session = bench.runtime.attach(&container.id, TERMINAL).await.expect("attach");
    assert!(session.stderr.is_none());
    session.resize.expect("terminal")(TerminalSize { columns: 120, rows: 40 });
    let mut stdin = session.stdin.expect("stdin");
    // In order behind the size: the same socket.
    stdin.write_all(b"\n").await.expect("write");
    let mut stdout = session.stdout.expect("stdout");
    until(&mut stdout, "size 0 40 120").await;
    drop((stdin, stdout, session.end));
    assert!(matches!(bench.state(&container.id).await, ContainerState::Running { .. }));
}

#[tokio::test]
async fn what_has_ended_cannot_be_attached_to() {
    let mut bench = Bench::new();
    let container = bench.run(bench.container_config(&["exit", "0"])).await;
    bench.ended(&container.id).await;
    let error = bench.runtime.attach(&container.id, ALL).await.err().expect("ended").to_string();
    assert_eq!(error, "attaching to container main: it is not running");
    let error = bench.runtime.exec_session(&container.id, &["actor".to_owned()], ALL).await.err();
    assert_eq!(error.expect("ended").to_string(), "executing a command in container main: it is not running");
}

#[tokio::test]
async fn ports_inside_of_a_pod_are_reached_and_closed_ones_refuse() {
    let bench = Bench::new();
    let container = bench.run(bench.container_config(&["serve", "8080"])).await;
    bench.logged("stdout F listening").await;
    let mut connection = bench.runtime.connect(&container.sandbox_id, 8080).await.expect("connect");
    connection.write_all(&pattern(1000)).await.expect("write");
    connection.shutdown().await.expect("end of what it reads");
    let mut answer = String::new();
    timeout(PATIENCE, connection.read_to_string(&mut answer)).await.expect("in time").expect("answer");
    assert_eq!(answer, "1000 bytes");
    let error = bench.runtime.connect(&container.sandbox_id, 81).await.err().expect("closed").to_string();
    assert!(error.contains("IPv4: dial tcp4 127.0.0.1:81: connect: connection refused"), "{error}");
}
