//! Sessions of the console.

use protocol::UnixMillis;

use super::error::During;
use super::row::Columns;
use super::{Conn, StoreError, users};
use crate::domain::access::{Principal, Proof};

/// Adds a session.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert(
    conn: &mut Conn,
    secret_sha256: &[u8],
    username: &str,
    now: UnixMillis,
    expires_at: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sessions (secret_sha256, username, created_at, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(secret_sha256)
    .bind(username)
    .bind(now.0)
    .bind(expires_at.0)
    .execute(conn)
    .await
    .during("add a session")?;
    Ok(())
}

/// Who holds this session, unless it has expired.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn principal(
    conn: &mut Conn,
    secret_sha256: &[u8],
    now: UnixMillis,
) -> Result<Option<Principal>, StoreError> {
    let query = sqlx::query("SELECT username FROM sessions WHERE secret_sha256 = $1 AND expires_at > $2");
    let row =
        query.bind(secret_sha256).bind(now.0).fetch_optional(&mut *conn).await.during("read a session")?;
    match row {
        Some(row) => users::principal(conn, &row.text("username")?, Proof::Session).await,
        None => Ok(None),
    }
}

/// Ends one session.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete(conn: &mut Conn, secret_sha256: &[u8]) -> Result<(), StoreError> {
    let query = sqlx::query("DELETE FROM sessions WHERE secret_sha256 = $1").bind(secret_sha256);
    query.execute(conn).await.during("end a session")?;
    Ok(())
}

/// Ends all sessions of a user.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete_of_user(conn: &mut Conn, username: &str) -> Result<(), StoreError> {
    let query = sqlx::query("DELETE FROM sessions WHERE username = $1").bind(username);
    query.execute(conn).await.during("end a user's sessions")?;
    Ok(())
}
