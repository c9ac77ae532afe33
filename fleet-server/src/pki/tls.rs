//! TLS of the three ports: `https` without client certificates, `device` and `mqtt` with them.
//!
//! The server's own certificate is reissued while running: connections made after that get the new one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use protocol::UnixMillis;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;

use super::authority::{parse_certificate, parse_private_key};
use super::{Authority, PkiError, read_secret, write_secret};
use crate::clock::Clock;

/// The server's certificate is reissued when less than a third of its lifetime is left.
const RENEW_FRACTION: i64 = 3;

/// How often the end is looked at.
const LOOK_EVERY: Duration = Duration::from_hours(1);

/// Names that every server certificate carries.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// rustls configurations of the server's ports.
#[derive(Clone)]
pub struct TlsConfigs {
    /// Console, API and enrolment: the server proves itself, clients sign in otherwise.
    pub https: Arc<ServerConfig>,
    /// Device HTTP and MQTT: a certificate of our CA is required.
    pub device: Arc<ServerConfig>,
}

impl TlsConfigs {
    /// Configurations around `certificate`, which may be renewed later.
    ///
    /// # Errors
    /// [`PkiError::Tls`] when rustls refuses the CA.
    pub fn new(authority: &Authority, certificate: &Arc<ServerCertificate>) -> Result<Self, PkiError> {
        let provider = provider();
        let roots = Arc::new(roots(authority.certificate())?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|e| PkiError::Tls {
                what: "verification of device certificates",
                source: rustls::Error::General(e.to_string()),
            })?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<ServerCertificate>::clone(certificate);
        let mut https = builder(&provider)?.with_no_client_auth().with_cert_resolver(Arc::clone(&resolver));
        https.alpn_protocols = vec![b"http/1.1".to_vec()];
        let device = builder(&provider)?.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
        Ok(Self { https: Arc::new(https), device: Arc::new(device) })
    }
}

/// The server's own certificate, replaceable while running.
#[derive(Debug)]
pub struct ServerCertificate {
    folder: PathBuf,
    names: Vec<String>,
    lifetime: Duration,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    not_after: UnixMillis,
}

impl ServerCertificate {
    /// Loads the certificate from `folder`; issues a new one when there is none, it nears its end, its names are
    /// not `names` plus the local ones, or another CA signed it.
    ///
    /// # Errors
    /// [`PkiError`] when a name can't stand in a certificate, or files or signing fail.
    pub fn load_or_issue(
        folder: &Path,
        authority: &Authority,
        names: &[String],
        lifetime: Duration,
        now: UnixMillis,
    ) -> Result<Self, PkiError> {
        let names = all_names(names)?;
        let current = match load(folder) {
            Ok(Some((current, certificate))) if is_fresh(&certificate, authority, &names, lifetime, now) => {
                current
            }
            // A damaged server certificate is replaced: nothing depends on the old one.
            Ok(_) | Err(PkiError::Corrupt { .. }) => issue(folder, authority, &names, lifetime, now)?,
            Err(e) => return Err(e),
        };
        Ok(Self { folder: folder.to_owned(), names, lifetime, current: RwLock::new(current) })
    }

    /// Reissues the certificate when it nears its end; returns whether it did. Called by a job.
    ///
    /// # Errors
    /// [`PkiError`] when files or signing fail; the old certificate stays in use then.
    pub fn renew_if_needed(&self, authority: &Authority, now: UnixMillis) -> Result<bool, PkiError> {
        let not_after = self.current.read().unwrap_or_else(PoisonError::into_inner).not_after;
        if has_long_to_go(not_after, self.lifetime, now) {
            return Ok(false);
        }
        let renewed = issue(&self.folder, authority, &self.names, self.lifetime, now)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(true)
    }
}

/// Looks every hour whether the server's certificate must be reissued, until shutdown.
///
/// # Errors
/// [`PkiError`] when reissuing fails; the supervisor logs it and tries again.
pub async fn keep_fresh(
    certificate: Arc<ServerCertificate>,
    authority: Arc<Authority>,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), PkiError> {
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
        if certificate.renew_if_needed(&authority, clock.now())? {
            tracing::info!("the server's certificate was reissued");
        }
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// A client that trusts only `ca` and, if given, shows its own certificate chain and key.
///
/// # Errors
/// [`PkiError::Tls`] when rustls refuses one of them.
pub fn client_config(
    ca: &CertificateDer<'_>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls("protocol versions"))?
        .with_root_certificates(roots(ca)?);
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(tls("a client certificate")),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, PkiError> {
    ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(tls("protocol versions"))
}

fn roots(ca: &CertificateDer<'_>) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned()).map_err(tls("the CA certificate"))?;
    Ok(roots)
}

fn tls(what: &'static str) -> impl FnOnce(rustls::Error) -> PkiError {
    move |source| PkiError::Tls { what, source }
}

fn all_names(configured: &[String]) -> Result<Vec<String>, PkiError> {
    let mut names: Vec<String> = LOCAL_NAMES.iter().map(ToString::to_string).collect();
    for name in configured {
        if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
            return Err(PkiError::BadName { name: name.clone() });
        }
        names.push(name.to_ascii_lowercase());
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn paths(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("server.key.pem"), folder.join("server.pem"))
}

fn has_long_to_go(not_after: UnixMillis, lifetime: Duration, now: UnixMillis) -> bool {
    let lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    not_after.millis_since(now) > lifetime_ms / RENEW_FRACTION
}

fn issue(
    folder: &Path,
    authority: &Authority,
    names: &[String],
    lifetime: Duration,
    now: UnixMillis,
) -> Result<Current, PkiError> {
    let issued = authority.issue_server(names, lifetime, now)?;
    let (key_path, certificate_path) = paths(folder);
    // A crash between the two leaves a pair that doesn't match: it is issued anew at the next start.
    write_secret(&key_path, issued.key_pem.as_bytes())?;
    write_secret(&certificate_path, issued.certificate_pem.as_bytes())?;
    let (current, _) = load(folder)?.ok_or(PkiError::KeyLost { path: key_path })?;
    Ok(current)
}

fn load(folder: &Path) -> Result<Option<(Current, CertificateDer<'static>)>, PkiError> {
    let (key_path, certificate_path) = paths(folder);
    let (Some(key), Some(pem)) = (read_secret(&key_path)?, read_secret(&certificate_path)?) else {
        return Ok(None);
    };
    let certificate = parse_certificate(&certificate_path, &pem)?;
    let key = PrivateKeyDer::Pkcs8(parse_private_key(&key_path, &key)?);
    let corrupt =
        || PkiError::Corrupt { path: certificate_path.clone(), what: "certificate of the key beside it" };
    let key = CertifiedKey::from_der(vec![certificate.clone()], key, &provider()).map_err(|_| corrupt())?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| corrupt())?;
    let not_after = UnixMillis(parsed.validity().not_after.timestamp().saturating_mul(1000));
    Ok(Some((Current { key: Arc::new(key), not_after }, certificate)))
}

fn is_fresh(
    certificate: &CertificateDer<'_>,
    authority: &Authority,
    names: &[String],
    lifetime: Duration,
    now: UnixMillis,
) -> bool {
    let (Ok((_, parsed)), Ok((_, ca))) = (
        x509_parser::parse_x509_certificate(certificate),
        x509_parser::parse_x509_certificate(authority.certificate()),
    ) else {
        return false;
    };
    let not_after = UnixMillis(parsed.validity().not_after.timestamp().saturating_mul(1000));
    has_long_to_go(not_after, lifetime, now)
        && parsed.verify_signature(Some(ca.public_key())).is_ok()
        && names_of(&parsed) == names
}

fn names_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return vec![] };
    let mut names: Vec<String> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ip_text(bytes),
            _ => None,
        })
        .collect();
    names.sort();
    names
}

fn ip_text(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_string());
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const LIFETIME: Duration = Duration::from_hours(90 * 24);

    fn certificate_of(folder: &Path) -> Vec<u8> {
        std::fs::read(folder.join("server.pem")).unwrap()
    }

    #[test]
    fn the_certificate_is_kept_until_names_change_or_its_end_nears() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path(), NOW).unwrap();
        let at = |names: &[&str], now| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            ServerCertificate::load_or_issue(folder.path(), &authority, &names, LIFETIME, now).unwrap();
            certificate_of(folder.path())
        };
        let first = at(&["fleet.example", "10.0.0.7"], NOW);
        assert_eq!(first, at(&["fleet.example", "10.0.0.7"], NOW));
        let renamed = at(&["other.example"], NOW);
        assert_ne!(first, renamed);
        let later = NOW.plus_millis(61 * 24 * 3600 * 1000);
        assert_ne!(renamed, at(&["other.example"], later));
    }

    #[test]
    fn a_running_server_renews_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path(), NOW).unwrap();
        let certificate =
            ServerCertificate::load_or_issue(folder.path(), &authority, &[], LIFETIME, NOW).unwrap();
        assert!(!certificate.renew_if_needed(&authority, NOW).unwrap());
        let before = Arc::clone(&certificate.current.read().unwrap().key);
        assert!(certificate.renew_if_needed(&authority, NOW.plus_millis(80 * 24 * 3600 * 1000)).unwrap());
        assert!(!Arc::ptr_eq(&before, &certificate.current.read().unwrap().key));
    }

    #[test]
    fn damaged_files_are_replaced_and_bad_names_refused() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path(), NOW).unwrap();
        ServerCertificate::load_or_issue(folder.path(), &authority, &[], LIFETIME, NOW).unwrap();
        std::fs::write(folder.path().join("server.key.pem"), "garbage").unwrap();
        ServerCertificate::load_or_issue(folder.path(), &authority, &[], LIFETIME, NOW).unwrap();
        let bad =
            ServerCertificate::load_or_issue(folder.path(), &authority, &["no spaces".into()], LIFETIME, NOW);
        assert!(matches!(bad, Err(PkiError::BadName { .. })));
    }
}
