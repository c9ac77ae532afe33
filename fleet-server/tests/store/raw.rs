//! What tests elsewhere do to the database behind the store's back.

use flotilla_server::store::Store;
use protocol::{DeviceId, UnixMillis};

/// Bytes of an SQLite database that are in use.
pub(crate) async fn used_bytes(store: &Store) -> i64 {
    let mut conn = store.read().await.unwrap();
    let mut used = 0;
    for (pragma, sign) in [("PRAGMA page_count", 4096), ("PRAGMA freelist_count", -4096)] {
        used += sign * sqlx::query_scalar::<_, i64>(pragma).fetch_one(&mut *conn).await.unwrap();
    }
    used
}

/// Writes a device's drift window as versions did that stored its report and the plain pane.
pub(crate) async fn store_report(
    store: &Store,
    place: (&DeviceId, UnixMillis),
    report: String,
    pane: Vec<u8>,
) {
    let mut tx = store.begin().await.unwrap();
    let query = "UPDATE drift_windows SET findings = '', report = $1, pane = $2 WHERE device = $3 AND window_start = $4";
    let query = sqlx::query(query).bind(report).bind(pane).bind(place.0.as_str()).bind(place.1.0);
    assert_eq!(query.execute(&mut *tx).await.unwrap().rows_affected(), 1);
    tx.commit().await.unwrap();
}
