//! What happened on a device: events and resource readings.

use protocol::telemetry::Resources;
use protocol::{DeviceId, ProjectId, UnixMillis};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, as_int};
use super::{Conn, Page, StoreError, Window};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `{stream}:{seq}` from the device, `server:{random}` from the server; makes adding safe to repeat.
    pub event_id: String,
    /// The device's clock.
    pub at: UnixMillis,
    /// The server's clock.
    pub received_at: UnixMillis,
    /// Stable name.
    pub name: String,
    /// One sentence.
    pub detail: String,
}

/// Readings at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The device's clock.
    pub at: UnixMillis,
    /// The server's clock.
    pub received_at: UnixMillis,
    /// What was read.
    pub resources: Resources,
}

/// Adds an event; does nothing when it is there already.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn add_event(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    event: &Event,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_events (project, device, event_id, at, received_at, name, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(event.event_id.as_str())
    .bind(event.at.0)
    .bind(event.received_at.0)
    .bind(event.name.as_str())
    .bind(event.detail.as_str())
    .execute(conn)
    .await
    .during("add a device event")?;
    Ok(())
}

/// Notes something that the server saw about a device.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn note(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    now: UnixMillis,
    name: &str,
    detail: &str,
) -> Result<(), StoreError> {
    let event_id = format!("server:{}", crate::ids::ordered_id(now));
    let (name, detail) = (name.to_owned(), detail.to_owned());
    add_event(conn, project, device, &Event { event_id, at: now, received_at: now, name, detail }).await
}

/// Events, newest first.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn events(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    window: &Window,
) -> Result<Page<Event>, StoreError> {
    let (before, before_id) = split_key(window);
    let rows = sqlx::query(
        "SELECT * FROM device_events WHERE project = $1 AND device = $2 \
         AND (received_at < $3 OR (received_at = $3 AND event_id < $4)) \
         ORDER BY received_at DESC, event_id DESC LIMIT $5",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(before)
    .bind(before_id)
    .bind(window.limit)
    .fetch_all(&mut *conn)
    .await
    .during("list device events")?;
    let total = sqlx::query_scalar("SELECT COUNT(*) FROM device_events WHERE project = $1 AND device = $2");
    let total = total.bind(project.as_str()).bind(device.as_str()).fetch_one(conn).await;
    Ok(Page { items: all(rows, read_event)?, total: total.during("count device events")? })
}

/// The key of an event in a list's cursor.
pub fn event_key(event: &Event) -> String {
    format!("{}/{}", event.received_at.0, event.event_id)
}

fn split_key(window: &Window) -> (i64, String) {
    let split = window.after.as_deref().and_then(|key| key.split_once('/'));
    let parsed = split.and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
    parsed.unwrap_or((i64::MAX, String::new()))
}

/// Adds a reading; does nothing when it is there already.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn add_reading(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    position: (&str, u64),
    reading: &Reading,
) -> Result<(), StoreError> {
    let r = &reading.resources;
    sqlx::query(
        "INSERT INTO resources (project, device, stream, seq, at, received_at, rss_bytes, cpu_ms, disk_free_bytes, \
         disk_used_bytes, load1, temperature_c) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         ON CONFLICT DO NOTHING",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(position.0)
    .bind(as_int(position.1))
    .bind(reading.at.0)
    .bind(reading.received_at.0)
    .bind(as_int(r.rss_bytes))
    .bind(as_int(r.cpu_ms))
    .bind(as_int(r.disk_free_bytes))
    .bind(as_int(r.disk_used_bytes))
    .bind(r.load1)
    .bind(r.temperature_c)
    .execute(conn)
    .await
    .during("add a resource reading")?;
    Ok(())
}

/// Readings since a time, oldest first, at most `limit` of the newest.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn readings(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    since: UnixMillis,
    limit: i64,
) -> Result<Vec<Reading>, StoreError> {
    let query = sqlx::query(
        "SELECT * FROM resources WHERE project = $1 AND device = $2 AND received_at >= $3 \
         ORDER BY received_at DESC, seq DESC LIMIT $4",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(since.0).bind(limit);
    let mut readings = all(query.fetch_all(conn).await.during("list resource readings")?, read_reading)?;
    readings.reverse();
    Ok(readings)
}

fn read_event(row: &AnyRow) -> Result<Event, StoreError> {
    Ok(Event {
        event_id: row.text("event_id")?,
        at: row.millis("at")?,
        received_at: row.millis("received_at")?,
        name: row.text("name")?,
        detail: row.text("detail")?,
    })
}

fn read_reading(row: &AnyRow) -> Result<Reading, StoreError> {
    Ok(Reading {
        at: row.millis("at")?,
        received_at: row.millis("received_at")?,
        resources: Resources {
            rss_bytes: row.count("rss_bytes")?,
            cpu_ms: row.count("cpu_ms")?,
            disk_free_bytes: row.count("disk_free_bytes")?,
            disk_used_bytes: row.count("disk_used_bytes")?,
            load1: row.float("load1")?,
            temperature_c: row.float_opt("temperature_c")?,
        },
    })
}
