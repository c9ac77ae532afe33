//! The ceiling of one core: how many 8-bit multiply-accumulates a loop of independent dot products reaches.

use serde_json::{Value, json};

/// Measures each instruction that this CPU has for exact u8 x s8 sums: `{"avx512-vnni": GMAC/s, ..}`.
pub(crate) fn measure() -> Value {
    #[cfg(target_arch = "x86_64")]
    return x86::measure();
    #[cfg(not(target_arch = "x86_64"))]
    json!({})
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{
        _mm256_add_epi16, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_extract_epi32, _mm256_madd_epi16,
        _mm256_set1_epi8, _mm256_set1_epi16, _mm256_setzero_si256, _mm512_add_epi32, _mm512_dpbusd_epi32,
        _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_setzero_si512,
    };
    use std::hint::black_box;
    use std::time::Instant;

    use inference::int8::kernel::Level;

    use super::{Value, json};

    /// Some milliseconds each, some ten for tiles.
    const ROUNDS: u32 = 1_000_000;
    const TRIES: u32 = 5;
    /// Sums that don't wait for each other: more than latency times units of any CPU so far.
    const SUMS: u32 = 12;
    /// Where each sum needs a factor of its own in one of 16 registers.
    const FEW: u32 = 6;
    /// Tiles of sums, beside two of factors; six wait for nothing.
    const TILES: u32 = 6;

    pub(super) fn measure() -> Value {
        let mut found = serde_json::Map::new();
        // Where it isn't in the list, the kernel gave no leave to use the tiles.
        if Level::available().contains(&Level::Amx) {
            // SAFETY: the tiles are there, and the list asked for leave to use them.
            #[expect(unsafe_code, reason = "calls a function for features that were found")]
            found.insert("amx".into(), json!(gmac_s(TILES * 16 * 16 * 64, || unsafe { amx() })));
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            // SAFETY: the features that the function needs have just been found.
            #[expect(unsafe_code, reason = "calls a function for features that were found")]
            found.insert("avx512-vnni".into(), json!(gmac_s(SUMS * 64, || unsafe { avx512() })));
        }
        if is_x86_feature_detected!("avxvnni") {
            // SAFETY: the features that the function needs have just been found.
            #[expect(unsafe_code, reason = "calls a function for features that were found")]
            found.insert("avx-vnni".into(), json!(gmac_s(SUMS * 32, || unsafe { avx_vnni() })));
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the features that the function needs have just been found.
            #[expect(unsafe_code, reason = "calls a function for features that were found")]
            found.insert("avx2".into(), json!(gmac_s(FEW * 16, || unsafe { avx2() })));
        }
        Value::Object(found)
    }

    fn gmac_s(macs_a_round: u32, work: impl Fn() -> i32) -> f64 {
        let seconds = || {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64()
        };
        // The best of some: another process on this core would only lower it.
        let best = (0..TRIES).map(|_| seconds()).fold(f64::INFINITY, f64::min);
        f64::from(ROUNDS) * f64::from(macs_a_round) / best / 1e9
    }

    /// Rows and bytes of eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Config([u8; 64]);

    static CONFIG: Config = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
            tile += 1;
        }
        Config(bytes)
    };

    /// Products of zeros take as long as others.
    ///
    /// # Safety
    /// The CPU must have the tiles, and the kernel have given leave to use them.
    #[expect(unsafe_code, reason = "there are no other words for tiles")]
    unsafe fn amx() -> i32 {
        // SAFETY: the caller found the tiles; no compiled code uses these registers, and they are given back.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbusd tmm0, tmm6, tmm7", "tdpbusd tmm1, tmm6, tmm7", "tdpbusd tmm2, tmm6, tmm7",
                "tdpbusd tmm3, tmm6, tmm7", "tdpbusd tmm4, tmm6, tmm7", "tdpbusd tmm5, tmm6, tmm7",
                "dec {rounds:e}",
                "jnz 2b",
                "tilerelease",
                config = in(reg) &raw const CONFIG,
                rounds = inout(reg) ROUNDS => _,
                options(nostack, readonly),
            );
        }
        0
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn avx512() -> i32 {
        let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(2)));
        let mut sums = [_mm512_setzero_si512(); SUMS as usize];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        let all = sums.into_iter().fold(_mm512_setzero_si512(), |x, y| _mm512_add_epi32(x, y));
        _mm512_reduce_add_epi32(all)
    }

    #[target_feature(enable = "avx2,avxvnni")]
    fn avx_vnni() -> i32 {
        let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(2)));
        let mut sums = [_mm256_setzero_si256(); SUMS as usize];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        let all = sums.into_iter().fold(_mm256_setzero_si256(), |x, y| _mm256_add_epi32(x, y));
        _mm256_extract_epi32::<0>(all)
    }

    /// Exact sums without the dot product: 16-bit products added in pairs, then added up.
    #[target_feature(enable = "avx2")]
    fn avx2() -> i32 {
        let (mut a, one) = (_mm256_set1_epi16(black_box(3)), _mm256_set1_epi16(1));
        let factors = [1_i16, 2, 3, 4, 5, 6].map(|factor| _mm256_set1_epi16(black_box(factor)));
        let mut sums = [_mm256_setzero_si256(); FEW as usize];
        for _ in 0..ROUNDS {
            // Another value each round, or the compiler would multiply once.
            a = _mm256_add_epi16(a, one);
            for (sum, factor) in sums.iter_mut().zip(factors) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, factor));
            }
        }
        let all = sums.into_iter().fold(_mm256_setzero_si256(), |x, y| _mm256_add_epi32(x, y));
        _mm256_extract_epi32::<0>(all)
    }
}
