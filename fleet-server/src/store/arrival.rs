//! Order of a device's records by arrival, newest first, for lists in pages.

use protocol::{DeviceId, ProjectId, StreamId, UnixMillis};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all};
use super::sql::Sql;
use super::{Conn, Page, StoreError, Window};

/// Where a record stands in that order, as a list's cursor has it.
pub(super) fn key(received_at: UnixMillis, stream: &StreamId, seq: u64) -> String {
    format!("{}/{seq}/{stream}", received_at.0)
}

/// A page of a device's records in a table that has `received_at`, `stream` and `seq`; newest first. `doing` is for
/// errors.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub(super) async fn page<T>(
    conn: &mut Conn,
    (table, doing): (&'static str, &'static str),
    (project, device): (&ProjectId, &DeviceId),
    window: &Window,
    read: impl Fn(&AnyRow) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let (before, before_stream, before_seq) = before(window);
    let mut page = Sql::new("SELECT * FROM ");
    page.value(project.as_str().to_owned()).value(device.as_str().to_owned());
    page.value(before).value(before_stream).value(before_seq).value(window.limit);
    page.push(table).push(
        " WHERE project = $1 AND device = $2 \
         AND (received_at < $3 OR (received_at = $3 AND (stream < $4 OR (stream = $4 AND seq < $5)))) \
         ORDER BY received_at DESC, stream DESC, seq DESC LIMIT $6",
    );
    let rows = page.query().fetch_all(&mut *conn).await.during(doing)?;
    Ok(Page { items: all(rows, read)?, total: count(conn, (table, doing), (project, device)).await? })
}

/// How many records of a device such a table has.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub(super) async fn count(
    conn: &mut Conn,
    (table, doing): (&'static str, &'static str),
    (project, device): (&ProjectId, &DeviceId),
) -> Result<i64, StoreError> {
    let mut count = Sql::new("SELECT COUNT(*) AS n FROM ");
    count.push(table).push(" WHERE project = ").bind(project.as_str().to_owned());
    count.push(" AND device = ").bind(device.as_str().to_owned());
    count.query().fetch_one(conn).await.during(doing)?.int("n")
}

/// Arrival, stream and position before which a page begins; nothing is before the first page's.
fn before(window: &Window) -> (i64, String, i64) {
    let parsed = window.after.as_deref().and_then(|key| {
        let mut parts = key.splitn(3, '/');
        let (at, seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((at, parts.next()?.to_owned(), seq))
    });
    parsed.unwrap_or((i64::MAX, String::new(), 0))
}
