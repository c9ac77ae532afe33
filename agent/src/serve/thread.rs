//! The local API's own asynchronous thread. Between the socket's bytes and a short inference no other thread has to be
//! woken, which takes longer than the inference; and whatever an application asks, the tasks that keep the device
//! going have their own threads. docs/decisions/0014.

use std::convert::Infallible;
use std::future::Future;
use std::io::{Error, Result};
use std::panic::resume_unwind;
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::threads::STACK_BYTES;

/// Runs what `make` returns on a thread of its own, with sockets and timers of its own. The future that is returned
/// ends, or panics, as that does; dropped, it ends it.
///
/// # Errors
/// When the system gives no thread or no events, or `make` fails; nothing runs then.
pub(super) fn start<F: Future<Output = ()>>(
    make: impl FnOnce() -> Result<F> + Send + 'static,
) -> Result<impl Future<Output = ()> + Send> {
    let cut_off = CancellationToken::new();
    let with_this = cut_off.clone().drop_guard();
    let (begun, begins) = mpsc::sync_channel(1);
    let (running, ends) = oneshot::channel::<Infallible>();
    let thread = std::thread::Builder::new().name("api".into()).stack_size(STACK_BYTES).spawn(move || {
        let _running = running;
        let made =
            Builder::new_current_thread().enable_all().build().and_then(|runtime| inside(runtime, make));
        let made = made.map_err(|error| begun.send(Err(error)));
        if let Ok((runtime, work)) = made
            && begun.send(Ok(())).is_ok()
        {
            runtime.block_on(cut_off.run_until_cancelled(work));
        }
    })?;
    begins.recv().map_err(Error::other)??;
    Ok(async move {
        let _with_this = with_this;
        let _dropped_at_its_end = ends.await;
        if let Err(panic) = thread.join() {
            resume_unwind(panic);
        }
    })
}

fn inside<F>(runtime: Runtime, make: impl FnOnce() -> Result<F>) -> Result<(Runtime, F)> {
    let entered = runtime.enter();
    let made = make()?;
    drop(entered);
    Ok((runtime, made))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn it_ends_with_its_work_and_its_work_with_it() {
        let by = Arc::new(std::sync::Mutex::new(String::new()));
        let name = Arc::clone(&by);
        let work = start(move || {
            Ok(async move {
                let thread = std::thread::current();
                *name.lock().unwrap() = thread.name().unwrap_or_default().to_owned();
            })
        });
        work.unwrap().await;
        assert_eq!(*by.lock().unwrap(), "api");
        let held = Arc::new(());
        let given = Arc::clone(&held);
        let endless = start(move || {
            Ok(async move {
                pending::<()>().await;
                drop(given);
            })
        });
        drop(endless.unwrap());
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_it_cannot_begin_is_an_error_and_a_panic_is_handed_on() {
        let refused = start(|| Err::<std::future::Ready<()>, _>(Error::other("no socket")));
        assert_eq!(refused.map(drop).unwrap_err().to_string(), "no socket");
        let panics = start(|| {
            Ok(async {
                ready(()).await;
                panic!("a panic that the test wants")
            })
        });
        let ended = tokio::spawn(panics.unwrap()).await;
        assert!(ended.unwrap_err().is_panic());
    }
}
