//! One-time enrolment tokens; only the hash of the secret is stored.

use std::collections::BTreeMap;

use protocol::{DeviceId, ProjectId, UnixMillis};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, to_json};
use super::{Conn, Page, StoreError, Window};

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentToken {
    /// Its id.
    pub token_id: String,
    /// Tenant of the device to come.
    pub project: ProjectId,
    /// The device's name, if the token fixes it.
    pub device: Option<DeviceId>,
    /// Labels that the device gets.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: UnixMillis,
    /// When it was used.
    pub used_at: Option<UnixMillis>,
    /// Which device used it.
    pub used_by: Option<DeviceId>,
}

/// Adds a token.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert(
    conn: &mut Conn,
    token: &EnrollmentToken,
    secret_sha256: &[u8],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO enrollment_tokens (token_id, project, secret_sha256, device, labels, created_at, created_by, \
         expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(token.token_id.as_str())
    .bind(token.project.as_str())
    .bind(secret_sha256.to_vec())
    .bind(token.device.as_ref().map(ToString::to_string))
    .bind(to_json(&token.labels))
    .bind(token.created_at.0)
    .bind(token.created_by.as_str())
    .bind(token.expires_at.0)
    .execute(conn)
    .await
    .during("add an enrolment token")?;
    Ok(())
}

/// Tokens of a project, newest first, used and unused.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    window: &Window,
) -> Result<Page<EnrollmentToken>, StoreError> {
    let query = sqlx::query(
        "SELECT * FROM enrollment_tokens WHERE project = $1 AND ($2 = '' OR token_id < $2) \
         ORDER BY token_id DESC LIMIT $3",
    );
    let query =
        query.bind(project.as_str()).bind(window.after.clone().unwrap_or_default()).bind(window.limit);
    let rows = query.fetch_all(&mut *conn).await.during("list enrolment tokens")?;
    let total = sqlx::query_scalar("SELECT COUNT(*) FROM enrollment_tokens WHERE project = $1");
    let total = total.bind(project.as_str()).fetch_one(conn).await.during("count enrolment tokens")?;
    Ok(Page { items: all(rows, read)?, total })
}

/// One token of a project.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(
    conn: &mut Conn,
    project: &ProjectId,
    token_id: &str,
) -> Result<Option<EnrollmentToken>, StoreError> {
    let query = sqlx::query("SELECT * FROM enrollment_tokens WHERE project = $1 AND token_id = $2");
    let row = query.bind(project.as_str()).bind(token_id).fetch_optional(conn).await;
    row.during("read an enrolment token")?.as_ref().map(read).transpose()
}

/// The token with this secret, whatever its state.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn by_secret(conn: &mut Conn, secret_sha256: &[u8]) -> Result<Option<EnrollmentToken>, StoreError> {
    let query =
        sqlx::query("SELECT * FROM enrollment_tokens WHERE secret_sha256 = $1").bind(secret_sha256.to_vec());
    let row = query.fetch_optional(conn).await.during("look for an enrolment token")?;
    row.as_ref().map(read).transpose()
}

/// Uses a token up; `false` when it was used before, so that of two enrolments at once only one goes on.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn use_up(
    conn: &mut Conn,
    token_id: &str,
    device: &DeviceId,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE enrollment_tokens SET used_at = $2, used_by = $3 WHERE token_id = $1 AND used_at IS NULL",
    );
    let done = query.bind(token_id).bind(now.0).bind(device.as_str()).execute(conn).await;
    Ok(done.during("use an enrolment token")?.rows_affected() > 0)
}

/// Removes a token.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete(conn: &mut Conn, project: &ProjectId, token_id: &str) -> Result<(), StoreError> {
    let query = sqlx::query("DELETE FROM enrollment_tokens WHERE project = $1 AND token_id = $2");
    let done = query.bind(project.as_str()).bind(token_id).execute(conn).await;
    done.during("remove an enrolment token")?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<EnrollmentToken, StoreError> {
    Ok(EnrollmentToken {
        token_id: row.text("token_id")?,
        project: row.id("project")?,
        device: row.id_opt("device")?,
        labels: row.json("labels")?,
        created_at: row.millis("created_at")?,
        created_by: row.text("created_by")?,
        expires_at: row.millis("expires_at")?,
        used_at: row.millis_opt("used_at")?,
        used_by: row.id_opt("used_by")?,
    })
}
