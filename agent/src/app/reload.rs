//! SIGHUP: the configuration is read again. What can change while the agent serves changes at once; for the rest it is
//! said that a restart is needed. A configuration that is wrong changes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use crate::config::{self, Config, ConfigErrors};
use crate::health::{LogRing, Problem, ProblemKind};
use crate::link::http::MaxRate;
use crate::monitor::Capture;
use crate::store::SpoolHandle;

/// What became of a configuration that was read again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Sections and keys that changed at once.
    pub applied: Vec<&'static str>,
    /// Those that wait for a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Reads something again when it is asked, on a thread of its own: a disk that doesn't answer holds nobody up but it.
pub struct Rereading<T> {
    read: Arc<dyn Fn() -> T + Send + Sync>,
    running: Option<JoinHandle<T>>,
    is_asked_again: bool,
}

impl<T: Send + 'static> Rereading<T> {
    /// By `read`, which may block. It runs on one thread at a time.
    pub fn new(read: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), running: None, is_asked_again: false }
    }

    /// Begins to read. While that lasts it is noted instead, once, and false comes back: what is read by then may be
    /// the earlier text.
    pub fn ask(&mut self) -> bool {
        self.is_asked_again = self.running.is_some();
        if self.running.is_none() {
            let read = Arc::clone(&self.read);
            self.running = Some(tokio::task::spawn_blocking(move || read()));
        }
        !self.is_asked_again
    }

    /// Returns what was read, as soon as it is; never while nobody asks. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When reading panicked.
    pub async fn done(&mut self) -> Result<T, JoinError> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let read = running.await;
        self.running = None;
        if self.is_asked_again {
            self.ask();
        }
        read
    }
}

/// Hands changed sections to the parts that can take them.
pub(super) struct Reload {
    pub(super) current: Config,
    pub(super) update: watch::Sender<config::Update>,
    pub(super) link: watch::Sender<config::Link>,
    pub(super) max_rate: MaxRate,
    pub(super) spool: SpoolHandle,
    pub(super) logs: LogRing,
    pub(super) capture: Arc<Capture>,
    pub(super) outcome: Outcome,
}

/// What of the last reading has not come to hold. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome(Arc<Mutex<Option<Problem>>>);

impl Outcome {
    pub(super) fn problems(&self) -> Option<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, read: &Result<Reloaded, ConfigErrors>) {
        let problem = match read {
            Err(ConfigErrors(problems)) => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                let more = match problems.len() {
                    0 | 1 => String::new(),
                    number => format!(", and {} more", number - 1),
                };
                let detail = format!(
                    "the configuration that was read again is wrong and changed nothing: {first}{more}"
                );
                Some(Problem::new(ProblemKind::ConfigRefused, detail))
            }
            Ok(Reloaded { needs_restart, .. }) if needs_restart.is_empty() => None,
            Ok(Reloaded { needs_restart, .. }) => {
                let detail = format!(
                    "changed in the configuration, but not before a restart: {}",
                    needs_restart.join(", ")
                );
                Some(Problem::new(ProblemKind::RestartNeeded, detail))
            }
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

impl Reload {
    /// Applies what was read, if it is right, and notes what became of it.
    pub(super) fn take(&mut self, read: Result<Config, ConfigErrors>) -> Result<Reloaded, ConfigErrors> {
        let told = read.map(|config| self.apply(config));
        self.outcome.note(&told);
        told
    }

    /// What waits for a restart stays as it is, and is said again the next time.
    fn apply(&mut self, new: Config) -> Reloaded {
        let mut told = Reloaded { applied: Vec::new(), needs_restart: restarts(&self.current, &new) };
        if new.log.filter != self.current.log.filter && self.logs.set_filter(&new.log.filter) {
            self.current.log.filter = new.log.filter;
            told.applied.push("log.filter");
        }
        let spool = config::Spool {
            encrypt: self.current.spool.encrypt,
            key_file: self.current.spool.key_file.clone(),
            ..new.spool
        };
        if spool != self.current.spool && self.spool.reconfigure(spool.clone()) {
            self.current.spool = spool;
            told.applied.push("spool");
        }
        if new.capture != self.current.capture {
            self.current.capture = new.capture.clone();
            self.capture.reconfigure(new.capture);
            told.applied.push("capture");
        }
        let update =
            config::Update { shadow_cpu_percent: self.current.update.shadow_cpu_percent, ..new.update };
        if update != self.current.update {
            self.current.update = update.clone();
            self.update.send_replace(update);
            told.applied.push("update");
        }
        let link = config::Link {
            connect_timeout: self.current.link.connect_timeout,
            min_rate_bytes_s: self.current.link.min_rate_bytes_s,
            proxies: self.current.link.proxies.clone(),
            ..new.link
        };
        if link != self.current.link {
            self.current.link = link.clone();
            self.max_rate.set(link.max_rate_bytes_s);
            self.link.send_replace(link);
            told.applied.push("link");
        }
        told
    }
}

/// What differs and can't change while the agent runs.
fn restarts(old: &Config, new: &Config) -> Vec<&'static str> {
    let differs = [
        ("state_dir", old.state_dir != new.state_dir),
        ("device", old.device != new.device),
        ("folder", old.folder != new.folder),
        ("mqtt", old.mqtt != new.mqtt),
        ("serve", old.serve != new.serve),
        ("monitor", old.monitor != new.monitor),
        ("health", old.health != new.health),
        ("log.time", old.log.has_time != new.log.has_time),
        ("spool.encrypt", old.spool.encrypt != new.spool.encrypt),
        ("spool.key_file", old.spool.key_file != new.spool.key_file),
        ("update.shadow_cpu_percent", old.update.shadow_cpu_percent != new.update.shadow_cpu_percent),
        ("link.connect_timeout_s", old.link.connect_timeout != new.link.connect_timeout),
        ("link.proxy", old.link.proxies != new.link.proxies),
        ("link.min_rate_bytes_s", old.link.min_rate_bytes_s != new.link.min_rate_bytes_s),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use crate::health::Clock;
    use crate::store::{Samples, Spool};

    fn config(flags: &[&str]) -> Config {
        RawConfig::default().with_flags(flags.iter().copied()).check().unwrap()
    }

    #[tokio::test]
    async fn a_reading_that_hangs_holds_nobody_up_and_is_repeated_once() {
        let (text, texts) = std::sync::mpsc::channel::<u32>();
        let texts = std::sync::Mutex::new(texts);
        let mut reading = Rereading::new(move || texts.lock().unwrap().recv().unwrap());
        let is_done = async |reading: &mut Rereading<u32>| {
            tokio::select! {
                biased;
                _ = reading.done() => true,
                // In the place of a signal.
                () = tokio::task::yield_now() => false,
            }
        };
        assert!(!is_done(&mut reading).await, "nobody has asked");
        assert!(reading.ask());
        assert!(!is_done(&mut reading).await, "it hangs");
        assert!(!reading.ask() && !reading.ask(), "one reading at a time");
        text.send(1).unwrap();
        assert_eq!(reading.done().await.unwrap(), 1);
        text.send(2).unwrap();
        assert_eq!(reading.done().await.unwrap(), 2, "what was asked for meanwhile");
        assert!(!is_done(&mut reading).await, "and no more");
        assert!(reading.ask());
        text.send(3).unwrap();
        assert_eq!(reading.done().await.unwrap(), 3);
    }

    #[test]
    fn what_can_change_changes_and_the_rest_is_named_until_the_restart() {
        let dir = tempfile::tempdir().unwrap();
        let current = config(&[]);
        let clock = Clock::open(dir.path()).unwrap();
        let (spool, _) = Spool::open(dir.path(), &current.spool, &clock).unwrap();
        let samples = Samples::open(dir.path(), &current.spool, clock.now());
        let capture = Arc::new(Capture::new(current.capture.clone(), samples, 1));
        let (update, updates) = watch::channel(current.update.clone());
        let (link, links) = watch::channel(current.link.clone());
        let (spool, logs) = (spool.handle(), LogRing::default());
        let mut reload = Reload {
            current,
            update,
            link,
            max_rate: MaxRate::default(),
            spool,
            logs,
            capture: capture.clone(),
            outcome: Outcome::default(),
        };
        let outcome = reload.outcome.clone();
        let said = || outcome.problems().map(|problem| (problem.kind, problem.detail));
        let new = [
            "link.hello_every_s=7",
            "link.max_rate_bytes_s=70000",
            "update.refresh_every_s=9",
            "spool.ttl_s=60",
            "serve.queue=3",
            "capture.consent=true",
        ];
        let told = reload.take(Ok(config(&new))).unwrap();
        assert_eq!(told.applied, ["spool", "capture", "update", "link"]);
        assert!(capture.is_on());
        assert_eq!(told.needs_restart, ["serve"]);
        assert_eq!((links.borrow().hello_every.as_secs(), reload.max_rate.get()), (7, 70_000));
        assert_eq!(updates.borrow().refresh_every.as_secs(), 9);
        let again = reload.take(Ok(config(&new))).unwrap();
        assert_eq!((again.applied.len(), again.needs_restart), (0, vec!["serve"]));
        assert!(
            said()
                .is_some_and(|(kind, what)| kind == ProblemKind::RestartNeeded && what.ends_with(": serve"))
        );
        let wrong =
            RawConfig::default().with_flags(["serve.queue=no", "link.hello_every_s=-1"].into_iter()).check();
        let before = reload.current.clone();
        assert_eq!(reload.take(wrong).unwrap_err().0.len(), 2);
        assert!(
            said().is_some_and(
                |(kind, what)| kind == ProblemKind::ConfigRefused && what.ends_with(", and 1 more")
            )
        );
        assert_eq!(reload.current, before);
        let sealed = reload.take(Ok(config(&["spool.encrypt=true"]))).unwrap();
        assert_eq!(sealed.needs_restart, ["spool.encrypt"]);
        reload.take(Ok(config(&[]))).unwrap();
        assert_eq!(said(), None, "all of it holds");
    }
}
