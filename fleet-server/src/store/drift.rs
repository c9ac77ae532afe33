//! Drift windows: one row per release, device (or the whole fleet), segment and window. Rows are computed from
//! panes and may be computed again at any time; a row keeps its pane and the findings, from which and the release's
//! reference the report is made when somebody asks for it. Old rows are merged by the hour, older ones by the day.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use profile::drift::{DriftReport, Role, Status};
use protocol::{DeviceId, Digest, ModelName, ProjectId, UnixMillis, Version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::error::During;
use super::packed::{pack, unpack};
use super::row::{Columns, all, as_int, to_json};
use super::sql::Sql;
use super::{Conn, StoreError};

/// A feature that drifted in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftingFeature {
    /// Its name.
    pub feature: String,
    /// Input or output.
    pub role: Role,
    /// Jensen-Shannon distance, natural logarithm.
    pub distance: f64,
    /// p-value after correction.
    pub adjusted_p: Option<f64>,
}

/// What alerts read of a window's report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// Distributions with enough values.
    pub judged: usize,
    /// Those that drifted, in the report's order.
    pub drifted: Vec<DriftingFeature>,
}

impl From<&DriftReport> for Findings {
    fn from(report: &DriftReport) -> Self {
        let drifted = report.features.iter().filter(|feature| feature.status == Status::Drifted);
        let drifted = drifted.map(|found| DriftingFeature {
            feature: found.feature.clone(),
            role: found.role,
            distance: found.distance,
            adjusted_p: found.adjusted_p,
        });
        Self { judged: report.verdict.judged, drifted: drifted.collect() }
    }
}

/// How coarse a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grain {
    /// As it was computed from panes.
    Window,
    /// Several windows of one hour.
    Hour,
    /// Several hours of one day.
    Day,
}

impl Grain {
    fn number(self) -> i64 {
        match self {
            Self::Window => 0,
            Self::Hour => 1,
            Self::Day => 2,
        }
    }

    fn of(number: i64) -> Self {
        match number {
            0 => Self::Window,
            1 => Self::Hour,
            _ => Self::Day,
        }
    }

    /// As text of a statement: the indexes are of these constants.
    fn is(self) -> &'static str {
        match self {
            Self::Window => "is_merged = 0",
            Self::Hour => "is_merged = 1",
            Self::Day => "is_merged = 2",
        }
    }
}

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
    /// What alerts read of the comparison with the release's reference.
    pub findings: Findings,
    /// The whole comparison, in rows of earlier versions only.
    pub report: Option<DriftReport>,
    /// The merged pane, CBOR. Not read by [`of_devices`].
    pub pane: Option<Vec<u8>>,
    /// Whether several windows were merged into this one, and how far.
    pub grain: Grain,
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

/// Of [`touched`]; a test holds that it reads only what arrived. `DISTINCT` or an open end would make SQLite walk through
/// all panes in the order of another index.
pub const TOUCHED: &str = "SELECT project, model, window_start FROM panes WHERE received_at >= $1 AND received_at < $2 ORDER BY received_at";

/// A model of a project and the start of a pane's window.
pub type Touched = (ProjectId, ModelName, UnixMillis);

/// Where panes arrived in a span of the server's time; its end doesn't count.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn touched(
    conn: &mut Conn,
    (since, until): (UnixMillis, UnixMillis),
) -> Result<BTreeSet<Touched>, StoreError> {
    let mut rows = sqlx::query(TOUCHED).bind(since.0).bind(until.0).fetch(conn);
    let mut found = BTreeSet::new();
    while let Some(row) = rows.try_next().await.during("look for new panes")? {
        found.insert((row.id("project")?, row.id("model")?, row.millis("window_start")?));
    }
    Ok(found)
}

/// Of [`last_update`]; a test holds that it reads one row.
pub const LAST_UPDATE: &str =
    "SELECT MAX(updated_at) AS updated_at FROM drift_windows WHERE updated_at <= $1";

/// When the newest window was computed, of those up to this time.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn last_update(conn: &mut Conn, until: UnixMillis) -> Result<Option<UnixMillis>, StoreError> {
    let row = sqlx::query(LAST_UPDATE).bind(until.0).fetch_one(conn).await;
    row.during("read the age of drift windows")?.millis_opt("updated_at")
}

/// Writes a window over its earlier version.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn put(conn: &mut Conn, project: &ProjectId, window: &DriftWindow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO drift_windows (project, model, version, digest, device, segment, window_start, window_end, n, \
         is_drifting, findings, report, pane, is_merged, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
         ON CONFLICT (project, model, digest, device, segment, window_start) DO UPDATE SET \
         window_end = excluded.window_end, n = excluded.n, is_drifting = excluded.is_drifting, \
         findings = excluded.findings, report = excluded.report, pane = excluded.pane, \
         is_merged = excluded.is_merged, updated_at = excluded.updated_at",
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
    .bind(to_json(&window.findings))
    .bind(window.report.as_ref().map(to_json).unwrap_or_default())
    .bind(window.pane.as_deref().map(pack))
    .bind(window.grain.number())
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
    let mut sql = filtered("SELECT * FROM drift_windows", project, model, filter);
    sql.push(" ORDER BY window_start DESC, digest DESC LIMIT ").bind(filter.limit);
    let rows = sql.query().fetch_all(conn).await;
    let mut windows = all(rows.during("list drift windows")?, read_whole)?;
    windows.reverse();
    Ok(windows)
}

/// Start and release of each window that fits, whatever the filter's limit.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn starts(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    filter: &WindowFilter<'_>,
) -> Result<Vec<(UnixMillis, Digest)>, StoreError> {
    let sql = filtered("SELECT window_start, digest FROM drift_windows", project, model, filter);
    let rows = sql.query().fetch_all(conn).await.during("count drift windows")?;
    all(rows, |row| Ok((row.millis("window_start")?, row.id("digest")?)))
}

/// Windows on their way, some at a time.
pub type Chunks = tokio::sync::mpsc::Sender<Vec<DriftWindow>>;
/// Windows that travel together.
const CHUNK: usize = 64;

/// Sends each window that fits, whatever the filter's limit, oldest first and all as of one moment. Ends early, and well,
/// when nobody takes them any more.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn send(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    filter: &WindowFilter<'_>,
    to: Chunks,
) -> Result<(), StoreError> {
    let mut sql = filtered("SELECT * FROM drift_windows", project, model, filter);
    sql.push(" ORDER BY window_start, digest");
    let mut rows = sql.query().fetch(conn);
    let mut chunk = Vec::with_capacity(CHUNK);
    while let Some(row) = rows.try_next().await.during("read drift windows")? {
        chunk.push(read_whole(&row)?);
        if chunk.len() == CHUNK && to.send(std::mem::take(&mut chunk)).await.is_err() {
            return Ok(());
        }
    }
    // Whoever waits for it waits for the sender's end.
    let _ = to.send(chunk).await;
    Ok(())
}

fn filtered(select: &'static str, project: &ProjectId, model: &ModelName, filter: &WindowFilter<'_>) -> Sql {
    let mut sql = Sql::new(select);
    sql.push(" WHERE project = ").bind(project.as_str()).push(" AND model = ").bind(model.as_str());
    sql.push(" AND device = ").bind(filter.device.map_or("", DeviceId::as_str));
    sql.push(" AND segment = ").bind(filter.segment);
    sql.push(" AND window_end > ").bind(filter.from.0).push(" AND window_start < ").bind(filter.to.0);
    if let Some(version) = filter.version {
        sql.push(" AND version = ").bind(version.as_str());
    }
    sql
}

/// Of [`of_devices`]; a test holds that it reads no more of the table than the span.
pub const OF_DEVICES: &str = "SELECT model, version, digest, device, segment, window_start, window_end, n, is_drifting, findings, report, \
     is_merged, updated_at FROM drift_windows \
     WHERE project = $1 AND model = $2 AND device <> '' AND segment = '' \
     AND window_start >= $3 AND window_start < $4 ORDER BY device, window_start";

/// All devices' windows of a span, of all data, by device and time, without their panes.
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
    let query = sqlx::query(OF_DEVICES);
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

/// Where the oldest window of this grain lies that starts before this.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn oldest(
    conn: &mut Conn,
    grain: Grain,
    before: UnixMillis,
) -> Result<Option<(ProjectId, ModelName, UnixMillis)>, StoreError> {
    let mut sql = Sql::new("SELECT project, model, window_start FROM drift_windows WHERE ");
    sql.push(grain.is()).push(" AND window_start < ").bind(before.0).push(" ORDER BY window_start LIMIT 1");
    let row = sql.query().fetch_optional(conn).await.during("look for windows to merge")?;
    row.map(|row| Ok((row.id("project")?, row.id("model")?, row.millis("window_start")?))).transpose()
}

/// A span of a model's windows; starts count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<'a> {
    /// Tenant.
    pub project: &'a ProjectId,
    /// Which model.
    pub model: &'a ModelName,
    /// First instant.
    pub from: UnixMillis,
    /// First instant after it.
    pub to: UnixMillis,
}

/// All windows of a span that have this grain, of at most so many devices (the fleet is one), by device and time.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn of_grain(
    conn: &mut Conn,
    span: Span<'_>,
    grain: Grain,
    devices: i64,
) -> Result<Vec<DriftWindow>, StoreError> {
    let mut sql = Sql::new("SELECT * FROM drift_windows WHERE ");
    sql.value(span.project.as_str()).value(span.model.as_str()).value(span.from.0).value(span.to.0);
    let place = " AND project = $1 AND model = $2 AND window_start >= $3 AND window_start < $4";
    sql.push(grain.is()).push(place).push(" AND device IN (SELECT DISTINCT device FROM drift_windows WHERE ");
    sql.push(grain.is()).push(place).push(" ORDER BY device LIMIT ").bind(devices);
    sql.push(") ORDER BY device, window_start");
    all(sql.query().fetch_all(conn).await.during("list windows to merge")?, read_whole)
}

/// Deletes one window.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete(conn: &mut Conn, project: &ProjectId, window: &DriftWindow) -> Result<(), StoreError> {
    let query = sqlx::query(
        "DELETE FROM drift_windows WHERE project = $1 AND model = $2 AND digest = $3 AND device = $4 \
         AND segment = $5 AND window_start = $6",
    );
    let query = query.bind(project.as_str()).bind(window.model.as_str()).bind(window.digest.to_hex());
    let query = query.bind(window.device.as_ref().map_or("", DeviceId::as_str));
    let query = query.bind(window.segment.as_str()).bind(window.window_start.0);
    query.execute(conn).await.during("delete a merged drift window")?;
    Ok(())
}

/// Deletes the windows of one release that start in a span.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete_span(conn: &mut Conn, span: Span<'_>, digest: &Digest) -> Result<(), StoreError> {
    let query = sqlx::query(
        "DELETE FROM drift_windows WHERE project = $1 AND model = $2 AND digest = $3 \
         AND window_start >= $4 AND window_start < $5",
    );
    let query = query.bind(span.project.as_str()).bind(span.model.as_str()).bind(digest.to_hex());
    query.bind(span.from.0).bind(span.to.0).execute(conn).await.during("delete drift windows of a span")?;
    Ok(())
}

fn read_whole(row: &AnyRow) -> Result<DriftWindow, StoreError> {
    let pane = row.bytes_opt("pane")?.map(unpack);
    Ok(DriftWindow { pane, ..read(row)? })
}

fn read(row: &AnyRow) -> Result<DriftWindow, StoreError> {
    let device = row.text("device")?;
    let report: Option<DriftReport> = written(row, "report")?;
    let findings = match written(row, "findings")? {
        Some(findings) => findings,
        None => report.as_ref().map(Findings::from).unwrap_or_default(),
    };
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
        findings,
        report,
        pane: None,
        grain: Grain::of(row.int("is_merged")?),
        updated_at: row.millis("updated_at")?,
    })
}

/// A JSON column that is '' where nothing was written.
fn written<T: DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<Option<T>, StoreError> {
    if row.text(column)?.is_empty() { Ok(None) } else { row.json(column).map(Some) }
}
