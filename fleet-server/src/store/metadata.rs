//! Signed metadata byte for byte, signed targets, and the server's sealed online keys.

use protocol::{Digest, ProjectId, UnixMillis};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all};
use super::{Conn, StoreError};

/// One version of one TUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataFile {
    /// The role, e.g. `root`, `targets`, `digits`.
    pub name: String,
    /// The role's version.
    pub version: u64,
    /// The file's exact bytes.
    pub bytes: Vec<u8>,
    /// When it expires.
    pub expires_at: UnixMillis,
    /// When it was stored.
    pub stored_at: UnixMillis,
    /// Who stored it; `server` for what the server signed itself.
    pub stored_by: String,
}

/// A key that the server made itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlineKey {
    /// `snapshot`, `timestamp` or `director`.
    pub role: String,
    /// Ed25519 public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// The seed, sealed by the key file in the data folder.
    pub sealed_seed: Vec<u8>,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// Adds a version of a file; does nothing when the very same version with the very same bytes is there.
///
/// # Errors
/// [`StoreError`] when the version is there with other bytes, or is none that the database can hold, or it refuses.
pub async fn insert(conn: &mut Conn, project: &ProjectId, file: &MetadataFile) -> Result<(), StoreError> {
    let taken = || StoreError::Taken { what: format!("version {} of {}.json", file.version, file.name) };
    let version = i64::try_from(file.version).map_err(|_| StoreError::Corrupt {
        column: "version".into(),
        why: format!("{} of {}.json is more than it holds", file.version, file.name),
    })?;
    let done = sqlx::query(
        "INSERT INTO metadata (project, name, version, bytes, expires_at, stored_at, stored_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(file.name.as_str())
    .bind(version)
    .bind(file.bytes.clone())
    .bind(file.expires_at.0)
    .bind(file.stored_at.0)
    .bind(file.stored_by.as_str())
    .execute(&mut *conn)
    .await
    .during("add signed metadata")?;
    if done.rows_affected() > 0 {
        return Ok(());
    }
    // Nothing that was called published may be missing afterwards.
    let stored = get(conn, project, &file.name, file.version).await?;
    if stored.is_some_and(|stored| stored.bytes == file.bytes) { Ok(()) } else { Err(taken()) }
}

/// The newest version of a role's file.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn newest(
    conn: &mut Conn,
    project: &ProjectId,
    name: &str,
) -> Result<Option<MetadataFile>, StoreError> {
    let query =
        sqlx::query("SELECT * FROM metadata WHERE project = $1 AND name = $2 ORDER BY version DESC LIMIT 1");
    let row =
        query.bind(project.as_str()).bind(name).fetch_optional(conn).await.during("read signed metadata")?;
    row.as_ref().map(read).transpose()
}

/// One version of a role's file.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(
    conn: &mut Conn,
    project: &ProjectId,
    name: &str,
    version: u64,
) -> Result<Option<MetadataFile>, StoreError> {
    let Ok(version) = i64::try_from(version) else { return Ok(None) };
    let query = sqlx::query("SELECT * FROM metadata WHERE project = $1 AND name = $2 AND version = $3");
    let query = query.bind(project.as_str()).bind(name).bind(version);
    query.fetch_optional(conn).await.during("read signed metadata")?.as_ref().map(read).transpose()
}

/// The newest version of every role's file, by name.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn all_newest(conn: &mut Conn, project: &ProjectId) -> Result<Vec<MetadataFile>, StoreError> {
    let query = sqlx::query(
        "SELECT * FROM metadata m WHERE project = $1 AND version = \
         (SELECT MAX(version) FROM metadata x WHERE x.project = m.project AND x.name = m.name) ORDER BY name",
    );
    all(query.bind(project.as_str()).fetch_all(conn).await.during("list signed metadata")?, read)
}

/// Adds a signed target's bytes under its path and digest; does nothing when they are there.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert_target(
    conn: &mut Conn,
    project: &ProjectId,
    path: &str,
    digest: &Digest,
    bytes: &[u8],
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO targets (project, path, digest, bytes, stored_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(path)
    .bind(digest.to_hex())
    .bind(bytes.to_vec())
    .bind(now.0)
    .execute(conn)
    .await
    .during("add a signed target")?;
    Ok(())
}

/// A signed target's bytes.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn target(
    conn: &mut Conn,
    project: &ProjectId,
    path: &str,
    digest: &Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    let query = sqlx::query("SELECT bytes FROM targets WHERE project = $1 AND path = $2 AND digest = $3");
    let query = query.bind(project.as_str()).bind(path).bind(digest.to_hex());
    let row = query.fetch_optional(conn).await.during("read a signed target")?;
    row.map(|row| row.bytes("bytes")).transpose()
}

/// The bytes with this digest, whichever path they are signed under.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn target_by_digest(
    conn: &mut Conn,
    project: &ProjectId,
    digest: &Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    let query = sqlx::query("SELECT bytes FROM targets WHERE project = $1 AND digest = $2 LIMIT 1");
    let query = query.bind(project.as_str()).bind(digest.to_hex());
    let row = query.fetch_optional(conn).await.during("read a signed target by its digest")?;
    row.map(|row| row.bytes("bytes")).transpose()
}

/// The server's key of a role.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn online_key(
    conn: &mut Conn,
    project: &ProjectId,
    role: &str,
) -> Result<Option<OnlineKey>, StoreError> {
    let query = sqlx::query("SELECT * FROM online_keys WHERE project = $1 AND role = $2");
    let row =
        query.bind(project.as_str()).bind(role).fetch_optional(conn).await.during("read an online key")?;
    row.as_ref().map(read_key).transpose()
}

/// Adds a key; does nothing when the role has one, so that of two makers at once one wins.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert_online_key(
    conn: &mut Conn,
    project: &ProjectId,
    key: &OnlineKey,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO online_keys (project, role, public_key, sealed_seed, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(key.role.as_str())
    .bind(key.public_key.clone())
    .bind(key.sealed_seed.clone())
    .bind(key.created_at.0)
    .execute(conn)
    .await
    .during("add an online key")?;
    Ok(())
}

/// Removes a project's keys; returns how many there were.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete_online_keys(conn: &mut Conn, project: &ProjectId) -> Result<u64, StoreError> {
    let query = sqlx::query("DELETE FROM online_keys WHERE project = $1").bind(project.as_str());
    let done = query.execute(conn).await.during("remove the online keys")?;
    Ok(done.rows_affected())
}

fn read(row: &AnyRow) -> Result<MetadataFile, StoreError> {
    Ok(MetadataFile {
        name: row.text("name")?,
        version: row.count("version")?,
        bytes: row.bytes("bytes")?,
        expires_at: row.millis("expires_at")?,
        stored_at: row.millis("stored_at")?,
        stored_by: row.text("stored_by")?,
    })
}

fn read_key(row: &AnyRow) -> Result<OnlineKey, StoreError> {
    Ok(OnlineKey {
        role: row.text("role")?,
        public_key: row.bytes("public_key")?,
        sealed_seed: row.bytes("sealed_seed")?,
        created_at: row.millis("created_at")?,
    })
}
