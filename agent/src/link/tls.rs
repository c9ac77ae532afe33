//! TLS as a client: the fleet's CA only, ring, and the bounded clock.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::identity::{Identity, IdentityError};
use crate::health::Clock;

/// Why no TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A part of the identity is malformed.
    #[error("the identity can't be used for TLS")]
    Identity(#[source] IdentityError),
    /// rustls refuses a certificate or key.
    #[error("TLS refuses the certificates or the key")]
    Refused(#[source] rustls::Error),
}

/// For mutual TLS with the fleet's server.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(identity: &Identity, clock: &Clock) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = identity.tls_chain().map_err(TlsError::Identity)?;
    let key = identity.tls_key().map_err(TlsError::Identity)?;
    build(identity.tls_ca().map_err(TlsError::Identity)?, Some((chain, key)), Arc::new(clock.clone()))
}

/// The same, with the server's certificate judged at another time. Not to trust what it says then.
///
/// # Errors
/// [`TlsError`].
pub fn client_config_at(identity: &Identity, at: UnixTime) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = identity.tls_chain().map_err(TlsError::Identity)?;
    let key = identity.tls_key().map_err(TlsError::Identity)?;
    build(identity.tls_ca().map_err(TlsError::Identity)?, Some((chain, key)), Arc::new(At(at)))
}

#[derive(Debug)]
struct At(UnixTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// For enrolment: the server proves itself by `ca`, we have no certificate yet.
///
/// # Errors
/// [`TlsError`].
pub(super) fn enrolment_config(
    ca: CertificateDer<'static>,
    clock: &Clock,
) -> Result<Arc<ClientConfig>, TlsError> {
    build(vec![ca], None, Arc::new(clock.clone()))
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn build(
    ca: Vec<CertificateDer<'static>>,
    own: Option<Own>,
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots.add(certificate).map_err(TlsError::Refused)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?
        .with_root_certificates(roots);
    let config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::Refused)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// A handshake that ended because of a certificate's time, in words for people: rustls counts seconds since 1970.
pub(super) fn about_time(error: &(dyn Error + 'static)) -> Option<&'static str> {
    use CertificateError as C;
    let mut next = Some(error);
    while let Some(error) = next {
        // What an I/O error holds is not its source.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = held.map_or_else(|| error.downcast_ref(), |held| held.downcast_ref());
        match found {
            Some(rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. })) => {
                return Some("by this device's clock the server's certificate has expired");
            }
            Some(rustls::Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. })) => {
                return Some("by this device's clock the server's certificate is not valid yet");
            }
            Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
                return Some("by the server's clock this device's certificate has expired");
            }
            Some(_) | None => next = error.source(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::UnixTime;
    use std::time::Duration;

    #[derive(Debug, thiserror::Error)]
    #[error("TLS: {0}")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn what_a_certificates_time_ended_is_said_in_words() {
        let said = |error: rustls::Error| about_time(&Wrapped(io::Error::other(error)));
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext { time: at(2), not_after: at(1) };
        assert!(said(expired.into()).is_some_and(|said| said.contains("server's certificate has expired")));
        let early = CertificateError::NotValidYetContext { time: at(1), not_before: at(2) };
        assert!(said(early.into()).is_some_and(|said| said.contains("not valid yet")));
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        assert!(said(alert).is_some_and(|said| said.contains("this device's certificate")));
        assert_eq!(said(CertificateError::UnknownIssuer.into()), None);
        assert_eq!(about_time(&Wrapped(io::ErrorKind::TimedOut.into())), None);
    }
}
