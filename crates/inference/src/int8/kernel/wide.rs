//! Plain loops over slices, compiled again for the vectors of the CPU that runs them.
//!
//! `wide!` turns a safe function into one that runs its copy for AVX-512 or AVX2 where they are there; the body is
//! ordinary Rust and the same everywhere. Divisions are no faster in 512 bits, so `narrow!` stops at AVX2.

/// Defines functions whose loops are compiled for each width of vectors.
macro_rules! wide {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)+) => {$(
        $(#[$meta])*
        fn $name($($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn body_512($($arg: $type),*) { body($($arg),*); }

                #[target_feature(enable = "avx2")]
                fn body_256($($arg: $type),*) { body($($arg),*); }

                if $crate::int8::kernel::wide::has_512() {
                    // SAFETY: the features were just found.
                    #[expect(unsafe_code, reason = "code for CPU features that were found")]
                    unsafe { body_512($($arg),*); }
                    return;
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was just found.
                    #[expect(unsafe_code, reason = "code for CPU features that were found")]
                    unsafe { body_256($($arg),*); }
                    return;
                }
            }
            body($($arg),*);
        }
    )+};
}

/// As `wide!` with 256 bits at most.
macro_rules! narrow {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)+) => {$(
        $(#[$meta])*
        fn $name($($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn body_256($($arg: $type),*) { body($($arg),*); }

                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was just found.
                    #[expect(unsafe_code, reason = "code for CPU features that were found")]
                    unsafe { body_256($($arg),*); }
                    return;
                }
            }
            body($($arg),*);
        }
    )+};
}

pub(super) use {narrow, wide};

/// The parts of AVX-512 that loops over bytes and floats need.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
}
