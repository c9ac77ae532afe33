//! The CPU levels that have kernels of their own, and which of them this machine has.

use std::fmt;
use std::sync::OnceLock;

/// Which family of kernels runs; all of them give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The reference, slow.
    Scalar,
    /// Plain Rust, for CPUs that have no level of their own.
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with the 256-bit dot product (AVX-VNNI).
    AvxVnni,
    /// x86-64 with AVX-512 and its dot product.
    Avx512Vnni,
    /// As `Avx512Vnni`, with the tile multiplier (AMX) for convolutions and matrices.
    Amx,
    /// aarch64 without the dot product.
    Neon,
    /// aarch64 with the dot product (`sdot`).
    NeonDot,
}

/// The environment variable that limits the level, for comparisons: one of the names of [`Level::name`].
pub const LEVEL_VARIABLE: &str = "FLOTILLA_INT8_LEVEL";

impl Level {
    /// From slowest to fastest.
    pub const ALL: [Self; 8] = [
        Self::Scalar,
        Self::Portable,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512Vnni,
        Self::Amx,
        Self::Neon,
        Self::NeonDot,
    ];

    /// The fastest level of this machine that isn't above the one that `FLOTILLA_INT8_LEVEL` names.
    pub fn detect() -> Self {
        static CHOSEN: OnceLock<Level> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wanted = std::env::var(LEVEL_VARIABLE).ok();
            Self::choose(wanted.as_deref(), &Self::available())
        })
    }

    /// The level of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The last (fastest) of `available` up to the wanted level. A name that no level has, or one of another
    /// architecture, limits to the portable one: the program says so, and the report shows what runs.
    fn choose(wanted: Option<&str>, available: &[Self]) -> Self {
        let wanted = wanted.filter(|name| !name.trim().is_empty());
        let limit = wanted.map(|name| Self::named(name).unwrap_or(Self::Portable));
        let is_allowed = |level: &Self| {
            let is_plain = *level <= Self::Portable;
            limit.is_none_or(|limit| *level <= limit && (is_plain || level.is_arm() == limit.is_arm()))
        };
        available.iter().rfind(|level| is_allowed(level)).copied().unwrap_or(Self::Portable)
    }

    fn is_arm(self) -> bool {
        matches!(self, Self::Neon | Self::NeonDot)
    }

    /// The levels of this machine, slowest first; never empty.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|level| level.is_available()).collect()
    }

    /// The name that reports and `FLOTILLA_INT8_LEVEL` use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
        }
    }

    fn is_available(self) -> bool {
        match self {
            Self::Scalar | Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => super::x86::detect::has_avx512_vnni(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => super::x86::detect::has_amx_int8(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Level;

    #[test]
    fn the_reference_is_always_there() {
        assert_eq!(Level::available().first(), Some(&Level::Scalar));
    }

    /// Emulators show the CPU that they are told to: the tests there must not quietly leave a level out.
    #[test]
    fn the_levels_that_the_test_run_wants_are_found() {
        let Ok(wanted) = std::env::var("FLOTILLA_TEST_LEVELS") else { return };
        let found: Vec<_> = Level::available().into_iter().map(Level::name).collect();
        assert_eq!(found, wanted.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn a_level_can_be_asked_for_by_name() {
        let here = [Level::Scalar, Level::Avx2, Level::Avx512Vnni];
        assert_eq!(Level::choose(Some("avx2"), &here), Level::Avx2);
        assert_eq!(Level::choose(Some("amx"), &here), Level::Avx512Vnni);
        assert_eq!(Level::choose(Some("avx-vnni"), &here), Level::Avx2);
        assert_eq!(Level::choose(Some("AVX2 "), &here), Level::Avx2);
        assert_eq!(Level::choose(Some(""), &here), Level::Avx512Vnni);
        assert_eq!(Level::choose(Some("avx9"), &here), Level::Scalar);
        assert_eq!(Level::choose(Some("neon-dot"), &here), Level::Scalar);
        let there = [Level::Scalar, Level::Portable, Level::Neon, Level::NeonDot];
        assert_eq!(Level::choose(Some("amx"), &there), Level::Portable);
        assert_eq!(Level::choose(Some("neon"), &there), Level::Neon);
        assert_eq!(Level::choose(None, &here), Level::Avx512Vnni);
    }
}
