//! Log lines to stderr, and the newest of them in a bounded ring for upload on request. Where stderr is the journal
//! each line begins with its priority, as systemd reads it (`sd-daemon(3)`), so that `journalctl -p warning` finds it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;

/// Lines kept.
const MAX_LINES: usize = 256;
/// Bytes kept of a line.
const MAX_LINE_BYTES: usize = 512;

/// The ring. Cheap to clone.
#[derive(Clone, Default)]
pub struct LogRing {
    lines: Arc<Mutex<VecDeque<String>>>,
    filter: Arc<OnceLock<SetFilter>>,
    is_journal: bool,
}

/// Changes the filter of a running log.
type SetFilter = Box<dyn Fn(Targets) -> bool + Send + Sync>;

impl std::fmt::Debug for LogRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogRing")
    }
}

impl LogRing {
    /// For the log of this process: systemd says in a variable which file the journal is.
    pub fn for_stderr() -> Self {
        let journal = std::env::var("JOURNAL_STREAM").ok();
        Self { is_journal: journal.is_some_and(|journal| is_file(io::stderr(), &journal)), ..Self::default() }
    }

    /// Names what changes the running log's filter. Only the first one counts.
    pub fn on_filter(&self, set: impl Fn(Targets) -> bool + Send + Sync + 'static) {
        let _named_before = self.filter.set(Box::new(set));
    }

    /// Changes the running log's filter; false when there is none or `text` is no filter.
    pub fn set_filter(&self, text: &str) -> bool {
        let Ok(filter) = text.parse() else { return false };
        self.filter.get().is_some_and(|set| set(filter))
    }

    /// The newest lines, newest last.
    pub fn newest(&self, max_lines: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(lines.len().saturating_sub(max_lines)).cloned().collect()
    }

    fn push(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(&line[..line.len().min(MAX_LINE_BYTES)]).trim_end().to_owned();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

impl<'a> MakeWriter<'a> for LogRing {
    type Writer = Tee<'a>;

    fn make_writer(&'a self) -> Tee<'a> {
        Tee { ring: self, priority: "" }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Tee<'a> {
        Tee { ring: self, priority: if self.is_journal { priority(*meta.level()) } else { "" } }
    }
}

/// As in `syslog(3)`.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Whether `file` is the one that `stream` names as DEVICE:INODE.
fn is_file(file: impl AsFd, stream: &str) -> bool {
    rustix::fs::fstat(file).is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}

/// Writes an event to stderr and into the ring.
#[derive(Debug)]
pub struct Tee<'a> {
    ring: &'a LogRing,
    priority: &'static str,
}

impl Write for Tee<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.ring.push(event);
        // A closed stderr must not end the agent.
        let _closed = io::stderr().lock().write_all(&each_line(self.priority, event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The journal takes each line of an event by itself.
fn each_line(priority: &str, event: &[u8]) -> Vec<u8> {
    event
        .split_inclusive(|byte| *byte == b'\n')
        .flat_map(|line| [priority.as_bytes(), line].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_an_event_has_its_priority() {
        assert_eq!(each_line("<3>", b"two keys\na: wrong\n"), b"<3>two keys\n<3>a: wrong\n");
        assert_eq!(each_line("", b"one\n"), b"one\n");
    }

    #[test]
    fn a_filter_is_set_only_when_it_is_one_and_someone_listens() {
        let ring = LogRing::default();
        assert!(!ring.set_filter("info"));
        ring.on_filter(|_| true);
        assert!(
            ring.set_filter("info,flotilla_agent::link=debug")
                && !ring.set_filter("info,flotilla_agent=loud")
        );
    }

    #[test]
    fn the_journal_is_known_by_its_device_and_inode() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().unwrap();
        let meta = file.metadata().unwrap();
        assert!(is_file(&file, &format!("{}:{}", meta.dev(), meta.ino())));
        for other in [format!("{}:{}", meta.dev(), meta.ino() + 1), "journal".into(), String::new()] {
            assert!(!is_file(&file, &other), "{other}");
        }
    }

    #[test]
    fn the_newest_lines_stay_within_bounds() {
        let ring = LogRing::default();
        (0..1000).for_each(|n| ring.push(format!("line {n}\n").as_bytes()));
        assert_eq!(ring.newest(2), ["line 998", "line 999"]);
        assert_eq!(ring.newest(10_000).len(), MAX_LINES);
        ring.push(&[b'x'; 5000]);
        assert_eq!(ring.newest(1)[0].len(), MAX_LINE_BYTES);
    }
}
