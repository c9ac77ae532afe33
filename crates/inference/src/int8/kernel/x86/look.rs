//! Which values of some rows can be multiplied as bytes with AVX2: what `gemm_avx2` does with them stands there.
#![expect(unsafe_code, reason = "pointers into rows and work, whose bounds `tile::run` asserts")]

use super::finish256::Words;
use std::arch::x86_64::{
    __m256i, _mm_loadl_epi64, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_cmpgt_epi16, _mm256_cvtepu8_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_epi16, _mm256_movemask_ps, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi32, _mm256_store_si256,
    _mm256_storeu_si256, _mm256_xor_si256,
};

/// Rows at a time.
pub(super) const ROWS: usize = 4;

/// Bytes that are looked at together.
pub(super) const CHUNK: usize = 32;

/// Memory for what [`Look`] makes of rows of `k` bytes.
pub(in super::super) const fn work_bytes(k: usize) -> usize {
    let padded = k.next_multiple_of(64);
    3 * ROWS * padded + 3 * list_bytes(padded)
}

/// Bytes of a list of all half groups, and of the eight that may be written behind them.
const fn list_bytes(padded: usize) -> usize {
    padded + 32
}

/// How many products are added in 16 bits: the lists of [`Look`]. Four are those of a group, which is eight values in
/// two lanes; the others take half a group, one lane.
pub(super) const FOUR: usize = 0;
pub(super) const TWO: usize = 1;
pub(super) const ONE: usize = 2;

/// What was found in some rows.
pub(super) struct Look {
    /// Where groups, then where half groups start, by the way that they go.
    lists: [*mut u32; 3],
    count: [usize; 3],
    /// Even and odd values as words, by turns as many as a vector holds, where a list has those that need it.
    pub(super) words: *mut u8,
    /// What 128 times each row's values adds to its sums, to be taken off.
    pub(super) less: [i32; ROWS],
}

impl Look {
    /// Looks at `MR` rows; where `S`, they are copied to `work` less 128, with zeros behind.
    ///
    /// # Safety
    /// AVX2; the rows are readable up to the next multiple of 64 bytes, and `work` has [`work_bytes`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn at<const MR: usize, const S: bool>(
        (rows, stride): (*const u8, usize),
        k: usize,
        work: *mut u8,
    ) -> Self {
        let padded = k.next_multiple_of(64);
        let zero = _mm256_setzero_si256();
        let most = _mm256_set1_epi16(if S { 128 } else { 255 });
        // SAFETY: there is room for the copies, twice as much for the words, and for the lists; the mask has 32 bytes
        // at each such place; copies and words are whole vectors within the padded rows.
        unsafe {
            let words = work.add(ROWS * padded);
            #[expect(
                clippy::cast_ptr_alignment,
                reason = "work lies on a cache line, as `tile::run` asserts"
            )]
            let list = |way: usize| words.add(2 * ROWS * padded + way * list_bytes(padded)).cast::<u32>();
            let lists = [list(FOUR), list(TWO), list(ONE)];
            let mut look = Self { lists, count: [0; 3], words, less: [0; ROWS] };
            let mut less = [zero; MR];
            for at in (0..k).step_by(CHUNK) {
                let left = (k - at).min(CHUNK);
                let mask = _mm256_loadu_si256(MASK.as_ptr().add(CHUNK - left).cast());
                let (mut values, mut twos, mut fours) = ([zero; MR], zero, zero);
                for (i, value) in values.iter_mut().enumerate() {
                    *value = _mm256_loadu_si256(rows.add(i * stride + at).cast());
                    let mut size = *value;
                    if S {
                        *value = _mm256_and_si256(_mm256_xor_si256(*value, _mm256_set1_epi8(-128)), mask);
                        _mm256_store_si256(work.add(i * padded + at).cast(), *value);
                        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), *value);
                        less[i] =
                            _mm256_add_epi32(less[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(-128)));
                        size = _mm256_abs_epi8(*value);
                    }
                    let two = _mm256_maddubs_epi16(size, _mm256_set1_epi8(1));
                    let other = _mm256_shuffle_epi32::<0b1011_0001>(two);
                    twos = _mm256_max_epi16(twos, two);
                    fours = _mm256_max_epi16(fours, _mm256_add_epi16(two, other));
                }
                let (fours, twos) =
                    (lanes(_mm256_cmpgt_epi16(fours, most)), lanes(_mm256_cmpgt_epi16(twos, most)));
                let inside = (1 << (left / 4)) - 1;
                // The first half of a group stands for both, which have the same bit.
                look.push(FOUR, fours & 0x55 & inside, at);
                look.push(TWO, !fours & twos & inside, at);
                let ones = !(fours | twos) & inside;
                if ones != 0 {
                    look.push(ONE, ones, at);
                    for (i, value) in values.into_iter().enumerate() {
                        let Words([even, odd]) = words_of::<S>(value);
                        let to = words.add(2 * (i * padded + at));
                        _mm256_store_si256(to.cast(), even);
                        _mm256_store_si256(to.add(CHUNK).cast(), odd);
                    }
                }
            }
            for (to, less) in look.less.iter_mut().zip(less) {
                let mut lanes = [0_i32; 8];
                _mm256_storeu_si256(lanes.as_mut_ptr().cast(), less);
                *to = lanes.iter().sum();
            }
            look
        }
    }

    /// Puts half groups of a chunk onto a list; without branches, since nobody can foretell them.
    ///
    /// # Safety
    /// AVX2; the list has room for eight more.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn push(&mut self, way: usize, bits: usize, at: usize) {
        let (places, count) = &HALVES[bits & 255];
        // SAFETY: as the caller says.
        unsafe {
            let places = _mm256_cvtepu8_epi32(_mm_loadl_epi64(places.as_ptr().cast()));
            let places = _mm256_add_epi32(places, _mm256_set1_epi32(at as i32));
            _mm256_storeu_si256(self.lists[way].add(self.count[way]).cast(), places);
        }
        self.count[way] += count;
    }

    /// The groups, or half groups, of one way.
    ///
    /// # Safety
    /// `work` wasn't written since.
    #[inline(always)]
    pub(super) unsafe fn list(&self, way: usize) -> &[u32] {
        // SAFETY: as many were written.
        unsafe { std::slice::from_raw_parts(self.lists[way], self.count[way]) }
    }
}

/// One bit for each lane of 32 bits of which nothing is set.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(is_over: __m256i) -> usize {
    let fits = _mm256_cmpeq_epi32(is_over, _mm256_setzero_si256());
    _mm256_movemask_ps(_mm256_castsi256_ps(fits)) as usize
}

/// Values, less 128 where `S`, as words.
#[inline]
#[target_feature(enable = "avx2")]
fn words_of<const S: bool>(values: __m256i) -> Words {
    if S { Words::weights::<false>(values) } else { Words::values::<false>(values) }
}

/// All bits for the bytes of a chunk, then none.
static MASK: [u8; 2 * CHUNK] = {
    let mut mask = [0; 2 * CHUNK];
    let mut at = 0;
    while at < CHUNK {
        mask[at] = 255;
        at += 1;
    }
    mask
};

/// For each eight bits where in a chunk the half groups of those start that are set, and how many these are.
static HALVES: [([u8; 8], usize); 256] = {
    let mut all = [([0; 8], 0); 256];
    let mut bits = 0;
    while bits < 256 {
        let mut place = 0;
        while place < 8 {
            if bits >> place & 1 == 1 {
                all[bits].0[all[bits].1] = 4 * place as u8;
                all[bits].1 += 1;
            }
            place += 1;
        }
        bits += 1;
    }
    all
};
