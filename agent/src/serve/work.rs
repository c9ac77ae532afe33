//! What all handlers share: the serving releases, the monitor, and the bounded way to the threads that infer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::{ModelName, UnixMillis};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::body;
use super::error::ApiError;
use super::leftover::Leftover;
use super::refusals::Refusals;
use super::turns::Turns;
use crate::config;
use crate::monitor::Monitor;
use crate::slots::{Loaded, Table};

/// Writes the agent's own part of `/status`; the API adds its models.
pub type StatusSource = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// The local API's state; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

impl std::ops::Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What is behind every clone of [`Api`].
pub struct Shared {
    pub(super) table: Table,
    pub(super) monitor: Arc<Monitor>,
    pub(super) now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    pub(super) status: StatusSource,
    pub(super) limits: config::Serve,
    pub(super) overloads: AtomicU64,
    pub(super) lost_answers: AtomicU64,
    pub(super) refusals: Refusals,
    /// Cancelled when no connection is taken any more.
    pub(super) stopping: CancellationToken,
    run: u64,
    next_id: AtomicU64,
    /// Connections. Full: refuse.
    pub(super) connections: Arc<Semaphore>,
    /// Memory for bodies. Full: refuse.
    pub(super) bodies: Arc<Semaphore>,
    pub(super) leftover: Arc<Leftover>,
    /// Requests that wait or run. Full: refuse, or refuse one of a model that has more there. All run that may: wait in
    /// place, models in rotation, for a bounded time.
    turns: Arc<Turns>,
}

impl Api {
    /// `run` is a random number of this run of the agent; inference ids begin with it. `now` is the device's clock.
    pub fn new(
        config: &config::Serve,
        table: Table,
        monitor: Arc<Monitor>,
        run: u64,
        now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
        status: StatusSource,
    ) -> Self {
        Self(Arc::new(Shared {
            table,
            monitor,
            now,
            status,
            limits: config.clone(),
            overloads: AtomicU64::new(0),
            lost_answers: AtomicU64::new(0),
            refusals: Refusals::default(),
            stopping: CancellationToken::new(),
            run,
            next_id: AtomicU64::new(0),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            bodies: Arc::new(Semaphore::new(body::units(config.max_body_bytes))),
            leftover: Arc::default(),
            turns: Turns::new(config.queue, threads(config)),
        }))
    }

    /// The release that serves `name` now; with a version, only if it is that one.
    pub(super) fn serving(&self, name: &str, version: Option<&str>) -> Result<Arc<Loaded>, ApiError> {
        let asked = ModelName::new(name).ok();
        let Some(loaded) = asked.as_ref().and_then(|model| self.table.active(model)) else {
            if let Some(why) = asked.and_then(|model| self.table.absent(&model)) {
                return Err(ApiError::NotLoaded { name: name.to_owned(), why });
            }
            let served = self.table.all_active();
            let served: Vec<&str> = served.iter().map(|loaded| loaded.model.as_str()).collect();
            let name = name.chars().take(80).collect();
            return Err(ApiError::UnknownModel { name, served: served.join(", ") });
        };
        match version {
            Some(wanted) if wanted != loaded.release.version.as_str() => Err(ApiError::UnknownVersion {
                name: name.to_owned(),
                serving: loaded.release.version.to_string(),
                wanted: wanted.chars().take(80).collect(),
            }),
            Some(_) | None => Ok(loaded),
        }
    }

    /// An id that no other inference of this device has.
    pub(super) fn new_id(&self) -> String {
        format!("{:08x}-{:x}", self.run & 0xffff_ffff, self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs `work` for a model on a thread for inferences, with the time that it waited for its turn: refused when the
    /// queue is full or when its turn doesn't come in time. `work` says what else there is to do once its answer has left.
    ///
    /// It is given up after the timeout and keeps its place until it is done, so that slow models can't pile up.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        model: ModelName,
        work: impl FnOnce(Duration) -> (T, After) + Send + 'static,
    ) -> Result<T, ApiError> {
        let came = Instant::now();
        let (sender, mut answer) = oneshot::channel();
        let place = self.turns.enter(model, move |turn| {
            // The caller may have given up; counting goes on all the same.
            let Some(_until_it_is_counted) = turn else { return drop(sender.send(Err(Displaced))) };
            let (answer, after) = work(came.elapsed());
            let _ = sender.send(Ok(answer));
            after();
        });
        let place = place.ok_or_else(|| self.overloaded(Full::Queue))?;
        let (max_wait, timeout) = (self.limits.max_wait, self.limits.timeout);
        let answer = match tokio::time::timeout(max_wait.min(timeout), &mut answer).await {
            Ok(answer) => answer,
            Err(_) if place.withdraw() => return Err(self.overloaded(Full::Time)),
            Err(_) => tokio::time::timeout(timeout.saturating_sub(came.elapsed()), answer)
                .await
                .map_err(|_| ApiError::Timeout { timeout_ms: timeout.as_millis() })?,
        };
        answer.map_err(|_| ApiError::Died)?.map_err(|Displaced| self.overloaded(Full::Share))
    }

    /// Whether no request may get a place now, of whatever model.
    pub(super) fn may_be_full(&self) -> bool {
        self.turns.is_full()
    }

    /// Refuses what would find the queue full.
    pub(super) fn check_place(&self, model: &ModelName) -> Result<(), ApiError> {
        if self.turns.is_full_for(model) { Err(self.overloaded(Full::Queue)) } else { Ok(()) }
    }

    /// Waits until what was done is counted too, for a bounded time; false if it isn't by then.
    pub async fn at_rest(&self, bound: Duration) -> bool {
        tokio::time::timeout(bound, self.turns.at_rest()).await.is_ok()
    }

    /// Requests that wait or run now.
    pub(super) fn waiting(&self) -> usize {
        self.turns.taken()
    }
}

/// Runs `work` on the caller's asynchronous thread, which has to be the API's own: so may what is known to be short. To
/// wake another thread, and to be woken by it, takes longer; and it waits for no turn, and takes no place in the queue,
/// behind the long ones of another model.
pub(super) fn here<T>(work: impl FnOnce() -> T) -> Result<T, ApiError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| ApiError::Died)
}

/// Does on the API's own asynchronous thread what is left to do, once the caller has given its answer away. It is done
/// before that thread reads another request, and at the latest when it ends.
pub(super) fn later(after: After) {
    struct Left(Option<After>);

    impl Drop for Left {
        fn drop(&mut self) {
            if let Some(after) = self.0.take() {
                after();
            }
        }
    }

    let left = Left(Some(after));
    tokio::spawn(async move { drop(left) });
}

impl Shared {
    /// Counts a refusal and says what there is too much of.
    pub(super) fn overloaded(&self, of: Full) -> ApiError {
        self.overloads.fetch_add(1, Ordering::Relaxed);
        let why = match of {
            Full::Connections => format!("{} connections are open already", self.limits.max_connections),
            Full::Bodies => "the bodies of other requests fill the memory for them".to_owned(),
            Full::Queue => format!("{} requests wait or run already", self.limits.queue),
            Full::Share => "other models have fewer requests in the full queue and go first".to_owned(),
            Full::Time => format!("no turn came within {} ms", self.limits.max_wait.as_millis()),
        };
        ApiError::Overloaded { why }
    }
}

/// Inferences that run at once.
pub(super) fn threads(config: &config::Serve) -> usize {
    match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Open connections.
    Connections,
    /// Bytes of bodies.
    Bodies,
    /// Requests that wait or run.
    Queue,
    /// Those of one model among them.
    Share,
    /// Time that a request has waited for its turn.
    Time,
}

/// Another model needed the place more.
struct Displaced;

/// Something to do once the answer is made.
pub(super) type After = Box<dyn FnOnce() + Send>;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::config::RawConfig;
    use crate::monitor::{Capture, Shadow};
    use crate::store::Samples;

    fn api(flags: &[&str]) -> Api {
        let config = RawConfig::default().with_flags(flags.iter().copied()).check().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (table, now) = (Table::default(), UnixMillis(0));
        let samples = Samples::open(folder.path(), &config.spool, now);
        let capture = Arc::new(Capture::new(config.capture, samples, 7));
        let shadow = Shadow::new(table.clone(), 10);
        let monitor = Monitor::new(&config.monitor, 7, shadow, capture, Box::new(|_, _| {}));
        let status = Arc::new(|| serde_json::Value::Null);
        Api::new(&config.serve, table, Arc::new(monitor), 7, Arc::new(move || now), status)
    }

    fn nothing() -> After {
        Box::new(|| {})
    }

    fn name(text: &str) -> ModelName {
        ModelName::new(text).unwrap()
    }

    async fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn short_work_waits_for_no_turn_and_takes_no_place_behind_long_work() {
        let api = api(&["serve.threads=1", "serve.queue=1", "serve.max_wait_ms=50"]);
        let (go_on, held) = mpsc::channel::<()>();
        let long = tokio::spawn({
            let api = api.clone();
            async move { api.run(name("long"), move |_| (held.recv(), nothing())).await }
        });
        until(|| api.waiting() == 1).await;
        assert!(matches!(here(|| 7), Ok(7)));
        let panics = here(|| -> () { panic!("a panic that the test wants") });
        assert!(matches!(panics, Err(ApiError::Died)));
        assert_eq!(api.waiting(), 1, "the long one");
        let another = api.run(name("long"), |_| ((), nothing())).await;
        assert!(matches!(another, Err(ApiError::Overloaded { .. })), "it has to wait for its turn");
        assert!(!api.at_rest(Duration::from_millis(5)).await);
        go_on.send(()).unwrap();
        assert!(matches!(long.await, Ok(Ok(Ok(())))));
        assert!(api.at_rest(Duration::from_mins(1)).await);
    }

    #[test]
    fn what_is_left_to_do_is_done_after_the_answer_and_at_the_latest_when_the_thread_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (done, seen) = mpsc::channel();
        let counts = move |answer: u8| -> After {
            let done = done.clone();
            Box::new(move || done.send(answer).unwrap())
        };
        runtime.block_on(async {
            later(counts(1));
            assert!(seen.try_recv().is_err(), "the answer comes first");
            tokio::task::yield_now().await;
            assert_eq!(seen.try_recv(), Ok(1));
            later(counts(2));
        });
        drop(runtime);
        assert_eq!(seen.try_recv(), Ok(2));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_model_with_a_full_queue_keeps_another_from_neither_place_nor_turn() {
        let api = api(&["serve.threads=1", "serve.queue=4", "serve.max_wait_ms=600000"]);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (go_on, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let ask = |model: &'static str| {
            let (api, order, held) = (api.clone(), Arc::clone(&order), Arc::clone(&held));
            tokio::spawn(async move {
                let work = move |_| {
                    order.lock().unwrap().push(model);
                    (held.lock().unwrap().recv().unwrap(), nothing())
                };
                api.run(name(model), work).await
            })
        };
        let mut slow = Vec::new();
        for taken in 1..=4 {
            slow.push(ask("slow"));
            until(|| api.waiting() == taken).await;
        }
        let fast = ask("fast");
        let last = slow.pop().unwrap().await.unwrap();
        assert!(matches!(last, Err(ApiError::Overloaded { why }) if why.contains("other models")));
        assert_eq!(api.overloads.load(Ordering::Relaxed), 1);
        for _ in 0..4 {
            go_on.send(()).unwrap();
        }
        assert!(fast.await.unwrap().is_ok());
        for slow in slow {
            assert!(slow.await.unwrap().is_ok());
        }
        assert_eq!(*order.lock().unwrap(), ["slow", "slow", "fast", "slow"]);
    }
}
