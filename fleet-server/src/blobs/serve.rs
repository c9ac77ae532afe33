//! A blob as an HTTP answer: resumable by `Range`, cacheable for ever because its name is its content.
//! What is derived from it travels by the same rules.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{BlobError, Blobs, Name};

/// Which bytes are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    All,
    Part(std::ops::Range<u64>),
    Outside,
}

/// Answers with the blob, or the single range of it that the headers ask for.
///
/// # Errors
/// [`BlobError`] when the store fails.
pub async fn respond(
    blobs: &Blobs,
    name: &Name,
    size_bytes: u64,
    headers: &HeaderMap,
) -> Result<Response, BlobError> {
    let etag = format!("\"{name}\"");
    let (status, range) = match wanted(headers, size_bytes, &etag) {
        Wanted::All => (StatusCode::OK, None),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, Some(range)),
        Wanted::Outside => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{size_bytes}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
        }
    };
    let length = range.as_ref().map_or(size_bytes, |range| range.end - range.start);
    // An empty range is no range: the store would refuse it.
    let body = if length == 0 {
        Body::empty()
    } else {
        match blobs.get(name, range.clone()).await? {
            Some(stream) => Body::from_stream(stream),
            None => return Ok(StatusCode::NOT_FOUND.into_response()),
        }
    };
    let mut response = (status, body).into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    let content_range = range.map(|range| format!("bytes {}-{}/{size_bytes}", range.start, range.end - 1));
    for (name, text) in [(header::ETAG, Some(etag)), (header::CONTENT_RANGE, content_range)] {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            answer.insert(name, value);
        }
    }
    Ok(response)
}

/// One `bytes` range is honoured; several, another unit or a stale `If-Range` get the whole (RFC 9110, 14.2).
fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|known| known != etag) {
        return Wanted::All;
    }
    let Some(range) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((first, last)) = range.split_once('-').filter(|_| !range.contains(',')) else {
        return Wanted::All;
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), _) if first >= size => Wanted::Outside,
        (Ok(first), Ok(last)) if last >= first => Wanted::Part(first..last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.trim().is_empty() => Wanted::Part(first..size),
        (Err(_), Ok(0)) if first.trim().is_empty() => Wanted::Outside,
        (Err(_), Ok(suffix)) if first.trim().is_empty() => Wanted::Part(size.saturating_sub(suffix)..size),
        _ => Wanted::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(range: &str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        wanted(&headers, 100, "\"x\"")
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        assert_eq!(ask("bytes=0-9"), Wanted::Part(0..10));
        assert_eq!(ask("bytes=90-"), Wanted::Part(90..100));
        assert_eq!(ask("bytes=90-1000"), Wanted::Part(90..100));
        assert_eq!(ask("bytes=-10"), Wanted::Part(90..100));
        assert_eq!(ask("bytes=-1000"), Wanted::Part(0..100));
        assert_eq!(ask("bytes=100-"), Wanted::Outside);
        assert_eq!(ask("bytes=-0"), Wanted::Outside);
        for whole in ["bytes=9-0", "bytes=0-1,5-6", "items=0-1", "bytes=", "bytes=x-y"] {
            assert_eq!(ask(whole), Wanted::All, "{whole}");
        }
    }

    #[test]
    fn a_stale_if_range_gets_the_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=5-"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"other\""));
        assert_eq!(wanted(&headers, 100, "\"x\""), Wanted::All);
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"x\""));
        assert_eq!(wanted(&headers, 100, "\"x\""), Wanted::Part(5..100));
    }
}
