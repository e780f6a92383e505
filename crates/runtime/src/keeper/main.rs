//! What a shim becomes once its container runs: a program of its own that stays beside it until it ends. It needs a
//! tenth of the memory of the whole of Sagong doing the same. It is the first process of a shared process namespace, too.
//!
//! Compiled by `build.rs`, alone, with nothing but the standard library and the three rooms it shares with the shim.

#[path = "../native/shim/attach.rs"]
mod attach;
#[path = "../native/shim/log.rs"]
mod log;
#[path = "../native/shim/stay.rs"]
mod stay;

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "hold") {
        hold();
    }
    match stay::Kept::from_arguments(&arguments) {
        Some(kept) => kept.stay(),
        None => std::process::ExitCode::from(2),
    }
}

// Of the C library, which every program is linked with; the same on every architecture of Linux.
unsafe extern "C" {
    fn signal(number: std::ffi::c_int, action: usize) -> usize;
    fn pause() -> std::ffi::c_int;
}

/// What the first process of a pod's processes does, for ever: nothing. The kernel takes the status of orphans for it.
fn hold() -> ! {
    const CHILD_ENDED: std::ffi::c_int =
        if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 18 } else { 17 };
    const IGNORE: usize = 1;
    // SAFETY: ignoring a signal calls no code of ours.
    unsafe { signal(CHILD_ENDED, IGNORE) };
    loop {
        // SAFETY: takes nothing.
        unsafe { pause() };
    }
}
