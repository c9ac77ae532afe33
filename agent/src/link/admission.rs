//! Whether the server knows this device at all. MQTT refuses by hanging up, which looks like any broken connection; the
//! device port says why by name. It is asked only while there is no MQTT connection, ever more rarely.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::http::Refusal;
use super::renew::Links;
use super::session::LinkState;
use crate::retry::{self, Backoff, Policy};

const RETRY: Policy = Policy { min: Duration::from_secs(10), max: Duration::from_hours(1) };
/// What the server calls a device that only a new enrolment lets in again.
const FINAL: [&str; 3] = ["superseded", "decommissioned", "unknown_device"];
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// The asking task.
#[derive(Clone)]
pub struct Admission {
    /// Identity and HTTP as they are now.
    pub links: watch::Receiver<Arc<Links>>,
    /// Whether there is a connection.
    pub link: watch::Receiver<LinkState>,
    /// Why the server does not let this device in, as long as it says so.
    pub refusal: watch::Sender<Option<Refusal>>,
}

impl Admission {
    /// Asks until `stop`. Sleeps without a timer while there is a connection.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&mut self) {
        let mut backoff = Backoff::new(RETRY);
        loop {
            if self.link.wait_for(|state| !state.is_online).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay(retry::random())) => self.ask().await,
                is_online = async { self.link.wait_for(|state| state.is_online).await.is_ok() } => {
                    if !is_online {
                        return;
                    }
                    backoff.reset();
                    self.refusal.send_replace(None);
                }
            }
        }
    }

    /// Says what the server said; without an answer nothing new is known.
    async fn ask(&mut self) {
        let links = self.links.borrow_and_update().clone();
        let path = format!("/tuf/v1/{}/timestamp.json", links.identity.project);
        match links.http.get(&path, MAX_ANSWER_BYTES).await {
            Ok(_) => {
                self.refusal.send_replace(None);
            }
            Err(error) => {
                if let Some(refusal) = error.refusal().filter(is_final) {
                    tracing::error!(
                        code = refusal.code,
                        why = refusal.message,
                        "the server does not let this device in"
                    );
                    self.refusal.send_replace(Some(refusal));
                }
            }
        }
    }
}

fn is_final(refusal: &Refusal) -> bool {
    FINAL.contains(&refusal.code.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::http::FetchError;
    use super::*;
    use http::StatusCode;

    #[test]
    fn only_a_named_refusal_of_the_device_is_one() {
        let said = |status, text: &str| {
            let error = FetchError::Status { url: "u".into(), status, text: text.into() };
            error.refusal().filter(is_final).map(|refusal| refusal.code)
        };
        let named = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"Refused."}}}}"#);
        for code in FINAL {
            assert_eq!(said(StatusCode::FORBIDDEN, &named(code)).as_deref(), Some(code));
        }
        assert_eq!(said(StatusCode::FORBIDDEN, &named("too_many_connections")), None);
        assert_eq!(said(StatusCode::SERVICE_UNAVAILABLE, &named("superseded")), None, "it may pass");
        assert_eq!(said(StatusCode::FORBIDDEN, "<html>the proxy says no</html>"), None);
    }
}
