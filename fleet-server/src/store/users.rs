//! Local users and their grants.

use protocol::UnixMillis;
use sqlx::any::AnyRow;

use super::error::During;
use super::row::Columns;
use super::{Conn, StoreError};
use crate::domain::access::{Grant, Principal, Proof, Role, Scope};

/// A local user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name to sign in with.
    pub username: String,
    /// Argon2id in PHC form.
    pub password_hash: String,
    /// Whether the password is a one-time one.
    pub must_change_password: bool,
    /// Whether signing in is switched off.
    pub is_disabled: bool,
    /// When the user was made.
    pub created_at: UnixMillis,
    /// Last change.
    pub updated_at: UnixMillis,
    /// What the user may do where.
    pub grants: Vec<Grant>,
}

impl User {
    /// Whether this user may sign in and manage users.
    pub fn is_admin(&self) -> bool {
        !self.is_disabled && self.grants.iter().any(|g| g.scope == Scope::All && g.role == Role::Admin)
    }
}

/// How many users there are.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn count(conn: &mut Conn) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(conn).await.during("count users")
}

/// One user with grants.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(conn: &mut Conn, username: &str) -> Result<Option<User>, StoreError> {
    let query = sqlx::query("SELECT * FROM users WHERE username = $1").bind(username);
    let Some(row) = query.fetch_optional(&mut *conn).await.during("read a user")? else { return Ok(None) };
    let grants = grants(conn, username).await?;
    read(&row, grants).map(Some)
}

/// All users by name, with grants.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(conn: &mut Conn) -> Result<Vec<User>, StoreError> {
    let rows = sqlx::query("SELECT * FROM users ORDER BY username").fetch_all(&mut *conn).await;
    let mut users = Vec::new();
    for row in rows.during("list users")? {
        let grants = grants(conn, &row.text("username")?).await?;
        users.push(read(&row, grants)?);
    }
    Ok(users)
}

/// Adds a user with grants.
///
/// # Errors
/// [`StoreError`] when the database refuses; a conflict when the name is taken.
pub async fn insert(conn: &mut Conn, user: &User) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO users (username, password_hash, must_change_password, is_disabled, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(user.username.as_str())
    .bind(user.password_hash.as_str())
    .bind(i64::from(user.must_change_password))
    .bind(i64::from(user.is_disabled))
    .bind(user.created_at.0)
    .bind(user.updated_at.0)
    .execute(&mut *conn)
    .await
    .during("add a user")?;
    add_grants(conn, user).await
}

/// Writes everything but name and time of making.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn update(conn: &mut Conn, user: &User) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET password_hash = $2, must_change_password = $3, is_disabled = $4, updated_at = $5 \
         WHERE username = $1",
    )
    .bind(user.username.as_str())
    .bind(user.password_hash.as_str())
    .bind(i64::from(user.must_change_password))
    .bind(i64::from(user.is_disabled))
    .bind(user.updated_at.0)
    .execute(&mut *conn)
    .await
    .during("change a user")?;
    let removed = sqlx::query("DELETE FROM grants WHERE username = $1").bind(user.username.as_str());
    removed.execute(&mut *conn).await.during("remove grants")?;
    add_grants(conn, user).await
}

/// Gives a user the password that they chose themselves. `None`, and nothing is changed, when the user is no longer
/// what `before` was: hashing takes long enough for an admin to disable them or to reset their password.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn change_password(
    conn: &mut Conn,
    before: &User,
    password_hash: &str,
    now: UnixMillis,
) -> Result<Option<User>, StoreError> {
    let query = sqlx::query(
        "UPDATE users SET password_hash = $3, must_change_password = 0, updated_at = $4 \
         WHERE username = $1 AND password_hash = $2 AND is_disabled = 0",
    );
    let query = query.bind(before.username.as_str()).bind(before.password_hash.as_str());
    let changed = query.bind(password_hash).bind(now.0).execute(&mut *conn).await;
    match changed.during("change a password")?.rows_affected() {
        0 => Ok(None),
        _ => get(conn, &before.username).await,
    }
}

/// Holds all users until the end of the transaction, so that changes of who may do what take turns.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn lock(conn: &mut Conn) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE users SET updated_at = updated_at");
    query.execute(conn).await.during("hold the users")?;
    Ok(())
}

/// Removes a user with grants, sessions and tokens.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete(conn: &mut Conn, username: &str) -> Result<(), StoreError> {
    let query = sqlx::query("DELETE FROM users WHERE username = $1").bind(username);
    query.execute(conn).await.during("remove a user")?;
    Ok(())
}

/// The user as someone who asks, unless disabled or gone.
pub(super) async fn principal(
    conn: &mut Conn,
    username: &str,
    proof: Proof,
) -> Result<Option<Principal>, StoreError> {
    let user = get(conn, username).await?.filter(|user| !user.is_disabled);
    Ok(user.map(|user| Principal {
        username: user.username,
        proof,
        must_change_password: user.must_change_password,
        grants: user.grants,
    }))
}

async fn add_grants(conn: &mut Conn, user: &User) -> Result<(), StoreError> {
    for grant in &user.grants {
        sqlx::query("INSERT INTO grants (username, project, role) VALUES ($1, $2, $3)")
            .bind(user.username.as_str())
            .bind(grant.scope.as_str())
            .bind(grant.role.as_str())
            .execute(&mut *conn)
            .await
            .during("add a grant")?;
    }
    Ok(())
}

async fn grants(conn: &mut Conn, username: &str) -> Result<Vec<Grant>, StoreError> {
    let query =
        sqlx::query("SELECT project, role FROM grants WHERE username = $1 ORDER BY project").bind(username);
    let rows = query.fetch_all(conn).await.during("read grants")?;
    rows.iter().map(|row| Ok(Grant { scope: row.id("project")?, role: row.id("role")? })).collect()
}

fn read(row: &AnyRow, grants: Vec<Grant>) -> Result<User, StoreError> {
    Ok(User {
        username: row.text("username")?,
        password_hash: row.text("password_hash")?,
        must_change_password: row.truth("must_change_password")?,
        is_disabled: row.truth("is_disabled")?,
        created_at: row.millis("created_at")?,
        updated_at: row.millis("updated_at")?,
        grants,
    })
}
