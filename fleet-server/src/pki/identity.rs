//! Which device a client certificate speaks for.

use protocol::{DeviceId, ProjectId, UnixMillis};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::PkiError;

const URI_PREFIX: &str = "flotilla:device:";

/// A device as its certificate names it. Only certificates that TLS verified against our CA become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// Tenant, from the certificate's URI and O.
    pub project: ProjectId,
    /// The device, from the certificate's URI and CN.
    pub device: DeviceId,
    /// Serial number of the certificate, lower-case hex; the database says whether it is current.
    pub serial: String,
    /// When the certificate ends.
    pub not_after: UnixMillis,
}

impl DeviceIdentity {
    /// The URI that names a device in its certificate.
    pub fn uri(project: &ProjectId, device: &DeviceId) -> String {
        format!("{URI_PREFIX}{project}:{device}")
    }

    /// Reads the identity from a certificate that TLS has already verified.
    ///
    /// # Errors
    /// [`PkiError::NotADevice`] when the URI is missing or doubled, or URI, CN and O don't agree.
    pub fn from_certificate(der: &[u8]) -> Result<Self, PkiError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| PkiError::NotADevice("it can't be parsed"))?;
        let (project, device) = names_in_uri(&certificate)?;
        let subject = certificate.subject();
        if only(subject.iter_common_name()) != Some(device.as_str())
            || only(subject.iter_organization()) != Some(project.as_str())
        {
            return Err(PkiError::NotADevice("its subject and its URI disagree"));
        }
        let serial = hex::encode(certificate.tbs_certificate.raw_serial());
        let not_after = UnixMillis(certificate.validity().not_after.timestamp().saturating_mul(1000));
        Ok(Self { project, device, serial, not_after })
    }
}

fn names_in_uri(certificate: &X509Certificate<'_>) -> Result<(ProjectId, DeviceId), PkiError> {
    let names = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .ok_or(PkiError::NotADevice("it has no alternative name"))?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(PkiError::NotADevice("it must have exactly one alternative name, a URI"));
    };
    let (project, device) = uri
        .strip_prefix(URI_PREFIX)
        .and_then(|rest| rest.split_once(':'))
        .ok_or(PkiError::NotADevice("its URI is not flotilla:device:project:device"))?;
    let bad_id = |_| PkiError::NotADevice("its URI holds an invalid id");
    Ok((ProjectId::new(project).map_err(bad_id)?, DeviceId::new(device).map_err(bad_id)?))
}

fn only<'a>(
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Option<&'a str> {
    let value = values.next()?;
    if values.next().is_some() { None } else { value.as_str().ok() }
}
