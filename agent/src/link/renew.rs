//! Renewal of the device's certificate when two thirds of its lifetime have passed. The new one must work on a
//! connection of its own before it replaces the old one; with that connection the server retires the old one, so it
//! is on the disk before. Whatever ends the agent in between, the next start tries what waits there and has the old
//! one if the server does not know the new.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::enroll::{EnrollError, certificate_request};
use super::http::{FetchError, Http, Terms};
use super::identity::{Identity, IdentityError, Validity, forget_next, has_next, promote_next};
use super::tls::{TlsError, client_config};
use crate::health::Clock;
use crate::retry::{self, Backoff, Policy};
use protocol::UnixMillis;

const RETRY: Policy = Policy { min: Duration::from_secs(30), max: Duration::from_hours(6) };
/// The clock is looked at this often at least: a device may sleep, and its clock may jump.
const LOOK_EVERY: Duration = Duration::from_hours(1);
/// The least rest, however short certificates hold.
const REST: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: u64 = 256 * 1024;
/// The server's word for a certificate that is neither the current one nor its successor.
const SUPERSEDED: &str = "superseded";

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

/// The server's device port, as renewal uses it.
trait Port: Sync {
    /// A certificate for `key`, asked for with the identity in use.
    fn renew(
        &self,
        links: &Links,
        key: &rcgen::KeyPair,
    ) -> impl Future<Output = Result<Answer, RenewError>> + Send;

    /// The first use of a renewed identity.
    fn trial(&self, renewed: &Links) -> impl Future<Output = Result<(), FetchError>> + Send;
}

struct DevicePort;

impl Port for DevicePort {
    fn renew(
        &self,
        links: &Links,
        key: &rcgen::KeyPair,
    ) -> impl Future<Output = Result<Answer, RenewError>> + Send {
        let csr = certificate_request(key).map_err(RenewError::Request);
        async move {
            let body = serde_json::to_vec(&Request { csr: csr? }).map_err(RenewError::Answer)?;
            let answer = links.http.post_json("/device/v1/renew", body, MAX_ANSWER_BYTES).await;
            serde_json::from_slice(&answer.map_err(RenewError::Fetch)?).map_err(RenewError::Answer)
        }
    }

    async fn trial(&self, renewed: &Links) -> Result<(), FetchError> {
        let path = format!("/tuf/v1/{}/timestamp.json", renewed.identity.project);
        renewed.http.get(&path, 64 * 1024).await.map(drop)
    }
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
        while !stop.is_cancelled() {
            let wait = match self.until_due() {
                Some(wait) if !has_next(&self.state_dir) => wait,
                _ => self.try_once(&mut backoff).await,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// None when it is due, or can't be read.
    fn until_due(&self) -> Option<Duration> {
        let wait_ms = self.validity().ok()?.due().millis_since(self.clock.now());
        u64::try_from(wait_ms).ok().filter(|ms| *ms > 0).map(|ms| Duration::from_millis(ms).min(LOOK_EVERY))
    }

    fn validity(&self) -> Result<Validity, RenewError> {
        self.links.borrow().identity.validity().map_err(|_| RenewError::Certificate)
    }

    /// Renews; returns how long to rest then.
    async fn try_once(&self, backoff: &mut Backoff) -> Duration {
        let renewed = self.attempt(&DevicePort).await;
        let left = self.validity().map_or(Duration::ZERO, |validity| left(validity, self.clock.now()));
        match renewed {
            Ok(()) => {
                backoff.reset();
                rest_after_success(left)
            }
            Err(error) => {
                let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(error = %error, why, "the certificate is not renewed; trying again");
                rest_after_failure(left, backoff.next_delay(retry::random()))
            }
        }
    }

    /// Ends what an earlier attempt began, then renews if that is still due.
    async fn attempt(&self, port: &impl Port) -> Result<(), RenewError> {
        let finished = self.finish(port).await;
        // One that is in use and not yet in its place must not be overwritten by another.
        if self.until_due().is_some() || matches!(finished, Err(RenewError::Keep(_))) {
            return finished;
        }
        match (self.renew(port).await, finished) {
            (Ok(()), _) => Ok(()),
            (Err(_), Err(earlier)) => Err(earlier),
            (Err(error), Ok(())) => Err(error),
        }
    }

    async fn finish(&self, port: &impl Port) -> Result<(), RenewError> {
        let links = self.links.borrow().clone();
        let next = links.identity.load_next(&self.state_dir).map_err(RenewError::Keep)?;
        match next {
            None => Ok(()),
            Some(next) if next.certificate == links.identity.certificate => {
                promote_next(&self.state_dir).map_err(RenewError::Keep)
            }
            Some(next) => {
                let renewed = Links::new(next, &self.clock, self.terms.clone()).map_err(RenewError::Tls)?;
                self.prove(port, renewed).await
            }
        }
    }

    async fn renew(&self, port: &impl Port) -> Result<(), RenewError> {
        let links = self.links.borrow().clone();
        let key =
            rcgen::KeyPair::generate().map_err(|e| RenewError::Request(EnrollError::Keys(e.to_string())))?;
        let Answer { certificate, ca } = port.renew(&links, &key).await?;
        let identity = Identity { certificate, ca, key: key.serialize_pem(), ..links.identity.clone() };
        let renewed = Links::new(identity, &self.clock, self.terms.clone()).map_err(RenewError::Tls)?;
        renewed.identity.store_next(&self.state_dir).map_err(RenewError::Keep)?;
        self.prove(port, renewed).await
    }

    /// The first use of what waits on the disk. From then on the server lets nothing else in: it is used even when
    /// it can't be put in its place.
    async fn prove(&self, port: &impl Port, renewed: Links) -> Result<(), RenewError> {
        if let Err(error) = port.trial(&renewed).await {
            // Any other failure may hide that the server did let it in.
            if error.refusal().is_some_and(|refusal| refusal.code == SUPERSEDED) {
                forget_next(&self.state_dir).map_err(RenewError::Keep)?;
            }
            return Err(RenewError::Trial(error));
        }
        tracing::info!("the device's certificate is renewed");
        self.links.send_replace(Arc::new(renewed));
        promote_next(&self.state_dir).map_err(RenewError::Keep)
    }
}

fn left(validity: Validity, now: UnixMillis) -> Duration {
    u64::try_from(validity.not_after.millis_since(now)).map_or(Duration::ZERO, Duration::from_millis)
}

/// A server dates certificates back, so that one that holds for less than that is due from the start: it is renewed
/// after a third of what it has left.
fn rest_after_success(left: Duration) -> Duration {
    (left / 3).clamp(REST, LOOK_EVERY)
}

/// A certificate that still holds gets four more attempts at least, however long the delays have grown.
fn rest_after_failure(left: Duration, delay: Duration) -> Duration {
    if left.is_zero() { delay } else { delay.min((left / 4).max(REST)) }
}

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn short_certificates_are_looked_at_again_before_they_end() {
        assert_eq!(rest_after_success(HOUR * 24 * 90), LOOK_EVERY);
        assert_eq!(rest_after_success(HOUR), HOUR / 3);
        assert_eq!(rest_after_success(Duration::ZERO), REST, "no hot loop, whatever the server answers");
        let validity = Validity { not_before: UnixMillis(0), not_after: UnixMillis(60_000) };
        assert_eq!(left(validity, UnixMillis(20_000)), Duration::from_secs(40));
        assert_eq!(left(validity, UnixMillis(70_000)), Duration::ZERO);
    }

    #[test]
    fn a_certificate_that_ends_soon_is_tried_more_often_and_an_ended_one_is_not() {
        assert_eq!(rest_after_failure(HOUR * 8, HOUR * 6), HOUR * 2);
        assert_eq!(rest_after_failure(HOUR * 720, HOUR * 6), HOUR * 6);
        assert_eq!(rest_after_failure(Duration::from_secs(1), HOUR), REST);
        assert_eq!(rest_after_failure(Duration::ZERO, HOUR * 6), HOUR * 6);
    }
}
