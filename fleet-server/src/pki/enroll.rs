//! Enrolment by one-time token, and renewal of a device's certificate.
//!
//! The token is used up, the device made and its certificate noted in one transaction: of two enrolments with one
//! token exactly one succeeds, and a crash leaves either both or nothing.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::message::Hardware;
use protocol::{DeviceId, ProjectId, UnixMillis};
use serde::{Deserialize, Serialize};
use trust::PublicKey;

use super::token::secret_hash;
use super::{DeviceIdentity, DeviceKey, PkiError};
use crate::api::error::{ApiError, ApiResult};
use crate::api::extract::{ClientAddress, Json};
use crate::app::AppState;
use crate::bus::ChangeKind;
use crate::domain::audit::{self, Change};
use crate::store::devices::{Device, NewDevice};
use crate::store::enrollment::{self, EnrollmentToken};
use crate::store::{Conn, certificates, devices, metadata};

/// Largest request; the CSR is most of it.
const MAX_BODY_BYTES: usize = 32 * 1024;

/// What a device sends to enrol.
#[derive(Debug, Deserialize)]
pub struct EnrollRequest {
    /// Secret from the token.
    pub secret: String,
    /// The name that it wants; may be left out when the token fixes it.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// PEM certificate request of the key made on the device.
    pub csr: String,
    /// Base64 of the 32-byte ed25519 report key.
    pub report_key: String,
    /// What the hardware is.
    #[serde(default)]
    pub hardware: Option<Hardware>,
}

/// What a device gets.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnrollResponse {
    /// Tenant.
    pub project: ProjectId,
    /// Its name.
    pub device: DeviceId,
    /// PEM of its certificate.
    pub certificate: String,
    /// PEM of the CA.
    pub ca: String,
    /// The broker.
    pub mqtt_url: String,
    /// Metadata, blobs, renewal.
    pub device_url: String,
    /// Base64 of the project's first `root.json`; the device walks the chain from there.
    pub root: String,
    /// The device's reports must have counters above this: not 0 for a device that is enrolled again.
    #[serde(default)]
    pub report_counter: u64,
}

/// A certificate request for a device that has one already.
#[derive(Debug, Deserialize)]
pub struct RenewRequest {
    /// PEM certificate request.
    pub csr: String,
}

/// The renewed certificate.
#[derive(Debug, Serialize, Deserialize)]
pub struct RenewResponse {
    /// PEM of the certificate.
    pub certificate: String,
    /// PEM of the CA.
    pub ca: String,
}

/// `POST /enroll/v1`, on the port that needs no client certificate.
pub fn router() -> Router<AppState> {
    Router::new().route("/enroll/v1", post(enroll)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// `POST /device/v1/renew`, on the port that knows the device by its certificate.
pub fn renew_router() -> Router<AppState> {
    Router::new().route("/device/v1/renew", post(renew)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

async fn enroll(
    State(state): State<AppState>,
    ClientAddress(address): ClientAddress,
    Json(request): Json<EnrollRequest>,
) -> ApiResult<Json<EnrollResponse>> {
    // Without a connection there is nobody to slow down.
    let (address, now) = (address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), state.clock.now());
    if let Some(seconds) = state.enrolment.wait_s(address, now) {
        return Err(ApiError::too_many("Too many failed enrolments from this address.", seconds));
    }
    let result = enroll_once(&state, request).await;
    if let Err(e) = &result
        && e.status().is_client_error()
    {
        state.enrolment.failed(address, now);
        tracing::warn!(peer = %address, code = e.code(), "enrolment refused: {}", e.code());
    }
    result.map(Json)
}

async fn enroll_once(state: &AppState, request: EnrollRequest) -> ApiResult<EnrollResponse> {
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    let token = find_token(&mut tx, &request.secret, state).await?;
    let device = wanted_device(&token, request.device.as_ref())?;
    let key = DeviceKey::from_csr_pem(&request.csr).map_err(|e| bad_csr(&e))?;
    let report_key = report_key(&request.report_key)?;
    let lifetime = state.config.authority.device_certificate;
    let issued = state.authority.issue_device(&token.project, &device, &key, now, lifetime);
    let issued = issued.map_err(|e| ApiError::internal(&e))?;
    let new = NewDevice {
        project: token.project.clone(),
        device: device.clone(),
        report_key,
        certificate_serial: issued.serial.clone(),
        certificate_expires: issued.not_after,
        labels: token.labels.clone(),
        created_at: now,
    };
    let report_counter = match devices::get(&mut tx, &token.project, &device).await? {
        None => {
            let made = devices::insert(&mut tx, &new).await;
            made.map_err(|e| if e.is_conflict() { device_exists(&device) } else { e.into() })?;
            0
        }
        Some(known) if token.device.is_some() && may_enroll_again(&known, now) => {
            devices::enroll_again(&mut tx, &new).await?;
            known.report_counter
        }
        Some(_) => return Err(device_exists(&device)),
    };
    if !enrollment::use_up(&mut tx, &token.token_id, &device, now).await? {
        return Err(token_used());
    }
    let actor = format!("device {device}");
    let change =
        Change::new(now, &actor, "device.enroll", "device", device.as_str()).in_project(&token.project);
    let after = serde_json::json!({
        "token": token.token_id, "certificate_serial": issued.serial, "hardware": request.hardware,
    });
    audit::record(&mut tx, &change.after(after)).await?;
    let root = first_root(&mut tx, &token.project).await?.ok_or_else(|| {
        let message = "The project has no signed root yet; publish it, then enrol with the same token.";
        ApiError::conflict("project_not_ready", message)
    })?;
    tx.commit().await?;
    tracing::info!(project = %token.project, %device, "device enrolled");
    state.bus.changed(&token.project, ChangeKind::Device, device.as_str());
    let response = EnrollResponse {
        project: token.project,
        device,
        certificate: issued.pem,
        ca: state.authority.certificate_pem(),
        mqtt_url: state.urls.mqtt.clone(),
        device_url: state.urls.device.clone(),
        root: STANDARD.encode(root),
        report_counter,
    };
    Ok(response)
}

/// Only a name that can't be in use any more is given anew, and only by a token made for this very name.
pub fn may_enroll_again(known: &Device, now: UnixMillis) -> bool {
    known.decommissioned_at.is_some() || (!known.is_online && known.certificate_expires <= now)
}

async fn find_token(conn: &mut Conn, secret: &str, state: &AppState) -> ApiResult<EnrollmentToken> {
    let found = enrollment::by_secret(conn, &secret_hash(secret)).await?;
    let token = found.ok_or_else(|| {
        let status = axum::http::StatusCode::UNAUTHORIZED;
        ApiError::new(status, "token_unknown", "This server never gave out this token, or it was revoked.")
    })?;
    if token.used_at.is_some() {
        return Err(token_used());
    }
    if token.expires_at <= state.clock.now() {
        let status = axum::http::StatusCode::GONE;
        return Err(ApiError::new(status, "token_expired", "The token has expired; ask for a new one."));
    }
    Ok(token)
}

fn wanted_device(token: &EnrollmentToken, wanted: Option<&DeviceId>) -> ApiResult<DeviceId> {
    match (&token.device, wanted) {
        (Some(fixed), Some(wanted)) if fixed != wanted => Err(ApiError::unprocessable(
            "device_mismatch",
            format!("The token is for device {fixed}, not for {wanted}."),
        )),
        (Some(fixed), _) => Ok(fixed.clone()),
        (None, Some(wanted)) => Ok(wanted.clone()),
        (None, None) => {
            Err(ApiError::unprocessable("device_required", "The token names no device; send its name."))
        }
    }
}

fn report_key(text: &str) -> ApiResult<Vec<u8>> {
    let bad =
        || ApiError::unprocessable("bad_report_key", "The report key is not the base64 of an ed25519 key.");
    let bytes: [u8; 32] = STANDARD.decode(text).ok().and_then(|b| b.try_into().ok()).ok_or_else(bad)?;
    PublicKey::ed25519(&bytes).map_err(|_| bad())?;
    Ok(bytes.to_vec())
}

fn bad_csr(e: &PkiError) -> ApiError {
    ApiError::unprocessable("bad_csr", format!("The certificate request is refused: {e}."))
}

fn device_exists(device: &DeviceId) -> ApiError {
    let message = format!(
        "A device named {device} is enrolled already; decommission it, then enrol it by a token made for this name."
    );
    ApiError::conflict("device_exists", message)
}

fn token_used() -> ApiError {
    ApiError::new(
        axum::http::StatusCode::GONE,
        "token_used",
        "The token was used before; it works only once.",
    )
}

/// The oldest root is the one to start from: its hash stands in tokens, and the chain leads to the newest.
async fn first_root(conn: &mut Conn, project: &ProjectId) -> ApiResult<Option<Vec<u8>>> {
    let first = metadata::get(conn, project, "root", 1).await?;
    let root = match first {
        Some(root) => Some(root),
        None => metadata::newest(conn, project, "root").await?,
    };
    Ok(root.map(|file| file.bytes))
}

/// The renewed certificate stands beside the current one until its first use, so that a lost answer locks nobody out.
async fn renew(
    State(state): State<AppState>,
    Extension(identity): Extension<DeviceIdentity>,
    Json(request): Json<RenewRequest>,
) -> ApiResult<Json<RenewResponse>> {
    let now = state.clock.now();
    let DeviceIdentity { project, device, .. } = &identity;
    let key = DeviceKey::from_csr_pem(&request.csr).map_err(|e| bad_csr(&e))?;
    let lifetime = state.config.authority.device_certificate;
    let issued = state.authority.issue_device(project, device, &key, now, lifetime);
    let issued = issued.map_err(|e| ApiError::internal(&e))?;
    let mut tx = state.store.begin().await?;
    certificates::set_next(&mut tx, project, device, &issued.serial, issued.not_after).await?;
    let actor = format!("device {device}");
    let change = Change::new(now, &actor, "device.renew", "device", device.as_str()).in_project(project);
    let after = serde_json::json!({ "certificate_serial": issued.serial });
    audit::record(&mut tx, &change.after(after)).await?;
    tx.commit().await?;
    tracing::info!(%project, %device, "certificate renewed; the earlier one holds until its first use");
    Ok(Json(RenewResponse { certificate: issued.pem, ca: state.authority.certificate_pem() }))
}

/// SHA-256 of the root that enrolling devices get; stands in token texts.
///
/// # Errors
/// When the database refuses.
pub async fn root_pin(conn: &mut Conn, project: &ProjectId) -> ApiResult<Option<protocol::Digest>> {
    use sha2::Digest;
    let root = first_root(conn, project).await?;
    Ok(root.map(|root| protocol::Digest::from_bytes(sha2::Sha256::digest(root).into())))
}
