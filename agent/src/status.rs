//! `flotilla-agent status`: asks the running agent over its local API and shows it on one screen.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::message::Hello;
use serde_json::Value;

use crate::config;

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

/// One screen: what runs, since when, what waits, what is wrong.
pub fn screen(status: &Value) -> String {
    let text = |key: &str| status[key].as_str().unwrap_or("?").to_owned();
    let mut out = String::new();
    let Ok(hello) = serde_json::from_value::<Hello>(status.clone()) else {
        return format!("{status:#}\n");
    };
    let online = if status["is_online"] == true { "connected" } else { "NOT connected" };
    let _ = writeln!(
        out,
        "{}/{}  agent {}  up {} s  {online}",
        text("project"),
        text("device"),
        hello.agent_version,
        hello.uptime_s
    );
    for model in &hello.models {
        let version = |release: &Option<protocol::ReleaseRef>| {
            release.as_ref().map_or("-".into(), |r| r.version.to_string())
        };
        let _ = writeln!(
            out,
            "  model {:16} active {:12} candidate {:12} fallback {:12} {:?}",
            model.model,
            version(&model.active),
            version(&model.candidate),
            version(&model.fallback),
            model.phase
        );
    }
    if hello.models.is_empty() {
        let _ = writeln!(out, "  no model yet: the fleet has not asked for one");
    }
    let lost: u64 = hello.spool.dropped.iter().map(|loss| loss.count).sum();
    let _ = writeln!(
        out,
        "  telemetry waiting: {} records, {} bytes; dropped so far: {lost}",
        hello.spool.depth_records, hello.spool.depth_bytes
    );
    match hello.metadata {
        Some(metadata) => {
            let _ = writeln!(
                out,
                "  signed metadata: version {}, {} s old",
                metadata.timestamp_version, metadata.age_s
            );
        }
        None => {
            let _ = writeln!(out, "  signed metadata: none yet");
        }
    }
    for problem in &hello.problems {
        let _ = writeln!(out, "  PROBLEM: {problem}");
    }
    out
}
