//! A program in a container, joined to this process's input, output and terminal.

use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::object;
use crate::terminal::{self, Raw};
use futures::SinkExt;
use futures::channel::mpsc::Sender;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

/// Bytes under way in each direction before the sender waits.
const BUFFER: usize = 64 * 1024;

/// What of the user's terminal goes along.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Session {
    /// Standard input is passed on.
    pub(crate) stdin: bool,
    /// The program gets a terminal.
    pub(crate) tty: bool,
    /// The user's terminal is made raw: what is at both ends is a terminal.
    pub(crate) raw: bool,
}

impl Session {
    /// As the flags `-i` and `-t` say, and what standard input is.
    pub(crate) fn from_flags(context: &Context) -> Self {
        let (stdin, tty) = (context.flags.on("stdin"), context.flags.on("tty"));
        if !stdin {
            return Self::default();
        }
        if !tty {
            return Self { stdin, ..Self::default() };
        }
        if !terminal::is_terminal() {
            if !context.flags.on("quiet") {
                context.err("Unable to use a TTY - input is not a terminal or the right kind of file\n");
            }
            return Self { stdin, tty, raw: false };
        }
        Self { stdin, tty, raw: true }
    }

    /// What is asked of the server.
    pub(crate) fn params(self, container: &str) -> AttachParams {
        AttachParams::default()
            .container(container)
            .stdin(self.stdin)
            .stdout(true)
            // Both come over one terminal.
            .stderr(!self.tty)
            .tty(self.tty)
            .max_stdin_buf_size(BUFFER)
            .max_stdout_buf_size(BUFFER)
            .max_stderr_buf_size(BUFFER)
    }
}

/// The pods of a namespace, for streams.
///
/// # Errors
/// The kubeconfig is broken.
pub(crate) async fn pods(context: &Context, namespace: &str) -> Outcome<Api<Pod>> {
    Ok(Api::namespaced(context.client().await?.kube(), namespace))
}

/// Starts a command in a container.
///
/// # Errors
/// The server refuses.
pub(crate) async fn exec(
    context: &Context,
    pod: &Value,
    command: &[String],
    params: &AttachParams,
) -> Outcome<AttachedProcess> {
    let pods = pods(context, object::namespace(pod)).await?;
    let begun = pods.exec(object::name(pod), command.to_vec(), params).await;
    begun.map_err(|error| refused(&error))
}

/// What a stream that could not begin fails with.
pub(crate) fn refused(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => match serde_json::to_value(status) {
            Ok(mut status) => {
                status["kind"] = "Status".into();
                Failure::Status(Box::new(status))
            }
            Err(_) => Failure::Message(error.to_string()),
        },
        kube::Error::UpgradeConnection(why) => {
            Failure::Message(format!("unable to upgrade connection: {why}"))
        }
        other => Failure::Message(other.to_string()),
    }
}

/// Joins the program to this process until it ends. The terminal is as it was before when this returns, also when
/// it fails or the process is told to end.
///
/// # Errors
/// The program's exit code, if it is not 0; the connection breaks.
pub(crate) async fn join(mut process: AttachedProcess, session: Session, redraw: bool) -> Outcome {
    let raw = if session.raw { Some(Raw::enter()?) } else { None };
    // Dropped with this function, whatever comes: a task would live on.
    let input = process.stdin();
    let sizes = process.terminal_size();
    let resizing = async {
        match sizes {
            Some(sizes) if session.raw => resize(sizes, redraw).await,
            _ => std::future::pending().await,
        }
    };
    let feeding = async {
        if let Some(input) = input {
            feed(tokio::io::stdin(), input).await;
        }
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = finish(process, tokio::io::stdout(), tokio::io::stderr()) => result,
        () = resizing => unreachable_end(),
        () = feeding => unreachable_end(),
        code = told_to_end(), if session.raw => Err(Failure::Exit(code)),
    };
    drop(raw);
    result
}

fn unreachable_end() -> Outcome {
    fail("the session ended by itself")
}

/// Passes `from` on, then closes.
async fn feed(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // A program that reads no further is none the worse for what is left.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// Reads the program's output to its end, and then how it ended.
///
/// # Errors
/// As [`join`].
pub(crate) async fn finish(
    mut process: AttachedProcess,
    out: impl AsyncWrite + Unpin,
    err: impl AsyncWrite + Unpin,
) -> Outcome {
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let (first, second) = tokio::join!(drain(stdout, out), drain(stderr, err));
    first?;
    second?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    match status.map(serde_json::to_value) {
        Some(Ok(status)) => ended(&status),
        Some(Err(error)) => fail(format!("the server's last word is no status: {error}")),
        None => match process.join().await {
            Ok(()) => fail("lost connection to pod"),
            Err(error) => fail(error.to_string()),
        },
    }
}

async fn drain(from: Option<impl AsyncRead + Unpin>, mut to: impl AsyncWrite + Unpin) -> Outcome {
    if let Some(mut from) = from {
        tokio::io::copy(&mut from, &mut to).await?;
        to.flush().await?;
    }
    Ok(())
}

/// What the status at the end of a stream says.
fn ended(status: &Value) -> Outcome {
    if status["status"] == "Success" {
        return Ok(());
    }
    if status["reason"] == "NonZeroExitCode" {
        let causes = object::list(status, "/details/causes");
        let code = causes.iter().find(|cause| cause["reason"] == "ExitCode");
        let code = code.and_then(|cause| cause["message"].as_str()?.parse::<u8>().ok());
        return match code {
            Some(code) => {
                let text = format!("command terminated with exit code {code}");
                Err(Failure::Code(code, Box::new(Failure::Verbatim(text))))
            }
            None => fail("error stream protocol error: no exit code in the status"),
        };
    }
    match status["message"].as_str() {
        Some(message) if !message.is_empty() => fail(message),
        _ => fail("error stream protocol error: unknown error"),
    }
}

/// Tells the program the size of the terminal, now and whenever it changes. Never returns.
async fn resize(mut sizes: Sender<TerminalSize>, redraw: bool) {
    if let Ok(mut changes) = signal(SignalKind::window_change()) {
        let mut last = None;
        // A program that was attached to before paints its screen anew only when the size changes.
        if let Some((width, height)) = terminal::size().filter(|_| redraw) {
            let _ = sizes.send(TerminalSize { width: width + 1, height: height + 1 }).await;
        }
        loop {
            let now = terminal::size();
            if let Some((width, height)) = now.filter(|_| now != last)
                && sizes.send(TerminalSize { width, height }).await.is_err()
            {
                break;
            }
            last = now;
            changes.recv().await;
        }
    }
    std::future::pending().await
}

/// The exit code once a signal wants the process to end. That these signals no longer kill it is what leaves time to
/// restore the terminal.
async fn told_to_end() -> u8 {
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut stream) => {
            stream.recv().await;
            128_u8.saturating_add(u8::try_from(kind.as_raw_value()).unwrap_or(0))
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        code = wait(SignalKind::terminate()) => code,
        code = wait(SignalKind::hangup()) => code,
        code = wait(SignalKind::interrupt()) => code,
        code = wait(SignalKind::quit()) => code,
        code = wait(SignalKind::pipe()) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::success(json!({"status": "Success"}), None)]
    #[case::exit_code(
        json!({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}),
        Some((3, "command terminated with exit code 3\n"))
    )]
    #[case::no_such_program(
        json!({"status": "Failure", "reason": "InternalError", "message": "no such program"}),
        Some((1, "error: no such program\n"))
    )]
    #[case::nonsense(json!({}), Some((1, "error: error stream protocol error: unknown error\n")))]
    fn the_last_status_decides_the_exit_code(
        #[case] status: Value,
        #[case] expected: Option<(u8, &'static str)>,
    ) {
        let failure = ended(&status).err();
        let shown = failure.as_ref().map(|failure| (failure.code(), failure.shown()));
        assert_eq!(shown, expected.map(|(code, text)| (code, text.to_owned())));
    }
}
