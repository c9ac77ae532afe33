//! Memory of all models together: decided from the signed manifest before anything is loaded, because a system that has
//! run out of memory decides nothing any more. Pure.

use protocol::message::{Cause, CauseKind};
use release::Variant;

use super::selftest::cause;
use crate::slots::Loaded;

/// Memory that a loaded release's manifest allows it.
pub(super) fn of(loaded: &Loaded) -> u64 {
    loaded.manifest.variant(&loaded.variant).map_or(0, |variant| variant.peak_memory_bytes)
}

/// The first of the fitting variants, in the publisher's order, that stays within the budget beside what the other
/// models use; 0 is no budget. A second text says why it is not the preferred one.
///
/// # Errors
/// [`CauseKind::TooBig`] with what each variant would need.
pub(super) fn choose<'a>(
    fitting: &[&'a Variant],
    used_by_others: u64,
    budget: u64,
) -> Result<(&'a Variant, Option<String>), Cause> {
    let mut too_big = Vec::new();
    for variant in fitting {
        let needed = used_by_others.saturating_add(variant.peak_memory_bytes);
        if budget == 0 || needed <= budget {
            let instead = (!too_big.is_empty()).then(|| {
                format!(
                    "variant {} was taken: with {} the models would exceed {budget} bytes",
                    variant.name,
                    too_big.join(", ")
                )
            });
            return Ok((variant, instead));
        }
        too_big.push(format!("{} ({needed} bytes)", variant.name));
    }
    let detail = format!(
        "all models together would need more than the budget of {budget} bytes with every variant: {}; other models \
         use {used_by_others}",
        too_big.join(", ")
    );
    Err(cause(CauseKind::TooBig, detail))
}

/// Whether a release that is loaded again at a start still fits.
///
/// # Errors
/// Why it is not loaded.
pub(super) fn still_fits(variant: &Variant, used_by_others: u64, budget: u64) -> Result<(), String> {
    let needed = used_by_others.saturating_add(variant.peak_memory_bytes);
    if budget == 0 || needed <= budget {
        return Ok(());
    }
    Err(format!("it would bring all models to {needed} bytes of memory, the budget is {budget} bytes"))
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
        let name =
            |others, budget| choose(&fitting, others, budget).map(|(chosen, why)| (chosen.name.clone(), why));
        assert_eq!(name(50, 0), Ok(("f32".into(), None)), "no budget");
        assert_eq!(name(50, 150), Ok(("f32".into(), None)));
        let (taken, why) = name(50, 149).unwrap();
        assert!(taken == "int8" && why.is_some_and(|why| why.contains("f32 (150 bytes)")));
        let refused = name(50, 79).unwrap_err();
        assert_eq!(refused.kind, CauseKind::TooBig);
        assert!(refused.detail.contains("int8 (80 bytes)") && refused.detail.contains("other models use 50"));
    }

    #[test]
    fn what_was_committed_is_refused_at_a_start_with_a_lower_budget() {
        assert!(still_fits(&variant("f32", 100), 50, 149).is_err());
        assert!(still_fits(&variant("f32", 100), 50, 150).is_ok());
    }
}
