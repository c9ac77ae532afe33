//! What tests elsewhere do to the database behind the store's back.

use flotilla_server::store::Store;
use protocol::{DeviceId, UnixMillis};

/// Bytes of the devices' panes and of their windows, without what the database adds to each row.
pub(crate) async fn stored_bytes(store: &Store) -> (i64, i64) {
    let mut conn = store.read().await.unwrap();
    let panes = sqlx::query_scalar("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM panes");
    let panes = panes.fetch_one(&mut *conn).await.unwrap();
    let windows = sqlx::query_scalar(
        "SELECT COALESCE(SUM(LENGTH(pane) + LENGTH(report) + LENGTH(findings)), 0) FROM drift_windows WHERE device <> ''",
    );
    (panes, windows.fetch_one(&mut *conn).await.unwrap())
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
