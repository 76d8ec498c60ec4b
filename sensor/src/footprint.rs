//! Gives back the memory that only the start used.
//!
//! Reading the kernel's types, loading programs and compiling rules run through most of the program's file once; what every
//! event needs is a small part of it. Pages of a file that a process has used count as active, and so as memory that the
//! node cannot spare, until the kernel is short of it.

use std::ffi::c_void;

use ::procfs::process::{MMPermissions, Process};

/// Has the kernel take back the pages of the program and its libraries that nobody else has mapped. What is needed again is
/// read again. An old kernel, or one that refuses, costs memory and nothing else.
pub fn give_back() {
    let Ok(maps) = Process::myself().and_then(|myself| myself.maps()) else { return };
    let file = |perms: MMPermissions| perms.contains(MMPermissions::PRIVATE) && !perms.contains(MMPermissions::WRITE);
    for map in maps.into_iter().filter(|map| map.inode != 0 && file(map.perms)) {
        let (start, end) = map.address;
        let (Ok(address), Ok(len)) = (usize::try_from(start), usize::try_from(end.saturating_sub(start))) else {
            continue;
        };
        // SAFETY: the advice changes no contents, whatever is mapped there by now.
        unsafe { libc::madvise(std::ptr::without_provenance_mut::<c_void>(address), len, libc::MADV_PAGEOUT) };
    }
}
