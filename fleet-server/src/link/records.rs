//! One telemetry record into its table, or into quarantine: either way it is stored and counts as received.

use protocol::measurement::Measurement;
use protocol::telemetry::{DeviceEvent, Kind, LogLines, Record, Resources};
use protocol::{DeviceId, Digest, ModelName, ProjectId, StreamId, UnixMillis, text};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::apply::Records;
use crate::store::history::{Event, Reading};
use crate::store::measurements::Measured;
use crate::store::quarantine::Quarantined;
use crate::store::telemetry::PaneRow;
use crate::store::{
    Conn, StoreError, devices, history, keep, mark, measurements, quarantine, releases, telemetry, undo,
};
use crate::supervisor::with_causes;

/// Whose record it is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) project: &'a ProjectId,
    pub(super) device: &'a DeviceId,
    pub(super) stream: &'a StreamId,
    pub(super) now: UnixMillis,
}

/// Where a record went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    InItsTable,
    InQuarantine { why: String },
}

/// Stores a record whose sequence number is new.
pub(super) async fn store(
    conn: &mut Conn,
    place: Place<'_>,
    record: &Record,
    records: Records,
) -> Result<Stored, StoreError> {
    let Place { project, device, stream, now } = place;
    let tried = match records {
        Records::Together => try_store(conn, place, record).await,
        Records::Apart => try_apart(conn, place, record).await,
    };
    let why = match tried {
        Ok(()) => return Ok(Stored::InItsTable),
        Err(NotStored::Database(error)) => return Err(error),
        Err(why) => with_causes(&why),
    };
    let why = text::one_line(&why, 1000);
    let kept = Quarantined::new((stream, record.seq), kind_text(record.kind), why, &record.body, now);
    quarantine::add(conn, project, device, &kept).await?;
    Ok(Stored::InQuarantine { why: kept.why })
}

/// A record that the database refuses leaves the transaction as it was before it.
async fn try_apart(conn: &mut Conn, place: Place<'_>, record: &Record) -> Result<(), NotStored> {
    mark(conn).await?;
    match try_store(conn, place, record).await {
        Err(NotStored::Database(error)) if error.is_refusal() => {
            undo(conn).await?;
            Err(NotStored::Refused { kind: kind_text(record.kind), source: error })
        }
        Err(NotStored::Database(error)) => Err(error.into()),
        tried => {
            keep(conn).await?;
            tried
        }
    }
}

/// Most lines of an upload, as many as a command may ask for, and the longest.
const MAX_LOG_LINES: usize = 10_000;
const MAX_LOG_LINE: usize = 4000;

/// Why a record is not in its table. All but the database's own error send it to quarantine.
#[derive(Debug, Error)]
enum NotStored {
    #[error(transparent)]
    Database(#[from] StoreError),
    #[error("the record's body is no {kind}: {why}")]
    Unreadable { kind: &'static str, why: String },
    #[error("the database refuses the {kind}")]
    Refused { kind: &'static str, source: StoreError },
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
            let reading = Reading { at: record.at, received_at: now, resources: finite(read(record)?)? };
            history::add_reading(conn, project, device, (stream.as_str(), record.seq), &reading).await?;
        }
        Kind::Event => {
            let event: DeviceEvent = read(record)?;
            let event = Event {
                event_id: format!("{stream}:{}", record.seq),
                at: record.at,
                received_at: now,
                name: text::one_line(&event.name, 100),
                detail: text::one_line(&event.detail, 4000),
            };
            history::add_event(conn, project, device, &event).await?;
        }
        Kind::Log => {
            let logs: LogLines = read(record)?;
            let lines = logs.lines.iter().take(MAX_LOG_LINES);
            let logs = LogLines {
                command_id: text::one_line(&logs.command_id, 100),
                lines: lines.map(|line| text::one_line(line, MAX_LOG_LINE)).collect(),
            };
            telemetry::add_logs(conn, project, device, (stream, record.seq), &logs, now).await?;
        }
        Kind::Sample => return Err(NotStored::Sample),
        Kind::Measurement => return store_measurement(conn, place, record).await,
    }
    Ok(())
}

/// Only of releases and variants that there are: a device makes no other rows than these.
async fn store_measurement(conn: &mut Conn, place: Place<'_>, record: &Record) -> Result<(), NotStored> {
    let Place { project, device, now, .. } = place;
    let measurement = read::<Measurement>(record)?.bounded();
    let (model, digest) = (&measurement.model, measurement.release.digest);
    let unknown = || NotStored::UnknownRelease { model: model.clone(), digest };
    let release = releases::by_digest(conn, project, model, &digest).await?.ok_or_else(unknown)?;
    if !release.has_variant(&measurement.variant) {
        let why = format!("{model} {} has no variant {:?}", release.version, measurement.variant);
        return Err(NotStored::Unreadable { kind: kind_text(record.kind), why });
    }
    let row = devices::get(conn, project, device).await?;
    let hardware_class = row.and_then(|row| row.hello).map(|hello| hello.hardware.class).unwrap_or_default();
    let measured = Measured { device: device.clone(), hardware_class, received_at: now, measurement };
    measurements::put(conn, project, &measured).await?;
    Ok(())
}

/// The database keeps a number that is none as NULL, and JSON can't say it.
fn finite(resources: Resources) -> Result<Resources, NotStored> {
    let mut numbers =
        [("load1", Some(resources.load1)), ("temperature_c", resources.temperature_c)].into_iter();
    match numbers.find(|(_, number)| number.is_some_and(|number| !number.is_finite())) {
        None => Ok(resources),
        Some((name, _)) => {
            Err(NotStored::Unreadable { kind: "resources", why: format!("{name} is no finite number") })
        }
    }
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
        segment: text::one_line(&key.segment, usize::MAX),
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

pub(super) fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Pane => "pane",
        Kind::Resources => "resources",
        Kind::Event => "event",
        Kind::Sample => "sample",
        Kind::Log => "log",
        Kind::Measurement => "measurement",
    }
}
