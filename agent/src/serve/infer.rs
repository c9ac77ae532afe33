//! `POST /v2/models/{model}[/versions/{version}]/infer`

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::Request as HttpRequest;
use inference::{InferError, Tensor};

use super::answer::Answer;
use super::body::{self, Memory, Received};
use super::error::ApiError;
use super::models::ModelPath;
use super::path::Path;
use super::request::Asked;
use super::work::{After, Api, here, later};
use crate::monitor::{Outcome, Request, Times};
use crate::slots::{self, Loaded};

/// Largest body of a request that may run where it is.
const SHORT_BYTES: usize = 64 << 10;

pub(super) async fn infer(
    State(api): State<Api>,
    Path(path): Path<ModelPath>,
    request: HttpRequest<Body>,
) -> Result<Answer, ApiError> {
    let came = tokio::time::Instant::now();
    let answer = match check_unread(&api, &path, request.body()) {
        Ok(()) => answered(&api, &path, request).await,
        Err(refused) => {
            body::discard(&api, request).await;
            Err(refused)
        }
    };
    if let Err(ApiError::Overloaded { .. }) = &answer {
        api.refusals.pause(came).await;
    }
    answer
}

/// Refuses, by what its head says, a request that would only be read to find the queue full.
fn check_unread(api: &Api, path: &ModelPath, body: &Body) -> Result<(), ApiError> {
    if !api.may_be_full() {
        return Ok(());
    }
    match path.serving(api) {
        Ok(loaded) if is_long(&loaded, body.size_hint().lower()) => api.check_place(&loaded.model),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether one with so large a body has to wait for a turn.
fn is_long(loaded: &Loaded, body_bytes: u64) -> bool {
    !loaded.pace.is_short() || body_bytes > SHORT_BYTES as u64
}

async fn answered(api: &Api, path: &ModelPath, request: HttpRequest<Body>) -> Result<Answer, ApiError> {
    let body = body::receive(api, request).await?;
    let loaded = path.serving(api)?;
    if is_long(&loaded, body.bytes() as u64) {
        return run(api, loaded, body).await;
    }
    let worker = api.clone();
    // Here it is read at least, and answered if it doesn't turn out to be a batch much larger than the others.
    let met = here(move || {
        let (job, asked) = Job::begin(worker, loaded, body);
        if asked.as_ref().is_ok_and(|asked| !job.is_short(asked)) {
            return Err(Box::new((job, asked)));
        }
        Ok(job.work(asked, Duration::ZERO))
    });
    match met? {
        Ok((answer, after)) => {
            later(after);
            answer
        }
        Err(long) => {
            let (job, asked) = *long;
            api.run(job.loaded.model.clone(), move |waited| job.work(asked, waited)).await?
        }
    }
}

/// The same for a request that came another way than over HTTP, on threads that aren't the API's.
pub(super) async fn answer(api: &Api, model: &str, body: Received) -> Result<Answer, ApiError> {
    let loaded = api.serving(model, None)?;
    run(api, loaded, body).await
}

async fn run(api: &Api, loaded: Arc<Loaded>, body: Received) -> Result<Answer, ApiError> {
    let (worker, model) = (api.clone(), loaded.model.clone());
    let work = move |waited| {
        let (job, asked) = Job::begin(worker, loaded, body);
        job.work(asked, waited)
    };
    api.run(model, work).await?
}

/// One request on its way.
struct Job {
    api: Api,
    loaded: Arc<Loaded>,
    id: String,
    /// By which labels find it.
    remembered: Option<u64>,
    inputs: Vec<Tensor>,
    times: Times,
    /// CPU time of reading it.
    reading: Duration,
    /// The body's room, which its tensors take now.
    _memory: Memory,
}

enum Ended {
    Answered(Vec<Tensor>),
    Failed(&'static str),
    Refused,
}

impl Job {
    /// Reads what is asked.
    fn begin(api: Api, loaded: Arc<Loaded>, body: Received) -> (Self, Result<Asked, ApiError>) {
        let (begun, cpu) = (Instant::now(), slots::cpu_time());
        let parsed = Asked::parse(&body, loaded.runtime.spec());
        let asked = parsed.and_then(|asked| match asked.unknown_output(&loaded) {
            Some(unknown) => Err(unknown),
            None => Ok(asked),
        });
        let job = Self {
            api,
            loaded,
            id: String::new(),
            remembered: None,
            inputs: Vec::new(),
            times: Times { input: begun.elapsed(), ..Times::default() },
            reading: slots::cpu_time().saturating_sub(cpu),
            _memory: body.into_memory(),
        };
        (job, asked)
    }

    fn is_short(&self, asked: &Asked) -> bool {
        self.loaded.pace.admits(self.loaded.rows(&asked.inputs))
    }

    /// Everything else that takes time.
    fn work(mut self, asked: Result<Asked, ApiError>, queue: Duration) -> (Result<Answer, ApiError>, After) {
        self.times.queue = queue;
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => return (Err(error), self.ended(Ended::Refused, Duration::ZERO)),
        };
        let (begun, cpu) = (Instant::now(), slots::cpu_time());
        let result = self.loaded.runtime.infer(&asked.inputs);
        self.times.infer = begun.elapsed();
        let (answer, ended) = match result {
            Ok(outputs) => self.answered(&asked, outputs),
            Err(error) if error.is_caller_fault() => (Err(ApiError::Infer(error)), Ended::Refused),
            Err(error) => {
                let kind = kind_of(&error);
                (Err(ApiError::Infer(error)), Ended::Failed(kind))
            }
        };
        self.inputs = asked.inputs;
        (answer, self.ended(ended, cpu))
    }

    fn answered(&mut self, asked: &Asked, outputs: Vec<Tensor>) -> (Result<Answer, ApiError>, Ended) {
        let begun = Instant::now();
        let id = asked.id.clone().unwrap_or_else(|| self.api.new_id());
        let answer = match Answer::write(&self.loaded, &id, &outputs, asked) {
            Ok(answer) => answer,
            Err(error) => return (Err(error), Ended::Refused),
        };
        self.remembered = self.api.monitor.remember(&self.loaded, &id, &outputs, (self.api.now)());
        self.id = id;
        self.times.output = begun.elapsed();
        (Ok(answer), Ended::Answered(outputs))
    }

    /// Counts the request, once its answer has left. This thread began to infer when it had used `cpu`.
    fn ended(self, ended: Ended, cpu: Duration) -> After {
        let inferring = slots::cpu_time().saturating_sub(cpu);
        Box::new(move || {
            let cpu = slots::cpu_time();
            let outcome = match &ended {
                Ended::Answered(outputs) => Outcome::Answered(outputs),
                Ended::Failed(kind) => Outcome::Failed(kind),
                Ended::Refused => Outcome::Refused,
            };
            let Self { api, loaded, id, remembered, inputs, times, reading, .. } = &self;
            let at = (api.now)();
            api.monitor.record(&Request {
                id,
                remembered: *remembered,
                loaded,
                inputs,
                at,
                times: *times,
                outcome,
            });
            // What was refused tells nothing of the others.
            if !matches!(ended, Ended::Refused) {
                let took = *reading + inferring + slots::cpu_time().saturating_sub(cpu);
                loaded.pace.note(took, loaded.rows(inputs));
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
