//! Audit rows.

use protocol::{ProjectId, UnixMillis};
use serde_json::Value;
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, to_json};
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

/// Rows of one project, newest first; `None` for those of the whole server.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: Option<&ProjectId>,
    window: &Window,
) -> Result<Page<AuditRow>, StoreError> {
    // '' is no project's name: it stands for the rows of the whole server.
    let project = project.map_or("", ProjectId::as_str);
    let rows = sqlx::query(
        "SELECT * FROM audit WHERE COALESCE(project, '') = $1 AND ($2 = '' OR audit_id < $2) \
         ORDER BY audit_id DESC LIMIT $3",
    )
    .bind(project)
    .bind(window.after.as_deref().unwrap_or(""))
    .bind(window.limit)
    .fetch_all(&mut *conn)
    .await
    .during("list audit rows")?;
    let total =
        sqlx::query_scalar("SELECT COUNT(*) FROM audit WHERE COALESCE(project, '') = $1").bind(project);
    let total = total.fetch_one(conn).await.during("count audit rows")?;
    Ok(Page { items: all(rows, read)?, total })
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
