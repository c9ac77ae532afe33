//! Memory that loading and testing needed and a loaded model doesn't: handed back to the system.

/// Asks the allocator to return what is free. glibc keeps it for itself otherwise, up to several times a model's
/// size; musl, which device builds have, returns large blocks by itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "declares a function of glibc that has no conditions")]
pub fn trim_heap() {
    // SAFETY: this is how glibc declares it (`int malloc_trim(size_t pad)`), free to call at any time.
    unsafe extern "C" {
        safe fn malloc_trim(pad: usize) -> i32;
    }
    malloc_trim(0);
}

/// Nothing to do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn trim_heap() {}
