//! Signed reports of a device: bound to its report key, its identity, its channel and a rising counter.

use protocol::report::{SignedReport, signing_input};
use protocol::topic::Channel;
use protocol::{DeviceId, ProjectId};

use crate::error::{Cause, TrustError};
use crate::key::{PublicKey, SignError, Signer};

/// Signs a payload as `device` under `counter`, which the device must have stored before.
///
/// # Errors
/// When the key can't sign.
pub fn sign(
    project: &ProjectId,
    device: &DeviceId,
    channel: Channel,
    counter: u64,
    payload: &[u8],
    signer: &dyn Signer,
) -> Result<SignedReport, SignError> {
    let signature = signer.sign(&signing_input(project, device, channel, counter, payload))?;
    Ok(SignedReport::new(counter, payload, &signature))
}

/// Checks a report and returns its payload. `floor` is the last accepted counter.
///
/// # Errors
/// [`TrustError`] when the signature is not this device's for this channel (V1), or the counter doesn't rise.
pub fn verify(
    report: &SignedReport,
    project: &ProjectId,
    device: &DeviceId,
    channel: Channel,
    key: &PublicKey,
    floor: u64,
) -> Result<Vec<u8>, TrustError> {
    check(report, project, device, channel, key, floor).map_err(|c| c.at(device.as_str(), "signed report"))
}

fn check(
    report: &SignedReport,
    project: &ProjectId,
    device: &DeviceId,
    channel: Channel,
    key: &PublicKey,
    floor: u64,
) -> Result<Vec<u8>, Cause> {
    let field = |e: protocol::report::ReportError| Cause::Field(e.to_string());
    let (payload, signature) = (report.payload().map_err(field)?, report.signature().map_err(field)?);
    if !key.verifies(&signing_input(project, device, channel, report.counter, &payload), &signature) {
        return Err(Cause::Threshold {
            valid: 0,
            threshold: 1,
            reasons: "bad signature of the report key".into(),
        });
    }
    if report.counter <= floor {
        return Err(Cause::NotRising { what: "counter", floor, got: report.counter });
    }
    Ok(payload)
}
