//! Measurements that the server asked for, one at a time: each waits until no update has work, fetches what it needs
//! as an update would, and then runs beside what serves (see `measure`). An update that comes meanwhile ends it, as its
//! time limit and the end of the agent do. Each command is answered, but for one that ends with a killed agent.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::measurement::{Figures, MAX_MEASURE_S, Measurement, Outcome};
use protocol::message::{Cause, CauseKind, Command, CommandAction};
use protocol::{ModelName, ReleaseRef, UnixMillis, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::core::Core;
use super::fetch::fetch_beside;
use super::measure::Running;
use super::selftest::cause;
use crate::machine::Held;

/// Most measurements that wait; one more is refused.
const MAX_WAITING: usize = 8;
/// Time for waiting and fetching together.
const FETCHING: Duration = Duration::from_mins(15);
/// So long an update waits for the memory of a measurement that was told to end: loading can't be interrupted.
const PATIENCE: Duration = Duration::from_secs(30);

/// A measurement as `status` tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measuring {
    /// Which model.
    pub model: ModelName,
    /// Version of the release.
    pub version: Version,
    /// Which variant.
    pub variant: String,
    /// How far it is.
    pub state: MeasuringState,
    /// Since when, by the device's clock.
    pub since: UnixMillis,
}

/// How far a measurement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasuringState {
    /// For updates or others to be done, or for its blobs.
    Waiting,
    /// It is being measured.
    Running,
    /// It was told to end, is answered, and still has its memory.
    Ending,
}

/// One variant to measure.
#[derive(Debug, Clone)]
pub(super) struct Job {
    command_id: String,
    model: ModelName,
    release: ReleaseRef,
    variant: String,
    limit: Duration,
    fetched_until: Instant,
    since: UnixMillis,
}

/// One that runs.
struct Started {
    job: Job,
    thread: Running,
    until: Instant,
}

/// One that was told to end.
struct Ending {
    job: Job,
    thread: Running,
    /// Until then updates wait for it.
    patience: Option<Instant>,
}

/// What was asked for.
pub struct Jobs {
    answer: Box<dyn Fn(Measurement) + Send + Sync>,
    shown: watch::Sender<Vec<Measuring>>,
    waiting: VecDeque<Job>,
    running: Option<Started>,
    ending: Option<Ending>,
    /// Commands may come twice.
    last_id: String,
}

impl Jobs {
    /// None yet; `answer` takes results to the server, `shown` is for `status`.
    pub fn new(answer: Box<dyn Fn(Measurement) + Send + Sync>, shown: watch::Sender<Vec<Measuring>>) -> Self {
        Self { answer, shown, waiting: VecDeque::new(), running: None, ending: None, last_id: String::new() }
    }

    /// Takes a command up, or answers why not.
    pub(super) fn ask(&mut self, command: Command, now: Instant, since: UnixMillis) {
        let CommandAction::Measure { model, release, variant, max_s } = command.action else { return };
        if command.id == self.last_id {
            return;
        }
        self.last_id.clone_from(&command.id);
        let limit = Duration::from_secs(u64::from(max_s.clamp(1, MAX_MEASURE_S)));
        let fetched_until = now + FETCHING;
        let job = Job { command_id: command.id, model, release, variant, limit, fetched_until, since };
        if self.waiting.len() >= MAX_WAITING {
            let why = format!("{MAX_WAITING} other measurements wait already");
            return self.tell(job, Err(cause(CauseKind::Superseded, why)));
        }
        self.waiting.push_back(job);
        self.show();
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
        let Some(mut job) = self.waiting.pop_front() else { return };
        match fetched.and_then(|()| self.start(core, &job)) {
            Ok(thread) => {
                job.since = core.clock.now();
                let until = Instant::now() + job.limit;
                self.running = Some(Started { job, thread, until });
            }
            Err(why) => self.tell(job, Err(why)),
        }
        self.show();
    }

    fn start(&mut self, core: &Core, job: &Job) -> Result<Running, Cause> {
        self.ending.take_if(|ending| ending.thread.is_over());
        if self.ending.is_some() {
            let why = "an earlier measurement took too long and has not ended yet".to_owned();
            return Err(cause(CauseKind::Timeout, why));
        }
        tracing::info!(model = %job.model, version = %job.release.version, variant = job.variant, "measuring a release");
        let held = Held { release: job.release.clone(), variant: job.variant.clone() };
        let memory = core.reserve(&held);
        let refused = |error: std::io::Error| cause(CauseKind::Internal, format!("no thread: {error}"));
        Running::start(core.shelf.clone(), held, memory).map_err(refused)
    }

    /// Waits until the one that runs is over or its time is up, and answers; or until one that was told to end has
    /// ended, or updates needn't wait for it any more; for ever where there is none. May be dropped.
    pub(super) async fn over(&mut self) {
        if let Some(Started { job, thread, until }) = &mut self.running {
            let limit = job.limit;
            match tokio::time::timeout_at(*until, thread.over()).await {
                Ok(result) => self.measured(result),
                Err(_) => {
                    self.end(cause(CauseKind::Timeout, format!("not done after {} s", limit.as_secs())));
                }
            }
        } else if let Some(ending) = &mut self.ending {
            let Some(patience) = ending.patience else {
                let _late = ending.thread.over().await;
                return self.ended();
            };
            match tokio::time::timeout_at(patience, ending.thread.over()).await {
                Ok(_late) => self.ended(),
                Err(_) => ending.patience = None,
            }
        } else {
            std::future::pending::<()>().await;
        }
    }

    fn measured(&mut self, result: Result<Figures, Cause>) {
        let Some(Started { job, .. }) = self.running.take() else { return };
        self.tell(job, result);
        self.show();
    }

    fn ended(&mut self) {
        self.ending = None;
        self.show();
    }

    /// Tells the one that runs to end, and answers why.
    fn end(&mut self, why: Cause) {
        let Some(Started { job, thread, .. }) = self.running.take() else { return };
        thread.stop();
        self.tell(job.clone(), Err(why));
        self.ending = Some(Ending { job, thread, patience: Some(Instant::now() + PATIENCE) });
        self.show();
    }

    /// Ends the one that runs, because an update has work to do. Whether the update has to wait for its memory.
    pub(super) fn give_way(&mut self) -> bool {
        self.end(cause(CauseKind::Superseded, "an update came in between; ask again".into()));
        self.ending.as_ref().is_some_and(|ending| ending.patience.is_some())
    }

    /// The agent ends: so does what runs and what waits.
    pub(super) fn end_all(&mut self) {
        let why = || cause(CauseKind::Superseded, "the agent was stopped; ask again".into());
        self.end(why());
        for job in std::mem::take(&mut self.waiting) {
            self.tell(job, Err(why()));
        }
        self.show();
    }

    fn show(&self) {
        let shown = |job: &Job, state| Measuring {
            model: job.model.clone(),
            version: job.release.version.clone(),
            variant: job.variant.clone(),
            state,
            since: job.since,
        };
        let running = self.running.iter().map(|started| shown(&started.job, MeasuringState::Running));
        let ending = self.ending.iter().map(|ending| shown(&ending.job, MeasuringState::Ending));
        let waiting = self.waiting.iter().map(|job| shown(job, MeasuringState::Waiting));
        self.shown.send_replace(running.chain(ending).chain(waiting).collect());
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
impl Jobs {
    /// Lets the one that is next run, in a thread that hangs until the other is dropped.
    pub(super) fn hang(&mut self, core: &Core) -> super::measure::Hanging {
        let job = self.waiting.pop_front().unwrap();
        let held = Held { release: job.release.clone(), variant: job.variant.clone() };
        let (hanging, thread) = super::measure::Hanging::begin(core.reserve(&held));
        self.running = Some(Started { job, thread, until: Instant::now() + Duration::from_hours(1) });
        self.show();
        hanging
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use protocol::{Counter, Digest, UnixMillis, Version};

    use super::super::rig::{INT8_BYTES, Rig, name};
    use super::*;

    type Told = Arc<Mutex<Vec<Measurement>>>;

    fn jobs() -> (Jobs, Told, watch::Receiver<Vec<Measuring>>) {
        let (told, (shown, status)) = (Told::default(), watch::channel(Vec::new()));
        let sink = told.clone();
        (Jobs::new(Box::new(move |measurement| sink.lock().unwrap().push(measurement)), shown), told, status)
    }

    fn command_for(id: &str, release: ReleaseRef, max_s: u32) -> Command {
        let action = CommandAction::Measure { model: name("digits"), release, variant: "int8".into(), max_s };
        Command { id: id.into(), at: UnixMillis(0), action }
    }

    fn command(id: &str, max_s: u32) -> Command {
        let version = Version::new("1.0.0").unwrap();
        command_for(
            id,
            ReleaseRef { version, digest: Digest::from_bytes([1; 32]), counter: Counter(1) },
            max_s,
        )
    }

    fn states(status: &watch::Receiver<Vec<Measuring>>) -> Vec<MeasuringState> {
        status.borrow().iter().map(|one| one.state).collect()
    }

    fn whys(told: &Told) -> Vec<(String, CauseKind)> {
        let why = |measurement: &Measurement| match &measurement.outcome {
            Outcome::Failed(why) => (measurement.command_id.clone(), why.kind),
            Outcome::Measured(_) => panic!("{measurement:?}"),
        };
        told.lock().unwrap().iter().map(why).collect()
    }

    #[test]
    fn so_many_wait_a_repeated_command_counts_once_and_one_too_many_is_answered() {
        let (mut jobs, told, status) = jobs();
        jobs.ask(command("first", u32::MAX), Instant::now(), UnixMillis(7));
        jobs.ask(command("first", 5), Instant::now(), UnixMillis(8));
        assert_eq!(jobs.waiting.len(), 1);
        assert_eq!(jobs.next().unwrap().limit, Duration::from_secs(u64::from(MAX_MEASURE_S)));
        let shown = status.borrow().clone();
        assert!(matches!(shown.as_slice(), [one] if one.since == UnixMillis(7) && one.variant == "int8"));
        for n in 1..=MAX_WAITING {
            jobs.ask(command(&n.to_string(), 0), Instant::now(), UnixMillis(9));
        }
        assert_eq!((jobs.waiting.len(), jobs.waiting[1].limit), (MAX_WAITING, Duration::from_secs(1)));
        let told = told.lock().unwrap();
        let [refused] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(refused.command_id, MAX_WAITING.to_string());
        assert!(matches!(&refused.outcome, Outcome::Failed(why) if why.detail.contains("wait already")));
    }

    #[tokio::test]
    async fn what_is_fetched_runs_and_is_answered_with_its_figures() {
        let rig = Rig::new();
        let (mut jobs, told, status) = jobs();
        jobs.ask(command_for("a", rig.held.release.clone(), 60), Instant::now(), UnixMillis(7));
        jobs.fetched(&rig.core, Ok(()));
        assert_eq!(states(&status), [MeasuringState::Running]);
        assert!(status.borrow()[0].since > UnixMillis(7), "since it runs");
        jobs.over().await;
        assert!(matches!(told.lock().unwrap()[0].outcome, Outcome::Measured(_)));
        assert_eq!((rig.core.used_by_all(), states(&status)), (0, vec![]));
    }

    #[tokio::test]
    async fn an_update_ends_what_runs_and_waits_for_its_memory_only_until_it_has_ended() {
        let rig = Rig::new();
        let (mut jobs, told, status) = jobs();
        assert!(!jobs.give_way());
        jobs.ask(command_for("a", rig.held.release.clone(), 60), Instant::now(), UnixMillis(7));
        let hanging = jobs.hang(&rig.core);
        assert!(jobs.give_way() && jobs.give_way(), "it has not ended");
        assert_eq!(states(&status), [MeasuringState::Ending]);
        assert_eq!(whys(&told), [("a".to_owned(), CauseKind::Superseded)], "it is answered once");
        assert_eq!(rig.core.used_by_all(), INT8_BYTES);
        drop(hanging);
        jobs.over().await;
        assert_eq!((rig.core.used_by_all(), states(&status)), (0, vec![]));
        assert!(!jobs.give_way());
    }

    #[tokio::test]
    async fn an_update_does_not_wait_for_ever_and_no_other_measurement_begins_meanwhile() {
        let rig = Rig::new();
        let (mut jobs, told, status) = jobs();
        jobs.ask(command_for("a", rig.held.release.clone(), 60), Instant::now(), UnixMillis(7));
        let hanging = jobs.hang(&rig.core);
        assert!(jobs.give_way());
        jobs.ending.as_mut().unwrap().patience = Some(Instant::now());
        jobs.over().await;
        assert!(!jobs.give_way() && states(&status) == [MeasuringState::Ending]);
        assert_eq!(rig.core.used_by_all(), INT8_BYTES, "its memory still counts");
        jobs.ask(command_for("b", rig.held.release.clone(), 60), Instant::now(), UnixMillis(7));
        jobs.fetched(&rig.core, Ok(()));
        assert!(!jobs.is_running());
        assert_eq!(whys(&told)[1], ("b".to_owned(), CauseKind::Timeout));
        drop(hanging);
        jobs.ask(command_for("c", rig.held.release.clone(), 60), Instant::now(), UnixMillis(7));
        jobs.fetched(&rig.core, Ok(()));
        assert!(jobs.is_running());
    }

    #[tokio::test]
    async fn its_time_limit_ends_it() {
        let rig = Rig::new();
        let (mut jobs, told, status) = jobs();
        jobs.ask(command_for("a", rig.held.release.clone(), 60), Instant::now(), UnixMillis(7));
        let hanging = jobs.hang(&rig.core);
        jobs.running.as_mut().unwrap().until = Instant::now();
        jobs.over().await;
        assert_eq!(whys(&told), [("a".to_owned(), CauseKind::Timeout)]);
        assert_eq!(states(&status), [MeasuringState::Ending]);
        drop(hanging);
        jobs.over().await;
        assert_eq!((rig.core.used_by_all(), states(&status)), (0, vec![]));
    }

    #[tokio::test]
    async fn the_end_of_the_agent_ends_and_answers_all() {
        let rig = Rig::new();
        let (mut jobs, told, status) = jobs();
        for id in ["a", "b"] {
            jobs.ask(command_for(id, rig.held.release.clone(), 60), Instant::now(), UnixMillis(7));
        }
        let _hanging = jobs.hang(&rig.core);
        assert_eq!(states(&status), [MeasuringState::Running, MeasuringState::Waiting]);
        jobs.end_all();
        let superseded = |id: &str| (id.to_owned(), CauseKind::Superseded);
        assert_eq!(whys(&told), [superseded("a"), superseded("b")]);
        assert_eq!(states(&status), [MeasuringState::Ending]);
    }
}
