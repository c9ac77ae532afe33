//! `flotilla-agent status`: asks the running agent over its local API and shows it on one screen ([`screen`]).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config;

mod noted;
mod screen;

pub use noted::Noted;
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

/// The running agent's status: asked where the agent noted that it listens, else where the configuration says.
///
/// # Errors
/// [`StatusError`] about the place that the configuration names.
pub fn ask(config: &config::Config) -> Result<Value, StatusError> {
    let noted = Noted::read(&config.state_dir);
    let found = noted.and_then(|noted| {
        let status = ask_at(noted.listen, noted.unix.as_deref()).ok()?;
        (status["boot_id"] == noted.boot_id).then_some(status)
    });
    found.map_or_else(|| ask_at(config.serve.listen, config.serve.unix.as_deref()), Ok)
}

fn ask_at(listen: Option<SocketAddr>, unix: Option<&Path>) -> Result<Value, StatusError> {
    let (place, answer) = if let Some(mut address) = listen {
        // An agent that listens on every address is found on this machine's own.
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let stream = TcpStream::connect_timeout(&address, TIMEOUT);
        let bounded = stream.and_then(|stream| stream.set_read_timeout(Some(TIMEOUT)).map(|()| stream));
        (address.to_string(), bounded.and_then(answer))
    } else {
        let path = unix.unwrap_or(Path::new(""));
        let stream = UnixStream::connect(path);
        let bounded = stream.and_then(|stream| stream.set_read_timeout(Some(TIMEOUT)).map(|()| stream));
        (path.display().to_string(), bounded.and_then(answer))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn config(dir: &Path) -> config::Config {
        let nobody = ["serve.listen=127.0.0.1:1"].into_iter();
        let config = config::RawConfig::default().with_flags(nobody).check().unwrap();
        config::Config { state_dir: dir.to_owned(), ..config }
    }

    /// Answers one question for the status as an agent of this run would.
    fn agent(boot_id: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _asked = stream.read(&mut [0; 1024]).unwrap();
            let body = serde_json::json!({ "boot_id": boot_id });
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}").unwrap();
        });
        address
    }

    fn note(dir: &Path, listen: SocketAddr) {
        let noted = Noted { boot_id: "run 7".into(), listen: Some(listen), unix: None };
        noted.leave(dir).unwrap();
    }

    #[test]
    fn an_agent_is_found_where_it_noted_that_it_listens() {
        let dir = tempfile::tempdir().unwrap();
        note(dir.path(), agent("run 7"));
        assert_eq!(ask(&config(dir.path())).unwrap()["boot_id"], "run 7");
    }

    #[test]
    fn a_stale_note_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let place = |error| matches!(error, StatusError::Unreachable { place, .. } if place == "127.0.0.1:1");
        note(dir.path(), agent("another run that listens there now"));
        assert!(place(ask(&config(dir.path())).unwrap_err()));
        note(dir.path(), "127.0.0.1:1".parse().unwrap());
        assert!(place(ask(&config(dir.path())).unwrap_err()));
        std::fs::write(dir.path().join("api-address"), "damaged").unwrap();
        assert!(place(ask(&config(dir.path())).unwrap_err()));
        Noted::take_away(dir.path());
        Noted::take_away(dir.path());
        assert_eq!(Noted::read(dir.path()), None);
    }
}
