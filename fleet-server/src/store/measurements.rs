//! What devices measured of releases because somebody asked: the newest figures of each device and variant, and why
//! there are no newer ones where a device could not measure again.

use protocol::measurement::{Measurement, Outcome};
use protocol::{DeviceId, Digest, ModelName, ProjectId, UnixMillis};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, to_json};
use super::{Conn, StoreError};

/// Most measurements of a release that are listed.
const MAX_LISTED: i64 = 1000;

type Query<'a> = sqlx::query::Query<'a, sqlx::Any, sqlx::any::AnyArguments>;

/// A measurement and where it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The device that measured.
    pub device: DeviceId,
    /// Its hardware class then.
    pub hardware_class: String,
    /// The server's clock.
    pub received_at: UnixMillis,
    /// What it found.
    pub measurement: Measurement,
}

/// Keeps a measurement; an older one of this device and variant goes, but figures don't go for a failure: that
/// stands beside them.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn put(conn: &mut Conn, project: &ProjectId, measured: &Measured) -> Result<(), StoreError> {
    let is_failure = matches!(measured.measurement.outcome, Outcome::Failed(_));
    if is_failure && has_figures(conn, project, measured).await? {
        return put_beside(conn, project, measured).await;
    }
    let Measured { hardware_class, received_at, measurement, .. } = measured;
    let query = sqlx::query(
        "INSERT INTO measurements \
         (project, model, digest, variant, device, hardware_class, command_id, received_at, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (project, model, digest, variant, device) DO UPDATE SET \
         hardware_class = excluded.hardware_class, command_id = excluded.command_id, \
         received_at = excluded.received_at, body = excluded.body, failure = NULL",
    );
    let query = placed(query, project, measured).bind(hardware_class.as_str());
    let query = query.bind(measurement.command_id.as_str()).bind(received_at.0);
    query.bind(to_json(measurement)).execute(conn).await.during("keep a measurement").map(drop)
}

/// Whether there are figures of that device and variant; what can't be read is none.
async fn has_figures(conn: &mut Conn, project: &ProjectId, measured: &Measured) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "SELECT body FROM measurements \
         WHERE project = $1 AND model = $2 AND digest = $3 AND variant = $4 AND device = $5",
    );
    let row = placed(query, project, measured).fetch_optional(conn).await.during("look for figures")?;
    let kept = row.and_then(|row| row.json::<Measurement>("body").ok());
    Ok(kept.is_some_and(|kept| matches!(kept.outcome, Outcome::Measured(_))))
}

async fn put_beside(conn: &mut Conn, project: &ProjectId, failed: &Measured) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE measurements SET failure = $6 \
         WHERE project = $1 AND model = $2 AND digest = $3 AND variant = $4 AND device = $5",
    );
    let query = placed(query, project, failed).bind(to_json(failed));
    query.execute(conn).await.during("keep a failure beside figures").map(drop)
}

/// Binds `$1` to `$5`: where a measurement has its place.
fn placed<'a>(query: Query<'a>, project: &'a ProjectId, measured: &'a Measured) -> Query<'a> {
    let Measured { device, measurement, .. } = measured;
    query
        .bind(project.as_str())
        .bind(measurement.model.as_str())
        .bind(measurement.release.digest.to_hex())
        .bind(measurement.variant.as_str())
        .bind(device.as_str())
}

/// What was measured of a release, by hardware class, variant and device; of at most the first 1000. A failure that
/// stands beside figures comes right behind them.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    model: &ModelName,
    digest: &Digest,
) -> Result<Vec<Measured>, StoreError> {
    let rows = sqlx::query(
        "SELECT device, hardware_class, received_at, body, failure FROM measurements \
         WHERE project = $1 AND model = $2 AND digest = $3 \
         ORDER BY hardware_class, variant, device LIMIT $4",
    )
    .bind(project.as_str())
    .bind(model.as_str())
    .bind(digest.to_hex())
    .bind(MAX_LISTED)
    .fetch_all(conn)
    .await
    .during("list measurements")?;
    Ok(all(rows, read)?.into_iter().flat_map(|(newest, failure)| [Some(newest), failure]).flatten().collect())
}

fn read(row: &AnyRow) -> Result<(Measured, Option<Measured>), StoreError> {
    let newest = Measured {
        device: row.id("device")?,
        hardware_class: row.text("hardware_class")?,
        received_at: row.millis("received_at")?,
        measurement: row.json("body")?,
    };
    Ok((newest, row.json_opt("failure")?))
}
