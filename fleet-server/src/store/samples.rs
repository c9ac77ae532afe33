//! Captured samples and those on their way; the bytes are in [`crate::blobs`].

use protocol::sample::{SampleHead, Strategy};
use protocol::{DeviceId, Digest, ModelName, ProjectId, UnixMillis, Version};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, as_int, to_json};
use super::{Conn, Page, StoreError, Window};

/// What a sample costs of a device's room beside its bytes, so that many small ones cost too.
pub const OVERHEAD_BYTES: u64 = 4096;

/// Where a sample belongs. Two devices that send the same bytes have two samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleKey {
    /// Tenant.
    pub project: ProjectId,
    /// Who sent it.
    pub device: DeviceId,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// A stored sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Sorts by arrival.
    pub sample_id: String,
    /// Whose it is.
    pub key: SampleKey,
    /// All but the values.
    pub head: SampleHead,
    /// Its size.
    pub size_bytes: u64,
    /// When it was stored.
    pub received_at: UnixMillis,
    /// When it is deleted.
    pub expires_at: UnixMillis,
}

/// A sample on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Bytes that it will have.
    pub size_bytes: u64,
    /// Bytes that are here.
    pub got_bytes: u64,
}

/// Which samples of a model; empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this version.
    pub version: Option<Version>,
    /// Kept for this reason.
    pub strategy: Option<Strategy>,
    /// From this device.
    pub device: Option<DeviceId>,
}

/// Adds a sample; a conflict when it is there already.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn insert(conn: &mut Conn, sample: &Sample) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO samples (sample_id, project, device, digest, model, version, strategy, head, size_bytes, \
         received_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(sample.sample_id.as_str())
    .bind(sample.key.project.as_str())
    .bind(sample.key.device.as_str())
    .bind(sample.key.digest.to_hex())
    .bind(sample.head.model.as_str())
    .bind(sample.head.version.as_str())
    .bind(sample.head.strategy.as_str())
    .bind(to_json(&sample.head))
    .bind(as_int(sample.size_bytes))
    .bind(sample.received_at.0)
    .bind(sample.expires_at.0)
    .execute(conn)
    .await
    .during("add a sample")?;
    Ok(())
}

/// Whether a sample is stored.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn exists(conn: &mut Conn, key: &SampleKey) -> Result<bool, StoreError> {
    let query = sqlx::query("SELECT 1 FROM samples WHERE project = $1 AND device = $2 AND digest = $3");
    let row = keyed(query, key).fetch_optional(conn).await;
    Ok(row.during("look for a sample")?.is_some())
}

/// Forgets a sample; returns whether it was there.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn delete(conn: &mut Conn, key: &SampleKey) -> Result<bool, StoreError> {
    let query = sqlx::query("DELETE FROM samples WHERE project = $1 AND device = $2 AND digest = $3");
    let done = keyed(query, key).execute(conn).await;
    Ok(done.during("delete a sample")?.rows_affected() > 0)
}

/// Room that a device's samples take, those on their way included.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn room_bytes(conn: &mut Conn, project: &ProjectId, device: &DeviceId) -> Result<u64, StoreError> {
    let query = sqlx::query(
        "SELECT CAST(COALESCE(SUM(size_bytes + $3), 0) AS BIGINT) AS room_bytes FROM (\
         SELECT size_bytes FROM samples WHERE project = $1 AND device = $2 UNION ALL \
         SELECT size_bytes FROM sample_uploads WHERE project = $1 AND device = $2) AS held",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(as_int(OVERHEAD_BYTES));
    query.fetch_one(conn).await.during("add up samples")?.count("room_bytes")
}

/// Samples of a model, newest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    wanted: &Wanted,
    window: &Window,
) -> Result<Page<Sample>, StoreError> {
    let query = sqlx::query(
        "SELECT * FROM samples WHERE project = $1 AND model = $2 AND ($3 = '' OR version = $3) \
         AND ($4 = '' OR strategy = $4) AND ($5 = '' OR device = $5) AND ($6 = '' OR sample_id < $6) \
         ORDER BY sample_id DESC LIMIT $7",
    );
    let [version, strategy, device] = wanted.texts();
    let query = query.bind(project.as_str()).bind(model.as_str());
    let query = query.bind(version.clone()).bind(strategy.clone()).bind(device.clone());
    let query = query.bind(window.after.clone().unwrap_or_default()).bind(window.limit);
    let rows = query.fetch_all(&mut *conn).await.during("list samples")?;
    let count = sqlx::query_scalar(
        "SELECT COUNT(*) FROM samples WHERE project = $1 AND model = $2 AND ($3 = '' OR version = $3) \
         AND ($4 = '' OR strategy = $4) AND ($5 = '' OR device = $5)",
    );
    let count = count.bind(project.as_str()).bind(model.as_str()).bind(version).bind(strategy).bind(device);
    Ok(Page { items: all(rows, read)?, total: count.fetch_one(conn).await.during("count samples")? })
}

/// Samples whose time is over, the oldest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn expired(conn: &mut Conn, now: UnixMillis, limit: i64) -> Result<Vec<SampleKey>, StoreError> {
    let query = sqlx::query(
        "SELECT project, device, digest FROM samples WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
    );
    let rows = query.bind(now.0).bind(limit).fetch_all(conn).await.during("look for old samples")?;
    all(rows, read_key)
}

/// Notes that a sample is about to come; one of another size under the same name begins anew.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn begin_upload(
    conn: &mut Conn,
    key: &SampleKey,
    size_bytes: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO sample_uploads (project, device, digest, size_bytes, got_bytes, updated_at) \
         VALUES ($1, $2, $3, $4, 0, $5) ON CONFLICT (project, device, digest) \
         DO UPDATE SET size_bytes = $4, got_bytes = 0, updated_at = $5",
    );
    let done = keyed(query, key).bind(as_int(size_bytes)).bind(now.0).execute(conn).await;
    done.during("begin a sample").map(drop)
}

/// What is here of a sample on its way.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn upload(conn: &mut Conn, key: &SampleKey) -> Result<Option<Upload>, StoreError> {
    let query = sqlx::query(
        "SELECT size_bytes, got_bytes FROM sample_uploads WHERE project = $1 AND device = $2 AND digest = $3",
    );
    let row = keyed(query, key).fetch_optional(conn).await.during("look for a sample on its way")?;
    let read =
        |row: AnyRow| Ok(Upload { size_bytes: row.count("size_bytes")?, got_bytes: row.count("got_bytes")? });
    row.map(read).transpose()
}

/// Notes the next part; returns false when another one was noted meanwhile.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn advance_upload(
    conn: &mut Conn,
    key: &SampleKey,
    from_bytes: u64,
    to_bytes: u64,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE sample_uploads SET got_bytes = $5, updated_at = $6 \
         WHERE project = $1 AND device = $2 AND digest = $3 AND got_bytes = $4",
    );
    let query = keyed(query, key).bind(as_int(from_bytes)).bind(as_int(to_bytes)).bind(now.0);
    Ok(query.execute(conn).await.during("note a sample's part")?.rows_affected() > 0)
}

/// Notes that a sample is at work on, so that nobody gives it up as stale; returns false when that was done already.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn touch_upload(
    conn: &mut Conn,
    key: &SampleKey,
    size_bytes: u64,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE sample_uploads SET updated_at = $5 \
         WHERE project = $1 AND device = $2 AND digest = $3 AND size_bytes = $4",
    );
    let query = keyed(query, key).bind(as_int(size_bytes)).bind(now.0);
    Ok(query.execute(conn).await.during("keep a sample on its way")?.rows_affected() > 0)
}

/// Forgets a sample on its way if still nothing has come since `before`; returns whether it did. Until the
/// transaction ends, whoever goes on with it waits.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn end_stale_upload(
    conn: &mut Conn,
    key: &SampleKey,
    before: UnixMillis,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "DELETE FROM sample_uploads WHERE project = $1 AND device = $2 AND digest = $3 AND updated_at < $4",
    );
    let done = keyed(query, key).bind(before.0).execute(conn).await;
    Ok(done.during("give a stale sample up")?.rows_affected() > 0)
}

/// Forgets a sample on its way.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn end_upload(conn: &mut Conn, key: &SampleKey) -> Result<(), StoreError> {
    let query = sqlx::query("DELETE FROM sample_uploads WHERE project = $1 AND device = $2 AND digest = $3");
    keyed(query, key).execute(conn).await.during("end a sample's upload").map(drop)
}

/// Samples on their way of which nothing came since `before`, with their sizes.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn stale_uploads(
    conn: &mut Conn,
    before: UnixMillis,
    limit: i64,
) -> Result<Vec<(SampleKey, u64)>, StoreError> {
    let query = sqlx::query(
        "SELECT project, device, digest, size_bytes FROM sample_uploads WHERE updated_at < $1 ORDER BY updated_at LIMIT $2",
    );
    let rows = query.bind(before.0).bind(limit).fetch_all(conn).await.during("look for stale samples")?;
    all(rows, |row| Ok((read_key(row)?, row.count("size_bytes")?)))
}

impl Wanted {
    fn texts(&self) -> [String; 3] {
        let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
        [
            text(self.version.as_ref().map(Version::as_str)),
            text(self.strategy.map(Strategy::as_str)),
            text(self.device.as_ref().map(DeviceId::as_str)),
        ]
    }
}

type Query<'a> = sqlx::query::Query<'a, sqlx::Any, sqlx::any::AnyArguments>;

fn keyed<'a>(query: Query<'a>, key: &'a SampleKey) -> Query<'a> {
    query.bind(key.project.as_str()).bind(key.device.as_str()).bind(key.digest.to_hex())
}

fn read_key(row: &AnyRow) -> Result<SampleKey, StoreError> {
    Ok(SampleKey { project: row.id("project")?, device: row.id("device")?, digest: row.id("digest")? })
}

fn read(row: &AnyRow) -> Result<Sample, StoreError> {
    Ok(Sample {
        sample_id: row.text("sample_id")?,
        key: read_key(row)?,
        head: row.json("head")?,
        size_bytes: row.count("size_bytes")?,
        received_at: row.millis("received_at")?,
        expires_at: row.millis("expires_at")?,
    })
}
