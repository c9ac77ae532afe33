//! Threads that infer. Each keeps memory of what it did last, so there are no more of them than may work at once, and the
//! one that worked last works next: a device with one application keeps one of them warm. A pool that everything
//! else shares would hand each request to another thread.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

type Job = Box<dyn FnOnce() + Send>;

/// As for the asynchronous threads.
pub(super) const STACK_BYTES: usize = 1 << 20;

/// A bounded number of threads, started when there is work for them. They end with the last handle.
pub(super) struct Threads {
    shared: Arc<Mutex<Shared>>,
    most: usize,
}

#[derive(Default)]
struct Shared {
    started: usize,
    /// Threads that wait, the one that came last at the end. Dropped, they end.
    idle: Vec<SyncSender<Job>>,
    /// What came while all were busy.
    waiting: VecDeque<Job>,
}

impl Threads {
    pub(super) fn new(most: usize) -> Self {
        Self { shared: Arc::default(), most }
    }

    /// Runs `work` on one of the threads; a panic ends the work only. Where the system gives no thread at all, `work` is
    /// dropped.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut job: Job = Box::new(work);
        let mut shared = lock(&self.shared);
        while let Some(idle) = shared.idle.pop() {
            match idle.send(job) {
                Ok(()) => return,
                Err(back) => job = back.0,
            }
        }
        if shared.started == self.most {
            return shared.waiting.push_back(job);
        }
        shared.waiting.push_back(job);
        let weak = Arc::downgrade(&self.shared);
        let thread = std::thread::Builder::new().name("infer".into()).stack_size(STACK_BYTES);
        match thread.spawn(move || work_on(&weak)) {
            Ok(_detached) => shared.started += 1,
            Err(error) => {
                tracing::error!(%error, "the system gives no thread for inferences");
                if shared.started == 0 {
                    // What is dropped may have something else run.
                    let dropped = std::mem::take(&mut shared.waiting);
                    drop(shared);
                    drop(dropped);
                }
            }
        }
    }
}

/// What a thread does until nobody can have work for it any more.
fn work_on(shared: &Weak<Mutex<Shared>>) {
    while let Some(strong) = shared.upgrade() {
        let (sender, receiver) = sync_channel(1);
        let mut locked = lock(&strong);
        let waited = locked.waiting.pop_front();
        if waited.is_none() {
            locked.idle.push(sender);
        }
        drop(locked);
        drop(strong);
        let Some(job) = waited.or_else(|| receiver.recv().ok()) else { return };
        // Who waits for the answer sees that it will not come; the panic itself was printed.
        let _panic = catch_unwind(AssertUnwindSafe(job));
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    fn asked(threads: &Threads) -> ThreadId {
        let (sender, receiver) = mpsc::channel();
        threads.run(move || sender.send(thread::current().id()).unwrap());
        receiver.recv().unwrap()
    }

    fn is_busy(threads: &Threads) -> bool {
        let shared = lock(&threads.shared);
        shared.idle.len() < shared.started
    }

    #[test]
    fn all_work_is_done_by_so_many_threads_and_a_panic_ends_none() {
        let threads = Threads::new(2);
        let (sender, receiver) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            threads.run(move || {
                sender.send((number, thread::current().id())).unwrap();
                assert!(number % 10 != 0, "a panic that the test wants");
            });
        }
        drop(sender);
        let done: Vec<_> = receiver.iter().collect();
        let numbers: HashSet<_> = done.iter().map(|(number, _)| *number).collect();
        let by: HashSet<_> = done.iter().map(|(_, thread)| *thread).collect();
        assert!(numbers.len() == 100 && by.len() <= 2, "{by:?}");
    }

    #[test]
    fn the_thread_that_worked_last_works_next_and_all_end_with_the_handle() {
        let threads = Threads::new(4);
        let by: HashSet<_> = (0..50)
            .map(|_| {
                let by = asked(&threads);
                while is_busy(&threads) {
                    thread::yield_now();
                }
                by
            })
            .collect();
        assert_eq!(by.len(), 1, "no other was needed");
        let weak = Arc::downgrade(&threads.shared);
        drop(threads);
        while weak.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
