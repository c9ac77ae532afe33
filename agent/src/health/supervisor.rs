//! Every task is spawned here, with a name. What ends or panics without being asked is started again after a jittered
//! delay, and told as a problem; what can't be made again ends the agent when it fails, for the service manager to start
//! it anew. One signal stops all; who does not stop in time is named.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::failures::Failures;
use crate::retry::{self, Backoff, Policy};

const RESTART: Policy = Policy { min: Duration::from_secs(1), max: Duration::from_mins(1) };
/// What has run for so many of the longest delays has recovered: its next failure is its first one again.
const GOOD_WHILE: u32 = 10;

/// Owns the agent's tasks.
#[derive(Debug)]
pub struct Supervisor {
    restart: Policy,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    names: BTreeMap<Id, &'static str>,
    failures: Failures,
    /// Why the agent has to end, once it has to.
    fatal: watch::Sender<Option<String>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new(RESTART)
    }
}

impl Supervisor {
    /// Without tasks; what ends without being asked starts again after `restart`.
    pub fn new(restart: Policy) -> Self {
        Self {
            restart,
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            names: BTreeMap::new(),
            failures: Failures::default(),
            fatal: watch::Sender::default(),
        }
    }

    /// Raised when everything must end.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// What has failed and was started again.
    pub fn failures(&self) -> Failures {
        self.failures.clone()
    }

    /// Runs `make()` under `name`, again and again until the stop signal.
    pub fn keep<F>(&mut self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, failures) = (self.stop.clone(), self.failures.clone());
        let mut restarts = Restarts::new(self.restart);
        self.spawn(name, async move {
            loop {
                let began = Instant::now();
                let outcome = by_itself(make()).await;
                if stop.is_cancelled() {
                    return;
                }
                let why = outcome.map_or_else(|panic| panic.to_string(), |()| "it ended unasked".to_owned());
                tracing::error!(task = name, why, "a task failed; it starts again");
                failures.note(name, Instant::now().into_std(), why);
                let delay = restarts.delay(began.elapsed(), retry::random());
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(delay) => {}
                }
            }
        });
    }

    /// Runs `task` once under `name`; it may end whenever it is done. If it panics, the agent has [`Supervisor::failed`].
    pub fn once(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let fatal = self.fatal.clone();
        self.spawn(name, async move {
            if let Err(panic) = by_itself(task).await {
                fail(&fatal, name, &panic.to_string());
            }
        });
    }

    /// The same for what has to run until the stop signal: its end before that is a failure too.
    pub fn vital(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (fatal, stop) = (self.fatal.clone(), self.stop.clone());
        self.spawn(name, async move {
            let outcome = by_itself(task).await;
            if let Err(panic) = outcome {
                fail(&fatal, name, &panic.to_string());
            } else if !stop.is_cancelled() {
                fail(&fatal, name, "it ended unasked");
            }
        });
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Ends once a task has failed that can't be started again: end the agent then.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut fatal = self.fatal.subscribe();
        async move {
            if fatal.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Which one, and why.
    pub fn failure(&self) -> Option<String> {
        self.fatal.borrow().clone()
    }

    /// Stops everything within `drain`. Returns the names of those that had to be cut off.
    pub async fn shut_down(mut self, drain: Duration) -> Vec<&'static str> {
        self.stop.cancel();
        let names = &mut self.names;
        let tasks = &mut self.tasks;
        let all = async {
            while let Some(ended) = tasks.join_next_with_id().await {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                names.remove(&id);
            }
        };
        let is_in_time = tokio::time::timeout(drain, all).await.is_ok();
        self.tasks.abort_all();
        if is_in_time { Vec::new() } else { self.names.into_values().collect() }
    }
}

/// When a task starts again.
struct Restarts {
    backoff: Backoff,
    good_while: Duration,
}

impl Restarts {
    fn new(policy: Policy) -> Self {
        Self { backoff: Backoff::new(policy), good_while: policy.max * GOOD_WHILE }
    }

    /// After a run that lasted so long.
    fn delay(&mut self, lasted: Duration, draw: u32) -> Duration {
        if lasted >= self.good_while {
            self.backoff.reset();
        }
        self.backoff.next_delay(draw)
    }
}

/// On a task of its own, so that a panic ends only it.
async fn by_itself(task: impl Future<Output = ()> + Send + 'static) -> Result<(), JoinError> {
    AbortOnDropHandle::new(tokio::spawn(task)).await
}

fn fail(fatal: &watch::Sender<Option<String>>, name: &'static str, why: &str) {
    tracing::error!(task = name, why, "a task failed that can't be started again; the agent ends");
    fatal.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert_with(|| format!("the part \"{name}\" failed: {why}"));
        is_first
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    const FAST: Policy = Policy { min: Duration::from_millis(1), max: Duration::from_millis(5) };

    #[tokio::test]
    async fn a_task_that_ends_or_panics_starts_again_and_is_told() {
        let runs = Arc::new(AtomicU32::new(0));
        let mut supervisor = Supervisor::new(FAST);
        let (seen, stop) = (runs.clone(), supervisor.stop_signal());
        supervisor.keep("wobbly", move || {
            let (seen, stop) = (seen.clone(), stop.clone());
            async move {
                match seen.fetch_add(1, Ordering::Relaxed) {
                    0 => {}
                    1 => panic!("on purpose"),
                    _ => stop.cancelled().await,
                }
            }
        });
        while runs.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let told = supervisor.failures().problems(std::time::Instant::now());
        assert!(told[0].detail.contains("2 times") && told[0].detail.contains("on purpose"), "{told:?}");
        assert_eq!(supervisor.failure(), None);
        assert!(supervisor.shut_down(Duration::from_secs(5)).await.is_empty());
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn who_has_run_for_a_good_while_is_started_again_as_if_for_the_first_time() {
        let mut restarts = Restarts::new(RESTART);
        let mut longest = |lasted| restarts.delay(lasted, u32::MAX);
        let (moment, hour) = (Duration::ZERO, Duration::from_hours(1));
        for seconds in [1, 2, 4, 8, 16, 32, 60] {
            assert_eq!(longest(moment), Duration::from_secs(seconds));
        }
        assert_eq!([longest(hour), longest(hour), longest(moment)].map(|delay| delay.as_secs()), [1, 1, 2]);
    }

    #[tokio::test]
    async fn what_can_not_be_started_again_fails_the_agent_and_says_which_it_was() {
        let begun: [fn(&mut Supervisor); 2] = [
            |supervisor| supervisor.once("api", async { panic!("on purpose") }),
            |supervisor| supervisor.vital("api", async {}),
        ];
        for (begin, why) in begun.into_iter().zip(["on purpose", "it ended unasked"]) {
            let mut supervisor = Supervisor::new(FAST);
            supervisor.once("quick", async {});
            let stop = supervisor.stop_signal();
            supervisor.vital("lasting", async move { stop.cancelled().await });
            begin(&mut supervisor);
            tokio::time::timeout(Duration::from_secs(20), supervisor.failed()).await.expect("it is told");
            let told = supervisor.failure().unwrap();
            assert!(told.contains("\"api\"") && told.contains(why), "{told}");
        }
    }

    #[tokio::test]
    async fn who_ends_as_it_may_fails_nobody() {
        let mut supervisor = Supervisor::new(FAST);
        supervisor.once("quick", async {});
        let stop = supervisor.stop_signal();
        supervisor.vital("lasting", async move { stop.cancelled().await });
        let fatal = supervisor.fatal.subscribe();
        assert!(supervisor.shut_down(Duration::from_secs(5)).await.is_empty());
        assert_eq!(*fatal.borrow(), None);
    }

    #[tokio::test]
    async fn who_does_not_stop_is_named() {
        let mut supervisor = Supervisor::default();
        supervisor.once("deaf", std::future::pending());
        supervisor.once("quick", async {});
        assert_eq!(supervisor.shut_down(Duration::from_millis(50)).await, ["deaf"]);
    }
}
