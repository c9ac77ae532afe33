//! Where the time comes from; tests put their own in.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::UnixMillis;

/// The time that lies `age` before this one.
pub(crate) fn before(now: UnixMillis, age: Duration) -> UnixMillis {
    now.plus_millis(-i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// The server's clock. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    fixed: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until [`Clock::set`].
    pub fn fixed(now: UnixMillis) -> Self {
        Self { fixed: Some(Arc::new(AtomicI64::new(now.0))) }
    }

    /// Moves a fixed clock; does nothing to the machine's.
    pub fn set(&self, now: UnixMillis) {
        if let Some(fixed) = &self.fixed {
            fixed.store(now.0, Ordering::SeqCst);
        }
    }

    /// Now.
    pub fn now(&self) -> UnixMillis {
        if let Some(fixed) = &self.fixed {
            return UnixMillis(fixed.load(Ordering::SeqCst));
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
