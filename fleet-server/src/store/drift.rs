//! Drift windows: one row per release, device (or the whole fleet), segment and window. Rows are computed from
//! panes and may be computed again at any time.

use profile::drift::DriftReport;
use protocol::{DeviceId, Digest, ModelName, ProjectId, UnixMillis, Version};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, as_int, to_json};
use super::{Conn, StoreError};

/// A computed window.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftWindow {
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub version: Version,
    /// SHA-256 of its manifest.
    pub digest: Digest,
    /// Which device; `None` for the whole fleet.
    pub device: Option<DeviceId>,
    /// Segment of the data; '' for all of it.
    pub segment: String,
    /// Event time.
    pub window_start: UnixMillis,
    /// Event time.
    pub window_end: UnixMillis,
    /// Requests answered.
    pub n: u64,
    /// Whether anything drifted.
    pub is_drifting: bool,
    /// The comparison with the release's reference.
    pub report: DriftReport,
    /// The merged pane, CBOR.
    pub pane: Option<Vec<u8>>,
    /// When it was computed.
    pub updated_at: UnixMillis,
}

/// Which windows are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowFilter<'a> {
    /// One release only.
    pub version: Option<&'a Version>,
    /// One device; `None` for the whole fleet.
    pub device: Option<&'a DeviceId>,
    /// Segment; '' for all data.
    pub segment: &'a str,
    /// Windows that end after this.
    pub from: UnixMillis,
    /// Windows that start before this.
    pub to: UnixMillis,
    /// At most so many, the newest.
    pub limit: i64,
}

/// Where panes arrived since: project, model and start of their windows.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn touched_since(
    conn: &mut Conn,
    since: UnixMillis,
) -> Result<Vec<(ProjectId, ModelName, UnixMillis)>, StoreError> {
    let query =
        sqlx::query("SELECT DISTINCT project, model, window_start FROM panes WHERE received_at >= $1");
    let rows = query.bind(since.0).fetch_all(conn).await.during("look for new panes")?;
    all(rows, |row| Ok((row.id("project")?, row.id("model")?, row.millis("window_start")?)))
}

/// When the newest window was computed.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn last_update(conn: &mut Conn) -> Result<Option<UnixMillis>, StoreError> {
    let row = sqlx::query("SELECT MAX(updated_at) AS updated_at FROM drift_windows").fetch_one(conn).await;
    row.during("read the age of drift windows")?.millis_opt("updated_at")
}

/// Writes a window over its earlier version.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn put(conn: &mut Conn, project: &ProjectId, window: &DriftWindow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO drift_windows (project, model, version, digest, device, segment, window_start, window_end, n, \
         is_drifting, report, pane, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (project, model, digest, device, segment, window_start) DO UPDATE SET \
         window_end = excluded.window_end, n = excluded.n, is_drifting = excluded.is_drifting, \
         report = excluded.report, pane = excluded.pane, updated_at = excluded.updated_at",
    )
    .bind(project.as_str())
    .bind(window.model.as_str())
    .bind(window.version.as_str())
    .bind(window.digest.to_hex())
    .bind(window.device.as_ref().map_or("", DeviceId::as_str))
    .bind(window.segment.as_str())
    .bind(window.window_start.0)
    .bind(window.window_end.0)
    .bind(as_int(window.n))
    .bind(i64::from(window.is_drifting))
    .bind(to_json(&window.report))
    .bind(window.pane.clone())
    .bind(window.updated_at.0)
    .execute(conn)
    .await
    .during("write a drift window")?;
    Ok(())
}

/// Windows of one device or of the fleet, oldest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    filter: &WindowFilter<'_>,
) -> Result<Vec<DriftWindow>, StoreError> {
    let query = sqlx::query(
        "SELECT * FROM drift_windows WHERE project = $1 AND model = $2 AND device = $3 AND segment = $4 \
         AND ($5 = '' OR version = $5) AND window_end > $6 AND window_start < $7 \
         ORDER BY window_start DESC, digest DESC LIMIT $8",
    );
    let query = query.bind(project.as_str()).bind(model.as_str());
    let query = query.bind(filter.device.map_or("", DeviceId::as_str)).bind(filter.segment);
    let query = query.bind(filter.version.map_or("", Version::as_str));
    let rows = query.bind(filter.from.0).bind(filter.to.0).bind(filter.limit).fetch_all(conn).await;
    let mut windows = all(rows.during("list drift windows")?, read)?;
    windows.reverse();
    Ok(windows)
}

/// All devices' windows of a span, of all data, by device and time.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn of_devices(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<Vec<DriftWindow>, StoreError> {
    let query = sqlx::query(
        "SELECT * FROM drift_windows WHERE project = $1 AND model = $2 AND device <> '' AND segment = '' \
         AND window_start >= $3 AND window_start < $4 ORDER BY device, window_start",
    );
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(from.0).bind(to.0);
    all(query.fetch_all(conn).await.during("list devices' drift windows")?, read)
}

/// When the last drift alert about this device (or the fleet) was closed.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn alert_closed_at(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    device: Option<&DeviceId>,
) -> Result<Option<UnixMillis>, StoreError> {
    let query = sqlx::query(
        "SELECT MAX(closed_at) AS closed_at FROM alerts WHERE project = $1 AND kind = 'drift' AND model = $2 \
         AND COALESCE(device, '') = $3",
    );
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(device.map_or("", DeviceId::as_str));
    query.fetch_one(conn).await.during("look for closed drift alerts")?.millis_opt("closed_at")
}

/// Deletes windows that ended before.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete_before(conn: &mut Conn, before: UnixMillis) -> Result<u64, StoreError> {
    let done =
        sqlx::query("DELETE FROM drift_windows WHERE window_end < $1").bind(before.0).execute(conn).await;
    Ok(done.during("delete old drift windows")?.rows_affected())
}

fn read(row: &AnyRow) -> Result<DriftWindow, StoreError> {
    let device = row.text("device")?;
    Ok(DriftWindow {
        model: row.id("model")?,
        version: row.id("version")?,
        digest: row.id("digest")?,
        device: if device.is_empty() { None } else { Some(row.id("device")?) },
        segment: row.text("segment")?,
        window_start: row.millis("window_start")?,
        window_end: row.millis("window_end")?,
        n: row.count("n")?,
        is_drifting: row.truth("is_drifting")?,
        report: row.json("report")?,
        pane: row.bytes_opt("pane")?,
        updated_at: row.millis("updated_at")?,
    })
}
