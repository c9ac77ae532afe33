//! Plain loops over slices, compiled again for the vectors of the CPU that runs them.
//!
//! `wide!` turns a safe function into one that runs its copy for AVX-512 or AVX2 where they are there, and the level
//! that was asked for has them; the body is ordinary Rust and the same everywhere. Divisions are no faster in 512
//! bits, so `narrow!` stops at AVX2.

#[cfg(any(target_arch = "x86_64", test))]
use std::sync::OnceLock;

#[cfg(any(target_arch = "x86_64", test))]
use super::level::{LEVEL_VARIABLE, Level};

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

                match $crate::int8::kernel::wide::Width::chosen() {
                    // SAFETY: such a width is chosen where the features were found.
                    #[expect(unsafe_code, reason = "code for CPU features that were found")]
                    $crate::int8::kernel::wide::Width::Avx512 => return unsafe { body_512($($arg),*) },
                    // SAFETY: as above.
                    #[expect(unsafe_code, reason = "code for CPU features that were found")]
                    $crate::int8::kernel::wide::Width::Avx2 => return unsafe { body_256($($arg),*) },
                    $crate::int8::kernel::wide::Width::Plain => {}
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

                if $crate::int8::kernel::wide::Width::chosen() != $crate::int8::kernel::wide::Width::Plain {
                    // SAFETY: such a width is chosen where the features were found; AVX-512 has AVX2.
                    #[expect(unsafe_code, reason = "code for CPU features that were found")]
                    return unsafe { body_256($($arg),*) };
                }
            }
            body($($arg),*);
        }
    )+};
}

pub(super) use {narrow, wide};

/// Which copy of a loop runs; on other architectures there is but one.
#[cfg(any(target_arch = "x86_64", test))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Width {
    /// What every CPU of the architecture has.
    Plain,
    /// 256 bits.
    Avx2,
    /// 512 bits.
    Avx512,
}

#[cfg(any(target_arch = "x86_64", test))]
impl Width {
    /// The widest that the CPU has and that the level allows, once one is asked for. It is found once: a loop of a few
    /// bytes must not cost more than looking at what was found.
    #[inline]
    pub(super) fn chosen() -> Self {
        static CHOSEN: OnceLock<Width> = OnceLock::new();
        #[cfg(test)]
        if let Some(forced) = FORCED.get() {
            return forced;
        }
        *CHOSEN.get_or_init(|| {
            let is_asked = std::env::var(LEVEL_VARIABLE).is_ok_and(|name| !name.trim().is_empty());
            Self::choose(is_asked.then(Level::detect), &Self::available())
        })
    }

    /// The widest of `available`. A level that nobody asked for doesn't limit it: a CPU with AVX-512 but without its
    /// dot product has the level of AVX2.
    fn choose(level: Option<Level>, available: &[Self]) -> Self {
        let most = match level {
            None | Some(Level::Avx512Vnni | Level::Amx) => Self::Avx512,
            Some(Level::Avx2 | Level::AvxVnni) => Self::Avx2,
            Some(Level::Scalar | Level::Portable | Level::Neon | Level::NeonDot) => Self::Plain,
        };
        available.iter().rfind(|width| **width <= most).copied().unwrap_or(Self::Plain)
    }

    /// Those of this CPU, narrowest first.
    pub(super) fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let has_256 = is_x86_feature_detected!("avx2");
            let has_512 = has_256
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            let all = [(Self::Plain, true), (Self::Avx2, has_256), (Self::Avx512, has_512)];
            all.into_iter().filter_map(|(width, is_there)| is_there.then_some(width)).collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::Plain]
    }

    /// Runs a test once with each, on this thread.
    #[cfg(test)]
    pub(super) fn for_each(mut test: impl FnMut(Self)) {
        for width in Self::available() {
            FORCED.set(Some(width));
            test(width);
        }
        FORCED.set(None);
    }
}

#[cfg(test)]
thread_local! {
    static FORCED: std::cell::Cell<Option<Width>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::{Level, Width};

    #[test]
    fn loops_are_as_wide_as_the_level_that_was_asked_for() {
        let all = [Width::Plain, Width::Avx2, Width::Avx512];
        for (level, want) in [
            (None, Width::Avx512),
            (Some(Level::Amx), Width::Avx512),
            (Some(Level::Avx512Vnni), Width::Avx512),
            (Some(Level::AvxVnni), Width::Avx2),
            (Some(Level::Avx2), Width::Avx2),
            (Some(Level::Portable), Width::Plain),
            (Some(Level::Scalar), Width::Plain),
            (Some(Level::NeonDot), Width::Plain),
        ] {
            assert_eq!(Width::choose(level, &all), want, "{level:?}");
            assert_eq!(Width::choose(level, &all[..1]), Width::Plain);
        }
        assert_eq!(Width::choose(Some(Level::Amx), &all[..2]), Width::Avx2);
        assert_eq!(Width::choose(None, &all[..2]), Width::Avx2);
    }

    #[test]
    fn a_test_runs_with_each_width_of_this_cpu() {
        Width::for_each(|width| assert_eq!(Width::chosen(), width));
    }
}
