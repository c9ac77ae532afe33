//! Which device goes into which stage: ordered by a stable hash of (seed, device), so that the same device lands
//! at the same place each time and anyone can compute it.

use protocol::DeviceId;

use crate::amount::{Amount, Percent};
use crate::facts::Facts;
use crate::mode::Mode;
use crate::plan::{Fill, Plan};

/// Where the devices of a rollout go; places are those of the given list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filled {
    /// Per stage, in the order of the seed.
    pub(crate) stages: Vec<Vec<usize>>,
    /// Held for comparison.
    pub(crate) control: Vec<usize>,
    /// In no stage.
    pub(crate) rest: Vec<usize>,
}

/// One device that can be put into a stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) at: usize,
    pub(crate) rank: u64,
    pub(crate) device: &'a DeviceId,
    pub(crate) pinned: Option<u16>,
}

/// A device's place in the order of a seed: FNV-1a over both, mixed so that near names lie far apart.
pub fn rank(seed: &str, device: &DeviceId) -> u64 {
    let bytes = seed.bytes().chain([0]).chain(device.as_str().bytes());
    let mut hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// The first stage whose list or filter names the device.
pub(crate) fn pinned(plan: &Plan, facts: &Facts) -> Option<u16> {
    let names = |fill: &Fill| match fill {
        Fill::Amount(_) => false,
        Fill::Devices(devices) => devices.contains(&facts.device),
        Fill::Filter(filter) => filter.matches(facts),
    };
    plan.stages.iter().position(|s| names(&s.fill)).and_then(|i| u16::try_from(i).ok())
}

/// Fills the stages of a plan.
pub(crate) fn fill(plan: &Plan, members: &[Member<'_>]) -> Filled {
    let mut ordered: Vec<&Member<'_>> = members.iter().collect();
    ordered.sort_by(|a, b| (a.rank, a.device).cmp(&(b.rank, b.device)));
    let mut filled = Filled { stages: vec![Vec::new(); plan.stages.len()], ..Filled::default() };
    let mut pool: Vec<usize> = Vec::new();
    for member in ordered {
        match member.pinned.and_then(|stage| filled.stages.get_mut(usize::from(stage))) {
            Some(stage) => stage.push(member.at),
            None => pool.push(member.at),
        }
    }
    let held = held_back(plan, members.len(), pool.len());
    filled.control = pool.split_off(pool.len() - held);
    let targets = count(members.len() - held);
    let mut pool = pool.into_iter();
    let mut reached = 0;
    for (stage, planned) in filled.stages.iter_mut().zip(&plan.stages) {
        if let Fill::Amount(amount) = planned.fill {
            let more = match amount {
                Amount::Count(count) => count,
                Amount::Percent(percent) => percent.ceil_of(targets).saturating_sub(reached),
            };
            stage.extend(pool.by_ref().take(usize::try_from(more).unwrap_or(usize::MAX)));
        }
        reached += count(stage.len());
    }
    filled.rest = pool.collect();
    filled
}

/// At least one device is left for the stages.
fn held_back(plan: &Plan, members: usize, pool: usize) -> usize {
    let wanted = match (plan.mode, plan.control_reserve) {
        (Mode::Ab(share), _) => share.rest().floor_of(count(members)),
        (Mode::Replace | Mode::Shadow, Amount::Count(held)) => held,
        (Mode::Replace | Mode::Shadow, Amount::Percent(share)) => Percent::floor_of(share, count(members)),
    };
    usize::try_from(wanted).unwrap_or(usize::MAX).min(members.saturating_sub(1)).min(pool)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_is_fixed_for_ever() {
        let device = DeviceId::new("cam-01").unwrap();
        let first = rank("r1", &device);
        assert_eq!(first, rank("r1", &device));
        assert_ne!(first, rank("r2", &device));
        assert_eq!(first, PINNED, "changing this moves devices between stages");
    }

    const PINNED: u64 = 0x2f9e_e498_3a9c_283e;
}
