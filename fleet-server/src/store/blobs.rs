//! Which blobs there are and which project may read them; the bytes are in [`crate::blobs`].

use std::collections::BTreeSet;

use protocol::{Digest, ProjectId, UnixMillis};

use super::error::During;
use super::row::{Columns, all, as_int};
use super::{Conn, StoreError};

/// Notes a stored blob and that a project asked for it now; safe to repeat. The blob's row is held until the end of the
/// transaction.
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
    // Not DO NOTHING: that would not hold a row that is there already.
    sqlx::query(
        "INSERT INTO blobs (digest, size_bytes, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (digest) DO UPDATE SET size_bytes = excluded.size_bytes",
    )
    .bind(digest.to_hex())
    .bind(as_int(size_bytes))
    .bind(now.0)
    .execute(&mut *conn)
    .await
    .during("note a blob")?;
    sqlx::query(
        "INSERT INTO blob_refs (project, digest, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (project, digest) DO UPDATE SET created_at = excluded.created_at",
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

/// When a project last asked for a blob; `None` when it does not refer to it.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn asked_at(
    conn: &mut Conn,
    project: &ProjectId,
    digest: &Digest,
) -> Result<Option<UnixMillis>, StoreError> {
    let query = sqlx::query("SELECT created_at FROM blob_refs WHERE project = $1 AND digest = $2");
    let row = query.bind(project.as_str()).bind(digest.to_hex()).fetch_optional(conn).await;
    row.during("look for a blob's project")?.map(|row| row.millis("created_at")).transpose()
}

/// Notes that a project asked for a blob now; `false` when it does not refer to it.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn renew(
    conn: &mut Conn,
    project: &ProjectId,
    digest: &Digest,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let query = sqlx::query("UPDATE blob_refs SET created_at = $3 WHERE project = $1 AND digest = $2");
    let done = query.bind(project.as_str()).bind(digest.to_hex()).bind(now.0).execute(conn).await;
    Ok(done.during("renew a blob's project")?.rows_affected() > 0)
}

/// Blobs that a project last asked for before this.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn asked_before(
    conn: &mut Conn,
    project: &ProjectId,
    before: UnixMillis,
) -> Result<BTreeSet<Digest>, StoreError> {
    let query = sqlx::query("SELECT digest FROM blob_refs WHERE project = $1 AND created_at < $2");
    let rows = query.bind(project.as_str()).bind(before.0).fetch_all(conn).await;
    Ok(all(rows.during("list a project's old blobs")?, |row| row.id("digest"))?.into_iter().collect())
}

/// Takes a blob from a project, unless it asked for it since; returns whether it was taken.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn forget(
    conn: &mut Conn,
    project: &ProjectId,
    digest: &Digest,
    before: UnixMillis,
) -> Result<bool, StoreError> {
    let query = sqlx::query("DELETE FROM blob_refs WHERE project = $1 AND digest = $2 AND created_at < $3");
    let done = query.bind(project.as_str()).bind(digest.to_hex()).bind(before.0).execute(conn).await;
    Ok(done.during("forget a project's blob")?.rows_affected() > 0)
}

/// Notes bytes that are here although no row says so: an upload ended between the two.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn adopt(
    conn: &mut Conn,
    digest: &Digest,
    size_bytes: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO blobs (digest, size_bytes, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    );
    let query = query.bind(digest.to_hex()).bind(as_int(size_bytes)).bind(now.0);
    query.execute(conn).await.during("note a blob that was found")?;
    Ok(())
}

/// Every blob that has a row.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn known(conn: &mut Conn) -> Result<BTreeSet<Digest>, StoreError> {
    let rows = sqlx::query("SELECT digest FROM blobs").fetch_all(conn).await.during("list blobs")?;
    Ok(all(rows, |row| row.id("digest"))?.into_iter().collect())
}

/// Blobs from before this that no project refers to.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn orphans(conn: &mut Conn, before: UnixMillis) -> Result<Vec<Digest>, StoreError> {
    let query = sqlx::query(
        "SELECT digest FROM blobs WHERE created_at < $1 \
         AND NOT EXISTS (SELECT 1 FROM blob_refs r WHERE r.digest = blobs.digest) ORDER BY digest",
    );
    let rows = query.bind(before.0).fetch_all(conn).await.during("look for blobs that nothing names")?;
    all(rows, |row| row.id("digest"))
}

/// Deletes a blob's row if no project refers to it, and holds its place until the end of the transaction: who uploads the
/// same blob meanwhile waits here before it is noted. Returns whether it was deleted.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete_orphan(conn: &mut Conn, digest: &Digest) -> Result<bool, StoreError> {
    // First the row, then the question: on PostgreSQL a statement sees only what was committed before it began.
    let hold = sqlx::query("UPDATE blobs SET size_bytes = size_bytes WHERE digest = $1");
    hold.bind(digest.to_hex()).execute(&mut *conn).await.during("hold a blob")?;
    let query = sqlx::query(
        "DELETE FROM blobs WHERE digest = $1 \
         AND NOT EXISTS (SELECT 1 FROM blob_refs r WHERE r.digest = blobs.digest)",
    );
    let done = query.bind(digest.to_hex()).execute(conn).await;
    Ok(done.during("delete a blob that nothing names")?.rows_affected() > 0)
}
