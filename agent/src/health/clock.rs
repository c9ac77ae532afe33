//! The device's clock. Boards without a battery boot in 1970: nothing here ever says a time before the floor.
//!
//! The floor is the latest of build time, last accepted signed time and last signed server time; it is kept on
//! disk and never moves back. TLS reads the same bounded clock. While the wall clock stands before the floor, time
//! still passes: as the monotonic clock says, from the floor on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::UnixMillis;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use trust::clock::TimeFloor;

use crate::durable::{self, DurableError};

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
    bounds: Mutex<Bounds>,
}

#[derive(Debug)]
struct Bounds {
    floor: TimeFloor,
    /// A time that had been reached at `since`.
    base: UnixMillis,
    since: Instant,
    persisted: UnixMillis,
}

impl Bounds {
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
    /// Reads the stored floor from the state directory. A floor that can't be parsed counts as none: the build
    /// time still bounds, and the next signed time repairs it.
    ///
    /// # Errors
    /// [`DurableError`] when the file exists and can't be read.
    pub fn open(state_dir: &Path) -> Result<Self, DurableError> {
        let path = state_dir.join("clock-floor");
        let stored = durable::read_bounded(&path, 64)?;
        let stored =
            stored.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok()).map(UnixMillis);
        let mut floor = TimeFloor::new(built_at());
        floor.raise(stored.unwrap_or_default());
        let persisted = stored.unwrap_or_default();
        let bounds = Mutex::new(Bounds { floor, base: floor.get(), since: Instant::now(), persisted });
        Ok(Self { shared: Arc::new(Shared { path, bounds }) })
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
    pub fn raise(&self, signed: UnixMillis) {
        let due = self.floor_state(|state| {
            state.raise(signed);
            state.due()
        });
        self.persist(due);
    }

    /// Keeps on disk how far time has come, so that the next start doesn't begin earlier. Cheap when little has passed.
    pub fn keep(&self) {
        let due = self.floor_state(Bounds::due);
        self.persist(due);
    }

    fn persist(&self, floor: Option<UnixMillis>) {
        if let Some(floor) = floor
            && let Err(error) = durable::write_atomic(&self.shared.path, floor.0.to_string().as_bytes())
        {
            tracing::warn!(error = %error, "the clock's floor could not be kept; it holds until the next start");
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
    fn garbage_in_the_file_leaves_the_build_time() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("clock-floor"), "soon").unwrap();
        assert_eq!(Clock::open(dir.path()).unwrap().floor(), built_at());
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
