//! Giving memory back once a container runs: from then on the shim only copies bytes.

use nix::libc;
use std::ffi::c_void;

/// Gives back what was only needed for starting the container.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: gives free memory of the heap back; nothing else.
    unsafe {
        libc::malloc_trim(0);
    }
    forget_stack();
    // SAFETY: the callback matches the signature asked for, and keeps no pointers.
    unsafe { libc::dl_iterate_phdr(Some(forget_code), std::ptr::null_mut()) };
}

/// Calls were nested deeply while the container was started; they are not any more.
fn forget_stack() {
    // What is in use, with ample room.
    const KEPT: usize = 32 << 10;
    const FORGOTTEN: usize = 1 << 20;
    let mark = 0u8;
    let end = (&raw const mark as usize - KEPT) / rustix::param::page_size() * rustix::param::page_size();
    // SAFETY: below the stack pointer nothing is alive, and for a hundred megabytes nothing but the stack is mapped.
    unsafe { libc::madvise((end - FORGOTTEN) as *mut c_void, FORGOTTEN, libc::MADV_DONTNEED) };
}

/// Code and constants come back from the file when they are used again; few are.
unsafe extern "C" fn forget_code(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> libc::c_int {
    // SAFETY: the caller gives a valid description of a loaded object.
    let info = unsafe { &*info };
    // SAFETY: as above; the headers lie in a row.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let page = rustix::param::page_size();
    for header in headers {
        // Segments that were ever writable hold relocations that are in no file.
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let start = (info.dlpi_addr + header.p_vaddr) as usize;
            let first = start.next_multiple_of(page);
            let end = (start + header.p_memsz as usize) / page * page;
            if end > first {
                // SAFETY: the pages are mapped from a file, unchanged, and read again from there when touched.
                unsafe { libc::madvise(first as *mut c_void, end - first, libc::MADV_DONTNEED) };
            }
        }
    }
    0
}
