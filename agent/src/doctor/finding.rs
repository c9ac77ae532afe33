//! What the doctor finds, how it is shown, and the exit code that follows.

use std::fmt::Write as _;

use serde::Serialize;

use crate::exit::Exit;

/// How well one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but someone should look.
    Warn,
    /// The agent can't do its work like this.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, e.g. `disk`; several findings may share it.
    pub check: &'static str,
    /// How well it is.
    pub level: Level,
    /// What was seen.
    pub what: String,
    /// What to do; none when nothing is to be done.
    pub todo: Option<String>,
}

/// What to do about what can't be read: most who see that are only the wrong user.
pub(super) fn disk_advice(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut next = Some(error);
    while let Some(error) = next {
        let of_system = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if of_system == Some(std::io::ErrorKind::PermissionDenied) {
            return "this user may not read it: run the doctor as the agent's user or as root";
        }
        next = error.source();
    }
    "check the disk of state_dir"
}

/// Everything that was found, in the order in which it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// The findings.
    pub checks: Vec<Finding>,
}

/// Checks whose failure may pass by itself: trying again can help.
const PASSING: [&str; 5] = ["agent", "server", "mqtt", "disk", "local_broker"];

impl Report {
    pub(super) fn ok(&mut self, check: &'static str, what: impl Into<String>) {
        self.checks.push(Finding { check, level: Level::Ok, what: what.into(), todo: None });
    }

    pub(super) fn warn(&mut self, check: &'static str, what: impl Into<String>, todo: impl Into<String>) {
        let (what, todo) = (what.into(), Some(todo.into()));
        self.checks.push(Finding { check, level: Level::Warn, what, todo });
    }

    pub(super) fn fail(&mut self, check: &'static str, what: impl Into<String>, todo: impl Into<String>) {
        let (what, todo) = (what.into(), Some(todo.into()));
        self.checks.push(Finding { check, level: Level::Fail, what, todo });
    }

    /// The worst of all.
    pub fn worst(&self) -> Level {
        self.checks.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// 0 without a failure; 69 when all failures may pass by themselves; 78 when someone has to act.
    pub fn exit(&self) -> Exit {
        let mut failed = self.checks.iter().filter(|finding| finding.level == Level::Fail).peekable();
        if failed.peek().is_none() {
            return Exit::Ok;
        }
        if failed.all(|finding| PASSING.contains(&finding.check)) { Exit::Unavailable } else { Exit::Config }
    }

    /// One line for each finding, and what to do below it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for Finding { check, level, what, todo } in &self.checks {
            let word = match level {
                Level::Ok => "ok",
                Level::Warn => "warn",
                Level::Fail => "FAIL",
            };
            let _infallible = writeln!(out, "{word:<5} {check:<12} {what}");
            if let Some(todo) = todo {
                let _infallible = writeln!(out, "{:<18} -> {todo}", "");
            }
        }
        out
    }

    /// `{"worst": .., "checks": [..]}`
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "worst": self.worst(), "checks": self.checks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_is_no_broken_disk() {
        let denied = |kind: std::io::ErrorKind| crate::durable::DurableError::Io {
            operation: "read",
            path: "x".into(),
            source: kind.into(),
        };
        assert!(disk_advice(&denied(std::io::ErrorKind::PermissionDenied)).contains("agent's user"));
        assert!(disk_advice(&denied(std::io::ErrorKind::InvalidData)).contains("disk"));
    }

    #[test]
    fn the_exit_code_says_whether_someone_has_to_act() {
        let mut report = Report::default();
        report.ok("config", "valid");
        report.warn("clock", "slow", "set it");
        assert_eq!((report.worst(), report.exit()), (Level::Warn, Exit::Ok));
        report.fail("server", "no answer", "wait");
        assert_eq!(report.exit(), Exit::Unavailable);
        report.fail("identity", "none", "enrol");
        assert_eq!((report.worst(), report.exit()), (Level::Fail, Exit::Config));
        assert!(report.text().contains("FAIL  identity     none\n"), "{}", report.text());
        assert_eq!(report.json()["checks"][1]["level"], "warn");
    }
}
