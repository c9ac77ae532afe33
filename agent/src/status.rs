//! `flotilla-agent status`: asks the running agent over its local API and shows it on one screen ([`screen`]).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config;

mod noted;
mod screen;

pub use noted::Noted;
pub use screen::screen;

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
    /// The configuration is wrong, and the agent's folder, where it is known, leads to none.
    #[error("no agent is found without its configuration; is it running?")]
    Unfound,
    /// It is there, and says nothing.
    #[error(
        "the agent on {place} takes connections but has said nothing for {waited_s} s: it hangs or was suspended; look at \
         `systemctl status flotilla-agent`, then restart it"
    )]
    Silent {
        /// Where it was asked.
        place: String,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// The agent is there, but does not say how it is.
    #[error("the agent on {place} answers {status}: {why}")]
    Refused {
        /// Where it was asked.
        place: String,
        /// Of HTTP.
        status: u16,
        /// What it says.
        why: String,
    },
    /// Something answers, but no agent.
    #[error("what answers on {0} is not an agent")]
    Foreign(String),
}

impl StatusError {
    /// Whether an agent is there all the same.
    pub fn is_of_an_agent(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Refused { .. })
    }
}

/// The running agent's status: asked where the agent noted that it listens, else where the configuration says.
///
/// # Errors
/// [`StatusError`] about the place that the configuration names.
pub fn ask(config: &config::Config) -> Result<Value, StatusError> {
    if let Some(noted) = Noted::read(&config.state_dir) {
        match ask_noted(&noted) {
            // Another agent may have that address now, but the one of the configuration is asked only once.
            Some(Err(_)) if !noted.is_where(&config.serve) => {}
            Some(said) => return said,
            None => {}
        }
    }
    ask_at(config.serve.listen, config.serve.unix.as_deref())
}

/// The status of the agent that runs on this folder, whatever the configuration says. None where no agent's note leads to
/// one.
///
/// # Errors
/// [`StatusError::Silent`].
pub fn ask_in(state_dir: &Path) -> Option<Result<Value, StatusError>> {
    ask_noted(&Noted::read(state_dir)?)
}

fn ask_noted(noted: &Noted) -> Option<Result<Value, StatusError>> {
    match ask_at(noted.listen, noted.unix.as_deref()) {
        Ok(status) if status["boot_id"] == noted.boot_id => Some(Ok(status)),
        Err(silent @ StatusError::Silent { .. }) => Some(Err(silent)),
        Ok(_) | Err(_) => None,
    }
}

fn ask_at(listen: Option<SocketAddr>, unix: Option<&Path>) -> Result<Value, StatusError> {
    if let Some(mut address) = listen {
        // An agent that listens on every address is found on this machine's own.
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let stream = TcpStream::connect_timeout(&address, TIMEOUT);
        let bounded = stream.and_then(|stream| stream.set_read_timeout(Some(TIMEOUT)).map(|()| stream));
        heard(address.to_string(), bounded)
    } else {
        let path = unix.unwrap_or(Path::new(""));
        let stream = UnixStream::connect(path);
        let bounded = stream.and_then(|stream| stream.set_read_timeout(Some(TIMEOUT)).map(|()| stream));
        heard(path.display().to_string(), bounded)
    }
}

/// What is answered over a connection, if there is one.
fn heard(place: String, stream: std::io::Result<impl Read + Write>) -> Result<Value, StatusError> {
    let stream = match stream {
        Ok(stream) => stream,
        Err(source) => return Err(StatusError::Unreachable { place, source }),
    };
    match answer(stream) {
        Ok(answer) => understand(place, &answer),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(StatusError::Silent { place, waited_s: TIMEOUT.as_secs() })
        }
        Err(source) => Err(StatusError::Unreachable { place, source }),
    }
}

fn understand(place: String, answer: &[u8]) -> Result<Value, StatusError> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
    let body: Option<Value> = head.and_then(|head| serde_json::from_slice(&answer[head..]).ok());
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status = String::from_utf8_lossy(line).split(' ').nth(1).and_then(|code| code.parse().ok());
    match (status, body) {
        (Some(200), Some(body)) => Ok(body),
        (Some(status), Some(body)) if body["error"].is_string() => {
            let why = body["error"].as_str().unwrap_or_default().chars().take(200).collect();
            Err(StatusError::Refused { place, status, why })
        }
        _ => Err(StatusError::Foreign(place)),
    }
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
        assert!(ask_in(dir.path()).is_none(), "it answers no more");
        note(dir.path(), agent("run 7"));
        assert_eq!(ask_in(dir.path()).unwrap().unwrap()["boot_id"], "run 7");
    }

    #[test]
    fn an_agent_that_says_nothing_is_told_from_one_that_is_not_there() {
        struct Late;
        impl Read for Late {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(ErrorKind::WouldBlock.into())
            }
        }
        impl Write for Late {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let silent = heard("here".into(), Ok(Late)).unwrap_err().to_string();
        assert!(
            silent.starts_with("the agent on here takes connections but has said nothing for 5 s"),
            "{silent}"
        );
        let gone = heard("here".into(), Err::<Late, _>(ErrorKind::ConnectionRefused.into())).unwrap_err();
        assert!(matches!(gone, StatusError::Unreachable { .. }), "{gone}");
    }

    #[test]
    fn only_a_good_answer_is_a_status() {
        let heard = |answer: &str| understand("here".into(), answer.as_bytes());
        let good = heard("HTTP/1.1 200 OK\r\na: b\r\n\r\n{\"boot_id\": \"b\"}");
        assert_eq!(good.unwrap()["boot_id"], "b");
        let full = heard("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\": \"overloaded\"}").unwrap_err();
        assert_eq!(full.to_string(), "the agent on here answers 503: overloaded");
        for foreign in ["", "HTTP/1.1 404 Not Found\r\n\r\n<p>", "HTTP/1.1 200 OK\r\n\r\nhello", "SSH-2.0"] {
            assert!(matches!(heard(foreign), Err(StatusError::Foreign(_))), "{foreign}");
        }
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
