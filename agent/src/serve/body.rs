//! Reading a request's body: bounded in size, in time, and in what all bodies together may hold.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use inference::Pieces;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use super::leftover::Leftover;
use super::unread::LAST_PATIENCE;
use super::work::{Api, Full};

/// Header of the protocol's binary extension: how many bytes of the body are JSON.
pub(super) const JSON_BYTES: &str = "inference-header-content-length";
/// Bodies of the largest size that may be in memory at once.
pub(super) const BODIES: usize = 4;
/// Unit in which memory for bodies is lent.
const UNIT_BYTES: usize = 1024;
/// How much of a refused body is read, and for how long once some of it was.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(1);
/// Of the body of one that comes when there is too much to do already, so much is read between two pauses.
const GENTLE_BYTES: usize = 2 << 20;
const DISCARD_PAUSE: Duration = Duration::from_millis(50);
/// A piece of less is copied together with those behind it, into blocks of so much. Larger ones aren't copied.
const SMALL_BYTES: usize = 4096;
const BLOCK_BYTES: usize = 16 * 1024;

/// What a body may hold whatever its pace.
const FREE_BYTES: usize = 64 << 10;
/// Slowest pace of one that holds more, and over how long it is taken.
const MIN_BYTES_PER_S: usize = 64 << 10;
const PACE_S: usize = 2;

/// Units that all bodies together may hold.
pub(super) fn units(max_body_bytes: usize) -> usize {
    max_body_bytes.div_ceil(UNIT_BYTES).saturating_mul(BODIES)
}

/// A body as the socket gave it, in pieces that are not copied together.
#[derive(Debug)]
pub(super) struct Received {
    pieces: Vec<Bytes>,
    /// Bytes of JSON at its beginning.
    json_len: usize,
    memory: Memory,
}

/// Room for one body out of what all bodies share, lent as its bytes come; dropping it gives it back. Who sends nothing
/// takes no room from the others, whatever length it declares.
#[derive(Debug)]
pub(super) struct Memory {
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Semaphore>,
    leftover: Arc<Leftover>,
}

impl Memory {
    fn of(api: &Api) -> Self {
        Self { permit: None, pool: Arc::clone(&api.bodies), leftover: Arc::clone(&api.leftover) }
    }

    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Holds room for `bytes` in all; false when the others have it.
    fn grow(&mut self, bytes: usize) -> bool {
        let Ok(more) = u32::try_from(bytes.div_ceil(UNIT_BYTES).saturating_sub(self.units())) else {
            return false;
        };
        let Ok(more) = Arc::clone(&self.pool).try_acquire_many_owned(more) else { return false };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        true
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.leftover.add(self.units() * UNIT_BYTES);
    }
}

impl Received {
    /// Bytes of all of it.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Lets the bytes go and keeps the room: what was made of them needs it.
    pub(super) fn into_memory(self) -> Memory {
        self.memory
    }

    /// The JSON and the bytes behind it. The JSON is copied together only if it came in several pieces.
    pub(super) fn split(&self) -> (std::borrow::Cow<'_, [u8]>, Pieces<'_>) {
        let first = self.pieces.first().map_or(&[][..], |piece| piece);
        if let Some((json, rest)) = first.split_at_checked(self.json_len) {
            let rest = std::iter::once(rest).chain(self.pieces.iter().skip(1).map(|piece| &piece[..]));
            return (json.into(), Pieces::new(rest.collect::<Vec<_>>().into_iter()));
        }
        let mut pieces = Pieces::new(self.pieces.iter().map(|piece| &piece[..]));
        // What the pieces hold together was checked when they came.
        let json = pieces.take(self.json_len).unwrap_or_default().concat();
        (json.into(), pieces)
    }
}

/// Reads the whole body, of at most `serve.max_body_bytes`.
///
/// # Errors
/// When it is too large, too slow, broken off, compressed, or no memory for it is left.
pub(super) async fn receive(api: &Api, request: Request<Body>) -> Result<Received, ApiError> {
    receive_at_most(api.limits.max_body_bytes, api, request).await
}

/// The same with another bound, if that is the lower one.
///
/// # Errors
/// As above.
pub(super) async fn receive_at_most(
    max: usize,
    api: &Api,
    request: Request<Body>,
) -> Result<Received, ApiError> {
    let max = max.min(api.limits.max_body_bytes);
    let (head, body) = request.into_parts();
    if let Some(encoding) = head.headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity") {
        return Err(ApiError::Encoding(shown(encoding)));
    }
    let expected = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    let mut coming = Coming { body, gathered: Gathered::default(), len: 0, memory: Memory::of(api) };
    match timeout_or_stop(api, coming.collect(api, expected, max)).await? {
        Err(error @ (ApiError::Overloaded { .. } | ApiError::BodyTooLarge { .. })) => {
            let Coming { body, gathered, memory, .. } = coming;
            drop((gathered, memory));
            let is_gentle = matches!(error, ApiError::Overloaded { .. });
            let rest = throw_away(body, if is_gentle { GENTLE_BYTES } else { DISCARD_BYTES });
            let _late = tokio::time::timeout(DISCARD_TIME, rest).await;
            return Err(error);
        }
        collected => collected?,
    }
    let json_len = json_len(&head.headers, coming.len)?;
    Ok(Received { pieces: coming.gathered.into_pieces(), json_len, memory: coming.memory })
}

/// A body that came another way than over HTTP: JSON, and what stands behind it.
///
/// # Errors
/// When it is too large, or no memory for it is left.
pub(super) fn taken(api: &Api, json: Bytes, behind: Bytes) -> Result<Received, ApiError> {
    let max = api.limits.max_body_bytes;
    let len = json.len().saturating_add(behind.len());
    if len > max {
        return Err(ApiError::BodyTooLarge { max });
    }
    let mut memory = Memory::of(api);
    if !memory.grow(len) {
        return Err(api.overloaded(Full::Bodies));
    }
    Ok(Received { json_len: json.len(), pieces: vec![json, behind], memory })
}

/// What waits for a body, within the time of a request.
async fn timeout_or_stop<T>(api: &Api, work: impl Future<Output = T>) -> Result<T, ApiError> {
    let timeout_ms = api.limits.timeout.as_millis();
    tokio::select! {
        biased;
        done = tokio::time::timeout(api.limits.timeout, work) => {
            done.map_err(|_| ApiError::BodyTimeout { timeout_ms })
        }
        () = last_moment(api) => Err(ApiError::Stopping),
    }
}

/// Once the agent stops, a body that is on its way has a moment to come.
async fn last_moment(api: &Api) {
    api.stopping.cancelled().await;
    tokio::time::sleep(LAST_PATIENCE).await;
}

/// Takes the body of a request that is refused unread because there is too much to do, in the time that it would have
/// had otherwise. Who waits to hear whether it may send one is told that it may not.
pub(super) async fn discard(api: &Api, request: Request<Body>) {
    if !request.headers().contains_key(header::EXPECT) {
        let _late = timeout_or_stop(api, throw_away(request.into_body(), GENTLE_BYTES)).await;
    }
}

/// Takes what a refused application is still sending, with a pause after each `piece` of bytes: a socket that is closed
/// on unread bytes is reset, and the answer that says when to come back is lost with it. A body that is too large for that
/// is cut off.
async fn throw_away(mut body: Body, piece: usize) {
    let (mut left, mut left_of_piece) = (DISCARD_BYTES, piece);
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(bytes);
        if left == 0 {
            return;
        }
        left_of_piece = left_of_piece.saturating_sub(bytes);
        if left_of_piece == 0 {
            left_of_piece = piece;
            tokio::time::sleep(DISCARD_PAUSE).await;
        }
    }
}

/// A body on its way.
struct Coming {
    body: Body,
    gathered: Gathered,
    len: usize,
    memory: Memory,
}

/// The pieces of a body. Each costs a handle and keeps a whole buffer of the socket, so small ones are copied together.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    /// Small ones, until it is full; else without capacity.
    block: Vec<u8>,
}

impl Gathered {
    fn add(&mut self, mut piece: Bytes) {
        if self.block.is_empty() {
            let Some(small) = self.pieces.pop_if(|last| last.len() < SMALL_BYTES) else {
                self.pieces.push(piece);
                return;
            };
            self.block.reserve_exact(BLOCK_BYTES);
            self.block.extend_from_slice(&small);
        }
        let part = piece.split_to(piece.len().min(BLOCK_BYTES - self.block.len()));
        self.block.extend_from_slice(&part);
        if self.block.len() == BLOCK_BYTES {
            self.pieces.push(std::mem::take(&mut self.block).into());
        }
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    fn into_pieces(mut self) -> Vec<Bytes> {
        if !self.block.is_empty() {
            self.pieces.push(self.block.into());
        }
        self.pieces
    }
}

impl Coming {
    async fn collect(&mut self, api: &Api, expected: Option<usize>, max: usize) -> Result<(), ApiError> {
        if expected.is_some_and(|bytes| bytes > max) {
            return Err(ApiError::BodyTooLarge { max });
        }
        if api.bodies.available_permits() < expected.unwrap_or(1).div_ceil(UNIT_BYTES) {
            return Err(api.overloaded(Full::Bodies));
        }
        let mut pace = Pace::from(Instant::now(), 0);
        loop {
            let Ok(frame) = timeout_at(pace.until, self.body.frame()).await else {
                pace = pace.next(Instant::now(), self.len)?;
                continue;
            };
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|error| ApiError::BodyBroken(crate::chain(&error)))?;
            let Ok(piece) = frame.into_data() else { continue };
            self.len = self.len.saturating_add(piece.len());
            if self.len > max {
                return Err(ApiError::BodyTooLarge { max });
            }
            if !self.memory.grow(self.len) {
                return Err(api.overloaded(Full::Bodies));
            }
            self.gathered.add(piece);
        }
    }
}

/// How fast a body came lately. Who sends much and then hardly anything would keep the room of all others.
struct Pace {
    until: Instant,
    len: usize,
}

impl Pace {
    fn from(now: Instant, len: usize) -> Self {
        Self { until: now + Duration::from_secs(PACE_S as u64), len }
    }

    /// Looks at what has come by now.
    fn next(&self, now: Instant, len: usize) -> Result<Self, ApiError> {
        let came = len.saturating_sub(self.len);
        if len > FREE_BYTES && came < MIN_BYTES_PER_S * PACE_S {
            return Err(ApiError::BodySlow { min: MIN_BYTES_PER_S });
        }
        Ok(Self::from(now, len))
    }
}

/// Without the header all of the body is JSON. Two of them, or a number that others read otherwise, would let someone in
/// between see another request than is answered here.
fn json_len(headers: &HeaderMap, len: usize) -> Result<usize, ApiError> {
    let mut values = headers.get_all(JSON_BYTES).iter();
    let Some(value) = values.next() else { return Ok(len) };
    if values.next().is_some() {
        return Err(ApiError::Field(
            "Inference-Header-Content-Length may be given once, it came twice".into(),
        ));
    }
    let text = value.to_str().ok().map(str::trim);
    let figures = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let parsed = figures.and_then(|figures| figures.parse::<usize>().ok());
    parsed.filter(|json| *json <= len).ok_or_else(|| {
        ApiError::Field(format!(
            "Inference-Header-Content-Length must be a number of bytes, at most the body's {len}, got {}",
            shown(value)
        ))
    })
}

fn shown(value: &axum::http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(lengths: &[usize]) -> Vec<Bytes> {
        let mut gathered = Gathered::default();
        let mut number = 0_u8;
        for length in lengths {
            let bytes = std::iter::repeat_with(|| {
                number = number.wrapping_add(1);
                number
            });
            gathered.add(bytes.take(*length).collect());
        }
        gathered.into_pieces()
    }

    #[test]
    fn large_pieces_stay_as_they_came_and_small_ones_come_together() {
        let lengths = |given: &[usize]| gathered(given).iter().map(Bytes::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[300]), [300]);
        assert_eq!(lengths(&[8192, 8192, 16_384, 65_536]), [8192, 8192, 16_384, 65_536]);
        assert_eq!(lengths(&[3000, 20_000]), [BLOCK_BYTES, 23_000 - BLOCK_BYTES]);
        assert_eq!(lengths(&[8192, 10, 8192, 10]), [8192, 10 + 8192 + 10]);
        let trickle = gathered(&vec![1; 100_000]);
        assert_eq!(trickle.len(), 100_000_usize.div_ceil(BLOCK_BYTES));
        let all = trickle.concat();
        assert!(all.iter().zip((0..=255_u8).cycle().skip(1)).all(|(got, sent)| *got == sent));
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn the_length_of_the_json_is_one_plain_number() {
        let len = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(JSON_BYTES, axum::http::HeaderValue::from_static(value));
            }
            json_len(&headers, 104).ok()
        };
        assert_eq!(
            (len(&[]), len(&["0"]), len(&["100"]), len(&["104"])),
            (Some(104), Some(0), Some(100), Some(104))
        );
        for refused in
            [&["105"][..], &["+104"], &["-1"], &[""], &["1, 1"], &["0x10"], &["100", "104"], &["100", "100"]]
        {
            assert_eq!(len(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn a_body_that_holds_much_has_to_keep_coming() {
        let now = Instant::now();
        let window = MIN_BYTES_PER_S * PACE_S;
        let next = |before: usize, len: usize| Pace::from(now, before).next(now, len).is_ok();
        assert!(
            next(0, 0) && next(0, FREE_BYTES) && next(FREE_BYTES, FREE_BYTES),
            "it holds next to nothing"
        );
        assert!(!next(0, FREE_BYTES + 1) && !next(window, window), "it stands still");
        assert!(!next(window, 2 * window - 1) && next(window, 2 * window));
    }
}
