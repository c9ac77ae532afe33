//! Numbers over everything, for the overview and for Prometheus.

use protocol::{ModelName, ProjectId, RolloutId, Version};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all};
use super::{Conn, StoreError};

/// A rollout that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningRollout {
    /// Its id.
    pub rollout: RolloutId,
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub version: Version,
    /// Its state's name.
    pub state_name: String,
}

/// Numbers over all projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Devices in service.
    pub devices: i64,
    /// Connected ones.
    pub online: i64,
    /// Rollouts that have not ended.
    pub rollouts: i64,
    /// Open alerts.
    pub alerts: i64,
}

/// Rollouts of a project that have not ended, newest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn running_rollouts(
    conn: &mut Conn,
    project: &ProjectId,
) -> Result<Vec<RunningRollout>, StoreError> {
    let query = sqlx::query(
        "SELECT rollout, model, version, state_name FROM rollouts WHERE project = $1 AND is_terminal = 0 \
         ORDER BY created_at DESC, rollout",
    );
    let rows = query.bind(project.as_str()).fetch_all(conn).await.during("list running rollouts")?;
    let read = |row: &AnyRow| {
        Ok(RunningRollout {
            rollout: row.id("rollout")?,
            model: row.id("model")?,
            version: row.id("version")?,
            state_name: row.text("state_name")?,
        })
    };
    all(rows, read)
}

/// Numbers over all projects.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn totals(conn: &mut Conn) -> Result<Totals, StoreError> {
    let query = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM devices WHERE decommissioned_at IS NULL) AS devices, \
         (SELECT COUNT(*) FROM devices WHERE is_online = 1) AS online, \
         (SELECT COUNT(*) FROM rollouts WHERE is_terminal = 0) AS rollouts, \
         (SELECT COUNT(*) FROM alerts WHERE closed_at IS NULL) AS alerts",
    );
    let row = query.fetch_one(conn).await.during("count everything")?;
    Ok(Totals {
        devices: row.int("devices")?,
        online: row.int("online")?,
        rollouts: row.int("rollouts")?,
        alerts: row.int("alerts")?,
    })
}
