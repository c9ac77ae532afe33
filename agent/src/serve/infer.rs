//! `POST /v2/models/{model}[/versions/{version}]/infer`

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::Request as HttpRequest;
use inference::{InferError, Tensor};

use super::answer::Answer;
use super::body::{self, Memory, Received};
use super::error::ApiError;
use super::models::ModelPath;
use super::path::Path;
use super::request::Asked;
use super::work::{After, Api};
use crate::monitor::{Outcome, Request, Times};
use crate::slots::{self, Loaded};

/// Largest body of a request that may run where it is.
const SHORT_BYTES: usize = 64 << 10;

pub(super) async fn infer(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
    request: HttpRequest<Body>,
) -> Result<Answer, ApiError> {
    let body = body::receive(&api, request).await?;
    let loaded = path.serving(&api)?;
    // What others asked says nothing of a batch that is much larger.
    let is_short = loaded.pace.is_short() && body.bytes() <= SHORT_BYTES;
    run(&api, is_short, loaded, body).await
}

/// The same for a request that came another way than over HTTP, on threads that aren't the API's.
pub(super) async fn answer(api: &Api, model: &str, body: Received) -> Result<Answer, ApiError> {
    let loaded = api.serving(model, None)?;
    run(api, false, loaded, body).await
}

async fn run(api: &Api, here: bool, loaded: Arc<Loaded>, body: Received) -> Result<Answer, ApiError> {
    let worker = api.clone();
    api.run(here, move |waited| work(worker, loaded, body, waited)).await?
}

/// Everything that takes time.
fn work(api: Api, loaded: Arc<Loaded>, body: Received, queue: Duration) -> (Result<Answer, ApiError>, After) {
    let mut job = Job {
        began: slots::cpu_time(),
        api,
        loaded,
        id: String::new(),
        inputs: Vec::new(),
        times: Times { queue, ..Times::default() },
        memory: Memory::default(),
    };
    let begun = Instant::now();
    let parsed = Asked::parse(&body, job.loaded.runtime.spec());
    job.memory = body.into_memory();
    job.times.input = begun.elapsed();
    let asked = match parsed {
        Ok(asked) => asked,
        Err(error) => return (Err(error), job.ended(Ended::Refused)),
    };
    if let Some(unknown) = asked.unknown_output(&job.loaded) {
        return (Err(unknown), job.ended(Ended::Refused));
    }
    let begun = Instant::now();
    let result = job.loaded.runtime.infer(&asked.inputs);
    job.times.infer = begun.elapsed();
    let (answer, ended) = match result {
        Ok(outputs) => job.answered(&asked, outputs),
        Err(error) if error.is_caller_fault() => (Err(ApiError::Infer(error)), Ended::Refused),
        Err(error) => {
            let kind = kind_of(&error);
            (Err(ApiError::Infer(error)), Ended::Failed(kind))
        }
    };
    job.inputs = asked.inputs;
    (answer, job.ended(ended))
}

/// One request on its way.
struct Job {
    /// CPU time of the one thread that does all of it.
    began: Duration,
    api: Api,
    loaded: Arc<Loaded>,
    id: String,
    inputs: Vec<Tensor>,
    times: Times,
    /// The body's room, which its tensors take now.
    memory: Memory,
}

enum Ended {
    Answered(Vec<Tensor>),
    Failed(&'static str),
    Refused,
}

impl Job {
    fn answered(&mut self, asked: &Asked, outputs: Vec<Tensor>) -> (Result<Answer, ApiError>, Ended) {
        let begun = Instant::now();
        let id = asked.id.clone().unwrap_or_else(|| self.api.new_id());
        let answer = match Answer::write(&self.loaded, &id, &outputs, asked) {
            Ok(answer) => answer,
            Err(error) => return (Err(error), Ended::Refused),
        };
        self.api.monitor.remember(&self.loaded, &id, &outputs, (self.api.now)());
        self.id = id;
        self.times.output = begun.elapsed();
        (Ok(answer), Ended::Answered(outputs))
    }

    /// Counts the request, once its answer has left.
    fn ended(self, ended: Ended) -> After {
        Box::new(move || {
            let outcome = match &ended {
                Ended::Answered(outputs) => Outcome::Answered(outputs),
                Ended::Failed(kind) => Outcome::Failed(kind),
                Ended::Refused => Outcome::Refused,
            };
            let Self { began, api, loaded, id, inputs, times, .. } = &self;
            let at = (api.now)();
            api.monitor.record(&Request { id, loaded, inputs, at, times: *times, outcome });
            // What was refused tells nothing of the others.
            if !matches!(ended, Ended::Refused) {
                loaded.pace.note(slots::cpu_time().saturating_sub(*began));
            }
        })
    }
}

/// A fixed name per kind of failure, for the pane's counters.
fn kind_of(error: &InferError) -> &'static str {
    match error {
        InferError::Panic { .. } => "panic",
        InferError::Post { .. } => "post",
        _ => "runtime",
    }
}
