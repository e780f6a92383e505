//! The commands alone, without the rest of Sagong.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let code = runtime.block_on(sagong_kubectl::run(std::env::args_os().skip(1).collect(), "kubectl"));
    // A read of standard input under way must not hold up the end.
    runtime.shutdown_background();
    code
}
