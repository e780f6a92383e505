//! The very last step before a container's program is executed: its system calls are restricted, and what was only
//! needed for that is given up.

use super::filter::{self, Instruction};
use crate::native::spec::{FOR_A_MOMENT, PROFILE};
use libcontainer::oci_spec::runtime::{LinuxSeccomp, Spec};
use nix::libc;
use std::io;

/// Numbers of the capabilities that may be lent.
const LENT: [(&str, u32); 2] = [("SYS_ADMIN", 21), ("SETPCAP", 8)];
/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;
/// `SECCOMP_SET_MODE_FILTER`.
const SET_FILTER: libc::c_uint = 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no slower processor for the sake of programs that do not ask for it.
const SPECULATE: libc::c_uint = 4;

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Restricts this process, and all that come of it, as the configuration says.
///
/// # Errors
/// The sentence to show. The program must not be executed then.
pub(super) fn confine(spec: &Spec) -> Result<(), String> {
    let annotation = |name: &str| spec.annotations().as_ref().and_then(|all| all.get(name));
    let profile: Option<LinuxSeccomp> = match annotation(PROFILE) {
        Some(text) => {
            let profile = serde_json::from_str(text);
            Some(profile.map_err(|error| format!("the seccomp profile cannot be read: {error}"))?)
        }
        // Where containers made by an earlier version have it.
        None => spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()),
    };
    if let Some(profile) = profile {
        let program = filter::compile(&profile)?;
        install(&program).map_err(|error| format!("restricting system calls: {error}"))?;
    }
    let names: Vec<&str> =
        annotation(FOR_A_MOMENT).map(|names| names.split(',').collect()).unwrap_or_default();
    let numbers: Vec<u32> =
        LENT.into_iter().filter(|(name, _)| names.contains(name)).map(|(_, number)| number).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    give_up(&numbers).map_err(|error| format!("giving capabilities up: {error}"))
}

fn install(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the kernel reads as many instructions as said, of the layout it knows, during the call.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_FILTER, SPECULATE, &program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn give_up(numbers: &[u32]) -> io::Result<()> {
    for number in numbers {
        // SAFETY: takes no pointers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, *number, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: both outlive the call and have the layout of this version.
    if unsafe { libc::syscall(libc::SYS_capget, &mut header, sets.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for number in numbers {
        let (half, bit) = ((number / 32) as usize, 1_u32 << (number % 32));
        sets[half].effective &= !bit;
        sets[half].permitted &= !bit;
        sets[half].inheritable &= !bit;
    }
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_capset, &header, sets.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
