//! Measurements that the server asked for, one at a time: each waits until no update has work, fetches what it needs
//! as an update would, and then runs beside what serves (see `measure`). An update that comes meanwhile ends it: it ends
//! after the request that it is at. Each command is answered, but for one that ends with the agent.

use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::Duration;

use protocol::measurement::{Figures, MAX_MEASURE_S, Measurement, Outcome};
use protocol::message::{Cause, CauseKind, Command, CommandAction};
use protocol::{ModelName, ReleaseRef};
use tokio::time::Instant;

use super::core::Core;
use super::fetch::fetch_beside;
use super::machine::Held;
use super::measure::Running;
use super::selftest::cause;

/// Most measurements that wait; one more is refused.
const MAX_WAITING: usize = 8;
/// Time for waiting and fetching together.
const FETCHING: Duration = Duration::from_mins(15);

/// One variant to measure.
#[derive(Debug, Clone)]
pub(super) struct Job {
    command_id: String,
    model: ModelName,
    release: ReleaseRef,
    variant: String,
    limit: Duration,
    fetched_until: Instant,
}

/// What was asked for.
pub struct Jobs {
    answer: Box<dyn Fn(Measurement) + Send + Sync>,
    waiting: VecDeque<Job>,
    running: Option<(Job, Running, Instant)>,
    /// One that took too long and has not ended yet.
    late: Option<JoinHandle<()>>,
    /// Commands may come twice.
    last_id: String,
}

impl Jobs {
    /// None yet; `answer` takes results to the server.
    pub fn new(answer: Box<dyn Fn(Measurement) + Send + Sync>) -> Self {
        Self { answer, waiting: VecDeque::new(), running: None, late: None, last_id: String::new() }
    }

    /// Takes a command up, or answers why not.
    pub(super) fn ask(&mut self, command: Command, now: Instant) {
        let CommandAction::Measure { model, release, variant, max_s } = command.action else { return };
        if command.id == self.last_id {
            return;
        }
        self.last_id.clone_from(&command.id);
        let limit = Duration::from_secs(u64::from(max_s.clamp(1, MAX_MEASURE_S)));
        let fetched_until = now + FETCHING;
        let job = Job { command_id: command.id, model, release, variant, limit, fetched_until };
        if self.waiting.len() >= MAX_WAITING {
            let why = format!("{MAX_WAITING} other measurements wait already");
            return self.tell(job, Err(cause(CauseKind::Superseded, why)));
        }
        self.waiting.push_back(job);
    }

    /// The one to fetch for now. While one runs, none.
    pub(super) fn next(&self) -> Option<Job> {
        self.waiting.front().filter(|_| !self.is_running()).cloned()
    }

    /// Whether something is being measured.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What [`Jobs::next`] gave is fetched, or can't be: it runs, or that is the answer.
    pub(super) fn fetched(&mut self, core: &Core, fetched: Result<(), Cause>) {
        let Some(job) = self.waiting.pop_front() else { return };
        let started = fetched.and_then(|()| self.start(core, &job));
        match started {
            Ok(running) => {
                let until = Instant::now() + job.limit;
                self.running = Some((job, running, until));
            }
            Err(why) => self.tell(job, Err(why)),
        }
    }

    fn start(&mut self, core: &Core, job: &Job) -> Result<Running, Cause> {
        if self.late.as_ref().is_some_and(|thread| !thread.is_finished()) {
            let why = "an earlier measurement took too long and has not ended yet".to_owned();
            return Err(cause(CauseKind::Timeout, why));
        }
        tracing::info!(model = %job.model, version = %job.release.version, variant = job.variant, "measuring a release");
        let held = Held { release: job.release.clone(), variant: job.variant.clone() };
        let refused = |error: std::io::Error| cause(CauseKind::Internal, format!("no thread: {error}"));
        Running::start(core.shelf.clone(), held).map_err(refused)
    }

    /// Waits until the one that runs is over or its time is up; for ever where none does.
    pub(super) async fn over(&mut self) -> Result<Figures, Cause> {
        let Some((job, running, until)) = &mut self.running else { return std::future::pending().await };
        match tokio::time::timeout_at(*until, &mut running.done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(cause(CauseKind::Internal, "the measurement ended without a word".into())),
            Err(_) => {
                let why = format!("not done after {} s", job.limit.as_secs());
                Err(cause(CauseKind::Timeout, why))
            }
        }
    }

    /// Ends the one that runs, because an update has work to do.
    pub(super) fn give_way(&mut self) {
        if self.is_running() {
            self.finished(Err(cause(CauseKind::Superseded, "an update came in between; ask again".into())));
        }
    }

    /// Answers with the result of [`Jobs::over`].
    pub(super) fn finished(&mut self, result: Result<Figures, Cause>) {
        let Some((job, running, _)) = self.running.take() else { return };
        self.late = Some(running.stop());
        self.tell(job, result);
    }

    fn tell(&self, job: Job, result: Result<Figures, Cause>) {
        if let Err(why) = &result {
            tracing::warn!(model = %job.model, version = %job.release.version, variant = job.variant, why = why.detail, "not measured");
        }
        let outcome = result.map_or_else(Outcome::Failed, |figures| Outcome::Measured(Box::new(figures)));
        let measurement = Measurement {
            command_id: job.command_id,
            model: job.model,
            release: job.release,
            variant: job.variant,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            outcome,
        };
        (self.answer)(measurement.bounded());
    }
}

/// Brings what a measurement needs onto the shelf. May be dropped and begun again.
pub(super) async fn fetch(core: &Core, job: Job) -> Result<(), Cause> {
    if !core.may_load(Instant::now()) {
        let why = "the agent's last starts ended early, or its disk failed; nothing new is loaded now";
        return Err(cause(CauseKind::CrashLoop, why.into()));
    }
    let fetching = fetch_beside(core, &job.model, &job.release, &job.variant);
    tokio::time::timeout_at(job.fetched_until, fetching).await.unwrap_or_else(|_| {
        let why = format!("not fetched {} s after it was asked for", FETCHING.as_secs());
        Err(cause(CauseKind::Timeout, why))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use protocol::{Counter, Digest, UnixMillis, Version};

    use super::*;

    fn command(id: &str, max_s: u32) -> Command {
        let version = Version::new("1.0.0").unwrap();
        let action = CommandAction::Measure {
            model: ModelName::new("digits").unwrap(),
            release: ReleaseRef { version, digest: Digest::from_bytes([1; 32]), counter: Counter(1) },
            variant: "int8".into(),
            max_s,
        };
        Command { id: id.into(), at: UnixMillis(0), action }
    }

    #[test]
    fn so_many_wait_a_repeated_command_counts_once_and_one_too_many_is_answered() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let mut jobs = Jobs::new(Box::new(move |measurement| sink.lock().unwrap().push(measurement)));
        jobs.ask(command("first", u32::MAX), Instant::now());
        jobs.ask(command("first", 5), Instant::now());
        assert_eq!(jobs.waiting.len(), 1);
        assert_eq!(jobs.next().unwrap().limit, Duration::from_secs(u64::from(MAX_MEASURE_S)));
        for n in 1..=MAX_WAITING {
            jobs.ask(command(&n.to_string(), 0), Instant::now());
        }
        assert_eq!((jobs.waiting.len(), jobs.waiting[1].limit), (MAX_WAITING, Duration::from_secs(1)));
        let told = told.lock().unwrap();
        let [refused] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(refused.command_id, MAX_WAITING.to_string());
        assert!(matches!(&refused.outcome, Outcome::Failed(why) if why.detail.contains("wait already")));
    }
}
