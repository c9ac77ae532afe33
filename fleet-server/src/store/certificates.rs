//! Which certificate of a device is current. A renewed one waits beside the current one until it is used for the
//! first time; only then is the old one refused, so that a device that lost the answer isn't locked out.

use protocol::{DeviceId, ProjectId, UnixMillis};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::Columns;
use super::{Conn, StoreError};

/// What counts when a device connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Serial of the current certificate, lower-case hex.
    pub serial: String,
    /// Serial of a renewed one that wasn't used yet.
    pub next_serial: Option<String>,
    /// Whether the device is out of service.
    pub is_decommissioned: bool,
}

/// A device's standing; `None` when it was never enrolled.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn standing(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
) -> Result<Option<Standing>, StoreError> {
    let query = sqlx::query(
        "SELECT certificate_serial, next_certificate_serial, decommissioned_at FROM devices \
         WHERE project = $1 AND device = $2",
    );
    let query = query.bind(project.as_str()).bind(device.as_str());
    let row = query.fetch_optional(conn).await.during("look up a device's certificate")?;
    row.as_ref().map(read).transpose()
}

/// Notes a renewed certificate beside the current one, in place of an earlier renewed one.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_next(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    serial: &str,
    expires: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET next_certificate_serial = $3, next_certificate_expires = $4 \
         WHERE project = $1 AND device = $2",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(serial)
    .bind(expires.0)
    .execute(conn)
    .await
    .during("note a renewed certificate")?;
    Ok(())
}

/// The renewed certificate was used: it is the current one from now on.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn promote(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    serial: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET certificate_serial = next_certificate_serial, \
         certificate_expires = next_certificate_expires, next_certificate_serial = NULL, \
         next_certificate_expires = NULL WHERE project = $1 AND device = $2 AND next_certificate_serial = $3",
    )
    .bind(project.as_str())
    .bind(device.as_str())
    .bind(serial)
    .execute(conn)
    .await
    .during("take a renewed certificate into use")?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<Standing, StoreError> {
    Ok(Standing {
        serial: row.text("certificate_serial")?,
        next_serial: row.text_opt("next_certificate_serial")?,
        is_decommissioned: row.millis_opt("decommissioned_at")?.is_some(),
    })
}
