//! The caller's clock, and the caller's word to end: what takes a while asks for both between requests.

use std::convert::Infallible;
use std::time::Duration;

/// Tells the time, or that the work has to end. A closure that returns a [`Duration`] is a clock that never ends it.
pub trait Clock {
    /// Why work ends before it is done.
    type Stop;

    /// The time since some fixed moment.
    ///
    /// # Errors
    /// When the work has to end; nothing is asked any more then.
    fn now(&mut self) -> Result<Duration, Self::Stop>;
}

impl<F: FnMut() -> Duration> Clock for F {
    type Stop = Infallible;

    fn now(&mut self) -> Result<Duration, Infallible> {
        Ok(self())
    }
}
