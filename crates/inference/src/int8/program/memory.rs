//! Where values lie: those that are not needed at the same time share memory.

use std::ops::Range;

/// A value to place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Elements.
    pub(super) size: usize,
    /// First and last step that uses it.
    pub(super) life: (usize, usize),
}

/// Places for all values and the length of the whole; each place starts at a multiple of `align`.
/// Larger values are placed first, each at the lowest place that is free during its life.
pub(super) fn place(needs: &[Need], align: usize) -> (Vec<Range<usize>>, usize) {
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(needs[*index].size), *index));
    let mut places = vec![0..0; needs.len()];
    let mut placed: Vec<usize> = Vec::new();
    for index in order {
        let need = needs[index];
        let mut start = 0;
        // `placed` is in the order of the places, so the first gap that is large enough is the lowest.
        for other in &placed {
            let Range { start: from, end } = places[*other];
            let meets = needs[*other].life.0 <= need.life.1 && need.life.0 <= needs[*other].life.1;
            if meets && from < start + need.size && start < end {
                start = end.next_multiple_of(align);
            }
        }
        places[index] = start..start + need.size;
        let at = placed.partition_point(|other| places[*other].start <= start);
        placed.insert(at, index);
    }
    let length = places.iter().map(|place| place.end).max().unwrap_or(0);
    (places, length)
}

/// What is left of some memory beside the part that is written.
pub(super) struct Rest<'a, T> {
    before: &'a [T],
    after: &'a [T],
    end: usize,
}

impl<'a, T> Rest<'a, T> {
    /// A part that doesn't overlap the one that is written.
    ///
    /// # Panics
    /// If it does.
    pub(super) fn get(&self, place: &Range<usize>) -> &'a [T] {
        if place.end <= self.before.len() {
            &self.before[place.clone()]
        } else {
            &self.after[place.start - self.end..place.end - self.end]
        }
    }
}

/// One part to write, the rest to read.
pub(super) fn split<'a, T>(memory: &'a mut [T], place: &Range<usize>) -> (&'a mut [T], Rest<'a, T>) {
    let (before, rest) = memory.split_at_mut(place.start);
    let (out, after) = rest.split_at_mut(place.end - place.start);
    (out, Rest { before, after, end: place.end })
}

#[cfg(test)]
mod tests {
    use super::{Need, place, split};

    #[test]
    fn values_that_live_together_never_share_a_place() {
        let mut state = 3_usize;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345) % (1 << 31);
            (state >> 8) % below
        };
        for _ in 0..50 {
            let needs: Vec<Need> = (0..40)
                .map(|_| {
                    let first = random(30);
                    Need { size: 1 + random(500), life: (first, first + random(6)) }
                })
                .collect();
            let (places, length) = place(&needs, 64);
            for (i, a) in needs.iter().enumerate() {
                assert!(places[i].len() == a.size && places[i].start % 64 == 0 && places[i].end <= length);
                for (j, b) in needs.iter().enumerate().filter(|(j, _)| *j != i) {
                    let together = a.life.0 <= b.life.1 && b.life.0 <= a.life.1;
                    let apart = places[i].end <= places[j].start || places[j].end <= places[i].start;
                    assert!(!together || apart, "{i} and {j}");
                }
            }
        }
    }

    #[test]
    fn values_one_after_the_other_share_a_place() {
        let chain = [(0, 1), (1, 2), (2, 3), (3, 4)].map(|life| Need { size: 100, life });
        assert_eq!(place(&chain, 64).1, 228);
    }

    #[test]
    fn what_is_read_lies_before_or_after_what_is_written() {
        let mut memory = [0, 1, 2, 3, 4, 5];
        let (out, rest) = split(&mut memory, &(2..4));
        assert_eq!((out, rest.get(&(0..2)), rest.get(&(4..6))), (&mut [2, 3][..], &[0, 1][..], &[4, 5][..]));
    }
}
