//! Deletes old rows, a few at a time, so that writers never wait long. Rows are found without the write lock.

use protocol::UnixMillis;

use super::error::During;
use super::row::{Columns, all};
use super::sql::Sql;
use super::{Conn, Dialect, StoreError};

/// Most rows of one transaction.
pub const BATCH: i64 = 500;

/// Rows that age, each kind by a time of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Panes, by arrival.
    Panes,
    /// Resource readings, by arrival.
    Resources,
    /// Devices' events, by arrival.
    Events,
    /// Log lines that a command asked for, by arrival.
    Logs,
    /// Records that could not be read, by arrival.
    Quarantine,
    /// Streams that their device has left for another one, or that left with their device, by last use.
    Streams,
    /// Drift windows, by their end.
    DriftWindows,
    /// Task reports, by arrival, unless a rollout still has to read them or the device said no hello since.
    TaskReports,
    /// What happened in rollouts that are over, by their end.
    RolloutJournal,
    /// What their gates stood on, by their end.
    Evidence,
    /// Closed alerts, by their closing.
    Alerts,
    /// Enrolment tokens, by use or end.
    EnrollmentTokens,
    /// API tokens, by their end.
    ApiTokens,
    /// Sessions, by their end.
    Sessions,
    /// Audit rows.
    Audit,
}

impl Kind {
    fn table(self) -> &'static str {
        match self {
            Self::Panes => "panes",
            Self::Resources => "resources",
            Self::Events => "device_events",
            Self::Logs => "device_logs",
            Self::Quarantine => "quarantine",
            Self::Streams => "streams",
            Self::DriftWindows => "drift_windows",
            Self::TaskReports => "task_reports",
            Self::RolloutJournal => "rollout_journal",
            Self::Evidence => "evidence",
            Self::Alerts => "alerts",
            Self::EnrollmentTokens => "enrollment_tokens",
            Self::ApiTokens => "api_tokens",
            Self::Sessions => "sessions",
            Self::Audit => "audit",
        }
    }

    /// What makes a row old; `$1` is the time before which it is.
    fn is_old(self) -> &'static str {
        match self {
            Self::Panes | Self::Resources | Self::Events | Self::Logs | Self::Quarantine => {
                "received_at < $1"
            }
            Self::Streams => {
                "updated_at < $1 AND (EXISTS (SELECT 1 FROM streams s WHERE s.project = streams.project \
                 AND s.device = streams.device AND s.updated_at > streams.updated_at) \
                 OR EXISTS (SELECT 1 FROM devices d WHERE d.project = streams.project \
                 AND d.device = streams.device AND d.decommissioned_at < $1))"
            }
            Self::DriftWindows => "window_end < $1",
            Self::TaskReports => {
                "received_at < $1 AND NOT EXISTS (SELECT 1 FROM rollout_tasks t WHERE t.project = task_reports.project \
                 AND t.device = task_reports.device AND t.is_terminal = 0 \
                 AND t.report_counter < task_reports.counter) \
                 AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.project = task_reports.project \
                 AND d.device = task_reports.device AND d.decommissioned_at IS NULL \
                 AND COALESCE(d.hello_at, 0) <= task_reports.received_at)"
            }
            Self::RolloutJournal => {
                "EXISTS (SELECT 1 FROM rollouts r WHERE r.project = rollout_journal.project \
                 AND r.rollout = rollout_journal.rollout AND r.is_terminal = 1 AND r.finished_at < $1)"
            }
            Self::Evidence => {
                "EXISTS (SELECT 1 FROM rollouts r WHERE r.project = evidence.project \
                 AND r.rollout = evidence.rollout AND r.is_terminal = 1 AND r.finished_at < $1)"
            }
            Self::Alerts => "closed_at < $1",
            Self::EnrollmentTokens => "COALESCE(used_at, expires_at) < $1",
            Self::ApiTokens | Self::Sessions => "expires_at < $1",
            Self::Audit => "at < $1",
        }
    }
}

/// A row's place in its table, as this database writes it. It may move; whoever uses it looks again what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

/// At most [`BATCH`] old rows.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn find(
    conn: &mut Conn,
    dialect: Dialect,
    kind: Kind,
    before: UnixMillis,
) -> Result<Vec<Place>, StoreError> {
    let mut sql = Sql::new(match dialect {
        Dialect::Sqlite => "SELECT CAST(rowid AS TEXT) AS place FROM ",
        Dialect::Postgres => "SELECT CAST(ctid AS TEXT) AS place FROM ",
    });
    sql.value(before.0).push(kind.table()).push(" WHERE ").push(kind.is_old()).push(" LIMIT ").bind(BATCH);
    let rows = sql.query().fetch_all(conn).await.during("look for old rows")?;
    all(rows, |row| row.text("place").map(Place))
}

/// Deletes those of the rows that are still old; returns how many.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete(
    conn: &mut Conn,
    dialect: Dialect,
    kind: Kind,
    before: UnixMillis,
    places: &[Place],
) -> Result<u64, StoreError> {
    let (open, close) = match dialect {
        Dialect::Sqlite => (" AND rowid IN (", "CAST(0 AS INTEGER))"),
        Dialect::Postgres => (" AND ctid IN (", "CAST('(0,0)' AS tid))"),
    };
    let mut sql = Sql::new("DELETE FROM ");
    sql.value(before.0).push(kind.table()).push(" WHERE ").push(kind.is_old()).push(open);
    for place in places {
        match dialect {
            Dialect::Sqlite => sql.push("CAST(").bind(place.0.clone()).push(" AS INTEGER), "),
            Dialect::Postgres => sql.push("CAST(CAST(").bind(place.0.clone()).push(" AS TEXT) AS tid), "),
        };
    }
    // Neither database has such a place; it closes the list.
    sql.push(close);
    Ok(sql.query().execute(conn).await.during("delete old rows")?.rows_affected())
}
