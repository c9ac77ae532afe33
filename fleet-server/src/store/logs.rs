//! Log lines that devices sent because somebody asked for them.

use protocol::{DeviceId, ProjectId, StreamId, UnixMillis};
use sqlx::any::AnyRow;

use super::row::Columns;
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
    arrival::page(conn, ("device_logs", "list log lines"), (project, device), window, read).await
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
