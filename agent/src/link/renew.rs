//! Renewal of the device's certificate when two thirds of its lifetime have passed. The new one must work on a
//! connection of its own before it replaces the old one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::enroll::{EnrollError, certificate_request};
use super::http::{FetchError, Http, Terms};
use super::identity::{Identity, IdentityError};
use super::tls::{TlsError, client_config};
use crate::health::Clock;
use crate::retry::{self, Backoff, Policy};

const RETRY: Policy = Policy { min: Duration::from_secs(30), max: Duration::from_hours(6) };
/// The clock is looked at this often at least: a device may sleep, and its clock may jump.
const LOOK_EVERY: Duration = Duration::from_hours(1);
const MAX_ANSWER_BYTES: u64 = 256 * 1024;

/// Identity, TLS and HTTP that belong together.
pub struct Links {
    /// Who this device is.
    pub identity: Identity,
    /// Mutual TLS as this device.
    pub tls: Arc<ClientConfig>,
    /// The device port.
    pub http: Http,
}

impl Links {
    /// Puts them together.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(identity: Identity, clock: &Clock, terms: Terms) -> Result<Self, TlsError> {
        let tls = client_config(&identity, clock)?;
        let http = Http::new(&identity.device_url, &tls, terms);
        Ok(Self { identity, tls, http })
    }
}

/// Why the certificate is not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The certificate in use can't be read.
    #[error("the device's certificate can't be read")]
    Certificate,
    /// No request could be made.
    #[error("no certificate request could be made")]
    Request(#[source] EnrollError),
    /// The server.
    #[error("the server did not renew")]
    Fetch(#[source] FetchError),
    /// The answer is not one.
    #[error("the server's answer can't be used")]
    Answer(#[source] serde_json::Error),
    /// The new certificate does not fit the key.
    #[error("the new certificate can't be used")]
    Tls(#[source] TlsError),
    /// The new certificate did not work on its own connection.
    #[error("the new certificate was not accepted")]
    Trial(#[source] FetchError),
    /// It could not be kept.
    #[error("the new certificate could not be kept")]
    Keep(#[source] IdentityError),
}

#[derive(Serialize)]
struct Request {
    csr: String,
}

#[derive(Deserialize)]
struct Answer {
    certificate: String,
    ca: String,
}

/// The renewing task.
pub struct Renewal {
    /// Where the identity lives.
    pub state_dir: PathBuf,
    /// What everybody uses.
    pub links: watch::Sender<Arc<Links>>,
    /// Bounded time.
    pub clock: Clock,
    /// How requests go.
    pub terms: Terms,
}

impl Renewal {
    /// Watches and renews until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let wait = match self.due_in() {
                Ok(wait) if !wait.is_zero() => wait.min(LOOK_EVERY),
                Ok(_) | Err(_) => match self.renew().await {
                    Ok(()) => {
                        backoff.reset();
                        LOOK_EVERY
                    }
                    Err(error) => {
                        let why =
                            std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                        tracing::warn!(error = %error, why, "the certificate is not renewed; trying again");
                        backoff.next_delay(retry::random())
                    }
                },
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn due_in(&self) -> Result<Duration, RenewError> {
        let validity = self.links.borrow().identity.validity().map_err(|_| RenewError::Certificate)?;
        let wait_ms = validity.due().millis_since(self.clock.now());
        Ok(u64::try_from(wait_ms).map_or(Duration::ZERO, Duration::from_millis))
    }

    async fn renew(&self) -> Result<(), RenewError> {
        let links = self.links.borrow().clone();
        let key =
            rcgen::KeyPair::generate().map_err(|e| RenewError::Request(EnrollError::Keys(e.to_string())))?;
        let csr = certificate_request(&key).map_err(RenewError::Request)?;
        let body = serde_json::to_vec(&Request { csr }).map_err(RenewError::Answer)?;
        let answer = links
            .http
            .post_json("/device/v1/renew", body, MAX_ANSWER_BYTES)
            .await
            .map_err(RenewError::Fetch)?;
        let Answer { certificate, ca } = serde_json::from_slice(&answer).map_err(RenewError::Answer)?;
        let identity = Identity { certificate, ca, key: key.serialize_pem(), ..links.identity.clone() };
        let renewed = Links::new(identity, &self.clock, self.terms.clone()).map_err(RenewError::Tls)?;
        let path = format!("/tuf/v1/{}/timestamp.json", renewed.identity.project);
        renewed.http.get(&path, 64 * 1024).await.map_err(RenewError::Trial)?;
        renewed.identity.store(&self.state_dir).map_err(RenewError::Keep)?;
        tracing::info!("the device's certificate is renewed");
        self.links.send_replace(Arc::new(renewed));
        Ok(())
    }
}
