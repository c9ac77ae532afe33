//! Memory of all models together: decided from the signed manifest before anything is loaded, because a system that has
//! run out of memory decides nothing any more. Pure.

use protocol::message::{Cause, CauseKind};
use release::Variant;

use super::selftest::cause;
use crate::machine::Lacked;
use crate::slots::Loaded;

/// Memory that a loaded release's manifest allows it.
pub(super) fn of(loaded: &Loaded) -> u64 {
    loaded.manifest.variant(&loaded.variant).map_or(0, |variant| variant.peak_memory_bytes)
}

/// Why a release that was committed is not loaded: a bound was lowered, or other models have grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OverBudget {
    /// All models together.
    #[error("it would bring all models to {needed} bytes of memory, the budget is {budget} bytes")]
    OfAll {
        /// With it.
        needed: u64,
        /// The bound.
        budget: u64,
    },
    /// The variant alone, while another one fits.
    #[error(
        "its variant may take {needed} bytes of memory, which is more than this device or its service has"
    )]
    OfDevice {
        /// By its manifest.
        needed: u64,
    },
}

/// Why a release is not brought in, and what it lacked if that was memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) cause: Cause,
    pub(super) lacked: Option<Lacked>,
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self { cause, lacked: None }
    }
}

/// The room that a candidate may take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    /// What the manifests of the other models allow them.
    pub(super) used_by_others: u64,
    /// What all manifests together may allow; 0 is no budget.
    pub(super) budget: u64,
    /// The agent's soft bound, and what is resident now.
    pub(super) soft: Option<(u64, u64)>,
}

impl Room {
    fn is_within_budget(&self, peak: u64) -> bool {
        self.budget == 0 || self.used_by_others.saturating_add(peak) <= self.budget
    }

    /// Whether what was lacking is there. What the agent holds now says little about the soft bound: only another
    /// bound counts.
    pub(super) fn has(&self, lacked: &Lacked) -> bool {
        let soft = self.soft.map_or(u64::MAX, |(soft, _)| soft);
        self.is_within_budget(lacked.needed_bytes) && (lacked.soft_bytes == 0 || soft > lacked.soft_bytes)
    }

    fn lacked(&self, fitting: &[&Variant]) -> Option<Lacked> {
        let needed_bytes = fitting.iter().map(|variant| variant.peak_memory_bytes).min()?;
        let soft = self.soft.filter(|_| self.is_within_budget(needed_bytes));
        Some(Lacked { needed_bytes, soft_bytes: soft.map_or(0, |(soft, _)| soft) })
    }

    /// Why a variant of this size finds none.
    pub(super) fn lacks(&self, peak: u64) -> Option<String> {
        if !self.is_within_budget(peak) {
            let needed = self.used_by_others.saturating_add(peak);
            return Some(format!("{needed} bytes of all models together, the budget is {}", self.budget));
        }
        let (soft, resident) = self.soft?;
        let needed = resident.saturating_add(peak);
        (needed > soft)
            .then(|| format!("{needed} bytes of the agent with it, health.memory_soft_bytes is {soft}"))
    }
}

/// The first of the fitting variants, in the publisher's order, that finds room beside what runs. A second text
/// says why it is not the preferred one.
///
/// # Errors
/// [`CauseKind::TooBig`] with what each variant would need.
pub(super) fn choose<'a>(
    fitting: &[&'a Variant],
    room: Room,
) -> Result<(&'a Variant, Option<String>), Refusal> {
    let mut too_big = Vec::new();
    for variant in fitting {
        let Some(why) = room.lacks(variant.peak_memory_bytes) else {
            let instead = (!too_big.is_empty())
                .then(|| format!("variant {} was taken; too big: {}", variant.name, too_big.join(", ")));
            return Ok((variant, instead));
        };
        too_big.push(format!("{} ({why})", variant.name));
    }
    let detail = format!(
        "every variant needs too much memory: {}; other models use {}",
        too_big.join(", "),
        room.used_by_others
    );
    Err(Refusal { cause: cause(CauseKind::TooBig, detail), lacked: room.lacked(fitting) })
}

/// Whether a release that is loaded again at a start still fits.
///
/// # Errors
/// [`OverBudget`].
pub(super) fn still_fits(peak: u64, used_by_others: u64, budget: u64) -> Result<(), OverBudget> {
    let needed = used_by_others.saturating_add(peak);
    if budget == 0 || needed <= budget {
        return Ok(());
    }
    Err(OverBudget::OfAll { needed, budget })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Digest;
    use release::{BlobRef, Precision};

    fn variant(name: &str, peak_memory_bytes: u64) -> Variant {
        let model = BlobRef { digest: Digest::from_bytes([0; 32]), size_bytes: 1, media_type: "x".into() };
        let hardware = release::Hardware::default();
        Variant {
            name: name.into(),
            precision: Precision::F32,
            model,
            hardware,
            peak_memory_bytes,
            accuracy: None,
        }
    }

    #[test]
    fn a_smaller_variant_is_taken_when_the_preferred_one_exceeds_the_budget_and_it_is_said() {
        let (big, small) = (variant("f32", 100), variant("int8", 30));
        let fitting = [&big, &small];
        let name = |used_by_others, budget, soft| {
            let chosen = choose(&fitting, Room { used_by_others, budget, soft });
            chosen.map(|(chosen, why)| (chosen.name.clone(), why))
        };
        assert_eq!(name(50, 0, None), Ok(("f32".into(), None)), "no budget");
        assert_eq!(name(50, 150, None), Ok(("f32".into(), None)));
        let (taken, why) = name(50, 149, None).unwrap();
        assert!(taken == "int8" && why.is_some_and(|why| why.contains("f32 (150 bytes")));
        let refused = name(50, 79, None).unwrap_err().cause;
        assert_eq!(refused.kind, CauseKind::TooBig);
        assert!(refused.detail.contains("int8 (80 bytes") && refused.detail.contains("other models use 50"));
        assert_eq!(name(0, 0, Some((200, 100))), Ok(("f32".into(), None)));
        assert_eq!(name(0, 0, Some((199, 100))).unwrap().0, "int8");
        let refused = name(0, 0, Some((129, 100))).unwrap_err().cause;
        assert!(refused.detail.contains("130 bytes of the agent with it, health.memory_soft_bytes is 129"));
    }

    #[test]
    fn what_was_lacking_is_there_with_a_higher_bound_or_less_of_the_others() {
        let (big, small) = (variant("f32", 100), variant("int8", 30));
        let lacked = |room| choose(&[&big, &small], room).unwrap_err().lacked.unwrap();
        let room = |used_by_others, budget, soft| Room { used_by_others, budget, soft };
        let by_budget = lacked(room(50, 79, Some((200, 100))));
        assert_eq!(by_budget, Lacked { needed_bytes: 30, soft_bytes: 0 });
        for enough in [room(50, 80, None), room(49, 79, None), room(50, 0, Some((1, 1)))] {
            assert!(enough.has(&by_budget), "{enough:?}");
        }
        assert!(!room(50, 79, None).has(&by_budget) && !room(51, 80, None).has(&by_budget));
        let by_soft = lacked(room(0, 0, Some((129, 100))));
        assert_eq!(by_soft, Lacked { needed_bytes: 30, soft_bytes: 129 });
        assert!(!room(0, 0, Some((129, 0))).has(&by_soft), "what is resident changes by the minute");
        assert!(room(0, 0, Some((130, 100))).has(&by_soft) && room(0, 0, None).has(&by_soft));
        assert!(!room(0, 29, Some((130, 100))).has(&by_soft));
    }

    #[test]
    fn what_was_committed_is_refused_at_a_start_with_a_lower_budget() {
        assert!(still_fits(100, 50, 149).is_err());
        assert!(still_fits(100, 50, 150).is_ok());
    }
}
