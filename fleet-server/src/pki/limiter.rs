//! Slows down an address that keeps failing. Secrets of 256 bits can't be guessed; this bounds the load.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use protocol::UnixMillis;

const WINDOW_MS: i64 = 60_000;
/// Addresses that are remembered; when full, the memory starts anew.
const MAX_ADDRESSES: usize = 10_000;

/// Failures by address within a minute.
#[derive(Debug)]
pub struct FailureLimiter {
    per_minute: u32,
    failures: Mutex<HashMap<IpAddr, (UnixMillis, u32)>>,
}

impl FailureLimiter {
    /// At most so many failures in a minute.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, failures: Mutex::default() }
    }

    /// Seconds to wait before the next try; `None` when one is allowed now.
    pub fn wait_s(&self, address: IpAddr, now: UnixMillis) -> Option<u64> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, count) = failures.get(&address)?;
        let left_ms = WINDOW_MS - now.millis_since(*began);
        (*count >= self.per_minute && left_ms > 0).then(|| left_ms.unsigned_abs().div_ceil(1000))
    }

    /// Notes a failure.
    pub fn failed(&self, address: IpAddr, now: UnixMillis) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_ADDRESSES {
            failures.clear();
        }
        let entry = failures.entry(address).or_insert((now, 0));
        if now.millis_since(entry.0) >= WINDOW_MS {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_after_too_many_failures_and_then_may_again() {
        let limiter = FailureLimiter::new(2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        limiter.failed(a, UnixMillis(0));
        assert_eq!(limiter.wait_s(a, UnixMillis(1)), None);
        limiter.failed(a, UnixMillis(1000));
        assert_eq!(limiter.wait_s(a, UnixMillis(1000)), Some(59));
        assert_eq!(limiter.wait_s(b, UnixMillis(1000)), None);
        assert_eq!(limiter.wait_s(a, UnixMillis(60_000)), None);
    }
}
