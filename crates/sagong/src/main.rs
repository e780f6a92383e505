//! Sagong: Kubernetes Deployments on one machine, in one binary.

mod cli;
mod cluster;
mod container_logs;
mod container_streams;
mod controllers;
mod data_dir;
mod demo;
mod down;
mod image;
mod kubeconfig;
mod preflight;
mod status;
mod tunnel;
mod up;

use clap::Parser;
use cli::{Cli, Command};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The container shim is this same program; it must not have started any thread.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == cluster::SHIM) {
        huge_pages(true);
        return sagong_runtime::native::shim_main(std::env::args_os().skip(2));
    }
    if let Some((name, args)) = kubectl(std::env::args_os().collect()) {
        end_with_the_reader();
        return as_kubectl(args, name);
    }
    huge_pages(false);
    if let Some(complaint) = unknown_command() {
        eprintln!("{complaint}");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    // What runs for long must not end because nobody reads its words any more.
    if !matches!(cli.command, Command::Up(_) | Command::Tunnel(_) | Command::Demo(_)) {
        end_with_the_reader();
    }
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SAGONG_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        // Colours only where somebody looks: not in sagong.log.
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // Otherwise a line that cannot be written, on a full disk say, panics the thread that says it.
        .log_internal_errors(false)
        .init();
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// `sagong image list | head -1` ends quietly, as other programs do: Rust ignores SIGPIPE, and would panic.
fn end_with_the_reader() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler of ours runs: the kernel's default action ends the process. No other thread exists yet.
    #[allow(unsafe_code)]
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// Whether this is to be kubectl: called by that name, as `sagong kubectl …`, or with one of kubectl's commands.
/// Gives what messages call the program, and the arguments.
fn kubectl(mut args: Vec<OsString>) -> Option<(&'static str, Vec<OsString>)> {
    let named =
        args.first().is_some_and(|program| Path::new(program).file_name() == Some("kubectl".as_ref()));
    args.drain(..args.len().min(1));
    if named {
        return Some(("kubectl", args));
    }
    let first = args.first()?.to_str()?;
    if first == "kubectl" {
        args.remove(0);
        return Some(("kubectl", args));
    }
    sagong_kubectl::verbs().any(|verb| verb == first).then_some(("sagong", args))
}

/// What is said of a first word that is no command, neither of ours nor of kubectl's.
fn unknown_command() -> Option<String> {
    use clap::CommandFactory;
    let first = std::env::args().nth(1).filter(|word| !word.starts_with('-') && word != "help")?;
    let known = Cli::command();
    if known.find_subcommand(&first).is_some() {
        return None;
    }
    let ours = known.get_subcommands().map(|command| command.get_name().to_owned());
    let mut names: Vec<String> = ours.chain(sagong_kubectl::verbs().map(str::to_owned)).collect();
    names.sort_unstable();
    Some(sagong_kubectl::unknown_command(&first, "sagong", names.iter().map(String::as_str)))
}

fn as_kubectl(args: Vec<OsString>, name: &str) -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(sagong_kubectl::run(args, name));
            // A read of standard input under way must not hold up the end.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// With huge pages an idle cluster would take 17 MB more for nothing. What is set goes on to children, so shims
/// turn them on again for containers. Where the kernel knows no such switch, it stays as it is.
fn huge_pages(allowed: bool) {
    let _ = nix::sys::prctl::set_thp_disable(!allowed);
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            Command::Up(options) if options.detach => up::detached(&options).await,
            Command::Up(options) => up::attached(options).await,
            Command::Down(options) => down::run(options).await,
            Command::Controllers(options) => controllers::run(options).await,
            Command::Status(options) => return status::run(options).await,
            Command::Demo(options) => demo::run(options).await,
            Command::Image(options) => image::run(options.command).await,
            Command::Tunnel(options) => tunnel::run(options).await,
        }
        .map(|()| ExitCode::SUCCESS)
    });
    // Blocking work under way (a watch of a file) must not hold up the end.
    runtime.shutdown_background();
    done
}

/// An error and its causes in one line: a cause that was told already is not repeated, and what came from
/// an archive or a server cannot send commands to the terminal.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.ends_with(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn an_error_is_told_in_one_harmless_line() {
        let twice = anyhow!("no such file").context("reading a.tar: no such file");
        assert_eq!(told(&twice), "reading a.tar: no such file");
        let chain = anyhow!("no\u{1b}[2Jspace\n").context("writing");
        assert_eq!(told(&chain), "writing: no\\u{1b}[2Jspace\\n");
    }
}
