//! Signed reports: what a device says is bound to its report key and can't be replayed.
//!
//! The payload is the exact bytes of a [`Hello`](crate::message::Hello) or
//! [`TaskReport`](crate::message::TaskReport); the signature covers [`signing_input`]. Signing and verifying
//! are the `trust` crate's; this module only fixes the bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, ProjectId};
use crate::topic::Channel;

/// A message, its rising counter and the signature of the device's ed25519 report key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReport {
    /// Rises with each report of this device and survives restarts; the server refuses what isn't higher.
    pub counter: u64,
    /// Base64 of the payload's bytes.
    payload: String,
    /// Base64 of the ed25519 signature, 64 bytes.
    signature: String,
}

/// Why a report's text fields are not bytes.
#[derive(Debug, thiserror::Error)]
#[error("signed report: {field} is not base64")]
pub struct ReportError {
    field: &'static str,
    #[source]
    source: base64::DecodeError,
}

impl SignedReport {
    /// Packs a payload with the signature over its [`signing_input`].
    pub fn new(counter: u64, payload: &[u8], signature: &[u8]) -> Self {
        Self { counter, payload: STANDARD.encode(payload), signature: STANDARD.encode(signature) }
    }

    /// The payload, not yet verified.
    ///
    /// # Errors
    /// [`ReportError`] when it is not base64.
    pub fn payload(&self) -> Result<Vec<u8>, ReportError> {
        STANDARD.decode(&self.payload).map_err(|source| ReportError { field: "payload", source })
    }

    /// The signature, not yet verified.
    ///
    /// # Errors
    /// [`ReportError`] when it is not base64.
    pub fn signature(&self) -> Result<Vec<u8>, ReportError> {
        STANDARD.decode(&self.signature).map_err(|source| ReportError { field: "signature", source })
    }
}

/// The bytes that a report key signs: purpose, identity, channel and counter come before the payload, each
/// closed by a zero byte that none of them can hold, so that a signature serves nowhere else.
pub fn signing_input(
    project: &ProjectId,
    device: &DeviceId,
    channel: Channel,
    counter: u64,
    payload: &[u8],
) -> Vec<u8> {
    let head = format!("flotilla-report-v1\0{project}\0{device}\0{}\0{counter}\0", channel.path());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_input_differs_in_every_part() {
        let project = ProjectId::new("p").unwrap();
        let (a, b) = (DeviceId::new("a").unwrap(), DeviceId::new("b").unwrap());
        let base = signing_input(&project, &a, Channel::Hello, 1, b"x");
        assert_ne!(base, signing_input(&project, &b, Channel::Hello, 1, b"x"));
        assert_ne!(base, signing_input(&project, &a, Channel::Task, 1, b"x"));
        assert_ne!(base, signing_input(&project, &a, Channel::Hello, 2, b"x"));
        assert_ne!(base, signing_input(&project, &a, Channel::Hello, 1, b"y"));
    }

    #[test]
    fn payload_survives_packing() {
        let report = SignedReport::new(3, b"\x00\xff", &[7; 64]);
        assert_eq!(report.payload().unwrap(), b"\x00\xff");
        assert_eq!(report.signature().unwrap(), [7; 64]);
    }
}
