//! The agent's own bounds of memory. Over the soft one no candidate is loaded beside what serves; over the hard one
//! the agent ends in order and is started anew, before the kernel ends it, or another process, without order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Problem, ProblemKind};
use crate::shown::bytes;

/// How often resident memory is read where there is a bound.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Readings in a row above the hard bound that end the agent: a release that is staged may peak.
const READINGS: u32 = 3;

/// Resident memory and its bounds. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Footprint {
    bounds: Bounds,
    last: Arc<Mutex<Option<u64>>>,
    has_outgrown: Arc<AtomicBool>,
}

/// The bounds in bytes; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Above it no candidate is loaded.
    pub soft: u64,
    /// Above it the agent starts anew.
    pub hard: u64,
}

impl Footprint {
    /// With these bounds; nothing is read yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// The soft bound, or the hard one where there is no soft one, and what is resident now; none without a bound or
    /// where the kernel doesn't say.
    pub fn soft(&self) -> Option<(u64, u64)> {
        let soft = self.soft_bound()?;
        // Whoever asks adds what a release needs: little is enough to refuse it.
        inference::trim_heap();
        self.read().map(|resident| (soft, resident))
    }

    /// The soft bound, as [`Footprint::soft`] takes it.
    pub fn soft_bound(&self) -> Option<u64> {
        let Bounds { soft, hard } = self.bounds;
        [soft, hard].into_iter().find(|bound| *bound > 0)
    }

    /// What is wrong by the last reading.
    pub fn problem(&self) -> Option<Problem> {
        let resident = (*self.last.lock().unwrap_or_else(PoisonError::into_inner))?;
        let Bounds { soft, .. } = self.bounds;
        (soft > 0 && resident > soft).then(|| {
            let detail = format!(
                "the agent has {} of memory, above health.memory_soft_bytes ({}); no new release is loaded",
                bytes(resident),
                bytes(soft)
            );
            Problem::new(ProblemKind::MemoryHigh, detail)
        })
    }

    /// Reads again and again. Returns, with a sentence, once memory stays above the hard bound.
    pub async fn stays_over_hard(&self) -> String {
        if self.bounds == Bounds::default() {
            return std::future::pending().await;
        }
        let mut over = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let resident = self.read().unwrap_or(0);
            over = counted(over, resident, self.bounds.hard);
            if over == READINGS {
                let hard = self.bounds.hard;
                self.has_outgrown.store(true, Ordering::Relaxed);
                return format!(
                    "the agent has {} of memory, above health.memory_hard_bytes ({}); it starts anew",
                    bytes(resident),
                    bytes(hard)
                );
            }
        }
    }

    /// Whether the agent ends because memory stayed above the hard bound.
    pub fn has_outgrown(&self) -> bool {
        self.has_outgrown.load(Ordering::Relaxed)
    }

    /// What is free already, and not given back, must not refuse a release or end the agent.
    fn read(&self) -> Option<u64> {
        let Bounds { soft, hard } = self.bounds;
        let is_over = |bytes: u64| [soft, hard].into_iter().any(|bound| bound > 0 && bytes > bound);
        let mut resident = resident_bytes();
        if resident.is_some_and(is_over) {
            inference::trim_heap();
            resident = resident_bytes();
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = resident;
        resident
    }
}

fn counted(over: u32, resident: u64, hard: u64) -> u32 {
    if hard > 0 && resident > hard { over + 1 } else { 0 }
}

/// Resident memory of this process, as the kernel counts it.
pub fn resident_bytes() -> Option<u64> {
    rss_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The most that was resident since the start, or since [`forget_peak`].
pub fn peak_bytes() -> Option<u64> {
    bytes_of("VmHWM:", &std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Begins the peak anew at what is resident now; whether the kernel did it.
pub fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn rss_bytes(status: &str) -> Option<u64> {
    bytes_of("VmRSS:", status)
}

fn bytes_of(key: &str, status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(rss_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn a_problem_is_said_above_the_soft_bound_and_without_a_bound_nothing_is_read() {
        let tight = Footprint::new(Bounds { soft: 1, hard: 0 });
        assert_eq!(tight.problem(), None, "nothing was read yet");
        assert!(tight.soft().is_some_and(|(soft, resident)| soft == 1 && resident > 1));
        assert_eq!(tight.problem().map(|problem| problem.kind), Some(ProblemKind::MemoryHigh));
        let wide = Footprint::new(Bounds { soft: u64::MAX, hard: 0 });
        assert!(wide.soft().is_some() && wide.problem().is_none());
        assert_eq!(Footprint::default().soft(), None);
    }

    #[test]
    fn a_peak_does_not_end_the_agent() {
        let readings = |all: &[u64]| all.iter().fold(0, |over, resident| counted(over, *resident, 10));
        assert_eq!(readings(&[11, 11, 11]), READINGS);
        assert_eq!(readings(&[11, 11, 10, 11]), 1);
        assert_eq!(counted(2, u64::MAX, 0), 0, "no bound");
    }
}
