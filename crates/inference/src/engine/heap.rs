//! The heap: all threads share one, and what loading, testing or a request needed for a while goes back to the system.

/// Asks the allocator to return what is free. glibc keeps it for itself otherwise, up to several times a model's
/// size; musl, which device builds have, returns by itself every block of 128 KiB or more, and smaller ones by groups.
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

/// A block of so much is the system's own, and goes back to it as soon as it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: i32 = 4 << 20;
/// What may lie free at the heap's end until [`trim_heap`].
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const UNTRIMMED_BYTES: i32 = 32 << 20;

/// Lets all threads share one heap, from here on: call it before there are any. glibc gives a new thread a heap of its
/// own, and each keeps what its thread needed at most. Small blocks don't come from it each time, so threads hardly
/// wait for each other. musl has one anyway.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn share_heap() {
    set(ARENA_MAX, 1);
    set(TRIM_THRESHOLD, UNTRIMMED_BYTES);
}

/// Nothing to do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn share_heap() {}

/// A model's tensors come from the heap from here on, which is not cut short between two inferences; what is larger stays
/// outside of it for good. glibc would take the first block that is freed, of up to 32 MiB, as the size up to which all
/// later ones lie in the heap, and a small block above a large one keeps that.
///
/// Call it once the blocks of the process's own life are there: the heap writes zeroes over a part of each that is asked
/// for as zeroes, which the system gives without taking memory for them (5.4 MiB of the telemetry database's histograms).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_tensors_in_heap() {
    set(MMAP_THRESHOLD, LARGE_BYTES);
}

/// Nothing to do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn keep_tensors_in_heap() {}

/// As glibc's `malloc.h` numbers them. Each one that is set ends that glibc changes any by itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_THRESHOLD: i32 = -1;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD: i32 = -3;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENA_MAX: i32 = -8;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "declares a function of glibc that has no conditions")]
fn set(parameter: i32, value: i32) {
    // SAFETY: this is how glibc declares it (`int mallopt(int param, int value)`), free to call at any time.
    unsafe extern "C" {
        safe fn mallopt(parameter: i32, value: i32) -> i32;
    }
    mallopt(parameter, value);
}
