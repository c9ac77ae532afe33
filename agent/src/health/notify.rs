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
