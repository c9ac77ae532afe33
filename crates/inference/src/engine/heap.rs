//! The heap: all threads share one, and what loading and testing needed and a loaded model doesn't goes back to the
//! system.

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

/// Lets all threads share one heap, from here on: call it before there are any. glibc gives a new thread a heap of its
/// own, and each keeps what its thread needed at most. Small blocks don't come from it each time, so threads hardly
/// wait for each other. musl has one anyway.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "declares a function of glibc that has no conditions")]
pub fn share_heap() {
    // SAFETY: this is how glibc declares it (`int mallopt(int param, int value)`), free to call at any time.
    unsafe extern "C" {
        safe fn mallopt(parameter: i32, value: i32) -> i32;
    }
    /// As glibc's `malloc.h` numbers it.
    const ARENA_MAX: i32 = -8;
    mallopt(ARENA_MAX, 1);
}

/// Nothing to do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn share_heap() {}
