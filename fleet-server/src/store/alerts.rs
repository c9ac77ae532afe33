//! Alerts: at most one open per key; raising it again only renews it.

use std::collections::BTreeMap;

use protocol::{DeviceId, ModelName, ProjectId, RolloutId, UnixMillis};
use serde_json::Value;
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, to_json};
use super::sql::Sql;
use super::{Conn, Page, StoreError, Window};

/// Kinds of alerts about a rollout that ended by itself: it was rolled back, a gate that failed ended it, or its release
/// can't be taken any more. What they tell is over when they are raised: being seen closes them.
pub const ENDED: [&str; 3] = [ROLLED_BACK, ABORTED, INVALIDATED];
/// See [`ENDED`].
pub const ROLLED_BACK: &str = "rollout_rolled_back";
/// See [`ENDED`].
pub const ABORTED: &str = "rollout_aborted";
/// See [`ENDED`].
pub const INVALIDATED: &str = "rollout_invalidated";

/// How much it matters.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Someone should look.
    Warning,
    /// Someone must act.
    Critical,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl std::str::FromStr for Severity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Info, Self::Warning, Self::Critical];
        all.into_iter().find(|s| s.as_str() == text).ok_or_else(|| format!("{text:?} is no severity"))
    }
}

/// What is wrong, to raise.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAlert {
    /// Names the trouble; an open alert with the same key is renewed, not doubled.
    pub key: String,
    /// Stable name, e.g. `drift`, `gate_failed`.
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// The device that it is about.
    pub device: Option<DeviceId>,
    /// The model that it is about.
    pub model: Option<ModelName>,
    /// The rollout that it is about.
    pub rollout: Option<RolloutId>,
    /// One sentence for people.
    pub message: String,
    /// Numbers behind it.
    pub details: Value,
}

/// A stored alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Sorts by time of opening.
    pub alert_id: String,
    /// Stable name.
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// The device that it is about.
    pub device: Option<DeviceId>,
    /// The model that it is about.
    pub model: Option<ModelName>,
    /// The rollout that it is about.
    pub rollout: Option<RolloutId>,
    /// One sentence for people.
    pub message: String,
    /// Numbers behind it.
    pub details: Value,
    /// When it was raised first.
    pub opened_at: UnixMillis,
    /// When it was last seen true.
    pub updated_at: UnixMillis,
    /// When it was no longer true.
    pub closed_at: Option<UnixMillis>,
    /// When someone took note.
    pub acknowledged_at: Option<UnixMillis>,
    /// Who.
    pub acknowledged_by: Option<String>,
}

/// Raises an alert or renews the open one with its key. Returns the id if it was newly opened.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn raise(
    conn: &mut Conn,
    project: &ProjectId,
    alert: &NewAlert,
    now: UnixMillis,
) -> Result<Option<String>, StoreError> {
    let renewed = sqlx::query(
        "UPDATE alerts SET severity = $3, message = $4, details = $5, updated_at = $6 \
         WHERE project = $1 AND open_key = $2",
    )
    .bind(project.as_str())
    .bind(alert.key.as_str())
    .bind(alert.severity.as_str())
    .bind(alert.message.as_str())
    .bind(to_json(&alert.details))
    .bind(now.0)
    .execute(&mut *conn)
    .await
    .during("renew an alert")?;
    if renewed.rows_affected() > 0 {
        return Ok(None);
    }
    let alert_id = crate::ids::ordered_id(now);
    let opened = sqlx::query(
        "INSERT INTO alerts (alert_id, project, open_key, kind, severity, device, model, rollout, message, details, \
         opened_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11) ON CONFLICT DO NOTHING",
    )
    .bind(alert_id.as_str())
    .bind(project.as_str())
    .bind(alert.key.as_str())
    .bind(alert.kind.as_str())
    .bind(alert.severity.as_str())
    .bind(alert.device.as_ref().map(ToString::to_string))
    .bind(alert.model.as_ref().map(ToString::to_string))
    .bind(alert.rollout.as_ref().map(ToString::to_string))
    .bind(alert.message.as_str())
    .bind(to_json(&alert.details))
    .bind(now.0)
    .execute(conn)
    .await
    .during("open an alert")?;
    Ok((opened.rows_affected() > 0).then_some(alert_id))
}

/// Which open alerts are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over<'a> {
    /// The one with this key.
    Key(&'a str),
    /// Those of a kind about a model.
    OfModel(&'a str, &'a ModelName),
    /// Those about a device: it is out of service, so nothing about it can change any more.
    OfDevice(&'a DeviceId),
}

/// Closes open alerts; returns whether there was one.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn close(
    conn: &mut Conn,
    project: &ProjectId,
    over: Over<'_>,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new("UPDATE alerts SET open_key = NULL, closed_at = ");
    sql.bind(now.0).push(", updated_at = ").bind(now.0);
    sql.push(" WHERE closed_at IS NULL AND project = ").bind(project.as_str());
    match over {
        Over::Key(key) => sql.push(" AND open_key = ").bind(key),
        Over::OfModel(kind, model) => {
            sql.push(" AND kind = ").bind(kind).push(" AND model = ").bind(model.as_str())
        }
        Over::OfDevice(device) => sql.push(" AND device = ").bind(device.as_str()),
    };
    let done = sql.query().execute(conn).await.during("close alerts")?;
    Ok(done.rows_affected() > 0)
}

/// Notes that someone took note; closes an alert of one of the kinds [`ENDED`].
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn acknowledge(
    conn: &mut Conn,
    project: &ProjectId,
    alert_id: &str,
    actor: &str,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE alerts SET acknowledged_at = $3, acknowledged_by = $4, \
         open_key = CASE WHEN kind IN ($5, $6, $7) THEN NULL ELSE open_key END, \
         closed_at = CASE WHEN kind IN ($5, $6, $7) AND closed_at IS NULL THEN $3 ELSE closed_at END \
         WHERE project = $1 AND alert_id = $2 AND acknowledged_at IS NULL",
    );
    let mut query = query.bind(project.as_str()).bind(alert_id).bind(now.0).bind(actor);
    for kind in ENDED {
        query = query.bind(kind);
    }
    let done = query.execute(conn).await;
    Ok(done.during("acknowledge an alert")?.rows_affected() > 0)
}

/// One alert.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(conn: &mut Conn, project: &ProjectId, alert_id: &str) -> Result<Option<Alert>, StoreError> {
    let query = sqlx::query("SELECT * FROM alerts WHERE project = $1 AND alert_id = $2");
    let row = query.bind(project.as_str()).bind(alert_id).fetch_optional(conn).await;
    row.during("read an alert")?.as_ref().map(read).transpose()
}

/// Alerts, newest first; only open ones if asked.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    only_open: bool,
    window: &Window,
) -> Result<Page<Alert>, StoreError> {
    let query = sqlx::query(
        "SELECT * FROM alerts WHERE project = $1 AND ($2 = 0 OR closed_at IS NULL) AND ($3 = '' OR alert_id < $3) \
         ORDER BY alert_id DESC LIMIT $4",
    );
    let query = query.bind(project.as_str()).bind(i64::from(only_open));
    let query = query.bind(window.after.clone().unwrap_or_default()).bind(window.limit);
    let rows = query.fetch_all(&mut *conn).await.during("list alerts")?;
    let count = sqlx::query_scalar(
        "SELECT COUNT(*) FROM alerts WHERE project = $1 AND ($2 = 0 OR closed_at IS NULL)",
    );
    let total = count.bind(project.as_str()).bind(i64::from(only_open)).fetch_one(conn).await;
    Ok(Page { items: all(rows, read)?, total: total.during("count alerts")? })
}

/// Devices that drifted in a model, each for itself, at any moment of the time `span`, and since when. A drift of many
/// devices at once is the fleet's alert and names none.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn drifting_alone(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    span: (UnixMillis, UnixMillis),
) -> Result<BTreeMap<DeviceId, UnixMillis>, StoreError> {
    let query = sqlx::query(
        "SELECT device, opened_at FROM alerts WHERE project = $1 AND model = $2 AND kind = 'drift' \
         AND device IS NOT NULL AND opened_at <= $3 AND (closed_at IS NULL OR closed_at >= $4) \
         ORDER BY opened_at DESC",
    );
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(span.1.0).bind(span.0.0);
    let rows = query.fetch_all(conn).await.during("look for devices that drift")?;
    // The newest comes first: of a device's alerts the earliest is the one that stays in the map.
    rows.iter().map(|row| Ok((row.id("device")?, row.millis("opened_at")?))).collect()
}

fn read(row: &AnyRow) -> Result<Alert, StoreError> {
    Ok(Alert {
        alert_id: row.text("alert_id")?,
        kind: row.text("kind")?,
        severity: row.id("severity")?,
        device: row.id_opt("device")?,
        model: row.id_opt("model")?,
        rollout: row.id_opt("rollout")?,
        message: row.text("message")?,
        details: row.json("details")?,
        opened_at: row.millis("opened_at")?,
        updated_at: row.millis("updated_at")?,
        closed_at: row.millis_opt("closed_at")?,
        acknowledged_at: row.millis_opt("acknowledged_at")?,
        acknowledged_by: row.text_opt("acknowledged_by")?,
    })
}
