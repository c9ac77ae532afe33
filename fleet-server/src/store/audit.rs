//! Audit rows.

use protocol::{ProjectId, UnixMillis};
use serde_json::Value;
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, to_json};
use super::sql::Sql;
use super::{Conn, Page, StoreError, Window};
use crate::domain::audit::Change;

/// A stored row.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Sorts by time.
    pub audit_id: String,
    /// When.
    pub at: UnixMillis,
    /// Where; `None` for the whole server.
    pub project: Option<ProjectId>,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// Kind of object.
    pub object_kind: String,
    /// Which object.
    pub object: String,
    /// The object before.
    pub before: Option<Value>,
    /// The object after.
    pub after: Option<Value>,
}

/// Adds a row.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert(conn: &mut Conn, audit_id: &str, change: &Change<'_>) -> Result<(), StoreError> {
    let value = |value: &Value| (!value.is_null()).then(|| to_json(value));
    sqlx::query(
        "INSERT INTO audit (audit_id, at, project, actor, action, object_kind, object, value_before, value_after) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(audit_id)
    .bind(change.at.0)
    .bind(change.project.map(|p| p.as_str().to_owned()))
    .bind(change.actor)
    .bind(change.action)
    .bind(change.object_kind)
    .bind(change.object)
    .bind(value(&change.before))
    .bind(value(&change.after))
    .execute(conn)
    .await
    .during("add an audit row")?;
    Ok(())
}

/// Which rows; what is left out is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Who, exactly.
    pub actor: Option<String>,
    /// Beginning of what was done, e.g. `rollout.` or `rollout.pause`.
    pub action: Option<String>,
    /// Which object, exactly.
    pub object: Option<String>,
    /// At this time or later.
    pub since: Option<UnixMillis>,
}

/// Rows of one project, newest first; `None` for those of the whole server.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    filter: &Filter,
    window: &Window,
) -> Result<Page<AuditRow>, StoreError> {
    let mut rows = wanted("SELECT * FROM audit WHERE COALESCE(project, '') = ", project, filter);
    if let Some(after) = &window.after {
        rows.push(" AND audit_id < ").bind(after.clone());
    }
    rows.push(" ORDER BY audit_id DESC LIMIT ").bind(window.limit);
    let rows = rows.query().fetch_all(&mut *conn).await.during("list audit rows")?;
    let total = wanted("SELECT COUNT(*) AS total FROM audit WHERE COALESCE(project, '') = ", project, filter);
    let total = total.query().fetch_one(conn).await.during("count audit rows")?.int("total")?;
    Ok(Page { items: all(rows, read)?, total })
}

fn wanted(select: &'static str, project: Option<&ProjectId>, filter: &Filter) -> Sql {
    let mut sql = Sql::new(select);
    // '' is no project's name: it stands for the rows of the whole server.
    sql.bind(project.map_or("", ProjectId::as_str).to_owned());
    if let Some(actor) = &filter.actor {
        sql.push(" AND actor = ").bind(actor.clone());
    }
    if let Some(action) = &filter.action {
        let characters = i64::try_from(action.chars().count()).unwrap_or(i64::MAX);
        sql.push(" AND SUBSTR(action, 1, CAST(")
            .bind(characters)
            .push(" AS INTEGER)) = ")
            .bind(action.clone());
    }
    if let Some(object) = &filter.object {
        sql.push(" AND object = ").bind(object.clone());
    }
    if let Some(since) = filter.since {
        sql.push(" AND at >= ").bind(since.0);
    }
    sql
}

fn read(row: &AnyRow) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        audit_id: row.text("audit_id")?,
        at: row.millis("at")?,
        project: row.id_opt("project")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        object_kind: row.text("object_kind")?,
        object: row.text("object")?,
        before: row.json_opt("value_before")?,
        after: row.json_opt("value_after")?,
    })
}
