//! Retry as a type: delays with full jitter between a lower bound and a cap that doubles up to a maximum.
//! Takes its randomness as an argument; never sleeps itself. Laws are tested below.

use std::time::Duration;

/// How delays grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Upper end of the first delay; half of it is the least delay ever given.
    pub min: Duration,
    /// Upper end that delays grow to.
    pub max: Duration,
}

/// Counts failures in a row and says how long to wait.
#[derive(Debug, Clone)]
pub struct Backoff {
    policy: Policy,
    widened: Duration,
    failures: u32,
}

/// Failures that still count after a connection has come about: delays of up to eight times the shortest.
const ARRIVED: u32 = 3;

impl Backoff {
    /// No failure yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, widened: Duration::ZERO, failures: 0 }
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// After success: begin anew; what was asked to widen has been done.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.widened = Duration::ZERO;
    }

    /// What was asked to widen has been done; whether what was reached lasts is not known yet, so delays don't begin
    /// anew, but they are short ones.
    pub fn arrived(&mut self) {
        self.failures = self.failures.min(ARRIVED);
        self.widened = Duration::ZERO;
    }

    /// What was reached has lasted: the next failure is a first one.
    pub fn lasted(&mut self) {
        self.failures = 0;
    }

    /// After an answer that won't change soon (refused by name): go to the longest delay at once.
    pub fn jump_to_max(&mut self) {
        self.failures = 32;
    }

    /// Other bounds; what the server has asked to widen stays wide.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// On the server's word every delay until the next success, the first one too, is spread over at least `max`.
    /// The newest word counts.
    pub fn widen(&mut self, max: Duration) {
        self.widened = max;
    }

    /// Counts a failure and returns the delay; `random` is uniform in 0..=u32::MAX.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let cap = self.policy.min.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.policy.max);
        let cap = cap.max(self.widened);
        self.failures = self.failures.saturating_add(1);
        let least = (self.policy.min / 2).min(cap);
        least + cap.saturating_sub(least).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// Uniform random bits for jitter; 0 where the system has none, which only makes a delay short.
pub fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { min: Duration::from_millis(100), max: Duration::from_mins(1) };

    #[test]
    fn delays_stay_between_half_of_min_and_max_and_grow() {
        for random in [0, 1, u32::MAX / 2, u32::MAX] {
            let mut backoff = Backoff::new(POLICY);
            let delays: Vec<_> = (0..40).map(|_| backoff.next_delay(random)).collect();
            assert!(delays.iter().all(|d| *d >= POLICY.min / 2 && *d <= POLICY.max), "{delays:?}");
            assert!(delays.windows(2).all(|pair| pair[0] <= pair[1]));
        }
    }

    #[test]
    fn success_begins_anew_and_refusal_waits_longest() {
        let mut backoff = Backoff::new(POLICY);
        backoff.jump_to_max();
        assert_eq!(backoff.next_delay(u32::MAX), POLICY.max);
        backoff.reset();
        assert_eq!(backoff.next_delay(u32::MAX), POLICY.min);
    }

    #[test]
    fn widened_delays_are_spread_from_the_first_on_until_the_next_success() {
        let mut backoff = Backoff::new(POLICY);
        backoff.widen(Duration::from_mins(10));
        assert_eq!(backoff.next_delay(u32::MAX), Duration::from_mins(10));
        assert!(backoff.next_delay(0) >= POLICY.min / 2);
        backoff.set_policy(POLICY);
        assert_eq!(backoff.next_delay(u32::MAX), Duration::from_mins(10), "the server's word stands");
        backoff.widen(Duration::from_secs(1));
        backoff.jump_to_max();
        assert_eq!(backoff.next_delay(u32::MAX), POLICY.max, "never narrower than without the word");
        backoff.widen(Duration::from_mins(10));
        backoff.reset();
        assert_eq!(backoff.next_delay(u32::MAX), POLICY.min);
    }

    #[test]
    fn what_ends_as_soon_as_it_has_come_about_is_not_tried_at_full_speed() {
        let mut backoff = Backoff::new(Policy { min: Duration::from_secs(1), max: Duration::from_mins(5) });
        let longest = |backoff: &mut Backoff| backoff.next_delay(u32::MAX).as_secs();
        let mut delays = Vec::new();
        for _short_one in 0..6 {
            backoff.arrived();
            delays.push(longest(&mut backoff));
        }
        assert_eq!(delays, [1, 2, 4, 8, 8, 8]);
        backoff.lasted();
        assert_eq!(longest(&mut backoff), 1);
    }
}
