//! Fetching weights into the cache before they are needed.
//!
//! A network's weights don't fit into the second-level cache, so that each layer would wait for its own. Layers
//! run in the same order each time: the scratch memory remembers which weights came after which, and while one
//! layer computes, it asks for the first of the next one's. Addresses are only ever hints to the CPU, never read.
#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "only kernels with vector instructions fetch ahead")
)]

use std::collections::HashMap;

/// Bytes of the next layer that are fetched at most.
const MOST: usize = 256 << 10;

/// Layers that are remembered at most; a model has a few hundred.
const LAYERS: usize = 4096;

/// A line of the cache.
const LINE: usize = 64;

/// Addresses to fetch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Region {
    at: usize,
    end: usize,
}

impl Region {
    /// The first bytes of some weights.
    pub(super) fn new(weights: &[u8]) -> Self {
        let at = weights.as_ptr().addr();
        Self { at, end: at + weights.len().min(MOST) }
    }

    /// The part with this index of `parts` equal ones.
    pub(super) fn part(self, index: usize, parts: usize) -> Self {
        let step = (self.end - self.at).div_ceil(parts.max(1)).next_multiple_of(LINE);
        let at = (self.at + index * step).min(self.end);
        Self { at, end: (at + step).min(self.end) }
    }

    /// To be asked for in so many bits.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn walk(self, bits: usize) -> Walk {
        Walk { rest: self, step: (self.end - self.at).div_ceil(bits.max(1)).next_multiple_of(LINE) }
    }

    /// Asks for the part with this index of `parts` equal ones.
    #[inline]
    pub(super) fn fetch(self, index: usize, parts: usize) {
        if self.at == self.end {
            return;
        }
        let Self { at, end } = self.part(index, parts);
        for address in (at..end).step_by(LINE) {
            hint(address);
        }
    }
}

/// A region that is fetched bit by bit.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk {
    rest: Region,
    step: usize,
}

#[cfg(target_arch = "x86_64")]
impl Walk {
    /// Asks for the next bit.
    #[inline]
    pub(super) fn fetch(&mut self) {
        let end = self.rest.end.min(self.rest.at + self.step);
        while self.rest.at < end {
            hint(self.rest.at);
            self.rest.at += LINE;
        }
    }
}

/// Which weights come after which.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    next: HashMap<usize, Region>,
    last: Option<usize>,
}

impl Sequence {
    /// Notes that the layer with these weights runs; answers with those of the layer that ran after it before.
    pub(super) fn after(&mut self, own: Region) -> Region {
        if self.next.len() >= LAYERS {
            self.next.clear();
        }
        if let Some(last) = self.last.replace(own.at) {
            self.next.insert(last, own);
        }
        self.next.get(&own.at).copied().unwrap_or_default()
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "the instruction is a hint")]
fn hint(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint reads nothing, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address)) }
}

#[cfg(target_arch = "aarch64")]
#[inline]
#[expect(unsafe_code, reason = "the instruction is a hint")]
fn hint(address: usize) {
    // SAFETY: a hint reads nothing, whatever the address.
    unsafe { std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, preserves_flags)) }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn hint(_address: usize) {}

#[cfg(test)]
mod tests {
    use super::{Region, Sequence};

    #[test]
    fn the_second_time_the_next_weights_are_known() {
        let (first, second) = (Region { at: 64, end: 1000 }, Region { at: 4096, end: 8192 });
        let mut sequence = Sequence::default();
        assert_eq!(sequence.after(first), Region::default());
        assert_eq!(sequence.after(second), Region::default());
        assert_eq!(sequence.after(first), second);
        assert_eq!(sequence.after(second), first);
    }

    #[test]
    fn parts_cover_the_region() {
        let region = Region { at: 64, end: 1000 };
        let parts: Vec<_> = (0..4).map(|index| region.part(index, 4)).collect();
        assert_eq!(parts[0].at, 64);
        assert!(parts.windows(2).all(|two| two[0].end == two[1].at));
        assert_eq!(parts[3].end, 1000);
        assert_eq!(region.part(9, 4), Region { at: 1000, end: 1000 });
    }
}
