//! Projects.

use protocol::{ProjectId, UnixMillis};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all};
use super::{Conn, StoreError};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name in paths and topics.
    pub project: ProjectId,
    /// Its name for people.
    pub title: String,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// Whether there is such a project.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn exists(conn: &mut Conn, project: &ProjectId) -> Result<bool, StoreError> {
    let query = sqlx::query("SELECT project FROM projects WHERE project = $1").bind(project.as_str());
    Ok(query.fetch_optional(conn).await.during("look for a project")?.is_some())
}

/// One project.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(conn: &mut Conn, project: &ProjectId) -> Result<Option<Project>, StoreError> {
    let query = sqlx::query("SELECT * FROM projects WHERE project = $1").bind(project.as_str());
    query.fetch_optional(conn).await.during("read a project")?.as_ref().map(read).transpose()
}

/// All projects by name.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(conn: &mut Conn) -> Result<Vec<Project>, StoreError> {
    let rows = sqlx::query("SELECT * FROM projects ORDER BY project").fetch_all(conn).await;
    all(rows.during("list projects")?, read)
}

/// Holds a project's row until the end of the transaction, so that publications and re-signing take turns.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn lock(conn: &mut Conn, project: &ProjectId) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE projects SET title = title WHERE project = $1").bind(project.as_str());
    query.execute(conn).await.during("hold a project")?;
    Ok(())
}

/// Adds a project.
///
/// # Errors
/// [`StoreError`] when the database refuses; a conflict when the name is taken.
pub async fn insert(conn: &mut Conn, project: &Project) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO projects (project, title, created_at) VALUES ($1, $2, $3)")
        .bind(project.project.as_str())
        .bind(project.title.as_str())
        .bind(project.created_at.0)
        .execute(conn)
        .await
        .during("add a project")?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Project, StoreError> {
    Ok(Project {
        project: row.id("project")?,
        title: row.text("title")?,
        created_at: row.millis("created_at")?,
    })
}
