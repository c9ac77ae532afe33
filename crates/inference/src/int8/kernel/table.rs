//! Tables of 256 bytes, with the byte shuffles of each CPU level.
#![cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    expect(
        unsafe_code,
        reason = "calls shuffles of a CPU level that was detected, with lengths asserted above"
    )
)]

#[cfg(target_arch = "aarch64")]
use super::arm;
use super::level::Level;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// `to[i] = table[from[i]]`.
///
/// # Panics
/// If the lengths differ.
pub(super) fn map(to: &mut [u8], from: &[u8], table: &[u8; 256]) {
    map_at(Level::detect(), to, from, table);
}

fn map_at(level: Level, to: &mut [u8], from: &[u8], table: &[u8; 256]) {
    assert_eq!(to.len(), from.len(), "lengths of a table's operands");
    let done = match level {
        // SAFETY: the CPU has the instructions; the lengths are the same.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni | Level::Amx if x86::detect::has_byte_tables() => unsafe {
            x86::table::map_512(to, from, table)
        },
        // SAFETY: each of these levels has AVX2; the lengths are the same.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni | Level::Amx | Level::AvxVnni | Level::Avx2 => unsafe {
            x86::table::map_256(to, from, table)
        },
        // SAFETY: the level has NEON; the lengths are the same.
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::NeonDot => unsafe { arm::table::map(to, from, table) },
        _ => 0,
    };
    for (to, value) in to[done..].iter_mut().zip(&from[done..]) {
        *to = table[usize::from(*value)];
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::{Level, map_at};

    #[test]
    fn each_level_maps_each_value() {
        let mut random = Random::new(5);
        for length in [0, 1, 15, 16, 17, 31, 33, 63, 64, 65, 127, 200, 256, 1000] {
            let table = std::array::from_fn(|_| random.byte());
            let mut from: Vec<u8> = (0..length).map(|_| random.byte()).collect();
            from.iter_mut().zip(0..=255).for_each(|(value, all)| *value = all);
            let want: Vec<u8> = from.iter().map(|value| table[usize::from(*value)]).collect();
            for level in Level::available() {
                let mut got = vec![0; length];
                map_at(level, &mut got, &from, &table);
                assert_eq!(got, want, "{level}, {length} bytes");
            }
        }
    }
}
