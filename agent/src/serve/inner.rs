//! The API without HTTP: what the watched folder and the local broker ask goes the same way as any application's
//! request, bounded and counted alike.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::error::ApiError;
use super::work::Api;
use super::{body, infer, work};
use crate::monitor::{Outcome, Request, Times};
use crate::slots::Loaded;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The protocol's error, as JSON.
    pub json: Vec<u8>,
    /// Whether the same request may be answered later.
    pub is_later: bool,
}

impl Refused {
    /// The error's text.
    pub fn why(&self) -> String {
        let error = serde_json::from_slice::<serde_json::Value>(&self.json).unwrap_or_default();
        error["error"].as_str().unwrap_or("it was refused").to_owned()
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let is_later = error.is_later();
        let json = error.json().to_string().into_bytes();
        Self { json, is_later }
    }
}

impl Api {
    /// Answers an inference: `json` is the protocol's request, `behind` its binary tensors. Returns the protocol's
    /// answer as JSON.
    ///
    /// # Errors
    /// [`Refused`] with the protocol's error.
    pub async fn ask(&self, model: &str, json: Bytes, behind: Bytes) -> Result<Vec<u8>, Refused> {
        let body = body::taken(self, json, behind).inspect_err(|error| self.count_too_large(model, error))?;
        Ok(infer::answer(self, model, body).await?.into_json()?)
    }

    /// One that is refused before it is read; an overload has a count of its own.
    fn count_too_large(&self, model: &str, error: &ApiError) {
        if let ApiError::BodyTooLarge { .. } = error
            && let Ok(loaded) = self.serving(model, None)
        {
            self.monitor.record(&Request {
                id: "",
                remembered: None,
                loaded: &loaded,
                inputs: &[],
                at: (self.now)(),
                times: Times::default(),
                outcome: Outcome::Refused,
            });
        }
    }

    /// Most bytes of a request.
    pub fn max_request_bytes(&self) -> usize {
        self.limits.max_body_bytes
    }

    /// The release that serves a model now.
    ///
    /// # Errors
    /// [`Refused`] with the protocol's error.
    pub fn release(&self, model: &str) -> Result<Arc<Loaded>, Refused> {
        Ok(self.serving(model, None)?)
    }

    /// Inferences that run at once; more would only wait for their turn, and be refused if it doesn't come in time.
    pub fn at_once(&self) -> usize {
        work::threads(&self.limits)
    }

    /// Counts answers that could not be handed to whoever asked.
    pub fn count_lost_answers(&self, count: usize) {
        self.lost_answers.fetch_add(count as u64, Ordering::Relaxed);
    }
}
