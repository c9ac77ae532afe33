//! Order of a device's records by arrival, newest first, for lists in pages.

use protocol::{StreamId, UnixMillis};

use super::Window;

/// Where a record stands in that order, as a list's cursor has it.
pub(super) fn key(received_at: UnixMillis, stream: &StreamId, seq: u64) -> String {
    format!("{}/{seq}/{stream}", received_at.0)
}

/// Arrival, stream and position before which a page begins; nothing is before the first page's.
pub(super) fn before(window: &Window) -> (i64, String, i64) {
    let parsed = window.after.as_deref().and_then(|key| {
        let mut parts = key.splitn(3, '/');
        let (at, seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((at, parts.next()?.to_owned(), seq))
    });
    parsed.unwrap_or((i64::MAX, String::new(), 0))
}
