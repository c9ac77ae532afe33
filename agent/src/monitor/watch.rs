//! Requests, errors and latency of one release since it was activated: what probation decides by.

use std::time::Duration;

/// Latencies that the percentile is taken from: the newest ones.
const KEPT: usize = 1024;

/// What was seen of one release since it became active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Requests, failed ones included.
    pub requests: u64,
    /// Requests that failed by the model's fault.
    pub errors: u64,
    /// 95th percentile of the latency in microseconds.
    pub p95_us: u64,
}

/// Running counts behind [`Vitals`].
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    requests: u64,
    errors: u64,
    newest: Vec<u64>,
    next: usize,
}

impl Watch {
    pub(super) fn answered(&mut self, latency: Duration) {
        self.requests += 1;
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if self.newest.len() < KEPT {
            self.newest.push(us);
        } else {
            self.newest[self.next] = us;
        }
        self.next = (self.next + 1) % KEPT;
    }

    pub(super) fn failed(&mut self) {
        self.requests += 1;
        self.errors += 1;
    }

    pub(super) fn read(&self) -> Vitals {
        let mut sorted = self.newest.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * 95 / 100).min(sorted.len().saturating_sub(1));
        let p95_us = sorted.get(place).copied().unwrap_or(0);
        Vitals { requests: self.requests, errors: self.errors, p95_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_follows_the_newest_answers() {
        let mut watch = Watch::default();
        assert_eq!(watch.read(), Vitals::default());
        (1..=100).for_each(|us| watch.answered(Duration::from_micros(us)));
        watch.failed();
        assert_eq!(watch.read(), Vitals { requests: 101, errors: 1, p95_us: 96 });
        (0..KEPT).for_each(|_| watch.answered(Duration::from_micros(7)));
        assert_eq!(watch.read().p95_us, 7);
    }
}
