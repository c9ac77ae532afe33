//! A bound in time around what can't be stopped: a model may send the runtime into work without end.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Seconds that loading a variant may take, unless the caller says otherwise.
pub(crate) const DEFAULT_S: u64 = 300;

/// Does the work in a thread of its own and waits so long for it. Work that takes longer goes on until this process
/// ends, which the error soon brings about.
///
/// # Errors
/// When it takes too long, panics, or no thread can be had.
pub(crate) fn limit<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = channel();
    // Whoever waits may have left; then nobody wants the result.
    let job = move || drop(sender.send(work()));
    thread::Builder::new().spawn(job).context("cannot start a thread")?;
    match receiver.recv_timeout(limit) {
        Ok(done) => Ok(done),
        Err(RecvTimeoutError::Timeout) => {
            bail!("{what} takes longer than the {} s left for it (see --time-limit)", limit.as_secs())
        }
        Err(RecvTimeoutError::Disconnected) => bail!("{what} panicked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_without_end_is_an_error_and_short_work_is_done() {
        assert_eq!(limit("adding", Duration::from_mins(10), || 1 + 1).unwrap(), 2);
        let refused: Result<()> = limit("waiting", Duration::from_millis(20), || {
            loop {
                thread::park();
            }
        });
        assert!(refused.unwrap_err().to_string().contains("waiting takes longer than the 0 s"));
    }
}
