//! Task reports: every transition of the update machine that a device reported.

use protocol::message::{TaskPhase, TaskReport};
use protocol::{DeviceId, ProjectId, UnixMillis};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, as_int, to_json};
use super::{Conn, Page, StoreError, Window};

/// A stored report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReport {
    /// Counter of the signed report; rises.
    pub counter: u64,
    /// When it arrived.
    pub received_at: UnixMillis,
    /// What it said.
    pub report: TaskReport,
}

/// Adds a report; does nothing when it is there already.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    stored: &StoredReport,
) -> Result<(), StoreError> {
    let report = &stored.report;
    sqlx::query(
        "INSERT INTO task_reports (project, device, counter, at, received_at, rollout, model, version, digest, phase, \
         report) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(as_int(stored.counter))
    .bind(report.at.0)
    .bind(stored.received_at.0)
    .bind(report.rollout.as_ref().map(ToString::to_string))
    .bind(report.model.as_str())
    .bind(report.release.version.as_str())
    .bind(report.release.digest.to_hex())
    .bind(phase_text(report.phase))
    .bind(to_json(report))
    .execute(conn)
    .await
    .during("add a task report")?;
    Ok(())
}

/// A device's reports, newest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    window: &Window,
) -> Result<Page<StoredReport>, StoreError> {
    let before = window.after.as_deref().and_then(|key| key.parse::<i64>().ok()).unwrap_or(i64::MAX);
    let query = sqlx::query(
        "SELECT counter, received_at, report FROM task_reports \
         WHERE project = $1 AND device = $2 AND counter < $3 ORDER BY counter DESC LIMIT $4",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(before).bind(window.limit);
    let rows = query.fetch_all(&mut *conn).await.during("list task reports")?;
    let total = sqlx::query_scalar("SELECT COUNT(*) FROM task_reports WHERE project = $1 AND device = $2");
    let total = total.bind(project.as_str()).bind(device.as_str()).fetch_one(conn).await;
    Ok(Page { items: all(rows, read)?, total: total.during("count task reports")? })
}

/// A phase as text, the same as in JSON.
pub fn phase_text(phase: TaskPhase) -> String {
    let value = serde_json::to_value(phase).expect("a phase is a plain text in JSON");
    value.as_str().unwrap_or_default().to_owned()
}

fn read(row: &AnyRow) -> Result<StoredReport, StoreError> {
    Ok(StoredReport {
        counter: row.count("counter")?,
        received_at: row.millis("received_at")?,
        report: row.json("report")?,
    })
}
