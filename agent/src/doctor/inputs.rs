//! How applications reach the agent: the unix socket, the watched folder, the broker beside it. What is not configured
//! gets no line.

use std::fs::Metadata;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::Access;
use rustix::io::Errno;
use serde_json::Value;

use super::finding::Report;
use crate::config::{self, Config};
use crate::slots::BootStore;

/// Bound of each wait for the broker on this device.
const BROKER_TIMEOUT: Duration = Duration::from_secs(3);
/// MQTT 5: a clean start, no client id, a keep-alive of 10 s.
const CONNECT: [u8; 15] = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 10, 0, 0, 0];
const DISCONNECT: [u8; 2] = [0xE0, 0];
const CONNACK: u8 = 0x20;
/// What a broker of MQTT 3.1.1 answers to a version that it doesn't know.
const OLD_VERSION: u8 = 0x01;
const UNSUPPORTED_VERSION: u8 = 0x84;
const NOT_WITHOUT_NAME: [u8; 2] = [0x86, 0x87];

pub(super) fn inputs(report: &mut Report, config: &Config, is_running: bool) {
    if let Some(path) = &config.serve.unix {
        socket(report, path, is_running);
    }
    if let Some(folder) = &config.folder {
        self::folder(report, folder, &config.state_dir);
    }
    if let Some(mqtt) = &config.mqtt {
        broker(report, mqtt);
    }
}

/// Whether the models that inputs ask are on this device. No line where that can't be known.
pub(super) fn asked_models(report: &mut Report, config: &Config, running: Option<&Value>) {
    let folder = config.folder.as_ref().map(|folder| ("folder", "folder.model", &folder.model));
    let mqtt = config.mqtt.as_ref().map(|mqtt| ("local_broker", "mqtt.model", &mqtt.model));
    let asked: Vec<_> = folder.into_iter().chain(mqtt).collect();
    if asked.is_empty() {
        return;
    }
    let Some(here) = models_here(&config.state_dir, running) else { return };
    for (check, key, model) in asked.into_iter().filter(|(.., model)| !here.contains(model)) {
        let here = if here.is_empty() { "none yet".to_owned() } else { here.join(", ") };
        let what = format!("{key} names {model}, which is not on this device; here are: {here}");
        let todo = format!(
            "correct {key}, or roll {model} out to this device; what comes meanwhile is not answered"
        );
        report.warn(check, what, todo);
    }
}

/// Models with an active release: as the running agent says it, else by the boot record.
fn models_here(state_dir: &Path, running: Option<&Value>) -> Option<Vec<String>> {
    if let Some(status) = running {
        let active = status["models"].as_array()?.iter().filter(|model| !model["active"].is_null());
        return Some(active.filter_map(|model| Some(model["model"].as_str()?.to_owned())).collect());
    }
    let record = BootStore::read(state_dir).ok()?.unwrap_or_default();
    let active = record.models.into_iter().filter(|(_, record)| record.active.is_some());
    Some(active.map(|(model, _)| model.to_string()).collect())
}

fn socket(report: &mut Report, path: &Path, is_running: bool) {
    let shown = path.display();
    let Ok(found) = std::fs::symlink_metadata(path) else { return no_socket(report, path, is_running) };
    if !found.file_type().is_socket() {
        let todo = "set serve.unix to a path of its own: the agent does not replace what is no socket";
        return report.fail("unix_socket", format!("{shown} is no socket"), todo);
    }
    let who = who_may_connect(&found);
    match UnixStream::connect(path) {
        Ok(_) => report.ok("unix_socket", format!("{shown}: {who} may connect")),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let todo = "give the applications' group to the agent (Group= in a drop-in of its unit), or set serve.unix_mode";
            report.warn(
                "unix_socket",
                format!("{shown}: {who} may connect, and the folders above it must let them"),
                todo,
            );
        }
        Err(_) if is_running => {
            let todo = "restart the agent; if it stays, look at its log";
            report.fail("unix_socket", format!("{shown} takes no connection, though the agent runs"), todo);
        }
        Err(_) => {
            report
                .ok("unix_socket", format!("{shown} was left behind; the agent replaces it when it starts"));
        }
    }
}

fn no_socket(report: &mut Report, path: &Path, is_running: bool) {
    let (shown, above) = (path.display(), path.parent().unwrap_or(Path::new("/")));
    if is_running {
        let todo =
            "restart the agent: somebody removed its socket, or it was started with another serve.unix";
        report.fail("unix_socket", format!("{shown} is not there, though the agent runs"), todo);
    } else if above.is_dir() {
        report.ok("unix_socket", format!("{shown} is made when the agent starts"));
    } else {
        let todo =
            "make that folder for the agent's user; the packaged unit makes /run/flotilla at each start";
        report.warn("unix_socket", format!("{} is no folder", above.display()), todo);
    }
}

/// Opening a socket takes the permission to write.
fn who_may_connect(socket: &Metadata) -> String {
    let mode = socket.permissions().mode();
    if mode & 0o002 != 0 {
        return "everybody on this device".to_owned();
    }
    let user = named("/etc/passwd", socket.uid());
    if mode & 0o020 == 0 {
        return format!("root and user {user}");
    }
    format!("root, user {user} and group {}", named("/etc/group", socket.gid()))
}

/// With the name that one of the system's lists has for a number; dynamic users are in none.
fn named(list: &str, id: u32) -> String {
    let text = std::fs::read_to_string(list).unwrap_or_default();
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
}

fn folder(report: &mut Report, folder: &config::Folder, state_dir: &Path) {
    let places = [
        ("folder.watch", Some(&folder.watch)),
        ("folder.out", Some(&folder.out)),
        ("folder.done", folder.done.as_ref()),
    ];
    let mut is_well = true;
    for (key, path) in places.into_iter().filter_map(|(key, path)| Some((key, path?))) {
        if let Err(why) = usable(path, key != "folder.watch") {
            is_well = false;
            let todo = "let the agent's user write there: under the packaged unit name the folder in ReadWritePaths= and its \
                        group in SupplementaryGroups= (a drop-in), and run the doctor as that user";
            report.fail("folder", format!("{key}: {why}"), todo);
        }
    }
    if is_well {
        let (watch, out) = (folder.watch.display(), folder.out.display());
        let eyes = match std::fs::metadata(state_dir).map(|found| found.uid()) {
            Ok(agent) if agent != 0 && rustix::process::geteuid().is_root() => {
                format!(" by root; whether by the agent's user {agent}, only a running agent can tell")
            }
            Ok(_) | Err(_) => String::new(),
        };
        report.ok("folder", format!("{watch} can be read and emptied and {out} written{eyes}"));
    }
}

/// Whether this user may read and write there; a folder that is not there yet may be made.
fn usable(path: &Path, may_be_made: bool) -> Result<(), String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(format!("{shown} is no folder")),
        Ok(_) => rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| format!("{shown} can't be read and written by this user: {}", words(error))),
        Err(error) if may_be_made && error.kind() == std::io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), |above| usable(above, true))
        }
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn words(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}

/// Shakes hands as a client of its own, and leaves.
fn broker(report: &mut Report, mqtt: &config::Mqtt) {
    let place = format!("{}:{}", mqtt.host, mqtt.port);
    match greet(mqtt) {
        Ok(0) => report.ok("local_broker", format!("{place} takes clients of MQTT 5")),
        Ok(OLD_VERSION | UNSUPPORTED_VERSION) => {
            let todo = "use a broker that speaks MQTT 5, such as mosquitto 1.6 or newer";
            report.fail("local_broker", format!("{place} speaks another version of MQTT"), todo);
        }
        Ok(reason) if NOT_WITHOUT_NAME.contains(&reason) => {
            let todo = "let clients of this device in without a user name (mosquitto: `allow_anonymous true` beside \
                        `listener 1883 127.0.0.1`)";
            report.fail("local_broker", format!("{place} wants a user name"), todo);
        }
        Ok(reason) => {
            let todo = "look at the broker's log";
            report.fail("local_broker", format!("{place} lets no client in (reason {reason:#04x})"), todo);
        }
        Err(error) => {
            let todo =
                "start the broker, or correct mqtt.broker; the agent connects by itself once it is there";
            report.fail("local_broker", format!("{place} gives no answer: {error}"), todo);
        }
    }
}

/// The reason code of the broker's CONNACK.
fn greet(mqtt: &config::Mqtt) -> std::io::Result<u8> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in (mqtt.host.as_str(), mqtt.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, BROKER_TIMEOUT) {
            Ok(stream) => return shake_hands(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shake_hands(mut stream: TcpStream) -> std::io::Result<u8> {
    stream.set_read_timeout(Some(BROKER_TIMEOUT))?;
    stream.set_write_timeout(Some(BROKER_TIMEOUT))?;
    stream.write_all(&CONNECT)?;
    let mut next = || {
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte[0])
    };
    if next()? != CONNACK {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "that is not MQTT"));
    }
    // The length, in one to four bytes; the flags; the reason.
    for _ in 0..4 {
        if next()? < 0x80 {
            break;
        }
    }
    let (_flags, reason) = (next()?, next()?);
    let _gone = stream.write_all(&DISCONNECT);
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn config(flags: &[String]) -> Config {
        let flags = flags.iter().map(String::as_str);
        config::RawConfig::default().with_flags(flags).check().unwrap()
    }

    fn looked_at(flags: &[String], is_running: bool) -> Vec<(&'static str, Level, String)> {
        let mut report = Report::default();
        inputs(&mut report, &config(flags), is_running);
        report.checks.into_iter().map(|finding| (finding.check, finding.level, finding.what)).collect()
    }

    #[test]
    fn a_model_that_is_not_here_is_told_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let flags = [
            format!("folder.watch={}", dir.path().display()),
            "folder.model=digitz".into(),
            format!("state_dir={}", dir.path().display()),
        ];
        let told = |running: Option<&Value>| {
            let mut report = Report::default();
            asked_models(&mut report, &config(&flags), running);
            report.checks.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
        };
        let status = |model: &str| serde_json::json!({"models": [{"model": model, "active": {}}, {"model": "x", "active": null}]});
        assert_eq!(told(Some(&status("digitz"))), [""; 0]);
        let [what] = told(Some(&status("digits"))).try_into().unwrap();
        assert_eq!(what, "folder.model names digitz, which is not on this device; here are: digits");
        let [what] = told(None).try_into().unwrap();
        assert!(what.ends_with("here are: none yet"), "{what}");
    }

    #[test]
    fn what_is_not_configured_has_no_line() {
        assert_eq!(looked_at(&[], true), []);
    }

    #[test]
    fn the_socket_is_told_with_whom_it_lets_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let flags = [format!("serve.unix={}", path.display())];
        assert_eq!(looked_at(&flags, false)[0].1, Level::Ok, "it is made at the start");
        assert_eq!(looked_at(&flags, true)[0].1, Level::Fail, "the agent runs without it");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for (mode, who) in [(0o600, "root and user"), (0o660, "and group"), (0o666, "everybody")] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let (_, level, what) = looked_at(&flags, true).remove(0);
            assert!(level == Level::Ok && what.contains(who), "{mode:o}: {what}");
        }
        drop(listener);
        assert_eq!(looked_at(&flags, true)[0].1, Level::Fail, "nobody answers there");
        assert_eq!(looked_at(&flags, false)[0].1, Level::Ok, "it is replaced at the next start");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(looked_at(&flags, false)[0].1, Level::Fail, "it is no socket");
        let nowhere = [format!("serve.unix={}", dir.path().join("none/api.sock").display())];
        assert_eq!(looked_at(&nowhere, false)[0].1, Level::Warn);
    }

    #[test]
    fn a_folder_that_is_missing_or_none_is_told_by_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let watch = dir.path().join("watch");
        let mut flags = vec![format!("folder.watch={}", watch.display()), "folder.model=digits".to_owned()];
        let found = looked_at(&flags, true);
        assert!(
            found.iter().any(|(_, level, what)| *level == Level::Fail && what.starts_with("folder.watch"))
        );
        std::fs::create_dir(&watch).unwrap();
        assert_eq!(looked_at(&flags, true)[0].1, Level::Ok, "what is missing below can be made");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        flags.push(format!("folder.done={}", file.display()));
        let (_, level, what) = looked_at(&flags, true).remove(0);
        assert!(level == Level::Fail && what.contains("folder.done") && what.contains("no folder"), "{what}");
    }

    /// A broker that answers one greeting with these bytes.
    fn broker(answer: &'static [u8]) -> Vec<String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut greeting = [0; CONNECT.len()];
            stream.read_exact(&mut greeting).unwrap();
            assert_eq!(greeting, CONNECT);
            stream.write_all(answer).unwrap();
        });
        let keys = ["mqtt.model=digits", "mqtt.topic_in=a", "mqtt.topic_out=b"].map(str::to_owned);
        [vec![format!("mqtt.broker={address}")], keys.to_vec()].concat()
    }

    #[test]
    fn the_broker_is_greeted_and_what_it_answers_is_told() {
        for (answer, level, words) in [
            (&[0x20, 3, 0, 0, 0][..], Level::Ok, "takes clients"),
            (&[0x20, 2, 0, 1], Level::Fail, "another version"),
            (&[0x20, 3, 0, 0x87, 0], Level::Fail, "wants a user name"),
            (&[0x20, 3, 0, 0x97, 0], Level::Fail, "reason 0x97"),
            (b"HTTP/1.1 400", Level::Fail, "not MQTT"),
            (&[], Level::Fail, "gives no answer"),
        ] {
            let (check, seen, what) = looked_at(&broker(answer), true).remove(0);
            assert!(check == "local_broker" && seen == level && what.contains(words), "{what}");
        }
    }
}
