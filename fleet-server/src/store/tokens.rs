//! API tokens.

use protocol::UnixMillis;
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all};
use super::{Conn, StoreError, users};
use crate::domain::access::{Grant, Principal, Proof};

/// An API token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub token_id: String,
    /// Its owner.
    pub username: String,
    /// What it is for.
    pub title: String,
    /// What it is limited to.
    pub limit: Grant,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<UnixMillis>,
}

/// Adds a token.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert(conn: &mut Conn, token: &ApiToken, secret_sha256: &[u8]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_tokens (token_id, secret_sha256, username, title, project, role, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(token.token_id.as_str())
    .bind(secret_sha256)
    .bind(token.username.as_str())
    .bind(token.title.as_str())
    .bind(token.limit.scope.as_str())
    .bind(token.limit.role.as_str())
    .bind(token.created_at.0)
    .bind(token.expires_at.map(|t| t.0))
    .execute(conn)
    .await
    .during("add an API token")?;
    Ok(())
}

/// Who holds this token, unless it has expired. Notes the use at most once a minute.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn principal(
    conn: &mut Conn,
    secret_sha256: &[u8],
    now: UnixMillis,
) -> Result<Option<Principal>, StoreError> {
    let query = sqlx::query("SELECT * FROM api_tokens WHERE secret_sha256 = $1").bind(secret_sha256);
    let Some(row) = query.fetch_optional(&mut *conn).await.during("read an API token")? else {
        return Ok(None);
    };
    let token = read(&row)?;
    if token.expires_at.is_some_and(|end| end <= now) {
        return Ok(None);
    }
    if token.last_used_at.is_none_or(|last| now.millis_since(last) > 60_000) {
        let query = sqlx::query("UPDATE api_tokens SET last_used_at = $2 WHERE token_id = $1");
        let noted = query.bind(token.token_id.as_str()).bind(now.0).execute(&mut *conn).await;
        // The answer doesn't wait for a busy writer: the next use is noted.
        if let Err(e) = noted.during("note the use of an API token") {
            tracing::debug!("{}", crate::supervisor::with_causes(&e));
        }
    }
    let ApiToken { token_id: id, limit, expires_at, .. } = token;
    users::principal(conn, &token.username, Proof::Token { id, limit, expires_at }).await
}

/// A user's tokens; everyone's if `username` is `None`.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(conn: &mut Conn, username: Option<&str>) -> Result<Vec<ApiToken>, StoreError> {
    let query = sqlx::query("SELECT * FROM api_tokens WHERE $1 = '' OR username = $1 ORDER BY token_id");
    let rows = query.bind(username.unwrap_or("")).fetch_all(conn).await;
    all(rows.during("list API tokens")?, read)
}

/// One token.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(conn: &mut Conn, token_id: &str) -> Result<Option<ApiToken>, StoreError> {
    let query = sqlx::query("SELECT * FROM api_tokens WHERE token_id = $1").bind(token_id);
    query.fetch_optional(conn).await.during("read an API token")?.as_ref().map(read).transpose()
}

/// Ends a token.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete(conn: &mut Conn, token_id: &str) -> Result<(), StoreError> {
    let query = sqlx::query("DELETE FROM api_tokens WHERE token_id = $1").bind(token_id);
    query.execute(conn).await.during("end an API token")?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<ApiToken, StoreError> {
    Ok(ApiToken {
        token_id: row.text("token_id")?,
        username: row.text("username")?,
        title: row.text("title")?,
        limit: Grant { scope: row.id("project")?, role: row.id("role")? },
        created_at: row.millis("created_at")?,
        expires_at: row.millis_opt("expires_at")?,
        last_used_at: row.millis_opt("last_used_at")?,
    })
}
