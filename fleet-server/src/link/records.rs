//! One telemetry record into its table, or into quarantine: either way it is stored and counts as received.

use protocol::telemetry::{DeviceEvent, Kind, LogLines, Record, Resources};
use protocol::{DeviceId, ProjectId, StreamId, UnixMillis};
use serde::de::DeserializeOwned;

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
    match try_store(conn, place, record).await? {
        Ok(()) => Ok(Stored::InItsTable),
        Err(why) => {
            let kind = kind_text(record.kind);
            let position = (stream, record.seq);
            telemetry::quarantine(conn, project, device, position, kind, &why, &record.body, now).await?;
            Ok(Stored::InQuarantine)
        }
    }
}

/// The inner error says why the record can't be read; the outer one is the database's.
async fn try_store(
    conn: &mut Conn,
    place: Place<'_>,
    record: &Record,
) -> Result<Result<(), String>, StoreError> {
    let Place { project, device, stream, now } = place;
    match record.kind {
        Kind::Pane => return store_pane(conn, place, record).await,
        Kind::Resources => {
            let resources: Resources = match read(&record.body) {
                Ok(resources) => resources,
                Err(why) => return Ok(Err(why)),
            };
            let reading = Reading { at: record.at, received_at: now, resources };
            history::add_reading(conn, project, device, (stream.as_str(), record.seq), &reading).await?;
        }
        Kind::Event => {
            let event: DeviceEvent = match read(&record.body) {
                Ok(event) => event,
                Err(why) => return Ok(Err(why)),
            };
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
            let logs: LogLines = match read(&record.body) {
                Ok(logs) => logs,
                Err(why) => return Ok(Err(why)),
            };
            let logs = LogLines { command_id: printable(&logs.command_id, 100), lines: logs.lines };
            telemetry::add_logs(conn, project, device, (stream, record.seq), &logs, now).await?;
        }
        Kind::Sample => return Ok(Err("this server keeps no samples".into())),
    }
    Ok(Ok(()))
}

async fn store_pane(
    conn: &mut Conn,
    place: Place<'_>,
    record: &Record,
) -> Result<Result<(), String>, StoreError> {
    let pane = match profile::Pane::decode(&record.body) {
        Ok(pane) => pane,
        Err(e) => return Ok(Err(e.to_string())),
    };
    let key = &pane.key;
    let Some(release) = releases::by_digest(conn, place.project, &key.model, &key.digest).await? else {
        return Ok(Err(format!("no release of {} has the manifest {}", key.model, key.digest)));
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
    Ok(Ok(()))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    ciborium::de::from_reader_with_recursion_limit(body, 16).map_err(|e| e.to_string())
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
