//! The device's clock. Boards without a battery boot in 1970: nothing here ever says a time before the floor.
//!
//! The floor is the latest of build time, last accepted signed time and last signed server time; it is kept on
//! disk and never moves back. TLS reads the same bounded clock.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::UnixMillis;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use trust::clock::TimeFloor;

use crate::durable::{self, DurableError};

/// When this program was built, in seconds since 1970.
const BUILT_S: &str = env!("FLOTILLA_BUILT_S");
/// A higher floor is written to disk only when it has moved by this much: flash wears.
const PERSIST_STEP_MS: i64 = 60 * 60 * 1000;

/// Bounded time. Cheap to clone; all clones share the floor.
#[derive(Debug, Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    floor: Mutex<Floor>,
}

#[derive(Debug)]
struct Floor {
    floor: TimeFloor,
    persisted: UnixMillis,
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
        Ok(Self { shared: Arc::new(Shared { path, floor: Mutex::new(Floor { floor, persisted }) }) })
    }

    /// Now: the wall clock, but never before the floor.
    pub fn now(&self) -> UnixMillis {
        self.floor_state(|state| state.floor.fix(wall()))
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
        let to_persist = self.floor_state(|state| {
            state.floor.raise(signed);
            let floor = state.floor.get();
            (floor.millis_since(state.persisted) >= PERSIST_STEP_MS).then(|| {
                state.persisted = floor;
                floor
            })
        });
        if let Some(floor) = to_persist
            && let Err(error) = durable::write_atomic(&self.shared.path, floor.0.to_string().as_bytes())
        {
            tracing::warn!(error = %error, "the clock's floor could not be kept; it holds until the next start");
        }
    }

    fn floor_state<T>(&self, look: impl FnOnce(&mut Floor) -> T) -> T {
        look(&mut self.shared.floor.lock().unwrap_or_else(PoisonError::into_inner))
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
        assert_eq!((clock.now(), clock.floor()), (far, far));
        assert!(!clock.is_plausible());
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
