//! Brings captured samples to the server: part by part, from where an earlier try stopped. A sample is removed here only
//! when the server says that it has stored and checked all of it, or that it never will.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use protocol::sample::{PART_BYTES, UploadState};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::http::{FetchError, Part};
use super::renew::Links;
use super::session::LinkState;
use crate::durable::DurableError;
use crate::monitor::{Capture, Cause};
use crate::retry::{self, Backoff, Policy};
use crate::store::Held;

const MAX_ANSWER_BYTES: u64 = 64 * 1024;
/// Times that the server may name another place than was sent to, before the try is given up.
const MAX_MOVES: u32 = 3;
/// Refusals that no later try can change: the sample is given up.
const FOR_GOOD: [&str; 5] =
    ["samples_forbidden", "unknown_release", "wrong_digest", "bad_sample", "sample_too_large"];

/// The task that sends samples.
#[derive(Clone)]
pub struct SampleUpload {
    /// What is kept, and the consent to send it.
    pub capture: Arc<Capture>,
    /// The way to the server.
    pub links: watch::Receiver<Arc<Links>>,
    /// Whether there is one.
    pub link: watch::Receiver<LinkState>,
    /// Delays after a failure.
    pub retry: Policy,
}

/// Why a sample is not at the server yet.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("the sample can't be read or removed")]
    Disk(#[source] DurableError),
    #[error("the way to the server")]
    Fetch(#[source] FetchError),
    #[error("the server answered {status} {code}: {message}")]
    Later { status: StatusCode, code: String, message: String },
    #[error("the consent was withdrawn")]
    Withdrawn,
    #[error("the server names a place that can't be: {0}")]
    Astray(String),
}

impl UploadError {
    /// Whether another sample may fare better: what lies with the way, with the consent or with a server that has no room
    /// or no time holds for all.
    fn is_of_one(&self) -> bool {
        match self {
            Self::Disk(_) | Self::Astray(_) => true,
            Self::Later { status, .. } => {
                ![StatusCode::INSUFFICIENT_STORAGE, StatusCode::SERVICE_UNAVAILABLE].contains(status)
            }
            Self::Fetch(_) | Self::Withdrawn => false,
        }
    }
}

/// How one sample ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Stored,
    GivenUp(Cause),
}

impl SampleUpload {
    /// Sends what is kept until `stop`. Sleeps without a timer while nothing waits.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.send_all() => {}
        }
    }

    async fn send_all(&mut self) {
        let mut backoff = Backoff::new(self.retry);
        loop {
            let Some(held) = self.capture.samples().next().filter(|_| self.capture.is_on()) else {
                self.capture.samples().added().await;
                continue;
            };
            if self.link.wait_for(|state| state.is_online).await.is_err() {
                return;
            }
            match self.send(&held).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    // Its room at the server is used up: that takes days to change.
                    if matches!(error, UploadError::Later { status: StatusCode::INSUFFICIENT_STORAGE, .. }) {
                        backoff.jump_to_max();
                    }
                    if error.is_of_one() {
                        self.capture.samples().pass_over(&held);
                    }
                    tracing::warn!(error = crate::chain(&error), sample = %held.digest, "a sample could not be sent; trying again");
                    tokio::time::sleep(backoff.next_delay(retry::random())).await;
                }
            }
        }
    }

    async fn send(&self, held: &Held) -> Result<(), UploadError> {
        let samples = self.capture.samples().clone();
        let wanted = held.clone();
        let read = blocking(move || samples.read(&wanted)).await?;
        let ended = match read {
            Some(bytes) => self.bring(&format!("/device/v1/samples/{}", held.digest), bytes.into()).await?,
            None => Ended::GivenUp(Cause::Damaged),
        };
        let given_up = match ended {
            Ended::Stored => None,
            Ended::GivenUp(cause) => Some(cause),
        };
        let (capture, ended) = (self.capture.clone(), held.clone());
        blocking(move || capture.end(&ended, given_up)).await
    }

    /// Sends the parts that the server lacks.
    async fn bring(&self, path: &str, bytes: Bytes) -> Result<Ended, UploadError> {
        let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let http = self.links.borrow().http.clone();
        let (mut first, mut moves) = (self.begin(&http, path, total).await?, 0);
        loop {
            if !self.capture.is_on() {
                return Err(UploadError::Withdrawn);
            }
            let part =
                part(&bytes, first).ok_or_else(|| UploadError::Astray(format!("{first} of {total}")))?;
            let sent = first + u64::try_from(part.bytes.len()).unwrap_or(u64::MAX);
            let (status, answer) =
                http.put_part(path, part, MAX_ANSWER_BYTES).await.map_err(UploadError::Fetch)?;
            let state = serde_json::from_slice::<UploadState>(&answer).ok();
            match state.filter(|_| status.is_success() || status == StatusCode::CONFLICT) {
                Some(UploadState { is_stored: true, .. }) => return Ok(Ended::Stored),
                Some(UploadState { got_bytes, .. }) => {
                    if got_bytes != sent {
                        moves += 1;
                    }
                    if moves > MAX_MOVES {
                        return Err(UploadError::Astray(format!("{got_bytes} of {total} again and again")));
                    }
                    first = got_bytes;
                }
                None => return refused(status, &answer),
            }
        }
    }

    /// Where to begin: a sample of one part is just sent; of a longer one the server may have a part already.
    async fn begin(&self, http: &super::http::Http, path: &str, total: u64) -> Result<u64, UploadError> {
        if total <= PART_BYTES {
            return Ok(0);
        }
        let answer = http.get(path, MAX_ANSWER_BYTES).await.map_err(UploadError::Fetch)?;
        let state = answer.and_then(|answer| serde_json::from_slice::<UploadState>(&answer).ok());
        // One that is stored already is told so by the answer to its first part.
        Ok(state
            .filter(|state| !state.is_stored && state.got_bytes < total)
            .map_or(0, |state| state.got_bytes))
    }
}

fn part(bytes: &Bytes, first: u64) -> Option<Part> {
    let begin = usize::try_from(first).ok().filter(|begin| *begin < bytes.len())?;
    let end = bytes.len().min(begin.saturating_add(usize::try_from(PART_BYTES).ok()?));
    Some(Part { first, total: u64::try_from(bytes.len()).ok()?, bytes: bytes.slice(begin..end) })
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize, Default)]
struct ErrorDetail {
    code: String,
    message: String,
}

fn refused(status: StatusCode, answer: &[u8]) -> Result<Ended, UploadError> {
    let ErrorDetail { code, message } = serde_json::from_slice::<ErrorBody>(answer).unwrap_or_default().error;
    if FOR_GOOD.contains(&code.as_str()) {
        tracing::warn!(code, message, "the server refuses a sample for good");
        return Ok(Ended::GivenUp(Cause::Refused));
    }
    Err(UploadError::Later { status, code, message })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DurableError> + Send + 'static,
) -> Result<T, UploadError> {
    let ended = |_| DurableError::Io {
        operation: "wait for",
        path: "samples".into(),
        source: std::io::ErrorKind::Interrupted.into(),
    };
    tokio::task::spawn_blocking(work).await.map_err(ended).and_then(|done| done).map_err(UploadError::Disk)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::sample::Strategy;

    use super::*;
    use crate::config::{RawConfig, Spool};
    use crate::link::http::origin::{Manner, Origin};
    use crate::store::{Bounds, Samples};

    #[test]
    fn parts_follow_each_other_to_the_end() {
        let size = usize::try_from(PART_BYTES).unwrap();
        let bytes = Bytes::from(vec![1; 2 * size + 5]);
        let (mut first, mut lengths) = (0, Vec::new());
        while let Some(part) = part(&bytes, first) {
            first += u64::try_from(part.bytes.len()).unwrap();
            lengths.push(part.bytes.len());
        }
        assert_eq!(lengths, [size, size, 5]);
        assert!(part(&bytes, u64::MAX).is_none());
    }

    #[test]
    fn only_a_refusal_that_nothing_can_change_gives_a_sample_up() {
        let answer = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"m","details":{{}}}}}}"#);
        for code in FOR_GOOD {
            let ended = refused(StatusCode::FORBIDDEN, answer(code).as_bytes()).unwrap();
            assert_eq!(ended, Ended::GivenUp(Cause::Refused), "{code}");
        }
        for answer in [answer("sample_quota"), answer("device_unknown"), String::new(), "<html>".into()] {
            let error = refused(StatusCode::FORBIDDEN, answer.as_bytes()).unwrap_err();
            assert!(matches!(error, UploadError::Later { .. }), "{answer}");
        }
        let of_one = [(507, false), (503, false), (500, true), (400, true)];
        for (status, is_of_one) in of_one {
            let error = refused(StatusCode::from_u16(status).unwrap(), b"").unwrap_err();
            assert_eq!(error.is_of_one(), is_of_one, "{status}");
        }
    }

    #[tokio::test]
    async fn a_sample_that_broke_off_goes_on_from_the_part_that_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let clock = crate::health::Clock::open(dir.path()).unwrap();
        let samples = Samples::open(dir.path(), &Spool::default(), clock.now());
        let bytes = vec![7; 2 * usize::try_from(PART_BYTES).unwrap() + 5];
        let bounds = Bounds { quota_bytes: 1 << 20, max_per_day: 9 };
        samples.put(Strategy::Random, clock.now(), &bytes, bounds).unwrap();
        let rules = RawConfig::default().with_flags(["capture.consent=true"].into_iter()).check().unwrap();
        let origin = Origin::begin();
        let links = Links { http: origin.client(), ..crate::link::alone::links(&clock) };
        let upload = SampleUpload {
            capture: Arc::new(Capture::new(rules.capture, samples.clone(), 1)),
            links: watch::channel(Arc::new(links)).1,
            link: watch::channel(LinkState::default()).1,
            retry: Policy { min: Duration::ZERO, max: Duration::ZERO },
        };
        let held = samples.next().unwrap();
        let path = format!("/device/v1/samples/{}", held.digest);
        let firsts = || origin.asked().into_iter().map(|(_, first)| first as u64).collect::<Vec<_>>();
        origin.answers([Manner::Serve, Manner::CutAfter(0)]);
        let broken = upload.send(&held).await;
        assert!(matches!(broken, Err(UploadError::Fetch(_))), "{broken:?}");
        assert_eq!((firsts(), samples.depth().0), (vec![0, 0, PART_BYTES], 1));
        upload.send(&held).await.unwrap();
        assert_eq!(firsts(), [0, PART_BYTES, 2 * PART_BYTES], "what is due, then the parts from there");
        assert_eq!((origin.sample(&path), samples.depth().0), (bytes, 0));
    }
}
