//! Log lines that devices sent because somebody asked for them.

use protocol::{DeviceId, ProjectId, StreamId, UnixMillis};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all};
use super::{Conn, Page, StoreError, Window, arrival};

/// What one command brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The command that asked for it.
    pub command_id: String,
    /// Its stream.
    pub stream: StreamId,
    /// Position in the stream.
    pub seq: u64,
    /// Newest last.
    pub lines: Vec<String>,
    /// The server's clock.
    pub received_at: UnixMillis,
}

/// A device's uploads, newest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    window: &Window,
) -> Result<Page<Upload>, StoreError> {
    let (before, before_stream, before_seq) = arrival::before(window);
    let rows = sqlx::query(
        "SELECT * FROM device_logs WHERE project = $1 AND device = $2 \
         AND (received_at < $3 OR (received_at = $3 AND (stream < $4 OR (stream = $4 AND seq < $5)))) \
         ORDER BY received_at DESC, stream DESC, seq DESC LIMIT $6",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(before)
    .bind(before_stream)
    .bind(before_seq)
    .bind(window.limit)
    .fetch_all(&mut *conn)
    .await
    .during("list log lines")?;
    let total = sqlx::query_scalar("SELECT COUNT(*) FROM device_logs WHERE project = $1 AND device = $2")
        .bind(project.as_str())
        .bind(device.as_str())
        .fetch_one(conn)
        .await
        .during("count uploads of log lines")?;
    Ok(Page { items: all(rows, read)?, total })
}

/// The key of an upload in a list's cursor.
pub fn key(upload: &Upload) -> String {
    arrival::key(upload.received_at, &upload.stream, upload.seq)
}

fn read(row: &AnyRow) -> Result<Upload, StoreError> {
    Ok(Upload {
        command_id: row.text("command_id")?,
        stream: row.id("stream")?,
        seq: row.count("seq")?,
        lines: row.json("lines")?,
        received_at: row.millis("received_at")?,
    })
}
