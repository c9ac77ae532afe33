//! The agent's own process: SIGHUP never takes less than the agent was told, SIGTERM ends a start too, and memory that
//! requests took is the system's again.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flotilla_agent::config;
use flotilla_agent::health::Clock;
use flotilla_agent::link::Identity;
use flotilla_agent::store::Spool;
use protocol::telemetry::Kind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// A device of its own, that reaches no server.
struct Device {
    dir: tempfile::TempDir,
}

impl Device {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let identity: Identity = serde_json::from_value(json!({
            "project": "p",
            "device": "d",
            "certificate": certificate,
            "key": key.serialize_pem(),
            "ca": certificate,
            "report_seed": "A".repeat(43) + "=",
            "mqtt_url": "mqtts://127.0.0.1:1",
            "device_url": "https://127.0.0.1:1",
            "root_pin": null,
        }))
        .unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        identity.store(&dir.path().join("state")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn start(&self) -> Agent {
        self.begin(&mut Command::new(env!("CARGO_BIN_EXE_flotilla-agent")))
    }

    /// With so many open files at most.
    fn start_with_files(&self, most: u32) -> Agent {
        let limited = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
        self.begin(Command::new("sh").args(["-c", &limited, env!("CARGO_BIN_EXE_flotilla-agent")]))
    }

    /// Its log goes into a file: nothing has to be read for it to go on.
    fn begin(&self, command: &mut Command) -> Agent {
        let child = command
            .args(["run", "--set", "serve.listen=127.0.0.1:0", "--config"])
            .arg(self.path("agent.toml"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .stderr(Stdio::from(fs::File::create(self.path("log")).unwrap()))
            .spawn();
        Agent(child.unwrap())
    }

    /// With somebody who is told how it starts.
    fn start_told(&self, by: &Path) -> Agent {
        self.begin(Command::new(env!("CARGO_BIN_EXE_flotilla-agent")).env("NOTIFY_SOCKET", by))
    }

    fn configure(&self, text: &str) {
        fs::write(self.path("agent.toml"), text).unwrap();
    }

    fn wait_for(&self, words: &str) {
        wait_until(words, || self.log().contains(words), || self.log());
    }
}

struct Agent(Child);

impl Agent {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Whether it takes SIGTERM itself by now. SIGHUP is asked for after it: a handler that is just being put in place may
    /// run before anybody waits for what it tells.
    fn is_listening(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 != 0
    }

    /// Without pages of the program, which come and go as it does this and that.
    fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Its exit code; none when the signal itself has ended it.
    fn end(mut self) -> Option<i32> {
        let mut status = None;
        wait_until(
            "end",
            || {
                status = self.0.try_wait().unwrap();
                status.is_some()
            },
            String::new,
        );
        status.and_then(|status| status.signal().map_or(status.code(), |_| None))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool, shown: impl FnOnce() -> String) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come: {}", shown());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn a_reload_takes_nothing_less_than_before_and_sigterm_is_heard() {
    let device = Device::new();
    let file = device.path("agent.toml");
    device.configure("[capture]\nconsent = true\n");
    let agent = device.start();
    device.wait_for("the agent runs");
    let refused = |words: &str| {
        let before = device.log().len();
        agent.signal(Signal::HUP);
        let since = || device.log().split_off(before);
        wait_until("a refusal", || since().contains("nothing was changed") && since().contains(words), since);
        assert!(since().contains(&file.display().to_string()) && since().contains("ERROR"), "{}", since());
    };
    device.configure("");
    refused("an empty file");
    fs::remove_file(&file).unwrap();
    refused("no such file");
    // Whoever reads it waits for a writer, and nobody comes.
    make_fifo(&file);
    refused("a pipe, a socket or a device");
    assert!(!device.log().contains("applied="), "{}", device.log());
    fs::remove_file(&file).unwrap();
    device.configure("[capture]\nconsent = true\nrandom_rate = 0.5\n");
    agent.signal(Signal::HUP);
    device.wait_for("applied=\"capture\"");
    agent.signal(Signal::TERM);
    assert_eq!(agent.end(), Some(0), "{}", device.log());
}

#[test]
fn sigterm_during_the_start_ends_it_in_order() {
    let device = Device::new();
    device.configure("[health]\nmax_early_ends = 1\n");
    // Where the agent is when it gets the signal is nobody's choice; a start that was over by then says nothing.
    for _ in 0..50 {
        let agent = device.start();
        while !agent.is_listening() {
            std::thread::yield_now();
        }
        agent.signal(Signal::TERM);
        assert_eq!(agent.end(), Some(0), "{}", device.log());
        let log = device.log();
        assert!(log.contains("stopped in order"), "{log}");
        if !log.contains("the agent runs") {
            assert!(!device.path("state/api-address").exists(), "the address is gone with it");
            // Whoever ended it: a service manager ends like that what never gets ready.
            let again = device.start();
            device.wait_for("the agent runs");
            assert!(device.log().contains("the last 1 starts ended early"), "{}", device.log());
            again.signal(Signal::TERM);
            assert_eq!(again.end(), Some(0), "{}", device.log());
            let settled = device.start();
            device.wait_for("the agent runs");
            assert!(!device.log().contains("ended early"), "an end after it was ready is in order");
            drop(settled);
            return;
        }
    }
    panic!("every start went on to its end: {}", device.log());
}

#[test]
fn another_key_ends_the_start_for_someone_to_act_and_the_right_one_begins_it() {
    let device = Device::new();
    let name_key = |key: &str| {
        device.configure(&format!("[spool]\nencrypt = true\nkey_file = '{}'\n", device.path(key).display()));
    };
    fs::write(device.path("right"), [7; 32]).unwrap();
    fs::write(device.path("wrong"), [8; 32]).unwrap();
    let (state, key_file) = (device.path("state"), Some(device.path("right")));
    let sealed = config::Spool { encrypt: true, key_file, ..config::Spool::default() };
    let (spool, _) = Spool::open(&state, &sealed, &Clock::open(&state).unwrap()).unwrap();
    spool.handle().offer(Kind::Event, vec![1]);
    drop(spool);
    name_key("wrong");
    assert_eq!(device.start().end(), Some(78), "{}", device.log());
    assert!(device.log().contains(&device.path("wrong").display().to_string()), "{}", device.log());
    let says = |command: &str| {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_flotilla-agent"));
        asked.arg(command).arg("--config").arg(device.path("agent.toml"));
        let said = asked.arg("--state-dir").arg(&state).output().unwrap();
        String::from_utf8([said.stdout, said.stderr].concat()).unwrap()
    };
    let of_another_key = "is not the one that the telemetry which waits was sealed with";
    for command in ["doctor", "check-config"] {
        assert!(says(command).contains(of_another_key), "{command}: {}", says(command));
    }
    name_key("right");
    for command in ["doctor", "check-config"] {
        assert!(!says(command).contains(of_another_key), "{command}: {}", says(command));
    }
    let _agent = device.start();
    device.wait_for("the agent runs");
    assert!(!device.path("state/spool.quarantined").exists());
}

#[test]
fn status_is_had_from_the_folder_where_the_configuration_is_wrong_by_now_and_nobody_has_to_read_it_whole() {
    let device = Device::new();
    device.configure("");
    let _agent = device.start();
    device.wait_for("the agent runs");
    device.configure(&format!("state_dir = '{}'\nx = [\n", device.path("state").display()));
    let ask = |stdout: Stdio| {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_flotilla-agent"));
        asked.arg("--config").arg(device.path("agent.toml")).args(["status", "--json"]);
        asked.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
    };
    let said = ask(Stdio::piped());
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("TOML parse error"), "{said:?}");
    let status: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(status["device"], "d");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(ask(writer.into()).status.code(), Some(0));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let said = ask(full.into());
    assert_eq!(said.status.code(), Some(69), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("the result can't be written"), "{said:?}");
}

#[test]
fn who_listens_without_a_file_is_told_as_well() {
    let device = Device::new();
    let name = format!("flotilla-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    device.configure("");
    let _agent = device.start_told(Path::new(&format!("@{name}")));
    let mut said = [0; 1000];
    loop {
        let length = socket.recv(&mut said).unwrap_or_else(|error| panic!("{error}: {}", device.log()));
        if String::from_utf8_lossy(&said[..length]).contains("READY=1\n") {
            return;
        }
    }
}

#[test]
fn what_would_never_end_is_not_imported() {
    let device = Device::new();
    let fifo = device.path("fifo");
    make_fifo(&fifo);
    for path in [fifo, PathBuf::from("/dev/zero"), device.path("state")] {
        let mut import = Command::new(env!("CARGO_BIN_EXE_flotilla-agent"));
        import.arg("import").arg(&path).arg("--state-dir").arg(device.path("state"));
        let mut import = import.stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while import.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ended = import.kill();
        let ended = import.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(64), "{} {said}", path.display());
        assert!(said.contains("is not a regular file; give a stream as standard input"), "{said}");
    }
}

#[test]
fn connections_leave_the_agent_the_files_that_it_needs_itself() {
    let device = Device::new();
    device.configure("[serve]\nmax_connections = 500\n");
    let agent = device.start_with_files(110);
    device.wait_for("the agent runs");
    assert!(device.log().contains("at most 110 files may be open at once"), "{}", device.log());
    assert!(device.log().contains("14 are let in"), "{}", device.log());
    let noted = fs::read_to_string(device.path("state/api-address")).unwrap();
    let address = noted.split(|c: char| c.is_whitespace() || c == '"').find(|part| part.starts_with("127."));
    let address = address.expect("it notes where it listens");
    let let_in: Vec<TcpStream> = (0..14).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut said = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("14 connections are open already"), "{said}");
    let open = fs::read_dir(format!("/proc/{}/fd", agent.0.id())).unwrap().count();
    assert!(open < 110, "{open} files are open");
    drop(let_in);
}

#[test]
fn who_starts_it_is_asked_for_time_to_load_before_it_is_ready() {
    let device = Device::new();
    device.configure("");
    let path = device.path("notify");
    let notified = UnixDatagram::bind(&path).unwrap();
    notified.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let _agent = device.start_told(&path);
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    while !said.contains("READY=1") {
        let got = notified.recv(&mut buffer).expect("it says something");
        said.push_str(std::str::from_utf8(&buffer[..got]).unwrap());
        said.push('\n');
    }
    let before = said.split("READY=1").next().unwrap();
    assert!(before.contains("EXTEND_TIMEOUT_USEC=60000000"), "{said}");
}

#[test]
fn a_run_that_had_to_end_itself_is_told_by_the_next_one() {
    let device = Device::new();
    device.configure("");
    flotilla_agent::health::leave_reason(&device.path("state"), "the part \"api\" failed: it panicked");
    let told = "the agent had to end itself: the part \\\"api\\\" failed";
    let agent = device.start();
    device.wait_for("the agent runs");
    assert!(device.log().contains("part_failing") && device.log().contains(told), "{}", device.log());
    agent.signal(Signal::TERM);
    assert_eq!(agent.end(), Some(0), "{}", device.log());
    let _again = device.start();
    device.wait_for("the agent runs");
    assert!(!device.log().contains("part_failing"), "once: {}", device.log());
}

/// What a body of so much leaves behind, of which only `sent` bytes come.
fn upload(address: &str, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "POST /v2/models/x/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b' '; sent]).unwrap();
    stream
}

/// What the database of the telemetry asks for as zeroes must not be written over by the heap: that alone is 5.4 MiB.
#[test]
fn an_idle_agent_has_little_memory_of_its_own() {
    const MOST_BYTES: u64 = 7 << 20;
    let device = Device::new();
    device.configure("");
    let agent = device.start();
    device.wait_for("the agent runs");
    let resident = agent.resident_bytes();
    assert!(resident < MOST_BYTES, "{resident} bytes");
}

#[test]
fn memory_of_bodies_is_given_back() {
    const LEFT_BYTES: u64 = 5 << 20;
    let device = Device::new();
    device.configure("");
    let agent = device.start();
    device.wait_for("the agent runs");
    let noted = fs::read(device.path("state/api-address")).unwrap();
    let noted: serde_json::Value = serde_json::from_slice(&noted).unwrap();
    let address = noted["listen"].as_str().unwrap();
    let before = agent.resident_bytes();
    for _ in 0..3 {
        let whole: Vec<_> = (0..4).map(|_| upload(address, 16_000_000)).collect();
        for mut stream in whole {
            assert!(stream.read(&mut [0; 512]).unwrap() > 0, "it is answered");
        }
        // Some go before others: what is free lies between what isn't.
        let mut cut: Vec<_> = (1..=60).map(|n| upload(address, n * 5000)).collect();
        cut.sort_by_key(|stream| stream.local_addr().unwrap().port() % 7);
    }
    let mut after = 0;
    wait_until(
        "the memory",
        || {
            after = agent.resident_bytes();
            after < before + LEFT_BYTES
        },
        || format!("{before} bytes before"),
    );
    drop(agent);
}
