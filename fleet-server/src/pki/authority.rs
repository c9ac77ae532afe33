//! The authority: its key, and the certificates that it issues.

use std::path::{Path, PathBuf};

use protocol::{DeviceId, ProjectId, UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use super::{DeviceIdentity, DeviceKey, PkiError, read_secret, write_secret};

/// Twenty years: the CA outlives the fleet's boxes; what it issues is short-lived.
const CA_LIFETIME: Duration = Duration::days(20 * 365);
/// Issued certificates begin a little in the past, for clocks that are a little slow.
const BACKDATE: Duration = Duration::hours(1);

/// The fleet's certificate authority.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate just issued to a device.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// PEM of the certificate.
    pub pem: String,
    /// Its serial number, lower-case hex as in [`DeviceIdentity::serial`].
    pub serial: String,
    /// When it ends.
    pub not_after: UnixMillis,
}

/// The server's own key and certificate.
pub(super) struct IssuedServer {
    pub(super) key_pem: String,
    pub(super) certificate_pem: String,
}

impl Authority {
    /// Loads the CA from `folder`, or makes it when there is none yet.
    ///
    /// # Errors
    /// [`PkiError`] when a file can't be read or written, is corrupt, or the key is gone but its certificate isn't.
    pub fn load_or_create(folder: &Path, now: UnixMillis) -> Result<Self, PkiError> {
        let (key_path, certificate_path) = (folder.join("ca.key.pem"), folder.join("ca.pem"));
        let key = match (read_secret(&key_path)?, read_secret(&certificate_path)?) {
            (Some(key), _) => parse_key(&key_path, &key)?,
            (None, Some(_)) => return Err(PkiError::KeyLost { path: key_path }),
            (None, None) => {
                let key = KeyPair::generate().map_err(make("a CA key"))?;
                write_secret(&key_path, key.serialize_pem().as_bytes())?;
                key
            }
        };
        // A crash between the two files leaves a key without certificate: it gets one now.
        let pem = if let Some(pem) = read_secret(&certificate_path)? {
            pem
        } else {
            let pem =
                ca_params(now)?.self_signed(&key).map_err(make("the CA certificate"))?.pem().into_bytes();
            write_secret(&certificate_path, &pem)?;
            pem
        };
        let certificate = parse_certificate(&certificate_path, &pem)?;
        check_pair(&certificate_path, &certificate, &key)?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(make("an issuer from the CA certificate"))?;
        Ok(Self { certificate, issuer })
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        pem_block("CERTIFICATE", &self.certificate)
    }

    /// Issues a client certificate for `project`'s `device` on `key`, valid for `lifetime`. All names come from
    /// the arguments.
    ///
    /// # Errors
    /// [`PkiError::Make`] when signing fails.
    pub fn issue_device(
        &self,
        project: &ProjectId,
        device: &DeviceId,
        key: &DeviceKey,
        now: UnixMillis,
        lifetime: std::time::Duration,
    ) -> Result<IssuedCertificate, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        params.distinguished_name.push(DnType::OrganizationName, project.as_str());
        params.subject_alt_names = vec![SanType::URI(ia5(&DeviceIdentity::uri(project, device))?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf(&mut params, now, lifetime)?;
        let serial =
            params.serial_number.as_ref().map(|serial| hex::encode(serial.as_ref())).unwrap_or_default();
        let certificate = params.signed_by(key, &self.issuer).map_err(make("a device certificate"))?;
        let not_after = UnixMillis(params.not_after.unix_timestamp().saturating_mul(1000));
        Ok(IssuedCertificate { pem: certificate.pem(), serial, not_after })
    }

    pub(super) fn issue_server(
        &self,
        names: &[String],
        lifetime: std::time::Duration,
        now: UnixMillis,
    ) -> Result<IssuedServer, PkiError> {
        let key = KeyPair::generate().map_err(make("the server's key"))?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(make("the server's names"))?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "flotilla-server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf(&mut params, now, lifetime)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make("the server's certificate"))?;
        Ok(IssuedServer { key_pem: key.serialize_pem(), certificate_pem: certificate.pem() })
    }
}

fn leaf(
    params: &mut CertificateParams,
    now: UnixMillis,
    lifetime: std::time::Duration,
) -> Result<(), PkiError> {
    let now = instant(now);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial()?);
    params.not_before = now.saturating_sub(BACKDATE);
    params.not_after = now.saturating_add(Duration::try_from(lifetime).unwrap_or(Duration::MAX));
    Ok(())
}

fn ca_params(now: UnixMillis) -> Result<CertificateParams, PkiError> {
    let serial = random_serial()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = format!("Flotilla CA {}", &hex::encode(serial.as_ref())[..8]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial);
    params.not_before = instant(now).saturating_sub(Duration::days(1));
    params.not_after = instant(now).saturating_add(CA_LIFETIME);
    Ok(params)
}

fn instant(now: UnixMillis) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(now.0 / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// 16 random bytes, positive and without a leading zero, so that hex of it and of the parsed certificate agree.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|_| PkiError::Make { what: "a serial number", source: rcgen::Error::RingUnspecified })?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn parse_key(path: &Path, pem: &[u8]) -> Result<KeyPair, PkiError> {
    let corrupt = || PkiError::Corrupt { path: path.to_owned(), what: "PKCS #8 private key in PEM" };
    let text = std::str::from_utf8(pem).map_err(|_| corrupt())?;
    KeyPair::from_pem(text).map_err(|_| corrupt())
}

pub(super) fn parse_certificate(path: &Path, pem: &[u8]) -> Result<CertificateDer<'static>, PkiError> {
    let corrupt = || PkiError::Corrupt { path: path.to_owned(), what: "certificate in PEM" };
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| corrupt())?;
    block.parse_x509().map_err(|_| corrupt())?;
    Ok(CertificateDer::from(block.contents))
}

pub(super) fn parse_private_key(path: &Path, pem: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, PkiError> {
    Ok(PrivatePkcs8KeyDer::from(parse_key(path, pem)?.serialize_der()))
}

fn check_pair(path: &Path, certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), PkiError> {
    let corrupt =
        || PkiError::Corrupt { path: PathBuf::from(path), what: "certificate of the CA key beside it" };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| corrupt())?;
    if parsed.public_key().raw == key.subject_public_key_info() { Ok(()) } else { Err(corrupt()) }
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, PkiError> {
    text.try_into().map_err(make("a name in a certificate"))
}

fn make(what: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Make { what, source }
}

fn pem_block(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn names() -> (ProjectId, DeviceId) {
        (ProjectId::new("acme").unwrap(), DeviceId::new("cam-1").unwrap())
    }

    fn csr_of_a_liar() -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["other-device".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "someone-else");
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn names_come_from_the_server_and_never_from_the_request() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path(), NOW).unwrap();
        let (project, device) = names();
        let key = DeviceKey::from_csr_pem(&csr_of_a_liar()).unwrap();
        let lifetime = std::time::Duration::from_hours(24);
        let issued = authority.issue_device(&project, &device, &key, NOW, lifetime).unwrap();
        let der = parse_certificate(Path::new("x"), issued.pem.as_bytes()).unwrap();
        let identity = DeviceIdentity::from_certificate(&der).unwrap();
        assert_eq!((&identity.project, &identity.device), (&project, &device));
        assert_eq!(identity.serial, issued.serial);
        assert_eq!(identity.not_after, NOW.plus_millis(86_400_000));
    }

    #[test]
    fn the_same_ca_comes_back_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(folder.path(), NOW).unwrap();
        let second = Authority::load_or_create(folder.path(), NOW).unwrap();
        assert_eq!(first.certificate(), second.certificate());
        std::fs::remove_file(folder.path().join("ca.pem")).unwrap();
        Authority::load_or_create(folder.path(), NOW).unwrap();
    }

    #[test]
    fn a_lost_or_corrupt_key_is_an_error_and_never_a_new_ca() {
        let folder = tempfile::tempdir().unwrap();
        Authority::load_or_create(folder.path(), NOW).unwrap();
        let key = folder.path().join("ca.key.pem");
        std::fs::write(&key, "garbage").unwrap();
        assert!(matches!(Authority::load_or_create(folder.path(), NOW), Err(PkiError::Corrupt { .. })));
        std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(Authority::load_or_create(folder.path(), NOW), Err(PkiError::Corrupt { .. })));
        std::fs::remove_file(&key).unwrap();
        assert!(matches!(Authority::load_or_create(folder.path(), NOW), Err(PkiError::KeyLost { .. })));
    }

    #[test]
    fn a_server_certificate_is_no_device() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path(), NOW).unwrap();
        let server = authority
            .issue_server(&["localhost".into(), "127.0.0.1".into()], std::time::Duration::from_hours(1), NOW)
            .unwrap();
        let der = parse_certificate(Path::new("x"), server.certificate_pem.as_bytes()).unwrap();
        assert!(matches!(DeviceIdentity::from_certificate(&der), Err(PkiError::NotADevice(_))));
    }
}
