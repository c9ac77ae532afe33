//! Who this device is: one file, readable by this user only, replaced as a whole. Its presence means "enrolled". A
//! copy of it takes its place when its bytes are damaged: what a device serves must not end with a block of its disk.
//! A renewed identity lies beside it from before its first use until it takes its place: the server may have retired
//! the old one by then.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::{DeviceId, Digest, ProjectId, UnixMillis};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trust::Ed25519Signer;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::durable::{self, DurableError};
use crate::health::{Problem, ProblemKind};

const FILE: &str = "identity.json";
/// The same again.
const COPY: &str = "identity.copy.json";
/// A renewed identity that has not replaced the other yet.
const NEXT: &str = "identity.next.json";
const MAX_BYTES: u64 = 128 * 1024;

/// Why the identity can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Reading or writing the file.
    #[error("the device's identity can't be kept")]
    File(#[source] DurableError),
    /// No identity yet.
    #[error("this device is not enrolled; run `flotilla-agent enroll --token ...` ({path} is missing)", path = path.display())]
    NotEnrolled {
        /// Where the identity would be.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{path} can't be read; enrol this device again", path = path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A key or certificate in the file is malformed.
    #[error("the identity's {0} is malformed; enrol this device again")]
    Field(&'static str),
}

impl IdentityError {
    /// Whether the file is there and can't be used: its copy may do.
    fn is_damage(&self) -> bool {
        match self {
            Self::File(error) => error.is_damage(),
            Self::NotEnrolled { .. } => false,
            Self::Format { .. } | Self::Field(_) => true,
        }
    }
}

/// The device's names, keys, certificates and addresses.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Tenant.
    pub project: ProjectId,
    /// This device.
    pub device: DeviceId,
    /// PEM of the device's certificate chain.
    pub certificate: String,
    /// PEM of the device's private key, made here; it never leaves.
    pub key: String,
    /// PEM of the fleet's CA: no other server is trusted.
    pub ca: String,
    /// Base64 of the seed of the ed25519 report key, made here; it never leaves.
    pub(super) report_seed: String,
    /// `mqtts://host:port`
    pub mqtt_url: String,
    /// `https://host:port`
    pub device_url: String,
    /// SHA-256 of the first root, when the token pinned it.
    pub root_pin: Option<Digest>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({}/{})", self.project, self.device)
    }
}

/// As it lies on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    identity: Identity,
    /// SHA-256 of the identity's own JSON; earlier agents wrote none.
    sum: Option<Digest>,
}

/// What enrolment brought, beside the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Tenant.
    pub project: ProjectId,
    /// This device.
    pub device: DeviceId,
    /// `mqtts://host:port`
    pub mqtt_url: String,
    /// `https://host:port`
    pub device_url: String,
    /// SHA-256 of the first root, when the token pinned it.
    pub root_pin: Option<Digest>,
}

impl Identity {
    /// Puts an identity together.
    pub fn new(
        names: Names,
        certificate: String,
        ca: String,
        key: String,
        report_key: &Ed25519Signer,
    ) -> Self {
        let Names { project, device, mqtt_url, device_url, root_pin } = names;
        let report_seed = STANDARD.encode(report_key.seed());
        Self { project, device, certificate, key, ca, report_seed, mqtt_url, device_url, root_pin }
    }

    /// Reads the identity from the state directory.
    ///
    /// # Errors
    /// [`IdentityError`]; a damaged file is never taken for "not enrolled".
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE);
        let error = match Self::read(&path) {
            Ok(Some(identity)) => return Ok(identity),
            Ok(None) => IdentityError::NotEnrolled { path },
            Err(error) if error.is_damage() => error,
            Err(error) => return Err(error),
        };
        let Ok(Some(copy)) = Self::read(&state_dir.join(COPY)) else { return Err(error) };
        tracing::error!(error = crate::chain(&error), "the copy of the device's identity is used");
        Ok(copy)
    }

    /// Makes the file and its copy the same where one is damaged or missing, or where a power cut came between both.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn mend(&self, state_dir: &Path) -> Result<(), IdentityError> {
        let bytes = self.bytes()?;
        self.unlike(state_dir)?
            .iter()
            .try_for_each(|path| durable::write_atomic(path, &bytes))
            .map_err(IdentityError::File)
    }

    /// Which of the file and its copy do not hold this identity.
    ///
    /// # Errors
    /// [`IdentityError::Field`].
    pub fn unlike(&self, state_dir: &Path) -> Result<Vec<PathBuf>, IdentityError> {
        let bytes = self.bytes()?;
        let is_same = |path: &Path| {
            durable::read_bounded(path, MAX_BYTES).is_ok_and(|there| there.as_ref() == Some(&bytes))
        };
        Ok([FILE, COPY].map(|name| state_dir.join(name)).into_iter().filter(|path| !is_same(path)).collect())
    }

    fn read(path: &Path) -> Result<Option<Self>, IdentityError> {
        let bytes = durable::read_bounded(path, MAX_BYTES).map_err(IdentityError::File)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let format = |source| IdentityError::Format { path: path.to_owned(), source };
        let Kept { identity, sum } = serde_json::from_slice(&bytes).map_err(format)?;
        if sum.is_some_and(|sum| identity.sum().is_none_or(|real| real != sum)) {
            return Err(IdentityError::Field("checksum"));
        }
        identity.report_key()?;
        identity.tls_key()?;
        identity.tls_ca()?;
        identity.validity()?;
        Ok(Some(identity))
    }

    fn sum(&self) -> Option<Digest> {
        serde_json::to_vec(self).ok().map(|bytes| Digest::from_bytes(Sha256::digest(bytes).into()))
    }

    /// Makes this the device's identity, durably.
    ///
    /// # Errors
    /// [`IdentityError::File`]; the earlier identity stays.
    pub fn store(&self, state_dir: &Path) -> Result<(), IdentityError> {
        self.write(&state_dir.join(FILE))?;
        if let Err(error) = self.write(&state_dir.join(COPY)) {
            // The next start makes it.
            tracing::warn!(error = crate::chain(&error), "there is no copy of the device's identity");
        }
        Ok(())
    }

    /// Keeps this renewed identity beside the one in use, durably.
    ///
    /// # Errors
    /// [`IdentityError::File`]; it must not be used then.
    pub fn store_next(&self, state_dir: &Path) -> Result<(), IdentityError> {
        self.write(&state_dir.join(NEXT))
    }

    /// The renewed identity that waits, if it is a renewal of this one. Another or a damaged one is removed.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn load_next(&self, state_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let bytes = durable::read_bounded(&state_dir.join(NEXT), MAX_BYTES).map_err(IdentityError::File)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let next = serde_json::from_slice::<Kept>(&bytes).ok().map(|kept| kept.identity);
        let next = next.filter(|next| next.is_renewal_of(self) && next.validity().is_ok());
        if next.is_none() {
            tracing::warn!(
                file = NEXT,
                "what waits there is no usable renewal of this identity; it is removed"
            );
            forget_next(state_dir)?;
        }
        Ok(next)
    }

    fn is_renewal_of(&self, earlier: &Self) -> bool {
        let names = |of: &Self| (of.project.clone(), of.device.clone(), of.report_seed.clone());
        names(self) == names(earlier) && self.tls_key().is_ok() && self.tls_ca().is_ok()
    }

    fn write(&self, path: &Path) -> Result<(), IdentityError> {
        durable::write_atomic(path, &self.bytes()?).map_err(IdentityError::File)
    }

    fn bytes(&self) -> Result<Vec<u8>, IdentityError> {
        let kept = Kept { identity: self.clone(), sum: self.sum() };
        serde_json::to_vec_pretty(&kept).map_err(|_| IdentityError::Field("text"))
    }

    /// The report key.
    ///
    /// # Errors
    /// [`IdentityError::Field`].
    pub fn report_key(&self) -> Result<Ed25519Signer, IdentityError> {
        let seed = STANDARD.decode(&self.report_seed).ok().and_then(|bytes| bytes.try_into().ok());
        seed.map(|seed: [u8; 32]| Ed25519Signer::from_seed(&seed)).ok_or(IdentityError::Field("report key"))
    }

    /// The certificate chain.
    ///
    /// # Errors
    /// [`IdentityError::Field`].
    pub fn tls_chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        certificates(&self.certificate).ok_or(IdentityError::Field("certificate"))
    }

    /// The fleet's CA.
    ///
    /// # Errors
    /// [`IdentityError::Field`].
    pub fn tls_ca(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        certificates(&self.ca).ok_or(IdentityError::Field("CA certificate"))
    }

    /// When the certificate holds.
    ///
    /// # Errors
    /// [`IdentityError::Field`].
    pub fn validity(&self) -> Result<Validity, IdentityError> {
        let chain = self.tls_chain()?;
        validity_of(&chain[0]).ok_or(IdentityError::Field("certificate"))
    }

    /// When the fleet's CA certificate holds.
    ///
    /// # Errors
    /// [`IdentityError::Field`].
    pub fn ca_validity(&self) -> Result<Validity, IdentityError> {
        validity_of(&self.tls_ca()?[0]).ok_or(IdentityError::Field("CA certificate"))
    }

    /// The private key.
    ///
    /// # Errors
    /// [`IdentityError::Field`].
    pub fn tls_key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| IdentityError::Field("private key"))
    }
}

/// Whether a renewed identity waits to be tried.
pub fn has_next(state_dir: &Path) -> bool {
    state_dir.join(NEXT).exists()
}

/// The renewed identity takes the place of the other, durably.
///
/// # Errors
/// [`IdentityError::File`]; it still waits then.
pub(super) fn promote_next(state_dir: &Path) -> Result<(), IdentityError> {
    durable::rename(&state_dir.join(NEXT), &state_dir.join(FILE)).map_err(IdentityError::File)?;
    if let Err(error) = Identity::load(state_dir).and_then(|renewed| renewed.mend(state_dir)) {
        // The next start makes it.
        tracing::warn!(error = crate::chain(&error), "the copy of the device's identity is the earlier one");
    }
    Ok(())
}

/// Removes the renewed identity that waits, if there is one.
///
/// # Errors
/// [`IdentityError::File`].
pub(super) fn forget_next(state_dir: &Path) -> Result<(), IdentityError> {
    durable::remove(&state_dir.join(NEXT)).map_err(IdentityError::File)
}

/// When a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first instant.
    pub not_before: UnixMillis,
    /// Its last: the end of the second that the certificate names.
    pub not_after: UnixMillis,
}

impl Validity {
    /// When it is due for renewal: after two thirds of its lifetime.
    pub fn due(&self) -> UnixMillis {
        self.after_sixths(4)
    }

    /// What is wrong with it at `now`.
    pub fn problem(&self, now: UnixMillis) -> Option<Problem> {
        if now > self.not_after {
            let detail = "the device's certificate has expired; the server doesn't let it in any more";
            return Some(Problem::new(ProblemKind::CertificateExpired, detail));
        }
        (now > self.after_sixths(5)).then(|| {
            let left = crate::shown::duration(self.not_after.millis_since(now));
            let detail = format!("the device's certificate expires in {left} and was not renewed");
            Problem::new(ProblemKind::CertificateNotRenewed, detail)
        })
    }

    fn after_sixths(&self, sixths: i64) -> UnixMillis {
        let lifetime_ms = self.not_after.millis_since(self.not_before).max(0);
        self.not_before.plus_millis(lifetime_ms / 6 * sixths)
    }
}

/// When a certificate holds; none when it is malformed.
pub(super) fn validity_of(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let at = |time: ASN1Time| UnixMillis(time.timestamp().saturating_mul(1000));
    let validity = certificate.validity();
    // X.509 counts whole seconds, and the last one still holds: the server lets the device in until it is over.
    let not_after = at(validity.not_after).plus_millis(999);
    Some(Validity { not_before: at(validity.not_before), not_after })
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A device's that has this certificate.
    pub(in crate::link) fn identity_with(key: &rcgen::KeyPair, certificate: String, ca: String) -> Identity {
        let names = Names {
            project: ProjectId::new("p").unwrap(),
            device: DeviceId::new("d").unwrap(),
            mqtt_url: "mqtts://h:8883".into(),
            device_url: "https://h:8444".into(),
            root_pin: None,
        };
        let signer = Ed25519Signer::from_seed(&[3; 32]);
        Identity::new(names, certificate, ca, key.serialize_pem(), &signer)
    }

    fn identity() -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        identity_with(&key, certificate.clone(), certificate)
    }

    #[test]
    fn a_damaged_identity_is_replaced_by_its_copy_and_both_are_mended() {
        let dir = tempfile::tempdir().unwrap();
        let [file, copy] = [FILE, COPY].map(|name| dir.path().join(name));
        let device = identity();
        device.store(dir.path()).unwrap();
        let good = std::fs::read(&file).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), good);
        assert!(device.unlike(dir.path()).unwrap().is_empty());
        for place in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[place] ^= 1;
            std::fs::write(&file, &bad).unwrap();
            let loaded = Identity::load(dir.path()).unwrap();
            assert_eq!(loaded.key, device.key, "byte {place}");
            loaded.mend(dir.path()).unwrap();
        }
        assert_eq!(std::fs::read(&file).unwrap(), good);
        std::fs::write(&copy, "{}").unwrap();
        assert_eq!(device.unlike(dir.path()).unwrap(), std::slice::from_ref(&copy));
        Identity::load(dir.path()).unwrap().mend(dir.path()).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), good);
        for path in [&file, &copy] {
            std::fs::write(path, "{}").unwrap();
        }
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Format { .. })));
        std::fs::write(&copy, &good).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(device.unlike(dir.path()).unwrap(), std::slice::from_ref(&file));
        Identity::load(dir.path()).unwrap().mend(dir.path()).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), good, "as where a repair of the disk took it away");
        for path in [&file, &copy] {
            std::fs::remove_file(path).unwrap();
        }
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::NotEnrolled { .. })));
    }

    #[test]
    fn identity_survives_a_restart_and_is_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        identity().store(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = Identity::load(dir.path()).unwrap();
        assert_eq!(loaded.report_key().unwrap().seed(), [3; 32]);
        assert!(!format!("{loaded:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_certificate_is_due_after_two_thirds_and_a_problem_when_it_was_not_renewed() {
        let validity = Validity { not_before: UnixMillis(0), not_after: UnixMillis(6_000_000) };
        assert_eq!(validity.due(), UnixMillis(4_000_000));
        assert_eq!(validity.problem(UnixMillis(4_900_000)), None);
        let kind = |at| validity.problem(UnixMillis(at)).map(|problem| problem.kind);
        assert_eq!(kind(5_100_000), Some(ProblemKind::CertificateNotRenewed));
        assert_eq!(kind(6_000_001), Some(ProblemKind::CertificateExpired));
    }

    #[test]
    fn a_certificate_holds_through_the_whole_second_that_it_names() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let ends = UnixMillis(params.not_after.unix_timestamp() * 1000);
        let certificate = params.self_signed(&key).unwrap();
        let validity = validity_of(certificate.der()).unwrap();
        let kind = |at| validity.problem(at).map(|problem| problem.kind);
        assert_eq!(kind(ends.plus_millis(999)), Some(ProblemKind::CertificateNotRenewed));
        assert_eq!(kind(ends.plus_millis(1000)), Some(ProblemKind::CertificateExpired));
    }

    #[test]
    fn missing_is_not_enrolled_and_damaged_is_not_missing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::NotEnrolled { .. })));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Format { .. })));
    }
}
