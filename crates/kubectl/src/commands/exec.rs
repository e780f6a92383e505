//! `exec` and `attach`: a program in a container at one's terminal.

use crate::builder;
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::flags::{Flag, Takes, short};
use crate::object::{self, text};
use crate::pod_target;
use crate::remote::{self, Session};
use serde_json::Value;

const STREAM: [Flag; 5] = [
    pod_target::POD_TIMEOUT,
    short("container", 'c', Takes::Text, "", "Which container"),
    short("stdin", 'i', Takes::Bool, "false", "Pass standard input"),
    short("tty", 't', Takes::Bool, "false", "With a terminal"),
    short("quiet", 'q', Takes::Bool, "false", "Say nothing but what the program says"),
];

/// Flags of `exec`.
pub(crate) const FLAGS: [&[Flag]; 2] = [&STREAM, &[builder::FILES[0]]];
/// Flags of `attach`.
pub(crate) const ATTACH_FLAGS: [&[Flag]; 1] = [&STREAM];

/// Runs `exec`.
///
/// # Errors
/// The program's exit code, if it is not 0; what the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let files = !flags.list("filename").is_empty();
    let (target, command) = match flags.dash {
        Some(dash) => flags.args.split_at(dash),
        None if flags.args.len() > 1 || files && !flags.args.is_empty() => {
            return Err(context.usage(
                "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead",
            ));
        }
        None => (flags.args.as_slice(), [].as_slice()),
    };
    if target.is_empty() && !files {
        return fail("pod, type/name or --filename must be specified");
    }
    if command.is_empty() {
        return fail("you must specify at least one command for the container");
    }
    let patience = pod_target::timeout(context)?;
    let info = pod_target::object(context, &target[..target.len().min(1)], "exec into").await?;
    let pod = pod_target::pod(context, &info, patience).await?;
    in_progress(&pod, "exec into")?;
    let named = flags.text("container");
    // A wrong name is the server's to refuse.
    let container = if named.is_empty() {
        text(pod_target::container(context, &pod, "", flags.on("quiet"))?, "/name").to_owned()
    } else {
        named.to_owned()
    };
    let session = Session::from_flags(context);
    let process = remote::exec(context, &pod, command, &session.params(&container)).await?;
    remote::join(process, session, false).await
}

fn in_progress(pod: &Value, what: &str) -> Outcome {
    let phase = text(pod, "/status/phase");
    if matches!(phase, "Succeeded" | "Failed") {
        return fail(format!("cannot {what} a container in a completed pod; current phase is {phase}"));
    }
    Ok(())
}

/// Runs `attach`.
///
/// # Errors
/// As `exec`.
pub(crate) async fn attach(context: &Context) -> Outcome {
    let args = &context.flags.args;
    if args.is_empty() {
        return fail("at least 1 argument is required for attach");
    }
    if args.len() > 2 {
        return fail(format!(
            "expected POD, TYPE/NAME, or TYPE NAME, (at most 2 arguments) saw {}: [{}]",
            args.len(),
            args.join(" ")
        ));
    }
    let patience = pod_target::timeout(context)?;
    let info = pod_target::object(context, args, "attach to").await?;
    let pod = pod_target::pod(context, &info, patience).await?;
    in_progress(&pod, "attach")?;
    attach_to(context, &pod, context.flags.text("container"), Session::from_flags(context)).await
}

/// Attaches to a container of a pod that runs.
///
/// # Errors
/// As `exec`.
pub(crate) async fn attach_to(context: &Context, pod: &Value, wanted: &str, mut session: Session) -> Outcome {
    let quiet = context.flags.on("quiet");
    let container = pod_target::container(context, pod, wanted, quiet).map_err(|error| {
        crate::failure::Failure::Message(format!("cannot attach to the container: {}", error.text()))
    })?;
    let name = text(container, "/name");
    let has = container["tty"] == true;
    if context.flags.on("tty") && !has {
        (session.tty, session.raw) = (false, false);
        if !quiet {
            context.err(&format!("error: Unable to use a TTY - container {name} did not allocate one\n"));
        }
    } else if has {
        // What the program writes goes over its terminal, also when nobody asked for one.
        session.tty = true;
        session.raw = session.stdin && crate::terminal::is_terminal();
    }
    if !quiet {
        context.err("If you don't see a command prompt, try pressing enter.\n");
    }
    let pods = remote::pods(context, object::namespace(pod)).await?;
    let begun = pods.attach(object::name(pod), &session.params(name)).await;
    let process = begun.map_err(|error| remote::refused(&error))?;
    remote::join(process, session, true).await?;
    if !quiet && session.raw && text(pod, "/spec/restartPolicy") == "Always" {
        let resume = format!("{} attach {} -c {name} -i -t", context.name, object::name(pod));
        context.err(&format!("Session ended, resume using '{resume}' command when the pod is running\n"));
    }
    Ok(())
}
