//! systemd: ready, status, watchdog. The watchdog is fed only while every part that promised to beat has beaten
//! lately, so a stuck loop restarts the agent instead of looking healthy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Parts beat here. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    beats: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
}

impl Pulse {
    /// `part` is alive now, and promises to say so again.
    pub fn beat(&self, part: &'static str) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).insert(part, Instant::now());
    }

    /// Beats for `part` until `work` is done: only for what a server may hold up, and what ends by its own bounds of time.
    pub async fn beating<T>(&self, part: &'static str, work: impl Future<Output = T>) -> T {
        self.beating_every(BEAT_EVERY, part, work).await
    }

    async fn beating_every<T>(
        &self,
        every: Duration,
        part: &'static str,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        let mut beat = tokio::time::interval(every);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beat.tick() => self.beat(part),
            }
        }
    }

    /// `part` has ended in order and is not waited for any more.
    pub fn retire(&self, part: &'static str) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// The parts that have not beaten for `bound`.
    pub fn stuck(&self, now: Instant, bound: Duration) -> Vec<&'static str> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats
            .iter()
            .filter(|(_, at)| now.saturating_duration_since(**at) > bound)
            .map(|(part, _)| *part)
            .collect()
    }

    /// Feeds systemd's watchdog for ever, at half its time. Ends at once where there is no watchdog.
    pub async fn feed_watchdog(self) {
        let Some(bound) = sd_notify::watchdog_enabled() else { return };
        loop {
            tokio::time::sleep(bound / 2).await;
            let stuck = self.stuck(Instant::now(), bound.max(BEAT_EVERY * 3));
            if stuck.is_empty() {
                say(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(parts = ?stuck, "not feeding the watchdog: parts are stuck");
            }
        }
    }
}

/// Parts that promise to beat do so at least this often.
pub const BEAT_EVERY: Duration = Duration::from_secs(10);

/// Tells systemd that the agent is up, with one line for `systemctl status`.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells systemd that the agent is on its way down.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn d4_a_server_that_drips_does_not_let_the_watchdog_bite() {
        let pulse = Pulse::default();
        let later = Instant::now() + Duration::from_mins(1);
        let dripping = async {
            for _ in 0..3 {
                pulse.retire("update");
                while pulse.stuck(later, BEAT_EVERY).is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            7
        };
        let beating = pulse.beating_every(Duration::from_millis(5), "update", dripping);
        assert_eq!(tokio::time::timeout(BEAT_EVERY, beating).await, Ok(7), "it beats again and again");
    }

    #[test]
    fn a_part_that_stopped_beating_is_named_until_it_retires() {
        let pulse = Pulse::default();
        pulse.beat("link");
        let later = Instant::now() + Duration::from_mins(1);
        assert_eq!(pulse.stuck(later, Duration::from_secs(30)), ["link"]);
        assert!(pulse.stuck(Instant::now(), Duration::from_secs(30)).is_empty());
        pulse.retire("link");
        assert!(pulse.stuck(later, Duration::from_secs(30)).is_empty());
    }
}
