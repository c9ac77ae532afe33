//! Telemetry as it arrives: streams with their acknowledged position, panes, log lines. Every insert
//! is safe to repeat: the primary key (project, device, stream, seq) makes a record count once.

use futures_util::{Stream, StreamExt};
use protocol::message::Loss;
use protocol::{DeviceId, Digest, ModelName, ProjectId, StreamId, UnixMillis, Version};
use sqlx::any::AnyRow;

use super::error::During;
use super::packed::{pack, unpack};
use super::row::{Columns, all, as_int, to_json};
use super::{Conn, StoreError};

/// Most streams of a device that are remembered.
pub const MAX_STREAMS: i64 = 32;

/// How far a stream is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// Everything up to and including this sequence number is stored, or was dropped on the device.
    pub upto_seq: u64,
    /// Ranges above it that are stored already, first and last number of each.
    pub ahead: Vec<(u64, u64)>,
    /// Records that the device dropped, in total.
    pub dropped: Vec<Loss>,
}

impl StreamPosition {
    /// Whether nothing of the stream was acknowledged yet.
    pub fn is_new(&self) -> bool {
        self.upto_seq == 0 && self.ahead.is_empty()
    }
}

/// A pane as stored; the body is `profile::Pane` in CBOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaneRow {
    /// Which device.
    pub device: DeviceId,
    /// Its stream.
    pub stream: StreamId,
    /// Position in the stream.
    pub seq: u64,
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub version: Version,
    /// SHA-256 of its manifest.
    pub digest: Digest,
    /// Segment of the data; '' when there is none.
    pub segment: String,
    /// Event time.
    pub window_start: UnixMillis,
    /// Event time.
    pub window_end: UnixMillis,
    /// Inferences counted.
    pub n: u64,
    /// CBOR.
    pub body: Vec<u8>,
    /// The server's clock.
    pub received_at: UnixMillis,
}

/// A stream's position; `None` when nothing of it was ever stored.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn position(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    stream: &StreamId,
) -> Result<Option<StreamPosition>, StoreError> {
    let query = sqlx::query(
        "SELECT upto_seq, ahead, dropped FROM streams WHERE project = $1 AND device = $2 AND stream = $3",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(stream.as_str());
    let row = query.fetch_optional(conn).await.during("read a stream's position")?;
    let read = |row: &AnyRow| {
        Ok(StreamPosition {
            upto_seq: row.count("upto_seq")?,
            ahead: row.json("ahead")?,
            dropped: row.json("dropped")?,
        })
    };
    row.as_ref().map(read).transpose()
}

/// Begins a stream if it is new and holds its row until the end of the transaction, so that two replicas that
/// store records of one stream take turns.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn open_stream(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    stream: &StreamId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO streams (project, device, stream, upto_seq, ahead, dropped, updated_at) \
         VALUES ($1, $2, $3, 0, '[]', '[]', $4) \
         ON CONFLICT (project, device, stream) DO UPDATE SET updated_at = excluded.updated_at",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(stream.as_str()).bind(now.0);
    query.execute(conn).await.during("open a stream")?;
    Ok(())
}

/// Forgets all but the [`MAX_STREAMS`] of a device that were heard last. A device has one stream at a time and begins
/// another when it loses its state. What is stored of a forgotten stream stays, and still counts once.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn trim_streams(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
) -> Result<u64, StoreError> {
    let query = sqlx::query(
        "DELETE FROM streams WHERE project = $1 AND device = $2 AND stream NOT IN \
         (SELECT stream FROM streams WHERE project = $1 AND device = $2 ORDER BY updated_at DESC, stream DESC LIMIT $3)",
    );
    let done = query.bind(project.as_str()).bind(device.as_str()).bind(MAX_STREAMS).execute(conn).await;
    Ok(done.during("forget a device's old streams")?.rows_affected())
}

/// Raises a stream's position (never lowers it) and replaces its losses.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_position(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    stream: &StreamId,
    position: &StreamPosition,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO streams (project, device, stream, upto_seq, ahead, dropped, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (project, device, stream) DO UPDATE SET upto_seq = CASE WHEN streams.upto_seq > excluded.upto_seq \
         THEN streams.upto_seq ELSE excluded.upto_seq END, ahead = excluded.ahead, dropped = excluded.dropped, \
         updated_at = excluded.updated_at",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(stream.as_str())
    .bind(as_int(position.upto_seq))
    .bind(to_json(&position.ahead))
    .bind(to_json(&position.dropped))
    .bind(now.0)
    .execute(conn)
    .await
    .during("raise a stream's position")?;
    Ok(())
}

/// Adds a pane; `false` when it is there already.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn add_pane(conn: &mut Conn, project: &ProjectId, pane: &PaneRow) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO panes (project, device, stream, seq, model, version, digest, segment, window_start, window_end, n, \
         body, received_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(pane.device.as_str())
    .bind(pane.stream.as_str())
    .bind(as_int(pane.seq))
    .bind(pane.model.as_str())
    .bind(pane.version.as_str())
    .bind(pane.digest.to_hex())
    .bind(pane.segment.as_str())
    .bind(pane.window_start.0)
    .bind(pane.window_end.0)
    .bind(as_int(pane.n))
    .bind(pack(&pane.body))
    .bind(pane.received_at.0)
    .execute(conn)
    .await
    .during("add a pane")?;
    Ok(done.rows_affected() > 0)
}

/// Of [`panes`]; a test holds that it reads no more of the table than the span.
pub const PANES_OF_SPAN: &str = "SELECT * FROM panes WHERE project = $1 AND model = $2 AND window_start >= $3 AND window_start < $4 \
     ORDER BY device, window_start, stream, seq";

/// Panes of a model whose window starts in a span of event time, by device and time.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn panes(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    from: UnixMillis,
    to: UnixMillis,
) -> Result<Vec<PaneRow>, StoreError> {
    let query = sqlx::query(PANES_OF_SPAN);
    let query = query.bind(project.as_str()).bind(model.as_str()).bind(from.0).bind(to.0);
    all(query.fetch_all(conn).await.during("list panes")?, read_pane)
}

/// Which panes [`panes_of_releases`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanesWanted {
    /// Tenant.
    pub project: ProjectId,
    /// Which model.
    pub model: ModelName,
    /// SHA-256 of the manifests of two releases, or of one twice.
    pub releases: [Digest; 2],
    /// Segment; '' for all data.
    pub segment: String,
    /// First instant of the span of event time that a pane's window has to lie in.
    pub from: UnixMillis,
    /// First instant after it.
    pub to: UnixMillis,
}

/// Of [`panes_of_releases`]; a test holds that it reads no more of the table than the span, and sorts no panes.
pub const PANES_OF_RELEASES: &str = "SELECT * FROM panes WHERE project = $1 AND model = $2 AND window_start >= $3 AND window_start < $4 \
     AND window_end <= $4 AND digest IN ($5, $6) AND segment = $7 ORDER BY window_start, device, stream, seq";

/// The panes of two releases in a span, one after the other, by time and device: however many there are, few are in
/// memory at once.
pub fn panes_of_releases<'c>(
    conn: &'c mut Conn,
    wanted: &PanesWanted,
) -> impl Stream<Item = Result<PaneRow, StoreError>> + use<'c> {
    let query = sqlx::query(PANES_OF_RELEASES);
    let query = query.bind(wanted.project.as_str().to_owned()).bind(wanted.model.as_str().to_owned());
    let query = query.bind(wanted.from.0).bind(wanted.to.0);
    let query = query.bind(wanted.releases[0].to_hex()).bind(wanted.releases[1].to_hex());
    let rows = query.bind(wanted.segment.clone()).fetch(conn);
    rows.map(|row| read_pane(&row.during("read panes")?))
}

/// Adds log lines that a command asked for.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn add_logs(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    position: (&StreamId, u64),
    logs: &protocol::telemetry::LogLines,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_logs (project, device, stream, seq, command_id, received_at, lines) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(position.0.as_str())
    .bind(as_int(position.1))
    .bind(logs.command_id.as_str())
    .bind(now.0)
    .bind(to_json(&logs.lines))
    .execute(conn)
    .await
    .during("add log lines")?;
    Ok(())
}

fn read_pane(row: &AnyRow) -> Result<PaneRow, StoreError> {
    Ok(PaneRow {
        device: row.id("device")?,
        stream: row.id("stream")?,
        seq: row.count("seq")?,
        model: row.id("model")?,
        version: row.id("version")?,
        digest: row.id("digest")?,
        segment: row.text("segment")?,
        window_start: row.millis("window_start")?,
        window_end: row.millis("window_end")?,
        n: row.count("n")?,
        body: unpack(row.bytes("body")?),
        received_at: row.millis("received_at")?,
    })
}
