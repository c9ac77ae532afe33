//! Which blobs there are and which project may read them; the bytes are in [`crate::blobs`].

use protocol::{Digest, ProjectId, UnixMillis};

use super::error::During;
use super::row::{Columns, as_int};
use super::{Conn, StoreError};

/// Notes a stored blob and that a project refers to it; safe to repeat.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert(
    conn: &mut Conn,
    project: &ProjectId,
    digest: &Digest,
    size_bytes: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO blobs (digest, size_bytes, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(digest.to_hex())
    .bind(as_int(size_bytes))
    .bind(now.0)
    .execute(&mut *conn)
    .await
    .during("note a blob")?;
    sqlx::query(
        "INSERT INTO blob_refs (project, digest, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(digest.to_hex())
    .bind(now.0)
    .execute(conn)
    .await
    .during("note a blob's project")?;
    Ok(())
}

/// Size of a blob that the project refers to; `None` when it doesn't, even if another project has it.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn size(conn: &mut Conn, project: &ProjectId, digest: &Digest) -> Result<Option<u64>, StoreError> {
    let query = sqlx::query(
        "SELECT b.size_bytes FROM blobs b JOIN blob_refs r ON r.digest = b.digest \
         WHERE r.project = $1 AND b.digest = $2",
    );
    let query = query.bind(project.as_str()).bind(digest.to_hex());
    let row = query.fetch_optional(conn).await.during("look for a blob")?;
    row.map(|row| row.count("size_bytes")).transpose()
}
