//! Fetching within bounds: bytes, redirects, and a lowest average rate.

use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const CONNECT: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(30);
/// A transfer may last this long, and longer in proportion to its size (slow retrieval, D4).
const TRANSFER: Duration = Duration::from_mins(1);
const LOWEST_BYTES_PER_SECOND: u64 = 10_000;
const REDIRECTS: u32 = 5;
const PIECE_BYTES: usize = 64 * 1024;

/// Fetches files below one address.
pub(crate) struct Base {
    agent: ureq::Agent,
    url: String,
}

impl Base {
    /// Files below `url`, whether or not it ends with a slash.
    pub(crate) fn new(url: &str) -> Self {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(REDIRECTS)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .user_agent(concat!("flotilla-tuf-client/", env!("CARGO_PKG_VERSION")));
        if is_on_this_machine(url) {
            config = config.proxy(None);
        }
        let slash = if url.ends_with('/') { "" } else { "/" };
        Self { agent: config.build().into(), url: format!("{url}{slash}") }
    }

    /// At most `max_bytes` and one more, by which the judge sees that it was too long; `None` when there is no such
    /// file.
    ///
    /// # Errors
    /// When the network or the server fails.
    pub(crate) fn bytes(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let mut all = Vec::new();
        let is_there = self.pieces(path, max_bytes.saturating_add(1), |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(is_there.then_some(all))
    }

    /// Hands a file over piece by piece, at most `max_bytes` of it. Returns whether there is such a file.
    ///
    /// # Errors
    /// When the network or the server fails, or `take` does.
    pub(crate) fn pieces(
        &self,
        path: &str,
        max_bytes: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let url = format!("{}{path}", self.url);
        let longest = TRANSFER + Duration::from_secs(max_bytes / LOWEST_BYTES_PER_SECOND);
        let request = self.agent.get(&url).config().timeout_recv_body(Some(longest)).build();
        let mut response = request.call().with_context(|| format!("cannot fetch {url}"))?;
        match response.status().as_u16() {
            200 => {}
            // Object stores that don't list their content answer 403 for what isn't there.
            403 | 404 => return Ok(false),
            status => bail!("{url} answered with status {status}"),
        }
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader().take(max_bytes);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = body.read(&mut piece).with_context(|| format!("{url} broke off"))?;
            if length == 0 {
                return Ok(true);
            }
            take(&piece[..length])?;
        }
    }
}

/// No proxy could reach what is served on this machine to this machine.
fn is_on_this_machine(url: &str) -> bool {
    let Ok(url) = url.parse::<ureq::http::Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
