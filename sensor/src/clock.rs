//! The difference between local time and UTC, for the fields that show local time.

/// Seconds that local time is ahead of UTC now; 0 when the system does not say.
pub fn utc_offset_s() -> i32 {
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; `localtime_r` fills the struct or returns null.
    unsafe {
        let now = libc::time(std::ptr::null_mut());
        if libc::localtime_r(&raw const now, parts.as_mut_ptr()).is_null() {
            return 0;
        }
        i32::try_from(parts.assume_init().tm_gmtoff).unwrap_or(0)
    }
}
