//! `flotilla-agent status`: asks the running agent over its local API and shows it on one screen ([`screen`]).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::config;

mod screen;

pub use screen::{bytes, duration, instant, screen};

/// Bound of each wait for the agent.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody answers there.
    #[error("no agent answers on {place}; is it running?")]
    Unreachable {
        /// Where it was looked for.
        place: String,
        /// What happened.
        source: std::io::Error,
    },
    /// Something answers, but no agent.
    #[error("what answers on {0} is not an agent")]
    Foreign(String),
}

/// The running agent's status.
///
/// # Errors
/// [`StatusError`].
pub fn ask(config: &config::Serve) -> Result<Value, StatusError> {
    let (place, answer) = match (config.listen, &config.unix) {
        (Some(mut address), _) => {
            // An agent that listens on every address is found on this machine's own.
            if address.ip().is_unspecified() {
                address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            let stream = TcpStream::connect_timeout(&address, TIMEOUT);
            let bounded = stream.and_then(|stream| stream.set_read_timeout(Some(TIMEOUT)).map(|()| stream));
            (address.to_string(), bounded.and_then(answer))
        }
        (None, path) => {
            let path = path.clone().unwrap_or_default();
            let stream = UnixStream::connect(&path);
            let bounded = stream.and_then(|stream| stream.set_read_timeout(Some(TIMEOUT)).map(|()| stream));
            (path.display().to_string(), bounded.and_then(answer))
        }
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(source) => return Err(StatusError::Unreachable { place, source }),
    };
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
    let body = head.and_then(|head| serde_json::from_slice(&answer[head..]).ok());
    body.ok_or(StatusError::Foreign(place))
}

/// HTTP/1.0: the body ends with the connection and is never chunked.
fn answer(mut stream: impl Read + Write) -> std::io::Result<Vec<u8>> {
    stream.write_all(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}
