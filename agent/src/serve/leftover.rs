//! What bodies took of the heap goes back to the system a moment after they are gone: the allocator keeps it else, and the
//! agent's own bounds of memory count it. No request waits for that, and while none holds much nothing is done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Bodies of so much since the last time are worth it.
const MUCH_BYTES: usize = 1 << 20;
/// Others may follow at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts bodies that are gone.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    bytes: AtomicUsize,
    is_much: Notify,
}

impl Leftover {
    /// A body of so much is about to be gone.
    pub(super) fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes > 0 && before.saturating_add(bytes) >= MUCH_BYTES {
            self.is_much.notify_one();
        }
    }

    /// Gives it back again and again. Never ends.
    pub(super) async fn give_back(&self) {
        loop {
            self.is_much.notified().await;
            tokio::time::sleep(PAUSE).await;
            if self.bytes.swap(0, Ordering::Relaxed) >= MUCH_BYTES {
                let _ended = tokio::task::spawn_blocking(inference::trim_heap).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_bodies_are_counted_until_they_are_much_together() {
        let leftover = Leftover::default();
        let is_much = || async {
            tokio::select! {
                biased;
                () = leftover.is_much.notified() => true,
                () = std::future::ready(()) => false,
            }
        };
        for _ in 1..16 {
            leftover.add(MUCH_BYTES / 16);
        }
        assert!(!is_much().await);
        leftover.add(0);
        leftover.add(MUCH_BYTES / 16);
        assert!(is_much().await && !is_much().await);
    }
}
