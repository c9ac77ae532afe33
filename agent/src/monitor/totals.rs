//! What each model has done since the agent started: counts and times for `/metrics`, `/status` and the protocol's
//! statistics. Kept in memory only.

use std::time::Duration;

use protocol::UnixMillis;

use super::recorder::{Outcome, Request, Times};

/// Totals of one model since the agent started, for `/metrics` and `/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answered requests.
    pub answered: u64,
    /// Requests that failed by the model's or the runtime's fault.
    pub failed: u64,
    /// Requests refused for the caller's fault.
    pub refused: u64,
    /// Labels that came later.
    pub labels: u64,
    /// Labels that were the class that the model had said.
    pub right: u64,
    /// Items of the batches that were answered.
    pub rows: u64,
    /// When the last one was answered, by the device's clock.
    pub last: Option<UnixMillis>,
    /// Time that answered requests waited for their turn, in microseconds.
    pub queue_us: u64,
    /// Time spent reading inputs of answered requests, in microseconds.
    pub input_us: u64,
    /// Time spent in inference of answered requests, in microseconds.
    pub busy_us: u64,
    /// Time spent writing answers, in microseconds.
    pub output_us: u64,
    /// Time spent in inferences that failed, in microseconds.
    pub failed_us: u64,
    /// Answered requests by the time of their inference.
    pub latency: Latency,
}

/// Upper ends of the latency histogram's buckets, in microseconds: three for each power of ten, for a keyword spotter on
/// a server as for a detector on a small board.
const ENDS_US: [u64; 15] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000,
];

/// How many inferences took how long; slower ones than the last end are in no bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency([u64; ENDS_US.len()]);

impl Latency {
    fn count(&mut self, time: Duration) {
        let end = ENDS_US.partition_point(|end| u128::from(*end) < time.as_micros());
        if let Some(count) = self.0.get_mut(end) {
            *count += 1;
        }
    }

    /// Each bucket's end in microseconds, and how many inferences took no longer.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let sums = self.0.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        ENDS_US.into_iter().zip(sums)
    }
}

impl Totals {
    pub(super) fn count(&mut self, request: &Request<'_>) {
        let add = |all: &mut u64, time: Duration| {
            *all = all.saturating_add(u64::try_from(time.as_micros()).unwrap_or(0));
        };
        let Times { queue, input, infer, output } = request.times;
        match request.outcome {
            Outcome::Answered(_) => {
                self.answered += 1;
                self.rows += request.rows() as u64;
                self.last = Some(request.at);
                add(&mut self.queue_us, queue);
                add(&mut self.input_us, input);
                add(&mut self.busy_us, infer);
                self.latency.count(infer);
                add(&mut self.output_us, output);
            }
            Outcome::Failed(_) => {
                self.failed += 1;
                add(&mut self.failed_us, infer);
            }
            Outcome::Refused => self.refused += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_counted_in_the_bucket_that_ends_at_or_after_it() {
        let mut latency = Latency::default();
        for micros in [0, 100, 101, 5_000_000, 5_000_001] {
            latency.count(Duration::from_micros(micros));
        }
        let up_to: Vec<_> = latency.up_to().collect();
        assert_eq!((up_to[0], up_to[1], up_to[14]), ((100, 2), (200, 3), (5_000_000, 4)));
        assert!(ENDS_US.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
