//! exec, attach, port-forward and cp, with real kubectl over WebSocket, with a kubectl of 2020 over SPDY, and with
//! kube-rs.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

#[path = "streams/bench.rs"]
mod bench;
#[path = "streams/terminal.rs"]
mod terminal;

use bench::{Bench, IMAGE, old_kubectl};
use futures::SinkExt;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use sagong_tests::{PATIENCE, eventually, free_port, run, stdout};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use terminal::{Running, Terminal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MEBIBYTE: usize = 1 << 20;

/// The same command line for another program.
fn with_program(command: &Command, program: &Path) -> Command {
    let mut other = Command::new(program);
    other.args(command.get_args());
    for (name, value) in command.get_envs() {
        other.env(name, value.unwrap_or_default());
    }
    other
}

/// Runs a command with input that is written while output is read.
fn piped(command: &mut Command, input: Vec<u8>) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // A program that takes no more is no failure of its own.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

/// Exit code, standard output and standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What every kubectl does, whatever it speaks.
fn commands_work(bench: &Bench, kubectl: &dyn Fn(&[&str]) -> Command) {
    let output = run(&mut kubectl(&["exec", "shell", "--", "sh", "-c", "echo good; echo bad >&2; exit 3"]));
    let (code, out, error) = said(&output);
    assert_eq!((code, out.as_str()), (Some(3), "good\n"), "{error}");
    assert_eq!(error, "bad\ncommand terminated with exit code 3\n");
    assert_eq!(said(&run(&mut kubectl(&["exec", "shell", "--", "true"]))), (Some(0), "".into(), "".into()));

    let sent = pattern(10 * MEBIBYTE);
    let output = piped(&mut kubectl(&["exec", "-i", "shell", "--", "cat"]), sent.clone());
    assert!(
        output.stdout == sent,
        "{} bytes: {:?}",
        output.stdout.len(),
        String::from_utf8_lossy(&output.stderr)
    );
    let output = piped(&mut kubectl(&["exec", "-i", "shell", "--", "wc", "-c"]), sent);
    assert_eq!(said(&output).1.trim(), (10 * MEBIBYTE).to_string());
    // One that reads no input at all ends all the same.
    let output = piped(&mut kubectl(&["exec", "-i", "shell", "--", "echo", "done"]), pattern(MEBIBYTE));
    assert_eq!((said(&output).0, said(&output).1.as_str()), (Some(0), "done\n"));

    let (code, _, error) = said(&run(&mut kubectl(&["exec", "shell", "--", "no-such-command"])));
    assert_ne!(code, Some(0));
    assert!(error.contains("exec: \"no-such-command\": executable file not found in $PATH"), "{error}");
    let (_, _, error) = said(&run(&mut kubectl(&["exec", "shell", "-c", "other", "--", "true"])));
    assert!(error.contains("container other"), "{error}");
    let (_, _, error) = said(&run(&mut kubectl(&["exec", "nobody", "--", "true"])));
    assert_eq!(error, "Error from server (NotFound): pods \"nobody\" not found\n");
    bench.cluster.kubectl(&["get", "pod", "shell"]);
}

fn terminals_work(kubectl: &dyn Fn(&[&str]) -> Command) {
    let mut terminal = Terminal::start(&kubectl(&["exec", "-it", "shell", "--", "sh"]), 91, 27);
    terminal.until("# ");
    terminal.write("stty size; tty; echo $TERM\r");
    terminal.until("27 91\r\n");
    terminal.until("/dev/pts/0\r\n");
    terminal.until("xterm\r\n");
    terminal.resize(123, 45);
    // The new size is on its way beside what is typed.
    terminal.write("until [ \"$(stty size)\" = '45 123' ]; do sleep 0.05; done; echo re''sized\r");
    terminal.until("resized\r\n");
    // Ctrl-C ends what runs inside, not kubectl. Only once it runs: a shell that edits its line takes it for a key.
    terminal.write("sh -c 'echo a''sleep; exec sleep 4711'\r");
    terminal.until("asleep\r\n");
    terminal.write("\x03");
    terminal.until("# ");
    terminal.write("exit 5\r");
    assert_eq!(terminal.end(), Some(5));
}

fn copies_work(bench: &Bench, kubectl: &dyn Fn(&[&str]) -> Command) {
    let place = tempfile::tempdir_in(bench.directory.path()).unwrap();
    let tree = place.path().join("tree");
    std::fs::create_dir_all(tree.join("sub/empty")).unwrap();
    std::fs::write(tree.join("large"), pattern(3 * MEBIBYTE)).unwrap();
    std::fs::write(tree.join("sub/script"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tree.join("sub/script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let inside = format!("shell:/tmp/{}", place.path().file_name().unwrap().to_string_lossy());
    stdout(&mut kubectl(&["cp", tree.to_str().unwrap(), &inside]));
    let back = place.path().join("back");
    stdout(&mut kubectl(&["cp", &inside, back.to_str().unwrap()]));
    assert!(std::fs::read(back.join("large")).unwrap() == pattern(3 * MEBIBYTE));
    assert_eq!(std::fs::read_to_string(back.join("sub/script")).unwrap(), "#!/bin/sh\n");
    // Modes are kept on the way in; on the way out kubectl leaves them.
    let path = format!("{}/sub/script", inside.trim_start_matches("shell:"));
    assert_eq!(stdout(&mut kubectl(&["exec", "shell", "--", "stat", "-c", "%a", &path])), "755\n");
    assert!(back.join("sub/empty").is_dir());
}

/// Forwards a port of the pod and waits until that is ready.
fn forwarded(kubectl: &dyn Fn(&[&str]) -> Command, port: u16) -> (Running, u16) {
    let local = free_port();
    let mut command = kubectl(&["port-forward", "pod/shell", &format!("{local}:{port}")]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut said = [0; 15];
    running.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"Forwarding from");
    (running, local)
}

fn echo(port: u16, sent: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(sent).unwrap();
        });
        let mut received = vec![0; sent.len()];
        (&stream).read_exact(&mut received).unwrap();
        received
    })
}

fn ports_work(kubectl: &dyn Fn(&[&str]) -> Command) {
    let (_running, port) = forwarded(kubectl, 7777);
    std::thread::scope(|scope| {
        for index in 0..8 {
            let sent = pattern(MEBIBYTE + index);
            scope.spawn(move || assert!(echo(port, &sent) == sent, "connection {index}"));
        }
    });
    let (_running, port) = forwarded(kubectl, 8080);
    for _ in 0..20 {
        let page = stdout(Command::new("curl").args(["-sSf", &format!("http://127.0.0.1:{port}/")]));
        assert_eq!(page, "hello\n");
    }
    let (mut running, port) = forwarded(kubectl, 81);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.read(&mut [0; 1]);
    let mut errors = running.0.stderr.take().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains("127.0.0.1:81: connect: connection refused") {
        let length = errors.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(text.contains("error forwarding port 81 to pod"), "{text}");
}

#[test]
fn commands_terminals_copies_and_ports_over_websocket() {
    let Some(bench) = Bench::new() else { return };
    let kubectl = |arguments: &[&str]| bench.kubectl(arguments);
    commands_work(&bench, &kubectl);
    terminals_work(&kubectl);
    copies_work(&bench, &kubectl);
    ports_work(&kubectl);
}

#[test]
fn commands_terminals_copies_and_ports_over_spdy() {
    let Some(bench) = Bench::new() else { return };
    let Some(program) = old_kubectl() else { return };
    let kubectl = |arguments: &[&str]| with_program(&bench.kubectl(arguments), &program);
    commands_work(&bench, &kubectl);
    terminals_work(&kubectl);
    copies_work(&bench, &kubectl);
    ports_work(&kubectl);
}

#[test]
fn a_client_that_is_killed_leaves_no_process() {
    let Some(bench) = Bench::new() else { return };
    let old = old_kubectl();
    for (index, program) in [Some(PathBuf::from("kubectl")), old].into_iter().flatten().enumerate() {
        for options in ["-i", "-it", "-q"] {
            let words = format!("sleep {}", 700_000 + std::process::id() as usize * 10 + index);
            let mut arguments = vec!["exec"];
            arguments.extend((options != "-q").then_some(options));
            arguments.extend(["shell", "--"]);
            arguments.extend(words.split(' '));
            let command = with_program(&bench.kubectl(&arguments), &program);
            // Killed below; not `setsid`, which would stay.
            let mut running = if options == "-it" {
                Terminal::start(&command, 80, 24).child
            } else {
                let mut command = with_program(&command, &program);
                Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
            };
            eventually("the command to run", || (!bench.processes(&words).is_empty()).then_some(()));
            let _ = running.0.kill();
            drop(running);
            eventually("the command to be gone", || bench.processes(&words).is_empty().then_some(()));
        }
    }
    // One whose input nobody reads any more is noticed too.
    let words = format!("sleep {}", 800_000 + std::process::id());
    let mut command = bench.kubectl(&["exec", "-i", "shell", "--"]);
    let command = command.args(words.split(' ')).stdin(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut stdin = running.0.stdin.take().unwrap();
    let full = std::thread::spawn(move || while stdin.write_all(&[0; MEBIBYTE]).is_ok() {});
    eventually("the command to run", || (!bench.processes(&words).is_empty()).then_some(()));
    std::thread::sleep(Duration::from_secs(2)); // until every buffer on the way is full; nothing tells
    drop(running);
    full.join().unwrap();
    eventually("the command to be gone", || bench.processes(&words).is_empty().then_some(()));
    let shims = format!("{} shim exec", sagong_tests::sagong().display());
    eventually("no shim to be left", || bench.processes(&shims).is_empty().then_some(()));
}

#[test]
fn a_server_that_reads_nothing_holds_up_no_other_port() {
    let Some(bench) = Bench::new() else { return };
    let script = "nc -ll -p 7000 -e sleep 1000000 & nc -ll -p 7777 -e cat & exec sleep 1000000";
    bench.run_pod("deaf", script, "");
    for program in [Some(PathBuf::from("kubectl")), old_kubectl()].into_iter().flatten() {
        let (stuck, echo) = (free_port(), free_port());
        let ports = [format!("{stuck}:7000"), format!("{echo}:7777")];
        let command = bench.kubectl(&["port-forward", "pod/deaf", &ports[0], &ports[1]]);
        let mut command = with_program(&command, &program);
        let mut forward = Running(command.stdout(Stdio::null()).spawn().unwrap());
        let connect = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
        let mut deaf = eventually("a connection to be taken", || connect(stuck));
        let talk = std::thread::spawn(move || while deaf.write_all(&[0; MEBIBYTE]).is_ok() {});
        std::thread::sleep(Duration::from_secs(1)); // until every buffer on the way is full; nothing tells
        let mut other = eventually("a connection to be taken", || connect(echo));
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        other.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        other.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        assert!(forward.0.try_wait().unwrap().is_none(), "kubectl goes on");
        drop(forward);
        talk.join().unwrap();
    }
}

#[test]
fn what_does_not_run_is_refused_as_upstream_refuses_it() {
    let Some(bench) = Bench::new() else { return };
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, {more} \
             containers: [{{name: main, image: {IMAGE}, command: [sleep, '0']}}]}}}}"
        )
    };
    bench.cluster.kubectl_stdin(&["apply"], &pod("homeless", "nodeSelector: {no: where},"));
    let error = bench.cluster.kubectl_fails(&["exec", "homeless", "--", "true"]);
    assert!(error.ends_with("pod homeless does not have a host assigned\n"), "{error}");
    bench.cluster.kubectl_stdin(&["apply"], &pod("ended", ""));
    bench.cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/ended",
        "--timeout=60s",
    ]);
    let error = bench.cluster.kubectl_fails(&["exec", "ended", "--", "true"]);
    assert_eq!(error, "error: cannot exec into a container in a completed pod; current phase is Succeeded\n");
    let error = bench.cluster.kubectl_fails(&["port-forward", "ended", "80"]);
    assert!(error.contains("unable to forward port because pod is not running"), "{error}");
    // A kubectl that does not look first.
    let error = bench.cluster.kubectl_fails(&["attach", "shell", "-c", "other"]);
    assert!(error.contains("container other not found in pod shell"), "{error}");
    let path = "/api/v1/namespaces/default/pods/ended/exec?command=true&stdout=true&container=main";
    let (code, body) = upgrade(&bench, path);
    assert_eq!((code, body.as_str()), (500, "container not found (\"main\")\n"));
    let path = "/api/v1/namespaces/default/pods/ended/attach?stdout=true";
    let (code, body) = upgrade(&bench, path);
    assert_eq!((code, body.as_str()), (500, "container main not found in pod ended_default\n"));
    let path = "/api/v1/namespaces/default/pods/ended/portforward";
    let (code, body) = upgrade(&bench, path);
    assert_eq!((code, body.as_str()), (500, "pod not found (\"ended_default\")\n"));
}

/// Asks for SPDY with curl; gives the code and body of the answer.
fn upgrade(bench: &Bench, path: &str) -> (u16, String) {
    let text = std::fs::read_to_string(bench.cluster.data_dir().join("kubeconfig")).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        let file = bench.directory.path().join(name.trim_end_matches(": "));
        let decoded = piped(Command::new("base64").arg("-d"), line.trim().as_bytes().to_vec()).stdout;
        std::fs::write(&file, decoded).unwrap();
        file.display().to_string()
    };
    let (authority, certificate) =
        (field("certificate-authority-data: "), field("client-certificate-data: "));
    let key = field("client-key-data: ");
    let answer = stdout(Command::new("curl").args([
        "-sS",
        "--http1.1",
        "-X",
        "POST",
        "--max-time",
        "20",
        "--cacert",
        &authority,
        "--cert",
        &certificate,
        "--key",
        &key,
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: SPDY/3.1",
        "-H",
        "X-Stream-Protocol-Version: v4.channel.k8s.io",
        "-w",
        "%{http_code}",
        &format!("https://127.0.0.1:{}{path}", bench.cluster.port),
    ]));
    let (body, code) = answer.split_at(answer.len() - 3);
    (code.parse().unwrap(), body.to_owned())
}

#[test]
fn attaching_takes_part_in_a_containers_own_streams() {
    let Some(bench) = Bench::new() else { return };
    // A container that repeats what it is told, and ends with its input.
    bench.run_pod("once", "cat; echo bye; sleep 1000000", ", stdin: true, stdinOnce: true");
    let sent: Vec<u8> = pattern(MEBIBYTE);
    let mut attach = bench.kubectl(&["attach", "-i", "once"]);
    let command = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    let mut stdin = running.0.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy).unwrap());
    let mut received = vec![0; MEBIBYTE + 4];
    running.0.stdout.as_mut().unwrap().read_exact(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == [&sent[..], b"bye\n"].concat());
    drop(running);

    bench.run_pod("terminal", "exec sh", ", stdin: true, tty: true");
    for code in [1, 2] {
        let mut terminal = Terminal::start(&bench.kubectl(&["attach", "-it", "terminal"]), 99, 33);
        // kubectl first tells another size, so that what runs inside draws itself again.
        let wait = "until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done";
        terminal.write(&format!("\r{wait}; echo round''{code}\r"));
        terminal.until(&format!("round{code}\r\n"));
    }
    assert!(bench.cluster.kubectl(&["logs", "terminal"]).contains("round2"));

    let mut run_it = bench.kubectl(&["run", "-i", "--rm", "--restart=Never", "--image", IMAGE, "brief"]);
    let output =
        piped(run_it.args(["--", "sh", "-c", "read line; echo got $line; exit 4"]), b"word\n".to_vec());
    let (code, out, error) = said(&output);
    assert!(out.starts_with("got word\n"), "{out:?} {error:?}");
    assert_eq!(code, Some(4), "{error}");
}

async fn whole(process: &mut AttachedProcess) -> (String, String, Option<String>) {
    let status = process.take_status().unwrap();
    let (mut out, mut error) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (process.stdout().unwrap(), process.stderr().unwrap());
    let read = async { tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut error)) };
    let (_, status) = tokio::time::timeout(PATIENCE, async { tokio::join!(read, status) }).await.unwrap();
    (out, error, status.and_then(|status| status.reason.or(status.status)))
}

#[tokio::test]
async fn kube_rs_runs_commands_attaches_and_forwards_ports() {
    let Some(bench) = tokio::task::spawn_blocking(Bench::new).await.unwrap() else { return };
    let pods = bench.pods().await;
    let mut process = pods
        .exec("shell", ["sh", "-c", "echo good; echo bad >&2; exit 3"], &AttachParams::default())
        .await
        .unwrap();
    let (out, error, status) = whole(&mut process).await;
    assert_eq!((out.as_str(), error.as_str()), ("good\n", "bad\n"));
    assert_eq!(status.as_deref(), Some("NonZeroExitCode"));

    let params = AttachParams::default().stdin(true).stderr(false).max_stdin_buf_size(MEBIBYTE);
    let mut process = pods.exec("shell", ["cat"], &params).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    let sent = pattern(10 * MEBIBYTE);
    let copy = sent.clone();
    let write = tokio::spawn(async move {
        stdin.write_all(&copy).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    tokio::time::timeout(PATIENCE, stdout.read_to_end(&mut received)).await.unwrap().unwrap();
    write.await.unwrap();
    assert!(received == sent, "{} bytes", received.len());

    let mut process = pods.exec("shell", ["sh"], &AttachParams::interactive_tty()).await.unwrap();
    process.terminal_size().unwrap().send(TerminalSize { width: 77, height: 22 }).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    stdin.write_all(b"until stty size | grep '22 77'; do sleep 0.05; done; exit\n").await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, stdout.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.contains("\r\n22 77\r\n"), "{text:?}");
}

#[tokio::test]
async fn kube_rs_forwards_ports_over_channels() {
    let Some(bench) = tokio::task::spawn_blocking(Bench::new).await.unwrap() else { return };
    let pods = bench.pods().await;
    let mut forwarder = pods.portforward("shell", &[7777, 81]).await.unwrap();
    let refused = forwarder.take_error(81).unwrap();
    let mut stream = forwarder.take_stream(7777).unwrap();
    let sent = pattern(MEBIBYTE);
    let mut received = vec![0; sent.len()];
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let exchange = async { tokio::join!(writing.write_all(&sent), reading.read_exact(&mut received)) };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap().0.unwrap();
    assert!(received == sent);
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap().unwrap();
    assert!(refused.contains("error forwarding port 81 to pod shell"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_rs_attaches() {
    let Some(bench) = tokio::task::spawn_blocking(Bench::new).await.unwrap() else { return };
    tokio::task::block_in_place(|| {
        bench.run_pod("speaker", "while read line; do echo heard $line; done", ", stdin: true");
    });
    let params = AttachParams::default().stdin(true);
    let mut process = bench.pods().await.attach("speaker", &params).await.unwrap();
    process.stdin().unwrap().write_all(b"this\n").await.unwrap();
    let mut heard = [0; 11];
    let mut stdout = process.stdout().unwrap();
    tokio::time::timeout(PATIENCE, stdout.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"heard this\n");
}
