//! Where passwords are hashed: one thread of its own. Argon2 wants tens of milliseconds and 19 MiB for each, so that
//! many sign-ins at once would take all memory and all threads from everything else.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait. At some 30 ms for each the last one has its answer within a second or two.
const WAITING: usize = 32;

type Job = Box<dyn FnOnce() + Send>;

/// Too many jobs wait, or the server stops.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Busy;

/// The thread, as seen from outside. It ends with the last clone.
#[derive(Debug, Clone)]
pub struct PasswordThread {
    jobs: mpsc::Sender<Job>,
}

impl PasswordThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start() -> io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING);
        std::thread::Builder::new().name("passwords".into()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                // Its asker sees that the answer never comes; the next one has its turn.
                let _panicked = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Does `work` there.
    ///
    /// # Errors
    /// [`Busy`]
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever asked may have gone.
            let _ = answer.send(work());
        });
        self.jobs.try_send(job).map_err(|_| Busy)?;
        answered.await.map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;

    use super::*;

    #[tokio::test]
    async fn what_would_wait_too_long_is_refused_and_a_panic_ends_nothing() {
        let thread = PasswordThread::start().unwrap();
        let (go, wait) = blocking::channel::<()>();
        let (begun_sender, begun) = oneshot::channel();
        let first = tokio::spawn({
            let thread = thread.clone();
            async move {
                let work = move || {
                    let _ = begun_sender.send(());
                    wait.recv().is_ok()
                };
                thread.run(work).await
            }
        });
        begun.await.unwrap();
        let all = futures_util::future::join_all((0..WAITING).map(|_| thread.run(|| panic!("in a job"))));
        let refused = async {
            let refused = thread.run(|| ()).await;
            go.send(()).unwrap();
            refused
        };
        let (all, refused): (Vec<Result<(), Busy>>, _) = tokio::join!(all, refused);
        assert!(all.iter().all(|answer| *answer == Err(Busy)));
        assert_eq!(refused, Err(Busy));
        assert_eq!(first.await.unwrap(), Ok(true));
        assert_eq!(thread.run(|| 7).await, Ok(7));
    }
}
