//! Enrolment: a one-time token names the server, its CA and a secret; the device makes its keys and asks for a
//! certificate. Nothing is stored unless everything came back; a crash in between needs a new token, no cleaning.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::message::Hardware;
use protocol::{DeviceId, Digest, ProjectId};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trust::Ed25519Signer;

use super::http::{FetchError, Http, Refusal, Terms};
use super::identity::{Identity, IdentityError, Names, validity_of};
use super::report::{self, ReportError};
use super::tls::{TlsError, enrolment_config};
use crate::health::Clock;

const PREFIX: &str = "flt1.";
/// Largest answer to an enrolment; the root is most of it.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// Why a device is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The token's text is damaged.
    #[error("this is no enrolment token: {0}")]
    Token(&'static str),
    /// The device is enrolled already.
    #[error("this device is enrolled already as {project}/{device}; use --force to replace its identity")]
    AlreadyEnrolled {
        /// Tenant.
        project: ProjectId,
        /// Its name there.
        device: DeviceId,
    },
    /// What lies here belongs to another project or another fleet.
    #[error(
        "state_dir belongs to {project}/{device} of another project or another fleet; its releases, root of trust, records \
         and samples must not go there: enrol with a state_dir of its own, or remove what is in this one first"
    )]
    OtherFleet {
        /// Tenant.
        project: ProjectId,
        /// This device's name there.
        device: DeviceId,
    },
    /// No key could be made.
    #[error("cannot make the device's keys: {0}")]
    Keys(String),
    /// TLS.
    #[error("cannot prepare TLS")]
    Tls(#[source] TlsError),
    /// The server does not answer, or not as it should.
    #[error("the server could not be asked")]
    Fetch(#[source] FetchError),
    /// The server says no.
    #[error("the server refused ({code}): {message}")]
    Refused {
        /// Stable code, e.g. `token_used`.
        code: String,
        /// Its sentence.
        message: String,
    },
    /// The server's answer can't be used.
    #[error("the server's answer can't be used: {0}")]
    Answer(String),
    /// The identity could not be kept.
    #[error("the identity could not be kept")]
    Identity(#[source] IdentityError),
    /// The first root could not be kept.
    #[error("the first root of trust could not be kept")]
    Root(#[source] crate::durable::DurableError),
    /// The report counter could not be kept.
    #[error("the device's reports can't go on where they ended")]
    Reports(#[source] ReportError),
}

impl EnrollError {
    /// Whether the same token may work later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Fetch(error) => !matches!(error, FetchError::Address { .. }),
            _ => false,
        }
    }
}

/// What stands in a token.
#[derive(Debug, Deserialize)]
struct Token {
    #[serde(rename = "u")]
    url: String,
    #[serde(rename = "c")]
    ca: String,
    #[serde(rename = "p")]
    project: ProjectId,
    #[serde(rename = "s")]
    secret: String,
    #[serde(rename = "r", default)]
    root: Option<Digest>,
}

#[derive(Serialize)]
struct Request<'a> {
    secret: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a DeviceId>,
    csr: String,
    report_key: String,
    hardware: &'a Hardware,
}

#[derive(Deserialize)]
struct Answer {
    project: ProjectId,
    device: DeviceId,
    certificate: String,
    ca: String,
    mqtt_url: String,
    device_url: String,
    #[serde(default)]
    root: Option<String>,
    /// The last report that the server took under this name, from an earlier enrolment.
    #[serde(default)]
    report_counter: u64,
}

/// What to enrol with.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The token's text.
    pub token: &'a str,
    /// The name that is wanted; may be left out when the token fixes it.
    pub device: Option<&'a DeviceId>,
    /// What the hardware is.
    pub hardware: &'a Hardware,
    /// Whether an existing identity may be replaced.
    pub is_forced: bool,
    /// How the request goes.
    pub terms: Terms,
}

/// Enrols this device; its identity and first root are durable when it returns.
///
/// # Errors
/// [`EnrollError`]; nothing is stored then.
pub async fn enroll(state_dir: &Path, wish: &Wish<'_>, clock: &Clock) -> Result<Identity, EnrollError> {
    refuse_if_enrolled(state_dir, wish.is_forced)?;
    let token = parse_token(wish.token)?;
    let ca = STANDARD.decode(&token.ca).or_else(|_| URL_SAFE_NO_PAD.decode(&token.ca));
    let ca = CertificateDer::from(ca.map_err(|_| EnrollError::Token("its CA is no base64"))?);
    refuse_other_fleet(state_dir, &token, &ca)?;
    if let Some(validity) = validity_of(&ca) {
        clock.bound(validity.not_after);
    }
    let tls = enrolment_config(ca, clock).map_err(EnrollError::Tls)?;
    let report_key = Ed25519Signer::generate().map_err(|error| EnrollError::Keys(error.to_string()))?;
    let key = rcgen::KeyPair::generate().map_err(|error| EnrollError::Keys(error.to_string()))?;
    let request = Request {
        secret: &token.secret,
        device: wish.device,
        csr: certificate_request(&key)?,
        report_key: STANDARD.encode(report_key.public_bytes()),
        hardware: wish.hardware,
    };
    let body = serde_json::to_vec(&request).map_err(|error| EnrollError::Answer(error.to_string()))?;
    let http = Http::new(&token.url, &tls, wish.terms.clone());
    let answer = http.post_json("/enroll/v1", body, MAX_ANSWER_BYTES).await.map_err(refusal)?;
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|error| EnrollError::Answer(error.to_string()))?;
    if answer.project != token.project {
        return Err(EnrollError::Answer(format!(
            "it names project {}, the token {}",
            answer.project, token.project
        )));
    }
    report::start_above(state_dir, answer.report_counter, clock).map_err(EnrollError::Reports)?;
    keep(state_dir, answer, token.root, &key, &report_key)
}

fn refuse_if_enrolled(state_dir: &Path, is_forced: bool) -> Result<(), EnrollError> {
    match Identity::load(state_dir) {
        Ok(Identity { project, device, .. }) if !is_forced => {
            Err(EnrollError::AlreadyEnrolled { project, device })
        }
        Err(error @ IdentityError::File(_)) => Err(EnrollError::Identity(error)),
        Ok(_)
        | Err(IdentityError::NotEnrolled { .. } | IdentityError::Format { .. } | IdentityError::Field(_)) => {
            Ok(())
        }
    }
}

/// Before the token is spent. A fleet whose CA was renewed is known by its first root.
fn refuse_other_fleet(state_dir: &Path, token: &Token, ca: &CertificateDer<'_>) -> Result<(), EnrollError> {
    // What is damaged says nothing; whether it may be replaced was asked before.
    let Ok(identity) = Identity::load(state_dir) else { return Ok(()) };
    let has_ca = identity.tls_ca().is_ok_and(|known| known.contains(ca));
    let has_other_root = identity.root_pin.zip(token.root).is_some_and(|(known, root)| known != root);
    if identity.project == token.project && (has_ca || !has_other_root) {
        return Ok(());
    }
    Err(EnrollError::OtherFleet { project: identity.project, device: identity.device })
}

fn parse_token(text: &str) -> Result<Token, EnrollError> {
    let body = text.trim().strip_prefix(PREFIX).ok_or(EnrollError::Token("it does not begin with flt1."))?;
    let json = URL_SAFE_NO_PAD
        .decode(body)
        .map_err(|_| EnrollError::Token("it is no base64url; was it cut off?"))?;
    serde_json::from_slice(&json).map_err(|_| EnrollError::Token("its content is not that of a token"))
}

/// A request for the key's certificate; the server decides about the names.
pub(super) fn certificate_request(key: &rcgen::KeyPair) -> Result<String, EnrollError> {
    let failed = |error: rcgen::Error| EnrollError::Keys(error.to_string());
    let params = rcgen::CertificateParams::new(Vec::new()).map_err(failed)?;
    params.serialize_request(key).and_then(|request| request.pem()).map_err(failed)
}

fn refusal(error: FetchError) -> EnrollError {
    match error.refusal() {
        Some(Refusal { code, message }) => EnrollError::Refused { code, message },
        None => EnrollError::Fetch(error),
    }
}

fn keep(
    state_dir: &Path,
    answer: Answer,
    root_pin: Option<Digest>,
    key: &rcgen::KeyPair,
    report_key: &Ed25519Signer,
) -> Result<Identity, EnrollError> {
    let root = answer.root.as_deref().map(|text| STANDARD.decode(text)).transpose();
    let root = root.map_err(|_| EnrollError::Answer("its root is no base64".into()))?;
    if let (Some(root), Some(pin)) = (&root, root_pin)
        && Digest::from_bytes(Sha256::digest(root).into()) != pin
    {
        return Err(EnrollError::Answer("its root of trust is not the one that the token pins".into()));
    }
    if let Some(root) = root {
        crate::trusted_files::keep_first_root(state_dir, &root).map_err(EnrollError::Root)?;
    }
    let Answer { project, device, certificate, ca, mqtt_url, device_url, .. } = answer;
    let names = Names { project, device, mqtt_url, device_url, root_pin };
    let identity = Identity::new(names, certificate, ca, key.serialize_pem(), report_key);
    identity
        .tls_chain()
        .and_then(|_| identity.tls_ca())
        .map_err(|error| EnrollError::Answer(error.to_string()))?;
    identity.store(state_dir).map_err(EnrollError::Identity)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::identity_with;
    use super::*;
    use http::StatusCode;

    #[test]
    fn damaged_tokens_are_named() {
        for (text, part) in [("hello", "flt1."), ("flt1.%%%", "base64url"), ("flt1.e30", "content")] {
            assert!(parse_token(text).unwrap_err().to_string().contains(part), "{text}");
        }
    }

    #[test]
    fn what_belongs_to_another_project_or_fleet_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = || rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let (ca, other_ca) = (certificate(), certificate());
        let mut identity = identity_with(&key, ca.pem(), ca.pem());
        identity.root_pin = Some(Digest::from_bytes([1; 32]));
        let token = |project: &str, root: u8| Token {
            url: String::new(),
            ca: String::new(),
            project: ProjectId::new(project).unwrap(),
            secret: String::new(),
            root: Some(Digest::from_bytes([root; 32])),
        };
        let asked = |token: Token, ca: &rcgen::Certificate| refuse_other_fleet(dir.path(), &token, ca.der());
        assert!(asked(token("other", 2), &other_ca).is_ok(), "nothing is here yet");
        identity.store(dir.path()).unwrap();
        assert!(asked(token("p", 1), &ca).is_ok());
        assert!(asked(token("p", 1), &other_ca).is_ok(), "its CA was renewed");
        assert!(asked(token("p", 2), &ca).is_ok(), "its root was begun anew");
        for refused in [asked(token("p", 2), &other_ca), asked(token("other", 1), &ca)] {
            assert!(matches!(refused, Err(EnrollError::OtherFleet { .. })), "{refused:?}");
        }
    }

    #[test]
    fn refusals_carry_the_server_code_and_overload_may_be_tried_again() {
        let status = |status, text: &str| FetchError::Status { url: "u".into(), status, text: text.into() };
        let used = refusal(status(StatusCode::CONFLICT, r#"{"error":{"code":"token_used","message":"m"}}"#));
        assert!(
            matches!(&used, EnrollError::Refused { code, .. } if code == "token_used")
                && !used.is_retryable()
        );
        assert!(refusal(status(StatusCode::SERVICE_UNAVAILABLE, "busy")).is_retryable());
    }
}
