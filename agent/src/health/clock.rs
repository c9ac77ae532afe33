//! The device's clock. Boards without a battery boot in 1970: nothing here ever says a time before the floor.
//!
//! The floor is the latest of build time, last accepted signed time and last signed server time; it is kept on
//! disk and never moves back. TLS reads the same bounded clock. While the wall clock stands before the floor, time
//! still passes: as the monotonic clock says, from the floor on.
//!
//! A floor after the end of the fleet's CA can't be true: everything that raises it comes from servers which that CA
//! vouches for. Believed, it would keep the device off the fleet for good, so it is set aside and said.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::UnixMillis;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use trust::clock::TimeFloor;

use super::kept_number::KeptNumber;
use super::problem::{Problem, ProblemKind};
use crate::durable::DurableError;

/// When this program was built, in seconds since 1970.
const BUILT_S: &str = env!("FLOTILLA_BUILT_S");
/// A higher floor is written to disk only when it has moved by this much: flash wears.
const PERSIST_STEP_MS: i64 = 60 * 60 * 1000;
/// One part in so many is taken off what the monotonic clock counts: a fast oscillator shall not lead past the truth.
const OSCILLATOR_SLACK: u128 = 1000;

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

#[derive(Debug)]
struct Bounds {
    floor: TimeFloor,
    /// A time that had been reached at `since`.
    base: UnixMillis,
    since: Instant,
    persisted: UnixMillis,
    /// No true floor is later; none before it is known who may raise it.
    latest: Option<UnixMillis>,
    /// A stored floor that can't be true.
    set_aside: Option<UnixMillis>,
}

impl Bounds {
    fn new(stored: Option<UnixMillis>) -> Self {
        let mut floor = TimeFloor::new(built_at());
        let persisted = stored.unwrap_or_default();
        floor.raise(persisted);
        let base = floor.get();
        Self { floor, base, since: Instant::now(), persisted, latest: None, set_aside: None }
    }

    fn bound(&mut self, latest: UnixMillis) {
        // The build has happened, whatever a certificate says.
        let latest = latest.max(built_at());
        let floor = self.floor.get();
        if floor > latest {
            *self = Self::new(None);
            self.set_aside = Some(floor);
        }
        self.latest = Some(latest);
    }

    fn is_impossible(&self, at: UnixMillis) -> bool {
        self.latest.is_some_and(|latest| at > latest)
    }

    /// What must have been reached by now.
    fn reached(&self) -> UnixMillis {
        let passed = self.since.elapsed().as_millis();
        let passed = passed - passed / OSCILLATOR_SLACK;
        self.base.plus_millis(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    fn raise(&mut self, to: UnixMillis) {
        self.floor.raise(to);
        if to > self.reached() {
            (self.base, self.since) = (to, Instant::now());
        }
    }

    /// What is worth writing to disk: far enough above what lies there.
    fn due(&mut self) -> Option<UnixMillis> {
        let reached = self.reached();
        (reached.millis_since(self.persisted) >= PERSIST_STEP_MS).then(|| {
            self.persisted = reached;
            reached
        })
    }
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
        let bounds = Mutex::new(Bounds::new(stored.map(UnixMillis)));
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
            "the stored clock floor ({path}.a and {path}.b) says {said}, but the fleet's CA ends {ends}: it can't be \
             true and is not used"
        );
        Some(Problem::new(ProblemKind::ClockFloorImplausible, detail))
    }

    /// Now: the wall clock, but never before the floor and the time that has passed since. It never stands still.
    pub fn now(&self) -> UnixMillis {
        self.floor_state(|state| state.reached().max(wall()))
    }

    /// The floor.
    pub fn floor(&self) -> UnixMillis {
        self.floor_state(|state| state.floor.get())
    }

    /// Whether the wall clock stands at or after the floor.
    pub fn is_plausible(&self) -> bool {
        wall() >= self.floor()
    }

    /// Raises the floor to a time that was signed, or said by the server over its certificate.
    /// A time after the end of the fleet's CA is no honest server's and changes nothing.
    pub fn raise(&self, signed: UnixMillis) {
        let due = self.floor_state(|state| {
            let is_possible = !state.is_impossible(signed);
            is_possible.then(|| state.raise(signed)).and_then(|()| state.due())
        });
        self.persist(due);
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
    use super::*;

    const HOUR_MS: i64 = 60 * 60 * 1000;

    #[test]
    fn floor_survives_a_restart_and_never_moves_back() {
        let dir = tempfile::tempdir().unwrap();
        let far = built_at().plus_millis(100 * 365 * 24 * 3600 * 1000);
        Clock::open(dir.path()).unwrap().raise(far);
        let clock = Clock::open(dir.path()).unwrap();
        clock.raise(UnixMillis(5));
        assert_eq!(clock.floor(), far);
        assert!(clock.now() >= far && !clock.is_plausible());
    }

    #[test]
    fn time_passes_while_the_wall_clock_stands_before_the_floor() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path()).unwrap();
        let far = built_at().plus_millis(100 * 365 * 24 * 3600 * 1000);
        clock.raise(far);
        let (first, begun) = (clock.now(), Instant::now());
        while clock.now() <= first {
            assert!(begun.elapsed() < Duration::from_secs(30), "the clock stands still at {first:?}");
            std::thread::yield_now();
        }
        let later = clock.now();
        clock.raise(far);
        assert!(clock.now() >= later, "an earlier signed time sets nothing back");
        assert_eq!(clock.floor(), far);
    }

    #[test]
    fn what_has_passed_is_kept_once_it_is_worth_a_write() {
        let begin = UnixMillis(1_000_000);
        let at = |ago: Duration| Bounds {
            floor: TimeFloor::new(begin),
            base: begin,
            since: Instant::now().checked_sub(ago).unwrap(),
            persisted: begin,
            latest: None,
            set_aside: None,
        };
        assert_eq!(at(Duration::ZERO).due(), None);
        // A machine that was just booted has no earlier instants.
        let long = Duration::from_millis(u64::try_from(PERSIST_STEP_MS).unwrap() * 2);
        if Instant::now().checked_sub(long).is_some() {
            let mut floor = at(long);
            assert!(floor.due().unwrap().millis_since(begin) >= PERSIST_STEP_MS);
            assert_eq!(floor.due(), None, "once is enough");
        }
    }

    #[test]
    fn damaged_copies_leave_the_build_time() {
        let dir = tempfile::tempdir().unwrap();
        Clock::open(dir.path()).unwrap().raise(built_at().plus_millis(HOUR_MS * 24));
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
    fn a_signed_time_after_the_end_of_the_ca_raises_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path()).unwrap();
        let ca_ends = built_at().plus_millis(HOUR_MS * 24 * 365);
        clock.bound(ca_ends);
        clock.raise(ca_ends.plus_millis(1));
        assert_eq!(clock.floor(), built_at());
        clock.raise(ca_ends);
        assert_eq!(clock.floor(), ca_ends);
    }

    #[test]
    fn tls_sees_the_bounded_clock() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path()).unwrap();
        let far = built_at().plus_millis(100 * 365 * 24 * 3600 * 1000);
        clock.raise(far);
        assert_eq!(clock.current_time().unwrap().as_secs(), u64::try_from(far.0 / 1000).unwrap());
    }
}
