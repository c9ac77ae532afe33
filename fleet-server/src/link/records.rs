//! One telemetry record into its table, or into quarantine: either way it is stored and counts as received.

use protocol::telemetry::{DeviceEvent, Kind, LogLines, Record};
use protocol::{DeviceId, Digest, ModelName, ProjectId, StreamId, UnixMillis};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::store::history::{Event, Reading};
use crate::store::telemetry::PaneRow;
use crate::store::{Conn, StoreError, history, releases, telemetry};

/// Whose record it is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) project: &'a ProjectId,
    pub(super) device: &'a DeviceId,
    pub(super) stream: &'a StreamId,
    pub(super) now: UnixMillis,
}

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    InItsTable,
    InQuarantine,
}

/// Stores a record whose sequence number is new.
pub(super) async fn store(conn: &mut Conn, place: Place<'_>, record: &Record) -> Result<Stored, StoreError> {
    let Place { project, device, stream, now } = place;
    let why = match try_store(conn, place, record).await {
        Ok(()) => return Ok(Stored::InItsTable),
        Err(NotStored::Database(error)) => return Err(error),
        Err(why) => why.to_string(),
    };
    let kind = kind_text(record.kind);
    let position = (stream, record.seq);
    telemetry::quarantine(conn, project, device, position, kind, &why, &record.body, now).await?;
    Ok(Stored::InQuarantine)
}

/// Why a record is not in its table. All but the database's own error send it to quarantine.
#[derive(Debug, Error)]
enum NotStored {
    #[error(transparent)]
    Database(#[from] StoreError),
    #[error("the record's body is no {kind}: {why}")]
    Unreadable { kind: &'static str, why: String },
    #[error("no release of {model} has the manifest {digest}")]
    UnknownRelease { model: ModelName, digest: Digest },
    #[error("this server keeps no samples")]
    Sample,
}

async fn try_store(conn: &mut Conn, place: Place<'_>, record: &Record) -> Result<(), NotStored> {
    let Place { project, device, stream, now } = place;
    match record.kind {
        Kind::Pane => return store_pane(conn, place, record).await,
        Kind::Resources => {
            let reading = Reading { at: record.at, received_at: now, resources: read(record)? };
            history::add_reading(conn, project, device, (stream.as_str(), record.seq), &reading).await?;
        }
        Kind::Event => {
            let event: DeviceEvent = read(record)?;
            let event = Event {
                event_id: format!("{stream}:{}", record.seq),
                at: record.at,
                received_at: now,
                name: printable(&event.name, 100),
                detail: printable(&event.detail, 4000),
            };
            history::add_event(conn, project, device, &event).await?;
        }
        Kind::Log => {
            let logs: LogLines = read(record)?;
            let logs = LogLines { command_id: printable(&logs.command_id, 100), lines: logs.lines };
            telemetry::add_logs(conn, project, device, (stream, record.seq), &logs, now).await?;
        }
        Kind::Sample => return Err(NotStored::Sample),
    }
    Ok(())
}

async fn store_pane(conn: &mut Conn, place: Place<'_>, record: &Record) -> Result<(), NotStored> {
    let pane = profile::Pane::decode(&record.body)
        .map_err(|e| NotStored::Unreadable { kind: kind_text(record.kind), why: e.to_string() })?;
    let key = &pane.key;
    let Some(release) = releases::by_digest(conn, place.project, &key.model, &key.digest).await? else {
        return Err(NotStored::UnknownRelease { model: key.model.clone(), digest: key.digest });
    };
    let row = PaneRow {
        device: place.device.clone(),
        stream: place.stream.clone(),
        seq: record.seq,
        model: key.model.clone(),
        version: release.version,
        digest: key.digest,
        segment: printable(&key.segment, usize::MAX),
        window_start: key.start,
        window_end: key.end,
        n: pane.counters.answered,
        body: record.body.to_vec(),
        received_at: place.now,
    };
    telemetry::add_pane(conn, place.project, &row).await?;
    Ok(())
}

fn read<T: DeserializeOwned>(record: &Record) -> Result<T, NotStored> {
    ciborium::de::from_reader_with_recursion_limit(record.body.as_ref(), 16)
        .map_err(|e| NotStored::Unreadable { kind: kind_text(record.kind), why: e.to_string() })
}

/// Text for a column: bounded, and without the zero characters that PostgreSQL refuses.
fn printable(text: &str, max_chars: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(max_chars).collect()
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Pane => "pane",
        Kind::Resources => "resources",
        Kind::Event => "event",
        Kind::Sample => "sample",
        Kind::Log => "log",
    }
}
