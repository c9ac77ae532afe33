//! Devices: identity, labels, what they reported, what is desired of them.

use std::collections::BTreeMap;

use protocol::message::Hello;
use protocol::{
    DeviceId, Digest, ModelName, ProjectId, ReleaseRef, Revision, RolloutId, UnixMillis, Version,
};
use sqlx::any::AnyRow;

use super::error::During;
use super::row::{Columns, all, as_int, to_json};
use super::sql::Sql;
use super::{Conn, Page, StoreError, Window};

/// A device's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Tenant.
    pub project: ProjectId,
    /// Its name.
    pub device: DeviceId,
    /// Ed25519 public key of its reports, 32 bytes.
    pub report_key: Vec<u8>,
    /// Serial number of its current certificate, lower-case hex.
    pub certificate_serial: String,
    /// End of its certificate.
    pub certificate_expires: UnixMillis,
    /// The server's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is connected.
    pub is_online: bool,
    /// Last sign of life.
    pub last_seen: Option<UnixMillis>,
    /// What it last said about itself.
    pub hello: Option<Hello>,
    /// When that arrived.
    pub hello_at: Option<UnixMillis>,
    /// Counter of its last accepted report.
    pub report_counter: u64,
    /// Revision of the Desired that the director last signed for it.
    pub desired_revision: Revision,
    /// That Desired as JSON, for people.
    pub desired: Option<serde_json::Value>,
    /// That Desired, signed.
    pub desired_envelope: Option<Vec<u8>>,
    /// When it was enrolled first.
    pub created_at: UnixMillis,
    /// When it was taken out of service.
    pub decommissioned_at: Option<UnixMillis>,
}

/// What the director asks of a device for one model; read back from the stored Desired.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct DesiredModel {
    /// Which model.
    pub model: ModelName,
    /// Which release.
    pub release: ReleaseRef,
    /// The rollout that asks for it.
    #[serde(default)]
    pub rollout: Option<RolloutId>,
}

impl Device {
    /// The device's own labels with the server's over them.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.hello.as_ref().map(|hello| hello.labels.clone()).unwrap_or_default();
        labels.extend(self.labels.clone());
        labels
    }

    /// What the director last asked for.
    pub fn desired_models(&self) -> Vec<DesiredModel> {
        let models = self.desired.as_ref().and_then(|desired| desired.get("models")).cloned();
        models.and_then(|models| serde_json::from_value(models).ok()).unwrap_or_default()
    }
}

/// A newly enrolled device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// Tenant.
    pub project: ProjectId,
    /// Its name.
    pub device: DeviceId,
    /// Ed25519 public key of its reports, 32 bytes.
    pub report_key: Vec<u8>,
    /// Serial number of its certificate, lower-case hex.
    pub certificate_serial: String,
    /// End of its certificate.
    pub certificate_expires: UnixMillis,
    /// Labels from the enrolment token.
    pub labels: BTreeMap<String, String>,
    /// Now.
    pub created_at: UnixMillis,
}

/// Which devices are wanted; all parts must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// A part of the name.
    pub name_contains: Option<String>,
    /// Whether connected.
    pub is_online: Option<bool>,
    /// Labels that must be there with this value.
    pub labels: Vec<(String, String)>,
    /// A model that it has.
    pub model: Option<ModelName>,
    /// The release that serves (of `model`, if given).
    pub version: Option<Version>,
}

/// One device, decommissioned or not.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn get(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
) -> Result<Option<Device>, StoreError> {
    let query = sqlx::query("SELECT * FROM devices WHERE project = $1 AND device = $2");
    let row = query.bind(project.as_str()).bind(device.as_str()).fetch_optional(conn).await;
    row.during("read a device")?.as_ref().map(read).transpose()
}

/// Devices in service that fit, by name.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn list(
    conn: &mut Conn,
    project: &ProjectId,
    filter: &Filter,
    window: &Window,
) -> Result<Page<Device>, StoreError> {
    let mut page = Sql::new("SELECT * FROM devices d");
    push_filter(&mut page, project, filter);
    if let Some(after) = &window.after {
        page.push(" AND d.device > ").bind(after.clone());
    }
    page.push(" ORDER BY d.device LIMIT ").bind(window.limit);
    let rows = page.query().fetch_all(&mut *conn).await.during("list devices")?;
    let mut count = Sql::new("SELECT COUNT(*) AS n FROM devices d");
    push_filter(&mut count, project, filter);
    let total = count.query().fetch_one(conn).await.during("count devices")?.int("n")?;
    Ok(Page { items: all(rows, read)?, total })
}

/// Every device in service, by name; for rollouts and the director.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn all_in_service(conn: &mut Conn, project: &ProjectId) -> Result<Vec<Device>, StoreError> {
    let query =
        sqlx::query("SELECT * FROM devices WHERE project = $1 AND decommissioned_at IS NULL ORDER BY device");
    let rows = query.bind(project.as_str()).fetch_all(conn).await.during("list devices")?;
    all(rows, read)
}

/// Adds a device.
///
/// # Errors
/// [`StoreError`] when the database refuses; a conflict when the name is taken.
pub async fn insert(conn: &mut Conn, new: &NewDevice) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO devices (project, device, report_key, certificate_serial, certificate_expires, labels, \
         is_online, report_counter, desired_revision, created_at) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, $7)",
    )
    .bind(new.project.as_str())
    .bind(new.device.as_str())
    .bind(new.report_key.clone())
    .bind(new.certificate_serial.as_str())
    .bind(new.certificate_expires.0)
    .bind(to_json(&new.labels))
    .bind(new.created_at.0)
    .execute(&mut *conn)
    .await
    .during("add a device")?;
    index_labels(conn, &new.project, &new.device).await
}

/// Gives a device that is out of service, or whose certificate has expired, new keys: its history, its Desired and
/// the counter that its reports must rise above stay.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn enroll_again(conn: &mut Conn, new: &NewDevice) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET report_key = $3, certificate_serial = $4, certificate_expires = $5, labels = $6, \
         next_certificate_serial = NULL, next_certificate_expires = NULL, decommissioned_at = NULL, is_online = 0 \
         WHERE project = $1 AND device = $2",
    )
    .bind(new.project.as_str())
    .bind(new.device.as_str())
    .bind(new.report_key.clone())
    .bind(new.certificate_serial.as_str())
    .bind(new.certificate_expires.0)
    .bind(to_json(&new.labels))
    .execute(&mut *conn)
    .await
    .during("enrol a device again")?;
    index_labels(conn, &new.project, &new.device).await
}

/// Replaces the server's labels.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_labels(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    labels: &BTreeMap<String, String>,
) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE devices SET labels = $3 WHERE project = $1 AND device = $2");
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(to_json(labels));
    query.execute(&mut *conn).await.during("change labels")?;
    index_labels(conn, project, device).await
}

/// Notes whether the device is connected; returns whether that changed.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_online(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    is_online: bool,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE devices SET is_online = $3, last_seen = $4 WHERE project = $1 AND device = $2 AND is_online <> $3",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(i64::from(is_online)).bind(now.0);
    Ok(query.execute(conn).await.during("note a connection")?.rows_affected() > 0)
}

/// At server start nobody is connected yet.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_all_offline(conn: &mut Conn) -> Result<(), StoreError> {
    let query = sqlx::query("UPDATE devices SET is_online = 0 WHERE is_online <> 0");
    query.execute(conn).await.during("mark devices offline")?;
    Ok(())
}

/// Raises the report counter; `false` when it isn't higher than the stored one (a replay).
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn raise_report_counter(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    counter: u64,
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE devices SET report_counter = $3 WHERE project = $1 AND device = $2 AND report_counter < $3",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(as_int(counter));
    Ok(query.execute(conn).await.during("raise a report counter")?.rows_affected() > 0)
}

/// Stores what a device says about itself, and its models as rows.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_hello(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    hello: &Hello,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE devices SET hello = $3, hello_at = $4, last_seen = $4 WHERE project = $1 AND device = $2",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(to_json(hello)).bind(now.0);
    query.execute(&mut *conn).await.during("store a hello")?;
    let query = sqlx::query("DELETE FROM device_models WHERE project = $1 AND device = $2");
    let query = query.bind(project.as_str()).bind(device.as_str());
    query.execute(&mut *conn).await.during("replace a device's models")?;
    for state in &hello.models {
        // What isn't loaded doesn't serve.
        let active = state.active.clone().filter(|_| state.absent.is_none());
        let version = |r: &Option<protocol::ReleaseRef>| r.as_ref().map(|r| r.version.to_string());
        let digest = |r: &Option<protocol::ReleaseRef>| r.as_ref().map(|r| r.digest.to_hex());
        sqlx::query(
            "INSERT INTO device_models (project, device, model, active_version, active_digest, active_counter, \
             candidate_version, candidate_digest, fallback_version, fallback_digest, phase, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
        )
        .bind(project.as_str())
        .bind(device.as_str())
        .bind(state.model.as_str())
        .bind(version(&active))
        .bind(digest(&active))
        .bind(active.as_ref().map(|r| as_int(r.counter.0)))
        .bind(version(&state.candidate))
        .bind(digest(&state.candidate))
        .bind(version(&state.fallback))
        .bind(digest(&state.fallback))
        .bind(super::tasks::phase_text(state.phase))
        .bind(now.0)
        .execute(&mut *conn)
        .await
        .during("store a device's model")?;
    }
    index_labels(conn, project, device).await
}

/// Stores a newly signed Desired; `false` when its revision isn't higher than the stored one.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn set_desired(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    revision: Revision,
    desired: &serde_json::Value,
    envelope: &[u8],
) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE devices SET desired_revision = $3, desired = $4, desired_envelope = $5 \
         WHERE project = $1 AND device = $2 AND desired_revision < $3",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(as_int(revision.0));
    let done = query.bind(to_json(desired)).bind(envelope.to_vec()).execute(conn).await;
    Ok(done.during("store Desired")?.rows_affected() > 0)
}

/// Takes a device out of service: its row and history stay, its certificate is no longer honoured.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn decommission(
    conn: &mut Conn,
    project: &ProjectId,
    device: &DeviceId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "UPDATE devices SET decommissioned_at = $3, is_online = 0, certificate_serial = '' \
         WHERE project = $1 AND device = $2",
    );
    let query = query.bind(project.as_str()).bind(device.as_str()).bind(now.0);
    query.execute(&mut *conn).await.during("decommission a device")?;
    let query = sqlx::query("DELETE FROM device_models WHERE project = $1 AND device = $2");
    let query = query.bind(project.as_str()).bind(device.as_str());
    query.execute(conn).await.during("forget a device's models")?;
    Ok(())
}

/// How many devices serve which release of a model; `None` where no release serves yet.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn release_mix(
    conn: &mut Conn,
    project: &ProjectId,
) -> Result<Vec<(ModelName, Option<Version>, Option<Digest>, i64)>, StoreError> {
    let query = sqlx::query(
        "SELECT model, active_version, active_digest, COUNT(*) AS n FROM device_models WHERE project = $1 \
         GROUP BY model, active_version, active_digest ORDER BY model, active_version",
    );
    let rows = query.bind(project.as_str()).fetch_all(conn).await.during("count releases")?;
    let read = |row: &AnyRow| {
        Ok((row.id("model")?, row.id_opt("active_version")?, row.id_opt("active_digest")?, row.int("n")?))
    };
    all(rows, read)
}

/// Devices in service: in all, connected, and with a problem.
///
/// # Errors
/// [`StoreError`] when the database refuses.
pub async fn counts(conn: &mut Conn, project: &ProjectId) -> Result<(i64, i64, i64), StoreError> {
    let query = sqlx::query(
        "SELECT COUNT(*) AS n, CAST(COALESCE(SUM(is_online), 0) AS BIGINT) AS online, \
         CAST(COALESCE(SUM(CASE WHEN hello IS NOT NULL AND hello NOT LIKE '%\"problems\":[]%' THEN 1 ELSE 0 END), 0) \
         AS BIGINT) AS troubled FROM devices WHERE project = $1 AND decommissioned_at IS NULL",
    );
    let row = query.bind(project.as_str()).fetch_one(conn).await.during("count devices")?;
    Ok((row.int("n")?, row.int("online")?, row.int("troubled")?))
}

/// Writes the labels that hold (the device's own, the server's over them) as rows for filters.
async fn index_labels(conn: &mut Conn, project: &ProjectId, device: &DeviceId) -> Result<(), StoreError> {
    let labels = get(conn, project, device).await?.map(|device| device.all_labels()).unwrap_or_default();
    let query = sqlx::query("DELETE FROM device_labels WHERE project = $1 AND device = $2");
    let query = query.bind(project.as_str()).bind(device.as_str());
    query.execute(&mut *conn).await.during("replace labels")?;
    for (label, value) in labels {
        sqlx::query(
            "INSERT INTO device_labels (project, device, label, label_value) VALUES ($1, $2, $3, $4)",
        )
        .bind(project.as_str())
        .bind(device.as_str())
        .bind(label)
        .bind(value)
        .execute(&mut *conn)
        .await
        .during("add a label")?;
    }
    Ok(())
}

fn push_filter(query: &mut Sql, project: &ProjectId, filter: &Filter) {
    query.push(" WHERE d.project = ").bind(project.as_str().to_owned());
    query.push(" AND d.decommissioned_at IS NULL");
    if let Some(part) = &filter.name_contains {
        let escaped = part.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        query.push(" AND d.device LIKE ").bind(format!("%{escaped}%")).push(" ESCAPE '\\'");
    }
    if let Some(is_online) = filter.is_online {
        query.push(" AND d.is_online = ").bind(i64::from(is_online));
    }
    for (label, value) in &filter.labels {
        query.push(
            " AND EXISTS (SELECT 1 FROM device_labels l WHERE l.project = d.project AND l.device = d.device \
             AND l.label = ",
        );
        query.bind(label.clone()).push(" AND l.label_value = ").bind(value.clone()).push(")");
    }
    if filter.model.is_some() || filter.version.is_some() {
        query.push(
            " AND EXISTS (SELECT 1 FROM device_models m WHERE m.project = d.project AND m.device = d.device",
        );
        if let Some(model) = &filter.model {
            query.push(" AND m.model = ").bind(model.as_str().to_owned());
        }
        if let Some(version) = &filter.version {
            query.push(" AND m.active_version = ").bind(version.as_str().to_owned());
        }
        query.push(")");
    }
}

fn read(row: &AnyRow) -> Result<Device, StoreError> {
    Ok(Device {
        project: row.id("project")?,
        device: row.id("device")?,
        report_key: row.bytes("report_key")?,
        certificate_serial: row.text("certificate_serial")?,
        certificate_expires: row.millis("certificate_expires")?,
        labels: row.json("labels")?,
        is_online: row.truth("is_online")?,
        last_seen: row.millis_opt("last_seen")?,
        hello: row.json_opt("hello")?,
        hello_at: row.millis_opt("hello_at")?,
        report_counter: row.count("report_counter")?,
        desired_revision: Revision(row.count("desired_revision")?),
        desired: row.json_opt("desired")?,
        desired_envelope: row.bytes_opt("desired_envelope")?,
        created_at: row.millis("created_at")?,
        decommissioned_at: row.millis_opt("decommissioned_at")?,
    })
}
