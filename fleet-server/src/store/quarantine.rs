//! Records that could not be stored in their tables, kept for people to look at: the beginning of each body, and
//! only the newest of each device, so that no device can fill the disk with what nobody can read.

use protocol::{DeviceId, Digest, ProjectId, StreamId, UnixMillis};
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, as_int};
use super::{Conn, Page, StoreError, Window, arrival};

/// Most bytes of a body that are kept.
pub const MAX_BODY_BYTES: usize = 4096;
/// Most records of a device that are kept; the newest stay.
pub const MAX_RECORDS: i64 = 200;

/// A record that is not in its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Its stream.
    pub stream: StreamId,
    /// Position in the stream.
    pub seq: u64,
    /// What it said it was.
    pub kind: String,
    /// Why it isn't in that table.
    pub why: String,
    /// Size of the whole body.
    pub size_bytes: u64,
    /// SHA-256 of the whole body; `None` for records from before it was written down.
    pub body_sha256: Option<Digest>,
    /// Its first [`MAX_BODY_BYTES`].
    pub body: Vec<u8>,
    /// The server's clock.
    pub received_at: UnixMillis,
}

impl Quarantined {
    /// Keeps the beginning of `body`.
    pub fn new(position: (&StreamId, u64), kind: &str, why: String, body: &[u8], now: UnixMillis) -> Self {
        Self {
            stream: position.0.clone(),
            seq: position.1,
            kind: kind.to_owned(),
            why,
            size_bytes: u64::try_from(body.len()).unwrap_or(u64::MAX),
            body_sha256: Some(Digest::from_bytes(Sha256::digest(body).into())),
            body: body[..body.len().min(MAX_BODY_BYTES)].to_vec(),
            received_at: now,
        }
    }
}

/// Keeps a record; does nothing when it is there already.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn add(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    record: &Quarantined,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO quarantine (project, device, stream, seq, kind, why, body, received_at, size_bytes, body_sha256) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(record.stream.as_str())
    .bind(as_int(record.seq))
    .bind(record.kind.as_str())
    .bind(record.why.as_str())
    .bind(record.body.clone())
    .bind(record.received_at.0)
    .bind(as_int(record.size_bytes))
    .bind(record.body_sha256.map_or_else(String::new, |digest| digest.to_hex()))
    .execute(conn)
    .await
    .during("quarantine a record")?;
    Ok(())
}

/// Deletes all but the newest [`MAX_RECORDS`] of a device.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn trim(conn: &mut Conn, project: &ProjectId, device: &DeviceId) -> Result<u64, StoreError> {
    let query = sqlx::query(
        "DELETE FROM quarantine WHERE project = $1 AND device = $2 AND (stream, seq) NOT IN \
         (SELECT stream, seq FROM quarantine WHERE project = $1 AND device = $2 \
         ORDER BY received_at DESC, stream DESC, seq DESC LIMIT $3)",
    );
    let done = query.bind(project.as_str()).bind(device.as_str()).bind(MAX_RECORDS).execute(conn).await;
    Ok(done.during("keep a device's newest quarantined records")?.rows_affected())
}

/// How many are kept of a device.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn count(conn: &mut Conn, project: &ProjectId, device: &DeviceId) -> Result<i64, StoreError> {
    arrival::count(conn, ("quarantine", "count quarantined records"), (project, device)).await
}

/// A device's records, newest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    window: &Window,
) -> Result<Page<Quarantined>, StoreError> {
    arrival::page(conn, ("quarantine", "list quarantined records"), (project, device), window, read).await
}

/// The key of a record in a list's cursor.
pub fn key(record: &Quarantined) -> String {
    arrival::key(record.received_at, &record.stream, record.seq)
}

fn read(row: &AnyRow) -> Result<Quarantined, StoreError> {
    let body = row.bytes("body")?;
    let (size, digest) = (row.count("size_bytes")?, row.text("body_sha256")?);
    // A row from before these columns holds its whole body.
    let is_whole = digest.is_empty();
    Ok(Quarantined {
        stream: row.id("stream")?,
        seq: row.count("seq")?,
        kind: row.text("kind")?,
        why: row.text("why")?,
        size_bytes: if is_whole { u64::try_from(body.len()).unwrap_or(u64::MAX) } else { size },
        body_sha256: if is_whole { None } else { Some(row.id("body_sha256")?) },
        body,
        received_at: row.millis("received_at")?,
    })
}
