//! systemd: more time to start, ready, status, watchdog. The watchdog is fed only while every part that promised to beat
//! has beaten lately, so a stuck loop restarts the agent instead of looking healthy; and time is asked for only while
//! what is waited for goes on.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use super::problem::{Problem, ProblemKind};

/// Parts beat here. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    beats: Arc<Mutex<BTreeMap<&'static str, Beat>>>,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    at: Instant,
    /// How much later than others the next one may come.
    longest: Duration,
}

impl Pulse {
    /// `part` is alive now, and promises to say so again.
    pub fn beat(&self, part: &'static str) {
        self.beat_beside(part, Duration::ZERO);
    }

    /// The same for a part that can't beat while it is at one thing, which may take so long.
    pub fn beat_beside(&self, part: &'static str, longest: Duration) {
        let beat = Beat { at: Instant::now(), longest };
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).insert(part, beat);
    }

    /// Beats for ever for `part`, on the thread that awaits it, which may be at one thing for so long.
    pub async fn beats(&self, part: &'static str, longest: Duration) {
        telling(BEAT_EVERY, || self.beat_beside(part, longest), std::future::pending::<()>()).await;
    }

    /// Beats for `part` until `work` is done: only for what a server may hold up, and what ends by its own bounds of time.
    pub async fn beating<T>(&self, part: &'static str, work: impl Future<Output = T>) -> T {
        telling(BEAT_EVERY, || self.beat(part), work).await
    }

    /// Beats for `part` until `work` is done, as long as that goes on.
    pub async fn beating_while<T>(
        &self,
        part: &'static str,
        mut advance: Advance<impl Fn() -> u64>,
        work: impl Future<Output = T>,
    ) -> T {
        let beat = || {
            if advance.goes_on(Instant::now()) {
                self.beat(part);
            }
        };
        telling(BEAT_EVERY, beat, work).await
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
            .filter(|(_, beat)| now.saturating_duration_since(beat.at) > bound + beat.longest)
            .map(|(part, _)| *part)
            .collect()
    }

    /// That parts are stuck, for status and hello: there may be no watchdog.
    pub fn problem(&self, now: Instant) -> Option<Problem> {
        let stuck = self.stuck(now, STUCK_AFTER);
        let detail = || format!("parts of the agent hang: {}", stuck.join(", "));
        (!stuck.is_empty()).then(|| Problem::new(ProblemKind::PartFailing, detail()))
    }

    /// Feeds systemd's watchdog for ever, at half its time. Ends at once where there is no watchdog.
    pub async fn feed_watchdog(self) {
        let Some(bound) = sd_notify::watchdog_enabled() else { return };
        loop {
            tokio::time::sleep(bound / 2).await;
            let stuck = self.stuck(Instant::now(), FED_WITHIN);
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

/// Without a beat for so long the watchdog isn't fed any more, however long it would wait itself.
const FED_WITHIN: Duration = BEAT_EVERY.saturating_mul(3);
/// Without a beat for so long a part is told as stuck.
const STUCK_AFTER: Duration = BEAT_EVERY.saturating_mul(6);
/// What systemd is asked for each time, while a start goes on.
const MORE_TIME: Duration = BEAT_EVERY.saturating_mul(6);

/// Work that consists of steps, of which a counter tells. It goes on as long as no single one of them takes longer than
/// its bound: what hangs is not told to be alive.
#[derive(Debug)]
pub struct Advance<F> {
    steps: F,
    bound: Duration,
    seen: u64,
    since: Instant,
}

impl<F: Fn() -> u64> Advance<F> {
    /// `steps` changes with each step, and one of them may take `bound`. Begins now.
    pub fn new(bound: Duration, steps: F) -> Self {
        let seen = steps();
        Self { steps, bound, seen, since: Instant::now() }
    }

    fn goes_on(&mut self, now: Instant) -> bool {
        let seen = (self.steps)();
        if seen != self.seen {
            self.seen = seen;
            self.since = now;
        }
        now.saturating_duration_since(self.since) <= self.bound
    }
}

/// Asks systemd for time until `work` is done, as long as that goes on.
pub async fn starting<T>(mut advance: Advance<impl Fn() -> u64>, work: impl Future<Output = T>) -> T {
    let micros = u32::try_from(MORE_TIME.as_micros()).unwrap_or(u32::MAX);
    let mut is_told = false;
    let ask = || {
        if advance.goes_on(Instant::now()) {
            is_told = false;
            say(&[NotifyState::ExtendTimeoutUsec(micros), NotifyState::Status("loading what is committed")]);
        } else if !is_told {
            is_told = true;
            tracing::error!(
                "a release has been loading for longer than update.step_timeout_s; no more time is asked for"
            );
        }
    };
    telling(BEAT_EVERY, ask, work).await
}

async fn telling<T>(every: Duration, mut tell: impl FnMut(), work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut due = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tell();
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = due.tick() => tell(),
        }
    }
}

/// Tells systemd that the agent is up, with one line for `systemctl status`.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells systemd that the agent is on its way down.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = send(states) {
        tracing::debug!(error = %error, "systemd could not be told");
    }
}

/// To a socket by its path, or by a name without a file (`@name`), as containers and user managers have it.
fn send(states: &[NotifyState<'_>]) -> std::io::Result<()> {
    let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let Some(name) = socket.as_bytes().strip_prefix(b"@") else { return sd_notify::notify(states) };
    let text: Vec<String> = states.iter().map(ToString::to_string).collect();
    let to = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(text.join("\n").as_bytes(), &to).map(drop)
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
        let beating = telling(Duration::from_millis(5), || pulse.beat("update"), dripping);
        assert_eq!(tokio::time::timeout(BEAT_EVERY, beating).await, Ok(7), "it beats again and again");
    }

    #[tokio::test]
    async fn what_loads_beats_as_long_as_no_single_step_takes_too_long() {
        let (steps, began) = (std::cell::Cell::new(0), Instant::now());
        let bound = Duration::from_mins(5);
        let mut advance = Advance::new(bound, || steps.get());
        for minutes in [4, 8, 12, 16] {
            steps.set(minutes);
            assert!(advance.goes_on(began + Duration::from_mins(minutes)), "{minutes} min");
        }
        assert!(advance.goes_on(began + Duration::from_mins(21)));
        assert!(!advance.goes_on(began + Duration::from_mins(22)));
        let pulse = Pulse::default();
        let work = async { tokio::task::yield_now().await };
        pulse.beating_while("update", Advance::new(Duration::ZERO, || 0), work).await;
        assert!(pulse.stuck(began + Duration::from_hours(1), BEAT_EVERY).is_empty(), "it hangs");
        let work = async { tokio::task::yield_now().await };
        pulse.beating_while("update", Advance::new(bound, || 0), work).await;
        assert_eq!(pulse.stuck(began + Duration::from_hours(1), BEAT_EVERY), ["update"], "it has beaten");
    }

    #[test]
    fn who_may_be_at_one_thing_for_long_is_not_taken_for_stuck_meanwhile() {
        let (pulse, now) = (Pulse::default(), Instant::now());
        pulse.beat_beside("api", Duration::from_mins(10));
        pulse.beat("link");
        let told = |minutes| pulse.problem(now + Duration::from_mins(minutes)).map(|problem| problem.detail);
        assert_eq!(told(0), None);
        assert_eq!(told(10).as_deref(), Some("parts of the agent hang: link"));
        assert_eq!(told(12).as_deref(), Some("parts of the agent hang: api, link"));
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
