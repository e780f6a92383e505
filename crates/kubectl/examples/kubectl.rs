//! The commands alone, without the rest of Sagong.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    sagong_kubectl::run(std::env::args_os().skip(1).collect(), "kubectl").await
}
