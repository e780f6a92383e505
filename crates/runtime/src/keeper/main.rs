//! What a shim becomes once its container runs: a program of its own that stays beside it until it ends. It needs a
//! tenth of the memory of the whole of Sagong doing the same.
//!
//! Compiled by `build.rs`, alone, with nothing but the standard library; the three rooms it shares with the shim are
//! all there is to it.

#[path = "../native/shim/attach.rs"]
mod attach;
#[path = "../native/shim/log.rs"]
mod log;
#[path = "../native/shim/stay.rs"]
mod stay;

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match stay::Kept::from_arguments(&arguments) {
        Some(kept) => kept.stay(),
        None => std::process::ExitCode::from(2),
    }
}
