//! A connection whose peer takes nothing of its answers ends: it would hold its place, and the agent's stop, for ever.
//! One whose peer has begun a request and doesn't go on ends when the agent stops.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Time to take a byte, or to send the rest of a request, while the agent stops.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A socket whose writes fail once the peer has taken no byte for so long; and, while the agent stops, whose reads fail
/// once the peer has ended no request for a moment and none is being answered.
pub(super) struct Unread<IO> {
    io: IO,
    patience: Duration,
    /// None once it has come.
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Each request that is being answered holds one more of it.
    busy: Arc<()>,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Runs while the agent stops and a read waits.
    reading: Option<Pin<Box<Sleep>>>,
}

impl<IO> Unread<IO> {
    /// `busy` is held once by who made it, and once more for each request that is being answered.
    pub(super) fn new(io: IO, patience: Duration, stop: CancellationToken, busy: Arc<()>) -> Self {
        let stop = Some(Box::pin(stop.cancelled_owned()));
        Self { io, patience, stop, busy, waiting: None, reading: None }
    }

    fn is_stopping(&mut self, cx: &mut Context<'_>) -> bool {
        if self.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(cx).is_ready()) {
            self.stop = None;
            self.waiting = None;
            self.patience = self.patience.min(LAST_PATIENCE);
        }
        self.stop.is_none()
    }

    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<Result<T>>) -> Poll<Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        self.is_stopping(cx);
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(waiting.as_mut().poll(cx));
        let why = format!("the peer took nothing for {} ms", patience.as_millis());
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, why)))
    }

    /// Whether a request is being answered, or an answer written: ours and the maker's are two.
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.busy) > 2 || self.waiting.is_some()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Unread<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if !self.is_stopping(cx) || self.is_busy() {
            self.reading = None;
            return Pin::new(&mut self.io).poll_read(cx, into);
        }
        // One moment for the whole request: a byte now and then doesn't begin it anew.
        let reading = self.reading.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_PATIENCE)));
        if reading.as_mut().poll(cx).is_ready() {
            let why = "the agent stops and the peer ends no request";
            return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, why)));
        }
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Unread<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
