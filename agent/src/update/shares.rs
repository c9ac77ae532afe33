//! Which variant of each model's active release is to serve, so that all find room. Pure.

/// What one model may take, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// Its variants that fit the device, in the publisher's order.
    pub(super) sizes: Vec<u64>,
    /// Which of them it holds; none where that one does not fit the device any more.
    pub(super) held: Option<usize>,
    /// What it takes now, if it serves.
    pub(super) loaded: Option<u64>,
    /// Whether a preferred variant may be brought.
    pub(super) is_raisable: bool,
}

impl Share {
    /// What it may shrink to, in the order in which it is tried: what it holds first.
    fn within_held(&self) -> impl Iterator<Item = usize> + '_ {
        let most = self.held.and_then(|held| self.sizes.get(held)).copied().unwrap_or(u64::MAX);
        let smaller =
            (0..self.sizes.len()).filter(move |at| self.sizes.get(*at).is_some_and(|size| *size < most));
        self.held.into_iter().chain(smaller)
    }

    fn size(&self, at: Option<usize>) -> u64 {
        at.and_then(|at| self.sizes.get(at)).copied().unwrap_or(0)
    }

    fn smallest(&self) -> Option<usize> {
        (0..self.sizes.len()).min_by_key(|at| self.sizes.get(*at))
    }
}

/// What all of them may take together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    /// 0 is no bound.
    pub(super) budget: u64,
    /// What a model may not grow into: others use it that would give way to a model which has no room at all.
    pub(super) spare: u64,
}

/// The variant of each of `shares`, which come in the order in which they go first; none where no variant finds room.
///
/// What serves goes before what doesn't, and isn't taken away for it. All that can serve serve, in their smallest variant
/// if need be. Of what is left each keeps what it holds, or as much of it as there is. Only where all keep what they hold
/// one of them takes a variant that is preferred.
pub(super) fn plan(shares: &[Share], whole: Whole) -> Vec<Option<usize>> {
    let budget = if whole.budget == 0 { u64::MAX } else { whole.budget };
    let mut taken = smallest(shares, budget);
    let stays = staying(shares, &taken);
    let budget = budget.saturating_sub(stays);
    let mut used = used(shares, &taken);
    for (share, taken) in shares.iter().zip(&mut taken).filter(|(_, taken)| taken.is_some()) {
        let others = used - share.size(*taken);
        let fits = |at: &usize| others.saturating_add(share.size(Some(*at))) <= budget;
        *taken = share.within_held().find(fits).or(*taken);
        used = others.saturating_add(share.size(*taken));
    }
    if shares.iter().zip(&taken).any(|(share, taken)| share.held != *taken) {
        return taken;
    }
    for (share, taken) in shares.iter().zip(&mut taken).filter(|(share, _)| share.is_raisable) {
        let others = (used - share.size(*taken)).saturating_add(whole.spare);
        let fits = |at: &usize| others.saturating_add(share.size(Some(*at))) <= budget;
        if let Some(preferred) = (0..taken.unwrap_or(0)).find(fits) {
            *taken = Some(preferred);
            break;
        }
    }
    taken
}

/// The smallest variants of as many as find room with them.
fn smallest(shares: &[Share], budget: u64) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|at| shares[*at].loaded.is_none());
    let mut taken = vec![None; shares.len()];
    let mut sum = 0_u64;
    for at in &order {
        let share = &shares[*at];
        let smallest = share.smallest().filter(|at| sum.saturating_add(share.size(Some(*at))) <= budget);
        sum = sum.saturating_add(share.size(smallest));
        taken[*at] = smallest;
    }
    // What serves without a place keeps its memory: whoever came in for that would find none.
    for at in order.into_iter().rev().filter(|at| shares[*at].loaded.is_none()) {
        let stays = staying(shares, &taken);
        if stays > 0 && used(shares, &taken).saturating_add(stays) > budget {
            taken[at] = None;
        }
    }
    taken
}

/// What those take that serve and have no place.
fn staying(shares: &[Share], taken: &[Option<usize>]) -> u64 {
    let left = shares.iter().zip(taken).filter(|(_, taken)| taken.is_none());
    left.filter_map(|(share, _)| share.loaded).fold(0, u64::saturating_add)
}

fn used(shares: &[Share], taken: &[Option<usize>]) -> u64 {
    shares.iter().zip(taken).map(|(share, taken)| share.size(*taken)).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(sizes: &[u64]) -> Share {
        Share { sizes: sizes.to_vec(), held: None, loaded: None, is_raisable: true }
    }

    #[test]
    fn what_serves_is_not_taken_away_and_nobody_comes_in_for_it() {
        let held = |sizes: &[u64]| Share { held: Some(0), ..share(sizes) };
        let serving = |sizes: &[u64]| Share { loaded: Some(sizes[0]), ..held(sizes) };
        let within = |shares: &[Share], budget| plan(shares, Whole { budget, spare: 0 });
        // The last two found room at the start, before the others were looked at again.
        let shares = [held(&[40, 6]), held(&[40, 6]), serving(&[8]), serving(&[8])];
        assert_eq!(within(&shares, 20), [None, None, Some(0), Some(0)]);
        assert_eq!(within(&shares, 24), [Some(1), None, Some(0), Some(0)]);
        assert_eq!(within(&shares, 28), [Some(1), Some(1), Some(0), Some(0)]);
        // One that serves has no place any more, and keeps its memory.
        let shares = [held(&[2]), serving(&[8]), serving(&[8])];
        assert_eq!(within(&shares, 12), [None, Some(0), None]);
        // Those that serve shrink for each other.
        let shares = [serving(&[40, 6]), serving(&[40, 6])];
        assert_eq!(within(&shares, 50), [Some(0), Some(1)]);
    }

    #[test]
    fn one_that_may_not_be_raised_does_not_keep_the_others_down() {
        let small = |is_raisable| Share { held: Some(1), is_raisable, ..share(&[40, 6]) };
        let taken = plan(&[small(false), small(true)], Whole { budget: 0, spare: 0 });
        assert_eq!(taken, [Some(1), Some(0)]);
    }

    /// Three models with these variants and what they hold, and what they are to take.
    #[track_caller]
    fn check(sizes: [&[u64]; 3], held: [usize; 3], budget: u64, taken: [Option<usize>; 3]) {
        let shares = sizes.iter().zip(held).map(|(sizes, held)| Share { held: Some(held), ..share(sizes) });
        let shares = shares.collect::<Vec<_>>();
        assert_eq!(plan(&shares, Whole { budget, spare: 0 }), taken, "{sizes:?} {held:?} {budget}");
    }

    #[test]
    fn the_table() {
        const BOTH: &[u64] = &[40, 6];
        let (large, small) = (Some(0), Some(1));
        check([BOTH; 3], [0; 3], 0, [large; 3]);
        check([BOTH; 3], [0; 3], 120, [large; 3]);
        check([BOTH; 3], [0; 3], 119, [large, large, small]);
        check([BOTH; 3], [0; 3], 60, [large, small, small]);
        check([BOTH; 3], [0; 3], 51, [small; 3]);
        check([BOTH; 3], [0; 3], 17, [small, small, None]);
        check([BOTH; 3], [0; 3], 5, [None; 3]);
        // The first doesn't shut out those that fit beside its smaller one.
        check([&[56, 6], &[6], &[6]], [0; 3], 60, [small, large, large]);
        check([&[56, 6], BOTH, BOTH], [0; 3], 60, [small, large, small]);
        // One without room doesn't shut out a smaller one after it.
        check([BOTH, &[50], &[6]], [0; 3], 30, [small, None, large]);
        // Of several the first one that is smaller than what it holds.
        check([&[40, 20, 6], &[6], &[6]], [0; 3], 40, [Some(1), large, large]);
        check([&[40, 20, 6], &[6], &[6]], [1, 0, 0], 60, [large; 3]);
    }

    #[test]
    fn a_preferred_variant_is_taken_one_model_at_a_time_and_at_nobodys_cost() {
        const BOTH: &[u64] = &[40, 6];
        let (large, small) = (Some(0), Some(1));
        check([BOTH; 3], [1; 3], 51, [small; 3]);
        check([BOTH; 3], [1; 3], 52, [large, small, small]);
        check([BOTH; 3], [1; 3], 0, [large, small, small]);
        check([BOTH; 3], [0, 1, 1], 0, [large, large, small]);
        check([BOTH; 3], [1, 0, 1], 60, [small, large, small]);
        check([BOTH; 3], [1, 0, 1], 46, [small; 3]);
        let share = Share { held: Some(1), ..share(BOTH) };
        let with = |spare| plan(std::slice::from_ref(&share), Whole { budget: 60, spare });
        assert_eq!((with(20), with(21)), (vec![large], vec![small]));
    }

    #[test]
    fn what_does_not_fit_the_device_any_more_is_changed() {
        let share = share(&[20, 6]);
        let within = |budget| plan(std::slice::from_ref(&share), Whole { budget, spare: 0 });
        assert_eq!((within(0), within(19), within(5)), (vec![Some(0)], vec![Some(1)], vec![None]));
    }
}
