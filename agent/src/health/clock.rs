//! The device's clock. Boards without a battery boot in 1970: nothing here ever says a time before the floor.
//!
//! The floor is the latest of build time, last accepted signed time and last signed server time; it is kept on
//! disk. It moves back only when a new root takes away the key that signed the time. TLS reads the same bounded clock.
//! While the wall clock stands before the floor, time still passes: as the monotonic clock says, from the floor on.
//!
//! Signed time stands in for a clock that was lost; it never leads a clock that runs. Else a server with a wrong
//! clock, or a thief with its keys, would freeze each device that hears it, for as long as it likes.
//!
//! A floor after the end of the fleet's CA can't be true: everything that raises it comes from servers which that CA
//! vouches for. Believed, it would keep the device off the fleet for good, so it is set aside and said.

mod bounds;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::UnixMillis;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::kept_number::KeptNumber;
use super::problem::{Problem, ProblemKind};
use crate::durable::DurableError;
use bounds::Bounds;

/// When this program was built, in seconds since 1970.
const BUILT_S: &str = env!("FLOTILLA_BUILT_S");
/// Bounded time. Cheap to clone; all clones share the floor.
#[derive(Debug, Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    kept: Mutex<KeptNumber>,
    bounds: Mutex<Bounds>,
}

impl Clock {
    /// Reads the stored floor from the state directory, and writes nothing. A floor that is damaged counts as none:
    /// the build time still bounds, and the next signed time repairs it.
    ///
    /// # Errors
    /// [`DurableError`] when a copy exists and can't be read.
    pub fn open(state_dir: &Path) -> Result<Self, DurableError> {
        let path = state_dir.join("clock-floor");
        let (kept, stored) = KeptNumber::open(&path)?;
        let bounds = Mutex::new(Bounds::new(built_at(), stored.map(UnixMillis)));
        Ok(Self { shared: Arc::new(Shared { path, kept: Mutex::new(kept), bounds }) })
    }

    /// Says until when the fleet's CA holds: a floor after that is set aside, now and later. Call it before the
    /// clock judges anything.
    pub fn bound(&self, ca_ends: UnixMillis) {
        self.floor_state(|state| state.bound(ca_ends));
    }

    /// What is wrong with the stored floor.
    pub fn problem(&self) -> Option<Problem> {
        let (set_aside, latest) =
            self.floor_state(|state| (state.set_aside, state.latest.unwrap_or_default()));
        let (said, ends) = (trust::format_rfc3339(set_aside?), trust::format_rfc3339(latest));
        let path = self.shared.path.display();
        let detail = format!(
            "the stored clock floor (in {path}, {path}.a or {path}.b) says {said}, but the fleet's CA ends {ends}: \
             it can't be true and is not used"
        );
        Some(Problem::new(ProblemKind::ClockFloorImplausible, detail))
    }

    /// Now: the wall clock, but never before the floor and the time that has passed since. It never stands still.
    pub fn now(&self) -> UnixMillis {
        self.floor_state(|state| state.now(wall()))
    }

    /// The floor.
    pub fn floor(&self) -> UnixMillis {
        self.floor_state(|state| state.floor())
    }

    /// Whether the wall clock stands at or after the floor.
    pub fn is_plausible(&self) -> bool {
        wall() >= self.floor()
    }

    /// That the wall clock stands before the floor, as long as it does.
    pub fn behind(&self) -> Option<Problem> {
        let detail = "the wall clock stands before a time that is known to have passed; the bound is used";
        (!self.is_plausible()).then(|| Problem::new(ProblemKind::ClockImplausible, detail))
    }

    /// Says until when root holds: no signed time after that is believed.
    pub fn believe_until(&self, root_ends: UnixMillis) {
        self.floor_state(|state| state.believe_until(root_ends));
    }

    /// Hears a time that was signed. It raises the floor, but never past a wall clock that runs; one that is more
    /// than a day ahead of that changes nothing and is [said](Self::ahead).
    pub fn raise(&self, signed: UnixMillis) {
        let (is_news, due) = self.floor_state(|state| {
            let before = state.ahead.is_some();
            state.hear(signed, wall());
            (state.ahead.is_some() && !before, state.due())
        });
        if let Some(problem) = self.ahead().filter(|_| is_news) {
            tracing::warn!(
                event = problem.kind.name(),
                detail = problem.detail,
                "a signed time is not believed"
            );
        }
        self.persist(due);
    }

    /// A signed time that was not believed, until one is.
    pub fn ahead(&self) -> Option<Problem> {
        let (signed, now) = self.floor_state(|state| state.ahead)?;
        let (signed, now) = (trust::format_rfc3339(signed), trust::format_rfc3339(now));
        let detail = format!(
            "the server signed the time {signed}, but here it was {now}: the device keeps its own time"
        );
        Some(Problem::new(ProblemKind::ServerTimeAhead, detail))
    }

    /// Takes back everything that was signed: the root that named its signer was replaced. Durable when it returns,
    /// unless the disk takes no writes.
    pub fn forget_signed(&self) {
        self.floor_state(Bounds::forget);
        self.persist(Some(built_at()));
    }

    /// Keeps on disk how far time has come, so that the next start doesn't begin earlier. Cheap when little has passed.
    pub fn keep(&self) {
        let due = self.floor_state(Bounds::due);
        self.persist(due);
    }

    fn persist(&self, floor: Option<UnixMillis>) {
        let Some(floor) = floor else { return };
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = kept.write(floor.0) {
            tracing::warn!(
                error = crate::chain(&error),
                "the clock's floor could not be kept; it holds until the next start"
            );
        }
    }

    fn floor_state<T>(&self, look: impl FnOnce(&mut Bounds) -> T) -> T {
        look(&mut self.shared.bounds.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.now().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

/// When this program was built.
pub fn built_at() -> UnixMillis {
    UnixMillis(BUILT_S.parse::<i64>().unwrap_or(0).saturating_mul(1000))
}

fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const HOUR_MS: i64 = 60 * 60 * 1000;

    /// Later than any wall clock.
    fn far() -> UnixMillis {
        built_at().plus_millis(100 * 365 * 24 * HOUR_MS)
    }

    /// A device whose wall clock was lost: it stands before the floor.
    fn lost(dir: &Path) -> Clock {
        std::fs::write(dir.join("clock-floor"), far().plus_millis(-48 * HOUR_MS).0.to_string()).unwrap();
        Clock::open(dir).unwrap()
    }

    #[test]
    fn floor_survives_a_restart_and_never_moves_back() {
        let dir = tempfile::tempdir().unwrap();
        lost(dir.path()).raise(far());
        let clock = Clock::open(dir.path()).unwrap();
        let kept = clock.floor();
        clock.raise(UnixMillis(5));
        assert_eq!(clock.floor(), kept);
        assert!(kept >= far() && clock.now() >= far() && clock.behind().is_some());
    }

    #[test]
    fn f3_a_signed_time_ahead_of_a_clock_that_runs_is_said_and_outlives_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path()).unwrap();
        clock.raise(far());
        let problem = clock.ahead().unwrap();
        assert_eq!(problem.kind, ProblemKind::ServerTimeAhead);
        assert!(problem.detail.contains(&trust::format_rfc3339(far())), "{}", problem.detail);
        assert!(clock.now() < far() && clock.is_plausible());
        clock.raise(built_at());
        assert_eq!(clock.ahead(), None);
        assert!(Clock::open(dir.path()).unwrap().floor() < far());
    }

    #[test]
    fn ff1_what_a_replaced_key_signed_is_taken_back_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let clock = lost(dir.path());
        clock.raise(far());
        clock.forget_signed();
        assert_eq!(clock.floor(), built_at());
        assert!(clock.is_plausible());
        assert_eq!(Clock::open(dir.path()).unwrap().floor(), built_at());
    }

    #[test]
    fn time_passes_while_the_wall_clock_stands_before_the_floor() {
        let dir = tempfile::tempdir().unwrap();
        let clock = lost(dir.path());
        clock.raise(far());
        let (first, begun) = (clock.now(), Instant::now());
        while clock.now() <= first {
            assert!(begun.elapsed() < Duration::from_secs(30), "the clock stands still at {first:?}");
            std::thread::yield_now();
        }
        let later = clock.now();
        clock.raise(far());
        assert!(clock.now() >= later, "an earlier signed time sets nothing back");
        assert_eq!(clock.floor(), far());
    }

    #[test]
    fn damaged_copies_leave_the_build_time() {
        let dir = tempfile::tempdir().unwrap();
        lost(dir.path()).raise(far());
        for letter in ["a", "b"] {
            std::fs::write(dir.path().join(format!("clock-floor.{letter}")), "9999999999999").unwrap();
        }
        assert_eq!(Clock::open(dir.path()).unwrap().floor(), built_at());
    }

    #[test]
    fn a_floor_after_the_end_of_the_ca_is_set_aside_said_and_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        // As an earlier version kept it, with one wrong digit.
        std::fs::write(dir.path().join("clock-floor"), "9999999999999").unwrap();
        let ca_ends = built_at().plus_millis(HOUR_MS * 24 * 365);
        let clock = Clock::open(dir.path()).unwrap();
        assert_eq!((clock.floor(), clock.problem()), (UnixMillis(9_999_999_999_999), None));
        clock.bound(ca_ends);
        assert_eq!(clock.floor(), built_at());
        assert!(clock.now() < ca_ends, "TLS is judged by the wall clock again");
        let problem = clock.problem().unwrap();
        assert_eq!(problem.kind, ProblemKind::ClockFloorImplausible);
        for said in ["clock-floor.a", "clock-floor.b", "2286-11-20T17:46:39Z"] {
            assert!(problem.detail.contains(said), "{}", problem.detail);
        }
        clock.keep();
        let clock = Clock::open(dir.path()).unwrap();
        clock.bound(ca_ends);
        assert!(clock.problem().is_none() && clock.floor() >= built_at(), "what was kept is true again");
    }

    #[test]
    fn tls_sees_the_bounded_clock() {
        let dir = tempfile::tempdir().unwrap();
        let clock = lost(dir.path());
        clock.raise(far());
        assert_eq!(clock.current_time().unwrap().as_secs(), u64::try_from(far().0 / 1000).unwrap());
    }
}
